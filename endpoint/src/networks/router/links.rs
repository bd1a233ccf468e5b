//! The endpoint's interfaces in its networks: a VLAN on the trunk for each, with the gateway's addresses
//! (rtnetlink(7)).

use super::{RouterNetwork, namespace::Namespace};
use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::{
    Handle, LinkUnspec, LinkVlan,
    packet_route::{
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
        link::{InfoKind, LinkAttribute, LinkInfo},
    },
};
use std::{collections::BTreeMap, fs, io};

/// Name of the interface of a VLAN on a trunk, as Linux has it by custom.
pub fn name(trunk: &str, vlan: u16) -> String {
    format!("{trunk}.{vlan}")
}

fn wrong(what: String) -> impl FnOnce(rtnetlink::Error) -> io::Error {
    move |error| io::Error::other(format!("{what}: {error}"))
}

/// An interface.
#[derive(Debug, Clone, Copy)]
struct Interface {
    index: u32,
    /// It is a VLAN on another one.
    is_vlan: bool,
}

fn net_of(message: &AddressMessage) -> Option<IpNet> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => {
                IpNet::new(*address, message.header.prefix_len).ok()
            }
            _ => None,
        })
}

/// Whether it is an address that the kernel gives by itself.
fn link_local(message: &AddressMessage) -> bool {
    matches!(net_of(message), Some(IpNet::V6(net)) if net.addr().is_unicast_link_local())
}

/// Requests in a namespace.
#[derive(Debug)]
pub struct Links {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    /// Opens a netlink socket in a namespace, and lets the namespace forward.
    ///
    /// # Errors
    /// Those of socket(2), or of the sysctls.
    pub async fn open(namespace: &Namespace) -> io::Result<Self> {
        let (connection, handle) = namespace
            .enter(|| {
                for (file, value) in [
                    ("ipv4/ip_forward", "1"),
                    ("ipv6/conf/all/forwarding", "1"),
                    // An answer for another interface's address would join networks that are apart.
                    ("ipv4/conf/all/arp_ignore", "2"),
                ] {
                    let path = format!("/proc/sys/net/{file}");
                    match fs::write(&path, value) {
                        // A kernel without IPv6.
                        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                        other => other.map_err(|e| io::Error::other(format!("{path}: {e}")))?,
                    }
                }
                let (connection, handle, _) = rtnetlink::new_connection()?;
                Ok((connection, handle))
            })
            .await?;
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
        })
    }

    /// All interfaces by name.
    async fn all(&self) -> io::Result<BTreeMap<String, Interface>> {
        let mut links = std::pin::pin!(self.handle.link().get().execute());
        let mut out = BTreeMap::new();
        while let Some(link) = links
            .try_next()
            .await
            .map_err(wrong("cannot list the interfaces".to_owned()))?
        {
            let mut interface = Interface {
                index: link.header.index,
                is_vlan: false,
            };
            let mut name = None;
            for attribute in link.attributes {
                match attribute {
                    LinkAttribute::IfName(own) => name = Some(own),
                    LinkAttribute::LinkInfo(infos) => {
                        interface.is_vlan |= infos.contains(&LinkInfo::Kind(InfoKind::Vlan));
                    }
                    _ => {}
                }
            }
            out.extend(name.map(|name| (name, interface)));
        }
        Ok(out)
    }

    async fn addresses(&self, index: u32, name: &str) -> io::Result<Vec<AddressMessage>> {
        let request = self.handle.address().get().set_link_index_filter(index);
        let found: Result<Vec<_>, _> = request.execute().try_collect().await;
        found.map_err(wrong(format!("cannot list the addresses of {name}")))
    }

    /// The subnets of an interface.
    ///
    /// # Errors
    /// The kernel's, or where there is no such interface.
    pub async fn subnets(&self, name: &str) -> io::Result<Vec<IpNet>> {
        let interface = self.all().await?.remove(name).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no interface {name}"),
            )
        })?;
        let addresses = self.addresses(interface.index, name).await?;
        Ok(addresses
            .iter()
            .filter_map(net_of)
            .map(|net| net.trunc())
            .collect())
    }

    /// Gives the networks their interfaces, and takes their addresses from those of networks that are gone. An interface
    /// that is there already (a vNIC of its own in place of a VLAN on the trunk) is used as it is.
    ///
    /// # Errors
    /// The kernel's, naming the interface.
    pub async fn apply(&self, trunk: &str, networks: &[RouterNetwork]) -> io::Result<()> {
        let mut there = self.all().await?;
        for network in networks {
            let name = name(trunk, network.vlan);
            let interface = match there.remove(&name) {
                Some(interface) => interface,
                None => self.add(&there, trunk, &name, network.vlan).await?,
            };
            self.set_up(interface.index, &name).await?;
            let mut stale = self.addresses(interface.index, &name).await?;
            stale.retain(|message| {
                let own = net_of(message).map(|net| (net.addr(), net.prefix_len()));
                own.is_none_or(|own| !network.gateways.contains(&own)) && !link_local(message)
            });
            for message in stale {
                self.remove_address(message, &name).await?;
            }
            for (address, prefix) in &network.gateways {
                let mut request = self
                    .handle
                    .address()
                    .add(interface.index, *address, *prefix);
                // It is ours alone: asking whether somebody has it would hold it back for a second.
                request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
                request
                    .replace()
                    .execute()
                    .await
                    .map_err(wrong(format!("cannot give {name} the address {address}")))?;
            }
        }
        let prefix = format!("{trunk}.");
        for (name, interface) in there {
            let vlan = name.strip_prefix(&prefix).map(str::parse::<u16>);
            if !matches!(vlan, Some(Ok(_))) {
                continue;
            }
            if interface.is_vlan {
                let request = self.handle.link().del(interface.index);
                request
                    .execute()
                    .await
                    .map_err(wrong(format!("cannot remove {name}")))?;
                continue;
            }
            for message in self.addresses(interface.index, &name).await? {
                if !link_local(&message) {
                    self.remove_address(message, &name).await?;
                }
            }
        }
        Ok(())
    }

    async fn remove_address(&self, message: AddressMessage, name: &str) -> io::Result<()> {
        let request = self.handle.address().del(message);
        request
            .execute()
            .await
            .map_err(wrong(format!("cannot take an address from {name}")))
    }

    async fn add(
        &self,
        there: &BTreeMap<String, Interface>,
        trunk: &str,
        name: &str,
        vlan: u16,
    ) -> io::Result<Interface> {
        let Some(base) = there.get(trunk) else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!(
                    "there is neither an interface {name} nor {trunk}: --trunk names the endpoint's vNIC on the port group with all VLANs"
                ),
            ));
        };
        self.set_up(base.index, trunk).await?;
        self.handle
            .link()
            .add(LinkVlan::new(name, base.index, vlan).up().build())
            .execute()
            .await
            .map_err(wrong(format!("cannot make the interface {name}")))?;
        self.all().await?.remove(name).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("{name} was made and is gone"),
            )
        })
    }

    async fn set_up(&self, index: u32, name: &str) -> io::Result<()> {
        self.handle
            .link()
            .set(LinkUnspec::new_with_index(index).up().build())
            .execute()
            .await
            .map_err(wrong(format!("cannot bring up {name}")))
    }
}
