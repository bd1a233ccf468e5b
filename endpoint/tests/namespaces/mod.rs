//! Network namespaces of one test: a router, the world outside it, and members.

use endpoint::networks::router::namespace::Namespace;
use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Runs `ip` with these words, which must succeed.
pub fn ip(args: &str) {
    let words = args.split_whitespace();
    let done = Command::new("ip").args(words).output().unwrap();
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {args}: {error}");
}

/// The namespaces, gone with it.
pub struct Namespaces {
    prefix: String,
    names: Vec<&'static str>,
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            let name = self.full(name);
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

impl Namespaces {
    /// `router` with its uplink `public` (198.51.100.2) to `world` (198.51.100.1), and members without a cable. `None`
    /// without root.
    pub fn new(members: &[&'static str]) -> Option<Namespaces> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: it needs root to make namespaces");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut spaces = Namespaces {
            prefix: format!("mt{}-{number}", std::process::id()),
            names: Vec::new(),
        };
        for name in ["router", "world"].iter().chain(members) {
            spaces.add(name);
        }
        let (router, world) = (spaces.full("router"), spaces.full("world"));
        ip(&format!(
            "-n {router} link add public type veth peer name out netns {world}"
        ));
        for (namespace, link, address) in [
            (&router, "public", "198.51.100.2/24"),
            (&world, "out", "198.51.100.1/24"),
        ] {
            ip(&format!("-n {namespace} addr add {address} dev {link}"));
            ip(&format!("-n {namespace} link set {link} up"));
        }
        Some(spaces)
    }

    /// Makes one more, with its loopback up.
    pub fn add(&mut self, name: &'static str) {
        self.names.push(name);
        let name = self.full(name);
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
    }

    /// Its name on this machine.
    pub fn full(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        format!("/run/netns/{}", self.full(name)).into()
    }

    pub fn space(&self, name: &str) -> Namespace {
        Namespace::open(&self.path(name)).unwrap()
    }
}
