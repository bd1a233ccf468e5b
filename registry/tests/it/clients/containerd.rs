//! containerd and its ctr.

use super::{Shop, output, stock};
use crate::harness::*;
use std::process::{Child, Stdio};

struct Containerd(Child);

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn containerd_pulls_and_pushes() {
    let shop = Shop::open();
    let Some(at) = stock(&shop) else {
        return;
    };
    let config = shop.path("containerd.toml");
    let (root, state, socket) = (shop.path("root"), shop.path("state"), shop.path("c.sock"));
    let text = format!(
        "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = {socket:?}\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut c = shop.command("containerd");
    c.args(["--config", &config])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _containerd = match c.spawn() {
        Ok(child) => Containerd(child),
        Err(e) => {
            eprintln!("skipped: containerd: {e} (make setup-test)");
            return;
        }
    };
    let ctr = |args: &[&str]| {
        let mut c = shop.command("ctr");
        c.args(["--address", &socket, "--connect-timeout", "30s"])
            .args(args);
        output(c).expect("ctr comes with containerd")
    };
    let must = |args: &[&str]| {
        let (good, text) = ctr(args);
        assert!(good, "{args:?}: {text}");
        text
    };
    // By itself it would speak plain HTTP to a loopback address.
    let (hosts, url) = (shop.path("hosts"), format!("https://{}", shop.host));
    std::fs::create_dir_all(shop.path(&format!("hosts/{}", shop.host))).unwrap();
    let ca = shop.ca().display().to_string();
    let text = format!("server = {url:?}\n[host.{url:?}]\nca = {ca:?}\n");
    std::fs::write(shop.path(&format!("hosts/{}/hosts.toml", shop.host)), text).unwrap();
    let creds = |user: &str| format!("{user}:{PASSWORD}");
    must(&["content", "fetch", "--hosts-dir", &hosts, &at]);
    let private = format!("{}/private/c:v1", shop.host);
    must(&["images", "tag", &at, &private]);
    let push = |user: &str| {
        let creds = creds(user);
        ctr(&[
            "images",
            "push",
            "--hosts-dir",
            &hosts,
            "--user",
            &creds,
            &private,
        ])
    };
    let (good, text) = push("viewer");
    assert!(!good, "a viewer pushed: {text}");
    let (good, text) = push("developer");
    assert!(good, "{text}");
    must(&["images", "rm", "--sync", &at, &private]);
    let (good, text) = ctr(&["content", "fetch", "--hosts-dir", &hosts, &private]);
    assert!(!good, "a private project was readable by anybody: {text}");
    must(&[
        "content",
        "fetch",
        "--hosts-dir",
        &hosts,
        "--user",
        &creds("viewer"),
        &private,
    ]);
    let listed = must(&["images", "ls", "-q"]);
    assert_eq!(listed.trim(), private);
}
