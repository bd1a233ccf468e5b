//! Network namespaces of tests: switches, and what is at the far end of an uplink.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A network namespace that goes with its test.
#[derive(Debug)]
pub struct Netns(String);

impl Netns {
    /// `None` where it cannot be had, with the reason printed.
    pub fn new() -> Option<Netns> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: network namespaces take root");
            return None;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("hostsim-test-{}-{number}", std::process::id());
        ip(&["netns", "add", &name]);
        Some(Netns(name))
    }

    /// Its name, as ip-netns(8) has it.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Its path, as `--switch` takes it.
    pub fn path(&self) -> PathBuf {
        format!("/run/netns/{}", self.0).into()
    }

    /// The vNICs that are in it.
    pub fn taps(&self) -> Vec<String> {
        self.links("nic")
    }

    /// Those of them that are in a VLAN.
    pub fn taps_in(&self, vlan: u16) -> Vec<String> {
        self.named("nic", &["link", "show", "master", &format!("vlan{vlan}")])
    }

    /// Names of the interfaces whose names begin so.
    pub fn links(&self, prefix: &str) -> Vec<String> {
        self.named(prefix, &["link"])
    }

    fn named(&self, prefix: &str, what: &[&str]) -> Vec<String> {
        let all = ip(&[&["-n", &self.0, "-o"], what].concat());
        let names = all.lines().filter_map(|line| line.split(": ").nth(1));
        // Behind an `@` is where the other end of it is.
        names
            .map(|name| name.split('@').next().unwrap_or(name).to_owned())
            .filter(|name| name.starts_with(prefix))
            .collect()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.0]);
    }
}

/// What ip(8) says.
pub fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "ip {args:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}
