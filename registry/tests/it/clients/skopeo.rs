//! skopeo and umoci.

use super::{Shop, layout, must, run};
use crate::harness::*;

/// Has skopeo look at an image of a layout (`FOLDER:TAG`).
pub fn reads_layout(image: &str) {
    must("skopeo", &["inspect", "--raw", &format!("oci:{image}")]);
}

#[test]
fn skopeo_and_umoci_push_list_inspect_copy_mount_pull_and_delete() {
    let shop = Shop::open();
    let Some(image) = layout(shop.work.path()) else {
        return;
    };
    let (certs, auth) = (shop.path("certs"), shop.path("auth.json"));
    let at = |name: &str| format!("docker://{}/{name}", shop.host);
    let (first, second) = (at("default-project/a:v1"), at("private/deep/er/b:v2"));
    let login = |user: &str, password: &str| {
        let login = [
            "login",
            "--cert-dir",
            &certs,
            "--authfile",
            &auth,
            "-u",
            user,
            "-p",
            password,
        ];
        run("skopeo", &[&login[..], &[&shop.host]].concat())
    };
    let Some((good, text)) = login("developer", "a wrong password") else {
        return;
    };
    assert!(
        !good && text.contains("invalid username/password"),
        "{text}"
    );
    // An authority that the client does not know: nothing is said to it.
    let (good, text) = run("skopeo", &["inspect", "--no-creds", &first]).unwrap();
    assert!(!good && text.contains("certificate"), "{text}");
    let (good, text) = login("developer", PASSWORD).unwrap();
    assert!(good, "{text}");

    let mut copy = vec![
        "copy",
        "--insecure-policy",
        "--authfile",
        &auth,
        "--dest-cert-dir",
        &certs,
    ];
    let layout = format!("oci:{image}");
    must("skopeo", &[&copy[..], &[&layout, &first]].concat()).unwrap();
    // To another project, as Docker's kind of manifest: this mounts.
    copy.extend(["--src-cert-dir", &certs]);
    let docker = ["--format", "v2s2", &first, &second];
    must("skopeo", &[&copy[..], &docker].concat()).unwrap();
    assert!(shop.mounted("private/deep/er/b") > 0, "nothing was mounted");

    let tls = ["--cert-dir", &certs];
    let inspect = ["--authfile", &auth, &second];
    let told = must("skopeo", &[&["inspect"], &tls[..], &inspect].concat()).unwrap();
    assert!(told.contains("sha256:"), "{told}");
    let list = ["--no-creds", &at("default-project/a")];
    let tags = must("skopeo", &[&["list-tags"], &tls[..], &list].concat()).unwrap();
    assert!(tags.contains("\"v1\""), "{tags}");
    let (good, text) = run(
        "skopeo",
        &[&["inspect", "--no-creds"], &tls[..], &[&second]].concat(),
    )
    .unwrap();
    assert!(!good, "a private project was readable by anybody: {text}");

    let pulled = shop.path("pulled");
    let into = format!("oci:{pulled}:v1");
    let pull = [
        "copy",
        "--insecure-policy",
        "--src-cert-dir",
        &certs,
        "--src-no-creds",
    ];
    must("skopeo", &[&pull[..], &[&first, &into]].concat()).unwrap();
    let (bundle, from) = (shop.path("bundle"), format!("{pulled}:v1"));
    must(
        "umoci",
        &["unpack", "--rootless", "--image", &from, &bundle],
    )
    .unwrap();
    let file = std::fs::read_to_string(shop.path("bundle/rootfs/file"));
    assert_eq!(file.unwrap(), "a file of the image");

    let delete = [&["delete", "--authfile", &auth], &tls[..], &[&first]].concat();
    let (good, text) = run("skopeo", &delete).unwrap();
    assert!(!good, "a developer must not delete: {text}");
    let (good, text) = login("devops-admin", PASSWORD).unwrap();
    assert!(good, "{text}");
    must("skopeo", &delete).unwrap();
    let (good, _) = run(
        "skopeo",
        &[&["inspect", "--no-creds"], &tls[..], &[&first]].concat(),
    )
    .unwrap();
    assert!(!good, "it was deleted");
}
