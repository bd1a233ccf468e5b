//! Clients that nobody here wrote.

use crate::crash::Process;
use crate::harness::*;
use std::path::Path;
use std::process::Command;

/// Runs a program; its output. `None` when it is not installed, which is said.
fn run(program: &str, args: &[&str]) -> Option<(bool, String)> {
    let output = match Command::new(program).args(args).output() {
        Ok(output) => output,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: {program} is not installed (make setup-test)");
            return None;
        }
        Err(e) => panic!("{program}: {e}"),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Some((output.status.success(), text))
}

fn must(program: &str, args: &[&str]) -> Option<String> {
    let (good, text) = run(program, args)?;
    assert!(good, "{program} {args:?}: {text}");
    Some(text)
}

/// An image in OCI's layout with one layer, made by umoci.
fn layout(folder: &Path) -> Option<String> {
    let layout = folder.join("layout");
    let image = format!("{}:v1", layout.display());
    must("umoci", &["init", "--layout", layout.to_str().unwrap()])?;
    must("umoci", &["new", "--image", &image])?;
    std::fs::write(folder.join("file"), "a file of the image").unwrap();
    must(
        "umoci",
        &[
            "insert",
            "--rootless",
            "--image",
            &image,
            folder.join("file").to_str().unwrap(),
            "/file",
        ],
    )?;
    Some(image)
}

/// Has skopeo look at an image of a layout (`FOLDER:TAG`).
pub fn reads_layout(image: &str) {
    must("skopeo", &["inspect", "--raw", &format!("oci:{image}")]);
}

#[test]
fn skopeo_and_umoci_push_copy_list_inspect_pull_and_delete() {
    let work = tempfile::tempdir().unwrap();
    let Some(image) = layout(work.path()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), &settings());
    let process = Process::start(folder.path());
    let host = process
        .client
        .base
        .strip_prefix("http://")
        .unwrap()
        .to_owned();
    let creds = format!("{ADMIN}:{PASSWORD}");
    let at = |name: &str| format!("docker://{host}/{name}");
    let (first, second) = (at("default-project/a:v1"), at("private/deep/er/b:v2"));
    let push = [
        "copy",
        "--insecure-policy",
        "--dest-tls-verify=false",
        "--dest-creds",
        &creds,
    ];
    if must(
        "skopeo",
        &[&push[..], &[&format!("oci:{image}"), &first]].concat(),
    )
    .is_none()
    {
        return;
    }
    // To another project, as Docker's kind of manifest: this mounts.
    let both = [
        "copy",
        "--insecure-policy",
        "--format",
        "v2s2",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        "--src-creds",
        &creds,
        "--dest-creds",
        &creds,
    ];
    must("skopeo", &[&both[..], &[&first, &second]].concat());
    let told = must(
        "skopeo",
        &["inspect", "--tls-verify=false", "--creds", &creds, &second],
    )
    .unwrap();
    assert!(told.contains("sha256:"), "{told}");
    let tags = must(
        "skopeo",
        &[
            "list-tags",
            "--tls-verify=false",
            "--no-creds",
            &at("default-project/a"),
        ],
    )
    .unwrap();
    assert!(tags.contains("\"v1\""), "{tags}");
    let (good, text) = run(
        "skopeo",
        &["inspect", "--tls-verify=false", "--no-creds", &second],
    )
    .unwrap();
    assert!(!good, "a private project was readable by anybody: {text}");

    let pulled = work.path().join("pulled");
    let into = format!("oci:{}:v1", pulled.display());
    must(
        "skopeo",
        &[
            "copy",
            "--insecure-policy",
            "--src-tls-verify=false",
            "--src-no-creds",
            &first,
            &into,
        ],
    );
    let bundle = work.path().join("bundle");
    let from = format!("{}:v1", pulled.display());
    must(
        "umoci",
        &[
            "unpack",
            "--rootless",
            "--image",
            &from,
            bundle.to_str().unwrap(),
        ],
    );
    assert_eq!(
        std::fs::read_to_string(bundle.join("rootfs/file")).unwrap(),
        "a file of the image"
    );

    must(
        "skopeo",
        &["delete", "--tls-verify=false", "--creds", &creds, &first],
    );
    let (good, _) = run(
        "skopeo",
        &["inspect", "--tls-verify=false", "--no-creds", &first],
    )
    .unwrap();
    assert!(!good, "it was deleted");
}
