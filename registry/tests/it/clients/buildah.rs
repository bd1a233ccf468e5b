//! buildah, which builds an image itself.

use super::{Shop, output};
use crate::harness::*;

#[test]
fn buildah_logs_in_builds_pushes_pulls_and_mounts() {
    let shop = Shop::open();
    let certs = shop.path("certs");
    std::fs::write(shop.path("file"), "a file of the image").unwrap();
    let (root, runroot, auth) = (
        shop.path("root"),
        shop.path("runroot"),
        shop.path("auth.json"),
    );
    let policy = shop.path("policy.json");
    std::fs::write(
        &policy,
        r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
    )
    .unwrap();
    let buildah = |command: &str, args: &[&str]| {
        let mut c = shop.command("buildah");
        c.args([
            "--root",
            &root,
            "--runroot",
            &runroot,
            "--storage-driver",
            "vfs",
            command,
        ]);
        match command {
            "push" | "pull" => {
                c.args([
                    "--signature-policy",
                    &policy,
                    "--cert-dir",
                    &certs,
                    "--authfile",
                    &auth,
                ]);
            }
            "login" | "logout" => {
                c.args(["--authfile", &auth]);
            }
            _ => {}
        }
        output({
            c.args(args);
            c
        })
    };
    let must = |command: &str, args: &[&str]| {
        let (good, text) = buildah(command, args).unwrap();
        assert!(good, "{command} {args:?}: {text}");
        text.trim().to_owned()
    };
    let login = |user: &str, password: &str| {
        buildah(
            "login",
            &["--cert-dir", &certs, "-u", user, "-p", password, &shop.host],
        )
    };
    let Some((good, text)) = login("viewer", "a wrong password") else {
        return;
    };
    assert!(!good, "{text}");
    assert!(login("viewer", PASSWORD).unwrap().0);

    let container = must("from", &["scratch"]);
    must("copy", &["-q", &container, &shop.path("file"), "/file"]);
    must(
        "commit",
        &["-q", "--signature-policy", &policy, &container, "built"],
    );
    let at = |name: &str| format!("docker://{}/{name}", shop.host);
    let (good, text) = buildah("push", &["built", &at("default-project/built:v1")]).unwrap();
    assert!(!good, "a viewer pushed: {text}");
    assert!(login("developer", PASSWORD).unwrap().0);
    must("push", &["built", &at("default-project/built:v1")]);
    must("push", &["built", &at("private/built:v2")]);
    assert!(shop.mounted("private/built") > 0, "nothing was mounted");

    must("rm", &[&container]);
    must("rmi", &["-a", "-f"]);
    let pulled = must("pull", &["-q", &at("private/built:v2")]);
    let container = must("from", &[pulled.as_str()]);
    let mounted = must("mount", &[&container]);
    let file = std::fs::read_to_string(std::path::Path::new(&mounted).join("file"));
    assert_eq!(file.unwrap(), "a file of the image");
    must("umount", &[&container]);
    must("rm", &[&container]);
    must("rmi", &["-a", "-f"]);
    must("logout", &[&shop.host]);
    let (good, text) = buildah("pull", &["-q", &at("private/built:v2")]).unwrap();
    assert!(!good, "pulled after the logout: {text}");
}
