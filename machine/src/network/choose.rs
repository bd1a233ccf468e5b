//! Which kind of network a virtual container host gets: by what was asked for, who asks, and what the machine has.

use crate::Error;
use crate::options::Network;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;

/// The kind of network that a virtual container host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Bridges in a namespace of its own, made by root.
    Bridge,
    /// The same in a user namespace, made by an ordinary user.
    Rootless,
    /// A network of QEMU's for each container by itself.
    User,
}

impl Kind {
    /// Whether there are port groups, and a router between them and the world.
    pub fn has_bridges(self) -> bool {
        self != Kind::User
    }
}

/// A choice of a kind, and why it fell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The kind.
    pub kind: Kind,
    /// Why, as the end of a sentence.
    pub why: String,
}

/// Chooses the kind of network.
///
/// # Errors
/// [`Error::Network`] where bridges are asked for and something is missing, which is named.
pub fn choose(asked: Network) -> Result<Choice, Error> {
    let root = rustix::process::geteuid().is_root();
    decide(asked, root, &missing(root))
}

fn decide(asked: Network, root: bool, missing: &[String]) -> Result<Choice, Error> {
    let list = missing.join(", ");
    let choice = |kind, why: String| Ok(Choice { kind, why });
    let bridges = if root { Kind::Bridge } else { Kind::Rootless };
    match asked {
        Network::User => choice(Kind::User, "--network user".into()),
        Network::Auto if !missing.is_empty() => choice(Kind::User, format!("not there: {list}")),
        Network::Auto if root => choice(bridges, "root, ip and slirp4netns are there".into()),
        Network::Auto => choice(
            bridges,
            "not root; user namespaces, ip and slirp4netns are there".into(),
        ),
        Network::Bridge if missing.is_empty() => choice(bridges, "--network bridge".into()),
        Network::Bridge => Err(Error::Network {
            action: "make the network that --network bridge asks for".into(),
            reason: format!("not there: {list}; see `make setup`, or use --network user"),
        }),
    }
}

/// What bridges need and this machine or account does not have.
fn missing(root: bool) -> Vec<String> {
    let mut missing = Vec::new();
    for (program, package) in [
        ("ip", "iproute2"),
        ("slirp4netns", "slirp4netns"),
        ("unshare", "util-linux"),
        ("nsenter", "util-linux"),
        ("nft", "nftables"),
    ] {
        if !in_path(std::env::var_os("PATH").as_deref(), program) {
            missing.push(format!("the program {program} (package {package})"));
        }
    }
    let tun = "/dev/net/tun";
    if !Path::new(tun).exists() {
        missing.push(format!("{tun} (kernel module tun)"));
    } else if let Err(error) = File::options().read(true).write(true).open(tun) {
        missing.push(format!(
            "leave to use {tun} ({error}; its mode is 0666 by custom)"
        ));
    }
    if !root {
        missing.extend(no_user_namespaces(Path::new("/proc")));
    }
    missing
}

/// Why an ordinary user may make no user namespace, where the kernel's settings say so for certain.
fn no_user_namespaces(proc: &Path) -> Option<String> {
    let zero = |setting: &str| {
        fs::read_to_string(proc.join("sys").join(setting)).is_ok_and(|text| text.trim() == "0")
    };
    if !proc.join("self/ns/user").exists() {
        return Some("user namespaces (the kernel has none: CONFIG_USER_NS)".into());
    }
    for (setting, sysctl) in [
        (
            "kernel/unprivileged_userns_clone",
            "kernel.unprivileged_userns_clone",
        ),
        ("user/max_user_namespaces", "user.max_user_namespaces"),
        ("user/max_net_namespaces", "user.max_net_namespaces"),
    ] {
        if zero(setting) {
            return Some(format!(
                "user namespaces for ordinary users ({sysctl} is 0)"
            ));
        }
    }
    None
}

