//! The docker program by itself: it signs in and makes lists of images without a daemon. To a loopback address it speaks
//! plain HTTP then, whatever is there.

use super::{Shop, output, stock};
use crate::harness::*;
use reqwest::Method;
use std::io::Write;
use std::process::Stdio;

#[test]
fn docker_logs_in_and_makes_a_list_of_images() {
    let shop = Shop::plain();
    let Some(at) = stock(&shop) else {
        return;
    };
    let docker = |args: &[&str]| {
        let mut c = shop.command("docker");
        // Nobody listens there: what is done, is done by the client.
        c.args(["--host", "unix:///nowhere.sock"]).args(args);
        output(c)
    };
    if docker(&["--version"]).is_none() {
        return;
    }
    let login = |password: &str| {
        let mut c = shop.command("docker");
        c.args(["--host", "unix:///nowhere.sock", "login", "-u", "developer"]);
        c.args(["--password-stdin", &shop.host]);
        let piped = c
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(password.as_bytes())
            .unwrap();
        let done = child.wait_with_output().unwrap();
        (
            done.status.success(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        )
    };
    let (good, text) = login("a wrong password");
    assert!(!good && text.contains("unauthorized"), "{text}");
    let (good, text) = login(PASSWORD);
    assert!(good, "{text}");

    let must = |args: &[&str]| {
        let (good, text) = docker(args).unwrap();
        assert!(good, "{args:?}: {text}");
        text
    };
    let list = format!("{}/default-project/list:v1", shop.host);
    must(&["manifest", "create", "--insecure", &list, &at]);
    must(&[
        "manifest", "annotate", &list, &at, "--os", "linux", "--arch", "arm64",
    ]);
    must(&["manifest", "push", &list]);
    let told = must(&["manifest", "inspect", &list]);
    assert!(told.contains("arm64"), "{told}");
    let (status, body) = shop.ask(Method::GET, "/v2/default-project/list/manifests/v1");
    assert_eq!(status, 200);
    assert!(
        body.contains("manifest.list") || body.contains("image.index"),
        "{body}"
    );
    // The image of another repository of the registry was brought along without its layers being sent again.
    assert!(
        shop.mounted("default-project/list") > 0,
        "nothing was mounted"
    );
    must(&["logout", &shop.host]);
    let (good, text) = docker(&["manifest", "push", &list]).unwrap();
    assert!(!good, "pushed after the logout: {text}");
}
