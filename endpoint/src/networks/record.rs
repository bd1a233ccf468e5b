//! What a network is: its record on the datastore.

use super::external::External;
use crate::timestamps;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, net::IpAddr};

/// The default network's name.
pub const BRIDGE: &str = "bridge";
/// The name of the network of those that have none.
pub const NONE: &str = "none";
/// The default network's subnet.
pub const BRIDGE_SUBNET: &str = "172.17.0.0/16";

/// A network as it was created. Nothing of it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// 64 hex digits.
    pub id: String,
    /// Its name; several networks may not share one.
    pub name: String,
    /// When, in ns since 1970.
    pub created: u64,
    /// No way out: no default route, nothing is forwarded.
    #[serde(default)]
    pub internal: bool,
    /// As the client said; means nothing outside of a swarm.
    #[serde(default)]
    pub attachable: bool,
    /// Whether it has an IPv6 subnet.
    #[serde(default)]
    pub ipv6: bool,
    /// Subnets, at most one of each family.
    pub pools: Vec<Pool>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `--opt`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// The port group that carries it.
    pub port_group: String,
    /// That port group's VLAN; 0: untagged, or not the endpoint's.
    pub vlan: u16,
    /// It has a router of its own: what the administrator said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its addresses.
    pub subnet: IpNet,
    /// Those of them that are given out by themselves; `None`: all.
    #[serde(default)]
    pub range: Option<IpNet>,
    /// The same, as the first and the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between: Option<(IpAddr, IpAddr)>,
    /// The endpoint's own address in it.
    pub gateway: IpAddr,
    /// Addresses that are somebody else's, by name.
    #[serde(default)]
    pub auxiliary: BTreeMap<String, IpAddr>,
}

impl NetworkRecord {
    /// The default network.
    pub fn bridge(port_group: &str, vlan: u16) -> Self {
        // A literal that parses.
        let subnet: IpNet = BRIDGE_SUBNET
            .parse()
            .unwrap_or_else(|_| unreachable!("{BRIDGE_SUBNET} is a subnet"));
        Self {
            id: builtin_id(BRIDGE),
            name: BRIDGE.to_owned(),
            created: timestamps::now(),
            internal: false,
            attachable: false,
            ipv6: false,
            pools: vec![Pool {
                gateway: super::addresses::first_host(&subnet),
                subnet,
                range: None,
                between: None,
                auxiliary: BTreeMap::new(),
            }],
            labels: BTreeMap::new(),
            options: BTreeMap::from(
                [
                    ("com.docker.network.bridge.default_bridge", "true"),
                    ("com.docker.network.bridge.name", port_group),
                ]
                .map(|(key, value)| (key.to_owned(), value.to_owned())),
            ),
            port_group: port_group.to_owned(),
            vlan,
            external: None,
        }
    }

    /// Whether it is there without having been created.
    pub fn builtin(&self) -> bool {
        self.name == BRIDGE
    }

    /// Whether no client can remove it.
    pub fn permanent(&self) -> bool {
        self.builtin() || self.external.is_some()
    }

    /// Docker's name for its kind.
    pub fn driver(&self) -> &'static str {
        match self.external {
            Some(_) => super::external::DRIVER,
            None => "bridge",
        }
    }

    /// Its subnet of a family.
    pub fn pool(&self, ipv6: bool) -> Option<&Pool> {
        self.pools
            .iter()
            .find(|pool| pool.subnet.addr().is_ipv6() == ipv6)
    }
}

/// The ID of a network that is always there; the same on every host.
pub fn builtin_id(name: &str) -> String {
    hex::encode(Sha256::digest(format!("mooring network {name}")))
}