/// What may have kept a user namespace from being made, beside what the error says.
pub(super) fn hint(proc: &Path) -> String {
    let setting = "sys/kernel/apparmor_restrict_unprivileged_userns";
    match fs::read_to_string(proc.join(setting)) {
        Ok(text) if text.trim() == "1" => {
            "; AppArmor forbids it to programs without a profile of their own (kernel.apparmor_restrict_unprivileged_userns is 1)".into()
        }
        _ => no_user_namespaces(proc).map_or_else(String::new, |why| format!("; not there: {why}")),
    }
}

fn in_path(path: Option<&OsStr>, program: &str) -> bool {
    path.is_some_and(|path| std::env::split_paths(path).any(|dir| dir.join(program).is_file()))
}

impl Choice {
    /// What is said of it when a virtual container host starts, and by its status.
    pub fn announcement(&self) -> String {
        let Choice { kind, why } = self;
        let what = match kind {
            Kind::Bridge => "bridges in a namespace of its own, the host's set-up is not touched",
            Kind::Rootless => {
                "bridges in a user namespace, without root, the host's set-up is not touched"
            }
            Kind::User => {
                "user-mode, containers cannot reach each other and networks cannot be created"
            }
        };
        format!("network: {what} ({why})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_network_is_chosen_by_who_asks_and_what_there_is() {
        let none: [String; 0] = [];
        let two = ["user namespaces".to_owned(), "the program ip".to_owned()];
        let kind = |asked, root, missing: &[String]| decide(asked, root, missing).map(|c| c.kind);
        assert_eq!(kind(Network::Auto, true, &none).unwrap(), Kind::Bridge);
        assert_eq!(kind(Network::Auto, false, &none).unwrap(), Kind::Rootless);
        assert_eq!(kind(Network::Auto, false, &two).unwrap(), Kind::User);
        assert_eq!(kind(Network::User, true, &none).unwrap(), Kind::User);
        assert_eq!(kind(Network::Bridge, true, &none).unwrap(), Kind::Bridge);
        assert_eq!(kind(Network::Bridge, false, &none).unwrap(), Kind::Rootless);
        let words = decide(Network::Bridge, false, &two)
            .unwrap_err()
            .to_string();
        assert!(
            words.contains("user namespaces, the program ip") && words.contains("--network user"),
            "{words}"
        );
        let said = decide(Network::Auto, false, &two).unwrap().announcement();
        assert!(said.contains("user-mode") && said.contains("not there: user namespaces"));
        let said = decide(Network::Auto, false, &none).unwrap().announcement();
        assert!(
            said.contains("without root") && said.contains("not root;"),
            "{said}"
        );
    }

    #[test]
    fn programs_are_looked_for_where_a_shell_would() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ip"), "").unwrap();
        let path = std::env::join_paths([Path::new("/none"), dir.path()]).unwrap();
        assert!(in_path(Some(&path), "ip"));
        assert!(!in_path(Some(&path), "slirp4netns") && !in_path(None, "ip"));
    }

    #[test]
    fn a_kernel_that_forbids_user_namespaces_is_told_by_the_setting_that_does() {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path();
        let set = |name: &str, value: &str| {
            let path = proc.join("sys").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, value).unwrap();
        };
        assert!(no_user_namespaces(proc).unwrap().contains("CONFIG_USER_NS"));
        fs::create_dir_all(proc.join("self/ns")).unwrap();
        fs::write(proc.join("self/ns/user"), "").unwrap();
        assert_eq!(no_user_namespaces(proc), None);
        assert_eq!(hint(proc), "");
        set("user/max_user_namespaces", "96365\n");
        set("kernel/unprivileged_userns_clone", "1\n");
        assert_eq!(no_user_namespaces(proc), None);
        set("kernel/unprivileged_userns_clone", "0\n");
        let why = no_user_namespaces(proc).unwrap();
        assert!(
            why.contains("kernel.unprivileged_userns_clone is 0"),
            "{why}"
        );
        assert!(hint(proc).contains(&why));
        set("kernel/unprivileged_userns_clone", "1\n");
        set("user/max_user_namespaces", "0\n");
        assert!(no_user_namespaces(proc).unwrap().contains("max_user"));
        set("kernel/apparmor_restrict_unprivileged_userns", "1\n");
        assert!(hint(proc).contains("AppArmor"));
    }
}
