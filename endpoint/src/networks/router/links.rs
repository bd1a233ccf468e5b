//! The endpoint's interfaces in its networks: a VLAN on the trunk for each, with the gateway's addresses
//! (rtnetlink(7)).

use super::{RouterNetwork, namespace::Namespace};
use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::{
    Handle, LinkUnspec, LinkVlan,
    packet_route::{address::AddressAttribute, link::LinkAttribute},
};
use std::{collections::BTreeMap, fs, io};

/// What the names of these interfaces begin with; the VLAN's number follows.
pub const PREFIX: &str = "vlan";

/// Name of the interface of a VLAN, as the rules name it.
pub fn name(vlan: u16) -> String {
    format!("{PREFIX}{vlan}")
}

fn wrong(what: String) -> impl FnOnce(rtnetlink::Error) -> io::Error {
    move |error| io::Error::other(format!("{what}: {error}"))
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
                    // The gateways are ours alone: nobody has to be asked.
                    ("ipv6/conf/default/accept_dad", "0"),
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

    /// Indices of all interfaces by name.
    async fn all(&self) -> io::Result<BTreeMap<String, u32>> {
        let mut links = std::pin::pin!(self.handle.link().get().execute());
        let mut out = BTreeMap::new();
        while let Some(link) = links
            .try_next()
            .await
            .map_err(wrong("cannot list the interfaces".to_owned()))?
        {
            for attribute in link.attributes {
                if let LinkAttribute::IfName(name) = attribute {
                    out.insert(name, link.header.index);
                }
            }
        }
        Ok(out)
    }

    /// The subnets of an interface.
    ///
    /// # Errors
    /// The kernel's, or where there is no such interface.
    pub async fn subnets(&self, name: &str) -> io::Result<Vec<IpNet>> {
        let index = *self.all().await?.get(name).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no interface {name}"),
            )
        })?;
        let request = self.handle.address().get().set_link_index_filter(index);
        let mut addresses = std::pin::pin!(request.execute());
        let mut out = Vec::new();
        while let Some(found) = addresses
            .try_next()
            .await
            .map_err(wrong(format!("cannot list the addresses of {name}")))?
        {
            let prefix = found.header.prefix_len;
            for attribute in found.attributes {
                if let AddressAttribute::Address(address) = attribute
                    && let Ok(net) = IpNet::new(address, prefix)
                {
                    out.push(net.trunc());
                }
            }
        }
        Ok(out)
    }

    /// Makes the interfaces of networks that have none yet, and takes away those of networks that are gone.
    ///
    /// # Errors
    /// The kernel's, naming the interface.
    pub async fn apply(&self, trunk: &str, networks: &[RouterNetwork]) -> io::Result<()> {
        let mut there = self.all().await?;
        let trunk_index = *there.get(trunk).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no interface {trunk}: --trunk names the endpoint's vNIC on the port group with all VLANs"),
            )
        })?;
        self.set_up(trunk_index, trunk).await?;
        for network in networks {
            let name = name(network.vlan);
            let index = match there.remove(&name) {
                Some(index) => index,
                None => self.add(trunk_index, &name, network.vlan).await?,
            };
            for (address, prefix) in &network.gateways {
                let request = self.handle.address().add(index, *address, *prefix);
                request
                    .replace()
                    .execute()
                    .await
                    .map_err(wrong(format!("cannot give {name} the address {address}")))?;
            }
        }
        for (name, index) in there {
            if name
                .strip_prefix(PREFIX)
                .is_some_and(|vlan| vlan.parse::<u16>().is_ok())
            {
                self.handle
                    .link()
                    .del(index)
                    .execute()
                    .await
                    .map_err(wrong(format!("cannot remove {name}")))?;
            }
        }
        Ok(())
    }

    async fn add(&self, trunk: u32, name: &str, vlan: u16) -> io::Result<u32> {
        self.handle
            .link()
            .add(LinkVlan::new(name, trunk, vlan).up().build())
            .execute()
            .await
            .map_err(wrong(format!("cannot make the interface {name}")))?;
        let links = self.all().await?;
        links.get(name).copied().ok_or_else(|| {
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
