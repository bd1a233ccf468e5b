//! A container's place on a network.

use super::{Network, external::External, record::Pool};
use crate::errors::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, net::IpAddr};

/// Aliases and links of one place, at most.
const NAMES_MAX: usize = 256;

/// What a client asks for (Docker Engine API, `EndpointSettings`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wanted {
    /// `--ip`.
    pub ipv4: Option<IpAddr>,
    /// `--ip6`.
    pub ipv6: Option<IpAddr>,
    /// `--mac-address`.
    pub mac: Option<String>,
    /// Further names.
    pub aliases: Vec<String>,
    /// `CONTAINER:ALIAS`.
    pub links: Vec<String>,
    /// The network with the highest one has the default route.
    pub priority: i64,
}

/// A container's place on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// ID of the network.
    pub network: String,
    /// Its name.
    pub name: String,
    /// The port group of the vNIC.
    pub port_group: String,
    /// Docker's ID of the connection, 64 hex digits.
    pub endpoint: String,
    /// Number of its interface in the guest: `eth0` is 0.
    #[serde(default)]
    pub interface: u32,
    /// Address of the vNIC.
    pub mac: String,
    /// Addresses, the IPv4 one first.
    pub places: Vec<Place>,
    /// MTU in bytes; 0: the driver's.
    #[serde(default)]
    pub mtu: u32,
    /// The network leads nowhere.
    #[serde(default)]
    pub internal: bool,
    /// What was asked for.
    #[serde(default)]
    pub wanted: Wanted,
    /// The network has a router of its own: what is particular to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
}

/// An address of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// It.
    pub address: IpAddr,
    /// Length of the subnet's prefix.
    pub prefix: u8,
    /// The network's gateway: name server, and the way out where there is one.
    pub gateway: IpAddr,
}

impl Place {
    /// An address in a subnet.
    pub fn new(address: IpAddr, pool: &Pool) -> Self {
        Self {
            address,
            prefix: pool.subnet.prefix_len(),
            gateway: pool.gateway,
        }
    }

    /// Whether this address is in its subnet, too.
    pub fn is_near(&self, other: IpAddr) -> bool {
        ipnet::IpNet::new(self.address, self.prefix).is_ok_and(|net| net.contains(&other))
    }

    /// With its prefix length.
    pub fn net(&self) -> String {
        format!("{}/{}", self.address, self.prefix)
    }
}

impl Attachment {
    /// The address of a family.
    pub fn place(&self, ipv6: bool) -> Option<&Place> {
        self.places.iter().find(|p| p.address.is_ipv6() == ipv6)
    }

    /// Whether it is on the default network, which has no names.
    pub fn on_bridge(&self) -> bool {
        self.name == super::record::BRIDGE
    }

    /// Whether a network is meant by this text: its name, ID, or the beginning of that.
    pub fn is_on(&self, network: &Network) -> bool {
        self.network == network.record.id
    }
}

impl Wanted {
    /// Reads `EndpointSettings`. What a client hands back from an inspect (addresses as they were) is assigned anew.
    ///
    /// # Errors
    /// 400 for wrong values, 501 for what is not supported.
    pub fn read(settings: &Value) -> Result<Self> {
        let empty = Map::new();
        let settings = match settings {
            Value::Null => &empty,
            Value::Object(map) => map,
            _ => return Err(Error::bad("invalid endpoint settings: expected an object")),
        };
        let mut wanted = Wanted::default();
        for (field, value) in settings {
            match field.as_str() {
                "IPAMConfig" => wanted.read_addresses(value)?,
                "MacAddress" => {
                    let text = value.as_str().unwrap_or("");
                    wanted.mac = match text {
                        "" => None,
                        text => Some(mac_address(text)?),
                    };
                }
                "Aliases" => wanted.aliases = names(value, "Aliases")?,
                "Links" => wanted.links = names(value, "Links")?,
                "GwPriority" => wanted.priority = value.as_i64().unwrap_or(0),
                "DriverOpts" => {
                    if value.as_object().is_some_and(|map| !map.is_empty()) {
                        return Err(super::unsupported(
                            "--network driver-opt",
                            "a vNIC has no options",
                        ));
                    }
                }
                "NetworkID"
                | "EndpointID"
                | "Gateway"
                | "IPAddress"
                | "IPPrefixLen"
                | "IPv6Gateway"
                | "GlobalIPv6Address"
                | "GlobalIPv6PrefixLen"
                | "DNSNames" => {}
                other => return Err(super::unsupported(other, "no such option is known")),
            }
        }
        Ok(wanted)
    }

