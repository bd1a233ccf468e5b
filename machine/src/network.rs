//! The network of a virtual container host on one machine: which kind it is, and the two namespaces of the real one.
//!
//! The *switch* is what ESXi's vSwitch is elsewhere; hostsim makes its bridges in it. The *router* is what the network
//! stack of the endpoint's own VM is elsewhere; the endpoint sets it up. Between them is a pair of interfaces for each
//! VLAN: `trunk.VLAN` in the router, `upVLAN` in the switch. The router's way out is `public`, which belongs to the
//! [uplink](crate::uplink). Nothing of the machine's own network is changed.
//! See docs/decisions/0014-port-groups-on-one-machine.md.

use crate::options::Network;
use crate::parts;
use crate::{Error, uplink};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where namespaces with a name are (ip-netns(8)).
const NAMESPACES: &str = "/run/netns";
/// Name of the router's interfaces towards the switch, with a dot and the VLAN behind it: as if each were a VLAN of one
/// interface of this name.
pub const TRUNK: &str = "trunk";
/// The router's interface towards the world.
pub const PUBLIC: &str = "public";
/// VLAN of the default network; those of others are behind it.
const FIRST_VLAN: u16 = 100;
/// VLAN of the first port group that is not the endpoint's.
const FIRST_EXTERNAL: u16 = 1001;
/// Other networks than the default one, at most.
pub const NETWORKS_MAX: u16 = 256;

/// The kind of network that a virtual container host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Bridges in a namespace of its own.
    Bridge,
    /// A network of QEMU's for each container by itself.
    User,
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
    decide(asked, &missing())
}

fn decide(asked: Network, missing: &[&'static str]) -> Result<Choice, Error> {
    let list = missing.join(", ");
    let choice = |kind, why: String| Ok(Choice { kind, why });
    match asked {
        Network::User => choice(Kind::User, "--network user".into()),
        Network::Auto if !missing.is_empty() => choice(Kind::User, format!("not there: {list}")),
        Network::Auto => choice(Kind::Bridge, "root, ip and slirp4netns are there".into()),
        Network::Bridge if missing.is_empty() => choice(Kind::Bridge, "--network bridge".into()),
        Network::Bridge => Err(Error::Network {
            action: "make the network that --network bridge asks for".into(),
            reason: format!("not there: {list}; see `make setup`, or use --network user"),
        }),
    }
}

/// What bridges need and this machine or account does not have.
fn missing() -> Vec<&'static str> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root");
    }
    for (program, name) in [
        ("ip", "the program ip (package iproute2)"),
        (
            "slirp4netns",
            "the program slirp4netns (package slirp4netns)",
        ),
        ("unshare", "the program unshare (package util-linux)"),
        ("nft", "the program nft (package nftables)"),
    ] {
        if !in_path(std::env::var_os("PATH").as_deref(), program) {
            missing.push(name);
        }
    }
    if !Path::new("/dev/net/tun").exists() {
        missing.push("/dev/net/tun (kernel module tun)");
    }
    missing
}

fn in_path(path: Option<&OsStr>, program: &str) -> bool {
    path.is_some_and(|path| std::env::split_paths(path).any(|dir| dir.join(program).is_file()))
}

/// What is said of a choice when a virtual container host starts.
pub fn announcement(choice: &Choice) -> String {
    let Choice { kind, why } = choice;
    match kind {
        Kind::Bridge => format!(
            "network: bridges in a namespace of its own, the host's set-up is not touched ({why})"
        ),
        Kind::User => format!(
            "network: user-mode, containers cannot reach each other and networks cannot be created ({why})"
        ),
    }
}

/// The names of a state folder's namespaces, and its port groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    state: PathBuf,
    base: String,
    networks: u16,
    external: Vec<String>,
}

impl Layout {
    /// For a state folder, whose path is absolute, with so many networks beside the default one.
    pub fn new(state: &Path, networks: u16) -> Layout {
        let hash = Sha256::digest(state.as_os_str().as_encoded_bytes());
        Layout {
            state: state.to_owned(),
            base: format!("mooring-{}", hex::encode(&hash[..5])),
            networks,
            external: Vec::new(),
        }
    }

