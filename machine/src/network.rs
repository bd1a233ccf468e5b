//! The network of a virtual container host on one machine: which kind it is, and the two namespaces of the real one.
//!
//! The *switch* is what ESXi's vSwitch is elsewhere; hostsim makes its bridges in it. The *router* is what the network
//! stack of the endpoint's own VM is elsewhere; the endpoint sets it up. Between them is a pair of interfaces for each
//! VLAN: `trunk.VLAN` in the router, `upVLAN` in the switch. The router's way out is `public`, which belongs to the
//! [uplink](crate::uplink). Nothing of the machine's own network is changed.
//! Root's namespaces have names; those of an ordinary user are in a user namespace that a [`holder`] keeps.
//! See docs/decisions/0014-port-groups-on-one-machine.md and 0022-without-root.md.

mod choose;
pub mod holder;

use crate::parts;
use crate::{Error, ports, uplink};
pub use choose::{Choice, Kind, choose};
use sha2::{Digest, Sha256};
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

/// The names of a state folder's namespaces, and its port groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    state: PathBuf,
    base: String,
    networks: u16,
    rootless: bool,
    external: Vec<String>,
}

impl Layout {
    /// For a state folder, whose path is absolute, with so many networks beside the default one; `rootless`: its
    /// namespaces are in a user namespace.
    pub fn new(state: &Path, networks: u16, rootless: bool) -> Layout {
        let hash = Sha256::digest(state.as_os_str().as_encoded_bytes());
        Layout {
            state: state.to_owned(),
            base: format!("mooring-{}", hex::encode(&hash[..5])),
            networks,
            rootless,
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

    /// Folder of the links to a user namespace's namespaces, and of its holder's log.
    pub fn links(&self) -> PathBuf {
        self.state.join(holder::NAME)
    }

    fn namespace(&self, link: &str, name: String) -> PathBuf {
        if self.rootless {
            holder::link(&self.links(), link)
        } else {
            Path::new(NAMESPACES).join(name)
        }
    }

    /// The switch's namespace.
    pub fn switch(&self) -> PathBuf {
        self.namespace("switch", self.switch_name())
    }

    /// The router's namespace.
    pub fn router(&self) -> PathBuf {
        self.namespace("router", self.router_name())
    }

    /// The command line that runs a program as root over the namespaces: without root, in their user namespace.
    pub fn run_as_root(&self, program: &Path, args: &[String]) -> (PathBuf, Vec<String>) {
        if !self.rootless {
            return (program.to_owned(), args.to_owned());
        }
        let user = holder::link(&self.links(), "user");
        let mut all = vec![
            format!("--user={}", user.display()),
            "--preserve-credentials".to_owned(),
            "--".to_owned(),
            program.display().to_string(),
        ];
        all.extend(args.iter().cloned());
        ("nsenter".into(), all)
    }

    /// Folder of the uplink's log.
    pub fn uplink(&self) -> PathBuf {
        self.state.join("uplink")
    }

    /// Folder of the log and the socket of what holds published ports.
    pub fn ports(&self) -> PathBuf {
        self.state.join(ports::NAME)
    }

    /// The socket where it takes requests.
    pub fn publish_api(&self) -> PathBuf {
        self.ports().join("api.sock")
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

    /// Makes what is missing in the namespaces, and those of root; whether these are new. Both are, or none is: a switch
    /// that is gone by its name lives on for the VMs in it, with its ends of the router's interfaces.
    ///
    /// # Errors
    /// [`Error::Network`] with the words of `ip`.
    pub fn ensure(&self) -> Result<bool, Error> {
        let names = [self.switch_name(), self.router_name()];
        let new = !self.rootless && !names.iter().all(|name| is_namespace(name));
        if new {
            self.remove()?;
            for name in &names {
                ip(
                    "make a network namespace",
                    Command::new("ip").args(["netns", "add", name]),
                    "",
                )?;
            }
        }
        let there = ip(
            "look at the router",
            self.ip_in_router().args(["-o", "link", "show"]),
            "",
        )?;
        let switch = self.switch();
        let mut commands = String::from("link set lo up\n");
        for (_, vlan) in self.port_groups() {
            let trunk = format!("{TRUNK}.{vlan}");
            if !there.contains(&format!(" {trunk}@")) {
                commands += &format!(
                    "link add {trunk} type veth peer name up{vlan} netns {}\nlink set {trunk} up\n",
                    switch.display()
                );
            }
        }
        ip(
            "set up the router",
            self.ip_in_router().args(["-batch", "-"]),
            &commands,
        )?;
        self.ensure_answers_come_back()?;
        Ok(new)
    }

    /// Packets with the mark of [`forward::MARK`] are for local sockets, whatever address they are for.
    fn ensure_answers_come_back(&self) -> Result<(), Error> {
        let mark = forward::MARK;
        for family in ["-4", "-6"] {
            if family == "-6" && !Path::new("/proc/sys/net/ipv6").exists() {
                continue;
            }
            let rules = ip(
                "look at the router's rules",
                self.ip_in_router().args([family, "rule", "show"]),
                "",
            )?;
            let mut commands = format!("route replace local default dev lo table {mark}\n");
            if !rules.contains(&format!("fwmark {mark:#x} ")) {
                commands += &format!("rule add fwmark {mark:#x} lookup {mark}\n");
            }
            ip(
                "set up the router",
                self.ip_in_router().args([family, "-batch", "-"]),
                &commands,
            )?;
        }
        Ok(())
    }

    /// Whether the router has its way out.
    pub(crate) fn has_public(&self) -> bool {
        ip(
            "look",
            self.ip_in_router().args(["link", "show", PUBLIC]),
            "",
        )
        .is_ok()
    }

    /// `ip` in the router's namespace, without its arguments.
    fn ip_in_router(&self) -> Command {
        let args = [
            format!("--net={}", self.router().display()),
            "ip".to_owned(),
        ];
        let (program, args) = self.run_as_root(Path::new("nsenter"), &args);
        let mut command = Command::new(program);
        command.args(args);
        command
    }

    /// Ends whatever holds published ports or namespaces and whatever uplink there is, and removes the namespaces. Where there are none that is fine.
    ///
    /// # Errors
    /// [`Error::Network`] with the words of `ip`; [`Error::Stop`].
    pub fn remove(&self) -> Result<(), Error> {
        let ended = ports::end_all(self)
            .and(uplink::end_all(self))
            .and(holder::end_all(self));
        let mut removed = Ok(());
        for name in [self.router_name(), self.switch_name()] {
            if Path::new(NAMESPACES).join(&name).exists() {
                let done = ip(
                    "remove a network namespace",
                    Command::new("ip").args(["netns", "del", &name]),
                    "",
                );
                removed = removed.and(done.map(drop));
            }
        }
        ended.and(removed)
    }
}

/// Whether a name is that of a namespace, and not of a file that was left when one went.
fn is_namespace(name: &str) -> bool {
    let mut look = Command::new("ip");
    look.args(["-n", name, "link", "show", "lo"]);
    Path::new(NAMESPACES).join(name).exists() && ip("look", &mut look, "").is_ok()
}

/// Runs a command of `ip` with some input; what it says.
fn ip(action: &str, command: &mut Command, input: &str) -> Result<String, Error> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.display().to_string())
        .collect();
    let failed = |reason: String| Error::Network {
        action: action.to_owned(),
        reason: format!("{}: {reason}", words.join(" ")),
    };
    let mut child = command
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
