//! The virtual switch: a network namespace with one bridge for each VLAN, in place of ESXi's vSwitch.
//!
//! A vNIC is a tap device that is a port of its VLAN's bridge. The bridges share nothing, so no frame gets from one VLAN
//! to another inside of the switch; and frames that bring a tag of their own are dropped where a vNIC sends them. Neither
//! the bridges nor the namespace have an address. An interface `up<VLAN>` that is in the namespace when the switch is
//! prepared becomes its VLAN's uplink. See docs/decisions/0014-port-groups-on-one-machine.md.
//!
//! Nothing here keeps state: the kernel does. A tap is gone with the last descriptor of it, which is QEMU's.

mod netlink;
#[cfg(test)]
mod tests;

use super::sys;
use netlink::{Batch, Link};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The VLANs that IEEE 802.1Q has room for.
pub const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;

/// Settings of the namespace, with their values. Those that a kernel lacks say nothing there anyway.
const SETTINGS: [(&str, &str); 5] = [
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    // Bridged frames are nobody's packets: no filter and no connection tracking of this namespace looks at them.
    ("bridge/bridge-nf-call-iptables", "0"),
    ("bridge/bridge-nf-call-ip6tables", "0"),
    ("bridge/bridge-nf-call-arptables", "0"),
];

/// Why the switch could not do something.
#[derive(Debug, thiserror::Error)]
#[error("the switch in {netns}: cannot {what}: {source}{hint}", netns = .netns.display())]
pub struct SwitchError {
    netns: PathBuf,
    what: String,
    source: io::Error,
    hint: &'static str,
}

/// A virtual switch in a network namespace. Its methods take some milliseconds and block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    netns: PathBuf,
}

/// A tap device on the switch.
#[derive(Debug)]
pub(super) struct Port {
    /// What QEMU reads and writes. The device lives as long as this is open anywhere.
    pub(super) tap: OwnedFd,
    /// Index of the interface in the switch's namespace; a namespace gives none twice.
    pub(super) index: u32,
}

/// Name of a VLAN's bridge.
fn bridge(vlan: u16) -> String {
    format!("vlan{vlan}")
}

/// Name of the interface that is a VLAN's way out of the switch.
pub fn uplink(vlan: u16) -> String {
    format!("up{vlan}")
}

impl Switch {
    /// The switch of a namespace that has a name (`/run/netns/NAME`).
    pub fn new(netns: impl Into<PathBuf>) -> Switch {
        Switch {
            netns: netns.into(),
        }
    }

    /// The namespace.
    pub fn netns(&self) -> &Path {
        &self.netns
    }

    /// Makes the bridges that are missing, and takes the uplinks that are there. Those that exist stay as they are, with
    /// the vNICs on them.
    ///
    /// # Errors
    /// The namespace does not exist, or the kernel refuses; without root it always does.
    pub fn prepare(&self, vlans: impl IntoIterator<Item = u16>) -> Result<(), SwitchError> {
        let vlans: Vec<u16> = vlans.into_iter().collect();
        self.inside("make the bridges", move || {
            for (name, value) in SETTINGS {
                match std::fs::write(Path::new("/proc/sys/net").join(name), value) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
            let mut batch = Batch::open()?;
            for &vlan in &vlans {
                let name = bridge(vlan);
                if if_nametoindex(name.as_str()).is_err() {
                    batch.add(netlink::new_bridge(&name));
                }
            }
            batch.commit()?;
            for vlan in vlans {
                if let Ok(up) = if_nametoindex(uplink(vlan).as_str()) {
                    let master = if_nametoindex(bridge(vlan).as_str())?;
                    batch.add(netlink::set_link(up, Link::On { master }));
                }
            }
            batch.commit()
        })
    }

    /// A new vNIC's port: in a VLAN, or in none, and then nothing gets in or out.
    pub(super) fn open_port(&self, vlan: Option<u16>) -> Result<Port, SwitchError> {
        self.inside("make a tap device", move || {
            // The device is made in the namespace of whoever opens this.
            let tun = File::options()
                .read(true)
                .write(true)
                .open("/dev/net/tun")?;
            let name = sys::make_tap(&tun)?;
            let index = if_nametoindex(name.as_str())?;
            let mut batch = Batch::open()?;
            for message in netlink::drop_tagged(index) {
                batch.add(message);
            }
            batch.add(netlink::set_link(index, link(vlan)?));
            batch.commit()?;
            Ok(Port {
                tap: tun.into(),
                index,
            })
        })
    }

    /// Puts a port into another VLAN, or into none. The guest does not notice.
    pub(super) fn move_port(&self, index: u32, vlan: Option<u16>) -> Result<(), SwitchError> {
        self.inside("move a vNIC", move || {
            let mut batch = Batch::open()?;
            batch.add(netlink::set_link(index, link(vlan)?));
            batch.commit()
        })
    }

    /// Does work inside of the namespace, on a thread that is thrown away: threads that live on never see it.
    fn inside<T: Send>(
        &self,
        what: &str,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> Result<T, SwitchError> {
        let fail = |what: String, source: io::Error| SwitchError {
            netns: self.netns.clone(),
            what,
            hint: hint(&source),
            source,
        };
        let netns =
            File::open(&self.netns).map_err(|e| fail("open the network namespace".into(), e))?;
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, || {
                setns(&netns, CloneFlags::CLONE_NEWNET)?;
                work()
            });
            let joined = thread.map(|t| {
                t.join()
                    .unwrap_or_else(|_| Err(io::Error::other("it panicked")))
            });
            joined
                .and_then(|result| result)
                .map_err(|e| fail(what.to_owned(), e))
        })
    }
}

/// How the port of a VLAN is set. Runs inside of the namespace.
fn link(vlan: Option<u16>) -> io::Result<Link> {
    Ok(match vlan {
        Some(vlan) => {
            let name = bridge(vlan);
            let master = if_nametoindex(name.as_str())
                .map_err(|_| io::Error::other(format!("there is no bridge {name} in it")))?;
            Link::On { master }
        }
        None => Link::Off,
    })
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "; this takes root (CAP_NET_ADMIN and CAP_SYS_ADMIN), or a user-mode network in place of the switch"
        }
        Some(libc::EOPNOTSUPP | libc::ENOENT | libc::ENODEV) => {
            "; the kernel needs bridges, tun, and traffic control with BPF (CONFIG_BRIDGE, CONFIG_TUN, CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF)"
        }
        _ => "",
    }
}