    /// The same with port groups that the router has no part in.
    #[must_use]
    pub fn with_external(mut self, port_groups: Vec<String>) -> Layout {
        self.external = port_groups;
        self
    }

    fn switch_name(&self) -> String {
        format!("{}-switch", self.base)
    }

    fn router_name(&self) -> String {
        format!("{}-router", self.base)
    }

    /// The switch's namespace.
    pub fn switch(&self) -> PathBuf {
        Path::new(NAMESPACES).join(self.switch_name())
    }

    /// The router's namespace.
    pub fn router(&self) -> PathBuf {
        Path::new(NAMESPACES).join(self.router_name())
    }

    /// Folder of the uplink's log and socket.
    pub fn uplink(&self) -> PathBuf {
        self.state.join("uplink")
    }

    /// The socket where the uplink takes requests to publish ports (slirp4netns(1), API socket).
    pub fn publish_api(&self) -> PathBuf {
        self.uplink().join("api.sock")
    }

    /// The port groups with their VLANs, the default network's first.
    pub fn port_groups(&self) -> Vec<(String, u16)> {
        let pool = (1..=self.networks).map(|n| (format!("mooring-net-{n:02}"), FIRST_VLAN + n));
        std::iter::once((parts::PORT_GROUP.to_owned(), FIRST_VLAN))
            .chain(pool)
            .collect()
    }

    /// The port groups that the router has no part in, with their VLANs.
    pub fn external(&self) -> impl Iterator<Item = (&str, u16)> {
        self.external
            .iter()
            .map(String::as_str)
            .zip(FIRST_EXTERNAL..)
    }

    /// Makes what is missing of the namespaces; whether they are new. Both are, or none is: a switch that is gone by its
    /// name lives on for the VMs in it, with its ends of the router's interfaces.
    ///
    /// # Errors
    /// [`Error::Network`] with the words of `ip`.
    pub fn ensure(&self) -> Result<bool, Error> {
        let names = [self.switch_name(), self.router_name()];
        let new = !names.iter().all(|name| is_namespace(name));
        if new {
            self.remove()?;
            for name in &names {
                ip("make a network namespace", &["netns", "add", name], "")?;
            }
        }
        let [switch, router] = &names;
        let there = ip(
            "look at the router",
            &["-n", router, "-o", "link", "show"],
            "",
        )?;
        let mut commands = String::from("link set lo up\n");
        for (_, vlan) in self.port_groups() {
            let trunk = format!("{TRUNK}.{vlan}");
            if !there.contains(&format!(" {trunk}@")) {
                commands += &format!(
                    "link add {trunk} type veth peer name up{vlan} netns {switch}\nlink set {trunk} up\n"
                );
            }
        }
        ip(
            "set up the router",
            &["-n", router, "-batch", "-"],
            &commands,
        )?;
        Ok(new)
    }

    /// Whether the router has its way out.
    pub(crate) fn has_public(&self) -> bool {
        let router = self.router_name();
        ip("look", &["-n", &router, "link", "show", PUBLIC], "").is_ok()
    }

    /// Ends whatever uplink there is, and removes the namespaces. Where there are none that is fine.
    ///
    /// # Errors
    /// [`Error::Network`] with the words of `ip`; [`Error::Stop`].
    pub fn remove(&self) -> Result<(), Error> {
        let ended = uplink::end_all(self);
        let mut removed = Ok(());
        for name in [self.router_name(), self.switch_name()] {
            if Path::new(NAMESPACES).join(&name).exists() {
                let done = ip("remove a network namespace", &["netns", "del", &name], "");
                removed = removed.and(done.map(drop));
            }
        }
        ended.and(removed)
    }
}

/// Whether a name is that of a namespace, and not of a file that was left when one went.
fn is_namespace(name: &str) -> bool {
    Path::new(NAMESPACES).join(name).exists()
        && ip("look", &["-n", name, "link", "show", "lo"], "").is_ok()
}

/// Runs `ip` with some input; what it says.
fn ip(action: &str, args: &[&str], input: &str) -> Result<String, Error> {
    let failed = |reason: String| Error::Network {
        action: action.to_owned(),
        reason: format!("ip {}: {reason}", args.join(" ")),
    };
    let mut child = Command::new("ip")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may have ended with an error, which says more.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

#[cfg(test)]
mod tests;