    fn read_addresses(&mut self, config: &Value) -> Result<()> {
        let address = |field: &str, six: bool| -> Result<Option<IpAddr>> {
            match config[field].as_str().unwrap_or("") {
                "" => Ok(None),
                text => text
                    .parse::<IpAddr>()
                    .ok()
                    .filter(|address| address.is_ipv6() == six)
                    .map(Some)
                    .ok_or_else(|| {
                        Error::bad(format!(
                            "invalid {} address: {text}",
                            if six { "IPv6" } else { "IPv4" }
                        ))
                    }),
            }
        };
        if config["LinkLocalIPs"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
        {
            return Err(super::unsupported("--link-local-ip", "leave it out"));
        }
        self.ipv4 = address("IPv4Address", false)?;
        self.ipv6 = address("IPv6Address", true)?;
        Ok(())
    }

    /// Refuses what the default network does not have, in Docker's words.
    ///
    /// # Errors
    /// 400.
    pub fn fits(
        &self,
        network: &super::record::NetworkRecord,
        subnet_was_named: bool,
    ) -> Result<()> {
        let fail = |what: &str| {
            Err(Error::bad(format!(
                "invalid config for network {}: invalid endpoint settings: {what}",
                network.name
            )))
        };
        if network.builtin() {
            if self.ipv4.is_some() || self.ipv6.is_some() {
                return fail(
                    "user specified IP address is supported on user defined networks only",
                );
            }
            if !self.aliases.is_empty() {
                return fail(
                    "network-scoped alias is supported only for containers in user defined networks",
                );
            }
        }
        let asks = self.ipv4.is_some() || self.ipv6.is_some();
        if asks && !network.builtin() && !subnet_was_named {
            return fail(
                "user specified IP address is supported only when connecting to networks with user configured subnets",
            );
        }
        if network.external.as_ref().is_some_and(|e| e.dynamic) && asks {
            return fail("its addresses are given out by a DHCP server");
        }
        if self.ipv6.is_some() && network.pool(true).is_none() {
            return fail("the network has no IPv6 subnet");
        }
        Ok(())
    }
}

fn names(value: &Value, field: &str) -> Result<Vec<String>> {
    if value.is_null() {
        return Ok(Vec::new());
    }
    let list: Vec<String> = serde_json::from_value(value.clone())
        .map_err(|_| Error::bad(format!("invalid {field}: expected a list of texts")))?;
    if list.len() > NAMES_MAX || list.iter().any(|name| name.len() > 255 || name.is_empty()) {
        return Err(Error::bad(format!(
            "invalid {field}: at most {NAMES_MAX} names of 1 to 255 bytes"
        )));
    }
    Ok(list)
}

/// Adds `HostConfig.Links` to the default network: `--link` of a container that names no network.
///
/// # Errors
/// 400 where it is no list of texts.
pub fn add_links(networks: &mut BTreeMap<String, Wanted>, links: &Value) -> Result<()> {
    let links = names(links, "Links")?;
    if let Some(wanted) = networks.get_mut(super::record::BRIDGE) {
        wanted.links.extend(links);
    }
    Ok(())
}

/// Checks a MAC address: vSphere takes hand-made ones from 00:50:56:00:00:00 to 00:50:56:3f:ff:ff only.
///
/// # Errors
/// 400 for any other.
pub fn mac_address(text: &str) -> Result<String> {
    let lower = text.to_ascii_lowercase().replace('-', ":");
    let bytes: Vec<u8> = lower
        .split(':')
        .filter(|part| part.len() == 2)
        .filter_map(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    match bytes.as_slice() {
        [0x00, 0x50, 0x56, 0..=0x3f, _, _] if lower.len() == 17 => Ok(lower),
        _ => Err(Error::bad(format!(
            "--mac-address {text}: vSphere takes 00:50:56:00:00:00 to 00:50:56:3f:ff:ff; choose one of these or leave it out"
        ))),
    }
}

/// Refuses a vNIC with the MAC address of another one of the same VM: its guest knows them by these.
///
/// # Errors
/// 409.
pub fn check_macs(places: &[Attachment]) -> Result<()> {
    for (at, place) in places.iter().enumerate() {
        if let Some(other) = places[..at].iter().find(|other| other.mac == place.mac) {
            return Err(Error::conflict(format!(
                "--mac-address {}: the vNIC on network {} has it already, and that on {} needs one of its own",
                place.mac, other.name, place.name
            )));
        }
    }
    Ok(())
}

/// The MAC address of a container without a chosen one: in vSphere's range, out of its ID of the connection, which is
/// random.
pub fn mac_of(endpoint: &str) -> String {
    let byte = |n: usize| {
        endpoint
            .get(2 * n..2 * n + 2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            .unwrap_or(0)
    };
    format!(
        "00:50:56:{:02x}:{:02x}:{:02x}",
        byte(0) & 0x3f,
        byte(1),
        byte(2)
    )
}

/// The networks of a `containers/create`: by name or ID, with what is wanted of each.
///
/// # Errors
/// 400 for what does not go together, 501 for modes that a VM cannot have.
pub fn read_networking(
    mode: &str,
    networking: &Value,
    mac: &str,
) -> Result<BTreeMap<String, Wanted>> {
    let mode = match mode {
        "" | "default" => super::record::BRIDGE,
        "host" => {
            return Err(super::unsupported(
                "--network host",
                "a container VM has a network stack of its own; use bridge, none or a network of your own",
            ));
        }
        other if other.starts_with("container:") => {
            return Err(super::unsupported(
                &format!("--network {other}"),
                "containers do not share a VM; put both on a network of your own",
            ));
        }
        other => other,
    };
    let mut out = BTreeMap::new();
    let endpoints = &networking["EndpointsConfig"];
    match endpoints {
        Value::Null => {}
        Value::Object(map) => {
            for (name, settings) in map {
                let name = match name.as_str() {
                    "default" => super::record::BRIDGE,
                    other => other,
                };
                out.insert(name.to_owned(), Wanted::read(settings)?);
            }
        }
        _ => {
            return Err(Error::bad(
                "invalid NetworkingConfig: EndpointsConfig must be an object",
            ));
        }
    }
    if out.is_empty() {
        out.insert(mode.to_owned(), Wanted::default());
    }
    let none = super::record::NONE;
    if mode == none || out.contains_key(none) {
        if let Some(other) = out.keys().find(|name| *name != none) {
            return Err(Error::bad(format!(
                "conflicting options: cannot attach both no network and network {other}"
            )));
        }
        return Ok(BTreeMap::new());
    }
    if out.len() > super::NICS_MAX {
        return Err(Error::bad(format!(
            "{} networks: a VM has at most {} vNICs",
            out.len(),
            super::NICS_MAX
        )));
    }
    // API before 1.44: one address, for the container as a whole.
    if !mac.is_empty()
        && let Some(wanted) = out.get_mut(mode)
        && wanted.mac.is_none()
    {
        wanted.mac = Some(mac_address(mac)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn networks_come_from_the_mode_or_the_settings() {
        let read = |mode: &str, value: Value| read_networking(mode, &value, "");
        assert_eq!(
            read("default", json!({}))
                .unwrap()
                .keys()
                .collect::<Vec<_>>(),
            ["bridge"]
        );
        assert!(read("none", json!({})).unwrap().is_empty());
        assert!(
            read("none", json!({"EndpointsConfig": {"none": {}}}))
                .unwrap()
                .is_empty()
        );
        let two = json!({"EndpointsConfig": {"a": {"Aliases": ["x"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}}, "b": null}});
        let both = read("a", two).unwrap();
        assert_eq!(
            (both.len(), both["a"].ipv4.unwrap().to_string()),
            (2, "10.0.0.9".to_owned())
        );
        for (mode, value, want) in [
            ("host", json!({}), "--network host"),
            ("container:x", json!({}), "--network container:x"),
            (
                "none",
                json!({"EndpointsConfig": {"a": {}}}),
                "cannot attach both",
            ),
            (
                "a",
                json!({"EndpointsConfig": {"a": {"IPAMConfig": {"IPv4Address": "fd00::1"}}}}),
                "invalid IPv4",
            ),
            (
                "a",
                json!({"EndpointsConfig": {"a": {"MacAddress": "02:00:00:00:00:01"}}}),
                "vSphere takes",
            ),
            (
                "a",
                json!({"EndpointsConfig": {"a": {"Unknown": 1}}}),
                "Unknown",
            ),
        ] {
            let error = read(mode, value).unwrap_err();
            assert!(error.message.contains(want), "{} / {want}", error.message);
        }
        let mac = read_networking("", &Value::Null, "00-50-56-00-00-07").unwrap();
        assert_eq!(mac["bridge"].mac.as_deref(), Some("00:50:56:00:00:07"));
    }

    #[test]
    fn two_vnics_of_a_vm_do_not_share_a_mac_address() {
        let place = |name: &str, mac: &str| -> Attachment {
            serde_json::from_value(json!({
                "network": name, "name": name, "port_group": "pg", "endpoint": "", "mac": mac, "places": [],
            }))
            .unwrap()
        };
        let (a, b) = ("00:50:56:00:00:01", "00:50:56:00:00:02");
        assert!(check_macs(&[place("x", a), place("y", b)]).is_ok());
        let error = check_macs(&[place("x", a), place("y", b), place("z", a)]).unwrap_err();
        assert!(error.message.contains("network x has it already"));
    }

    #[test]
    fn more_networks_than_a_vm_has_vnics_are_refused() {
        let networks = |count: usize| {
            let all = (0..count).map(|n| (format!("n{n}"), json!({})));
            let all: Map<String, Value> = all.collect();
            read_networking("n0", &json!({ "EndpointsConfig": all }), "")
        };
        assert_eq!(networks(10).unwrap().len(), 10);
        let error = networks(11).unwrap_err();
        assert_eq!(error.message, "11 networks: a VM has at most 10 vNICs");
    }

    #[test]
    fn a_mac_address_is_one_that_vsphere_takes() {
        for endpoint in ["ff".repeat(32), "00".repeat(32)] {
            assert_eq!(mac_address(&mac_of(&endpoint)).unwrap(), mac_of(&endpoint));
        }
    }
}
