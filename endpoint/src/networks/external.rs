//! Container networks: port groups with a router and an address plan of their own, which an administrator offers to
//! containers as they are. The endpoint has no part in their traffic; what a container may send and receive there, its
//! guest enforces (docs/decisions/0021-container-networks.md).

use super::{
    attachment::Attachment,
    publish::PortRequest,
    record::{BRIDGE, NONE, NetworkRecord, Pool, builtin_id},
    request::MTU,
    router::Protocol,
};
use crate::{
    errors::{Error, Result},
    timestamps,
};
use clap::Args;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};
use wire::config::Guard;

/// Name of the driver of these networks.
pub const DRIVER: &str = "external";
/// Capabilities that get past the guest's packet filter.
const PAST_THE_FILTER: [&str; 2] = ["CAP_NET_ADMIN", "CAP_NET_RAW"];

/// Port groups that are offered as networks. All options but the first name one of those, by its port group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ContainerNetworks {
    /// Port group with a router of its own that containers may use as a network, and the network's name. Default of the
    /// name: the port group's. Repeatable.
    #[arg(long, value_name = "PORTGROUP[:NAME]")]
    pub container_network: Vec<String>,
    /// Address of that router, with the length of the subnet's prefix. Repeatable, also for IPv6.
    #[arg(long, value_name = "PORTGROUP:ADDRESS/PREFIX")]
    pub container_network_gateway: Vec<String>,
    /// Addresses that containers are given, as SUBNET/PREFIX or FIRST-LAST. Without: by DHCP. Repeatable, also for IPv6.
    #[arg(long, value_name = "PORTGROUP:RANGE")]
    pub container_network_ip_range: Vec<String>,
    /// Name server of that network. Default: DHCP's, or the router. Repeatable.
    #[arg(long, value_name = "PORTGROUP:ADDRESS")]
    pub container_network_dns: Vec<String>,
    /// How far containers trust it: open, closed, outbound, peers or published (default).
    #[arg(long, value_name = "PORTGROUP:LEVEL")]
    pub container_network_firewall: Vec<String>,
    /// Bytes of its largest packets. Default: the driver's, or DHCP's.
    #[arg(long, value_name = "PORTGROUP:BYTES")]
    pub container_network_mtu: Vec<String>,
}

/// How far a container trusts a network. Connections out are always let out with what belongs to them, but by `Closed`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustLevel {
    /// Everything passes.
    Open,
    /// Nothing passes.
    Closed,
    /// Nothing comes in.
    Outbound,
    /// In come pings and whatever is sent from the network's own addresses.
    Peers,
    /// In come pings and what is sent to published ports.
    #[default]
    Published,
}

/// What is particular to a network that is not the endpoint's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// How far its members trust it.
    pub level: TrustLevel,
    /// Its own addresses, from and to.
    pub peers: Vec<(IpAddr, IpAddr)>,
    /// Its name servers.
    pub dns: Vec<IpAddr>,
    /// Its members get their addresses by DHCP.
    pub dynamic: bool,
}

impl ContainerNetworks {
    /// The port groups.
    pub fn port_groups(&self) -> impl Iterator<Item = &str> {
        let port_group = |text: &'_ String| text.find(':').unwrap_or(text.len());
        let texts = self.container_network.iter();
        texts.map(move |text| &text[..port_group(text)])
    }

    /// The networks.
    ///
    /// # Errors
    /// Text that names the option and what is wrong.
    pub fn read(&self) -> std::result::Result<Vec<NetworkRecord>, String> {
        let mut out: Vec<NetworkRecord> = Vec::new();
        for text in &self.container_network {
            let (port_group, name) = text.split_once(':').unwrap_or((text, text));
            let wrong = |why: &str| format!("--container-network {text}: {why}");
            let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            if port_group.is_empty() || name.is_empty() || !name.bytes().all(good) {
                return Err(wrong(
                    "expected PORTGROUP:NAME, with a name of letters, digits, '-', '_' and '.'",
                ));
            }
            if [BRIDGE, NONE, "host", "default"].contains(&name) {
                return Err(wrong("this name is another network's; choose one"));
            }
            if out
                .iter()
                .any(|n| n.name == name || n.port_group == port_group)
            {
                return Err(wrong("it is there already"));
            }
            out.push(self.record(port_group, name)?);
        }
        let options = [
            ("gateway", &self.container_network_gateway),
            ("ip-range", &self.container_network_ip_range),
            ("dns", &self.container_network_dns),
            ("firewall", &self.container_network_firewall),
            ("mtu", &self.container_network_mtu),
        ];
        for (option, values) in options {
            for text in values {
                let port_group = text.split_once(':').map(|(port_group, _)| port_group);
                if !out.iter().any(|n| Some(&*n.port_group) == port_group) {
                    return Err(format!(
                        "--container-network-{option} {text}: expected PORTGROUP:VALUE with the port group of a --container-network"
                    ));
                }
            }
        }
        Ok(out)
    }

    fn record(&self, port_group: &str, name: &str) -> std::result::Result<NetworkRecord, String> {
        let mut ranges = values(
            "ip-range",
            &self.container_network_ip_range,
            port_group,
            range,
        )?;
        let mut pools = Vec::new();
        for (subnet, gateway) in values(
            "gateway",
            &self.container_network_gateway,
            port_group,
            gateway,
        )? {
            let within = |r: &(IpAddr, IpAddr)| subnet.contains(&r.0) && subnet.contains(&r.1);
            let Some(at) = ranges.iter().position(within) else {
                return Err(format!(
                    "--container-network-gateway {port_group}:{gateway}: no --container-network-ip-range of {subnet} says which addresses containers may have; name one, or leave the gateway to DHCP"
                ));
            };
            let six = |pool: &Pool| pool.subnet.addr().is_ipv6();
            let pool = Pool {
                subnet,
                range: None,
                between: Some(ranges.remove(at)),
                gateway,
                auxiliary: BTreeMap::new(),
            };
            if pools.iter().any(|other| six(other) == six(&pool)) {
                return Err(format!(
                    "--container-network-gateway {port_group}:{gateway}: a network has one gateway of each family"
                ));
            }
            pools.push(pool);
        }
        pools.sort_by_key(|pool| pool.subnet.addr().is_ipv6());
        if let Some((first, last)) = ranges.first() {
            return Err(format!(
                "--container-network-ip-range {port_group}:{first}-{last}: it takes a --container-network-gateway whose subnet it is in"
            ));
        }
        let levels = values(
            "firewall",
            &self.container_network_firewall,
            port_group,
            level,
        )?;
        let level = levels.last().copied().unwrap_or_default();
        let peers: Vec<_> = pools.iter().filter_map(|pool| pool.between).collect();
        if level == TrustLevel::Peers && peers.is_empty() {
            return Err(format!(
                "--container-network-firewall {port_group}:peers: whose addresses are trusted, --container-network-ip-range says"
            ));
        }
        let mut options = BTreeMap::from([
            ("mooring.port-group".to_owned(), port_group.to_owned()),
            ("mooring.firewall".to_owned(), word(level).to_owned()),
        ]);
        if let Some(mtu) = values("mtu", &self.container_network_mtu, port_group, mtu)?.last() {
            options.insert(MTU.to_owned(), mtu.to_string());
        }
        let dns = values("dns", &self.container_network_dns, port_group, |text| {
            text.parse::<IpAddr>()
                .map_err(|_| "expected an address".to_owned())
        })?;
        let ranges: Vec<String> = peers
            .iter()
            .map(|(first, last)| format!("{first}-{last}"))
            .collect();
        if !ranges.is_empty() {
            options.insert("mooring.ip-range".to_owned(), ranges.join(","));
        }
        if !dns.is_empty() {
            let list: Vec<String> = dns.iter().map(ToString::to_string).collect();
            options.insert("mooring.dns".to_owned(), list.join(","));
        }
        Ok(NetworkRecord {
            id: builtin_id(&format!("external {name}")),
            name: name.to_owned(),
            created: timestamps::now(),
            // Nothing passes, so nothing is to be sent there.
            internal: level == TrustLevel::Closed,
            attachable: false,
            ipv6: pools.iter().any(|pool| pool.subnet.addr().is_ipv6()),
            external: Some(External {
                level,
                peers,
                dns,
                dynamic: pools.is_empty(),
            }),
            pools,
            labels: BTreeMap::new(),
            options,
            port_group: port_group.to_owned(),
            vlan: 0,
        })
    }
}

/// The values of an option for a port group.
fn values<T>(
    option: &str,
    texts: &[String],
    port_group: &str,
    read: impl Fn(&str) -> std::result::Result<T, String>,
) -> std::result::Result<Vec<T>, String> {
    texts
        .iter()
        .filter_map(|text| {
            let (own, value) = text.split_once(':')?;
            (own == port_group).then(|| {
                read(value).map_err(|why| format!("--container-network-{option} {text}: {why}"))
            })
        })
        .collect()
}

fn gateway(text: &str) -> std::result::Result<(IpNet, IpAddr), String> {
    let net: IpNet = text
        .parse()
        .map_err(|_| "expected ADDRESS/PREFIX, as in 10.1.0.1/16".to_owned())?;
    let widest = if net.addr().is_ipv6() { 126 } else { 30 };
    let subnet = net.trunc();
    if !(8..=widest).contains(&net.prefix_len()) || net.addr() == subnet.addr() {
        return Err(format!(
            "expected a router's address with a prefix length of 8 to {widest}"
        ));
    }
    Ok((subnet, net.addr()))
}

fn range(text: &str) -> std::result::Result<(IpAddr, IpAddr), String> {
    let wrong = || "expected SUBNET/PREFIX or FIRST-LAST".to_owned();
    if let Ok(net) = text.parse::<IpNet>() {
        return Ok((net.network(), net.broadcast()));
    }
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let (first, last): (IpAddr, IpAddr) = (
        first.parse().map_err(|_| wrong())?,
        last.parse().map_err(|_| wrong())?,
    );
    if first.is_ipv6() != last.is_ipv6() || first > last {
        return Err(wrong());
    }
    Ok((first, last))
}

fn level(text: &str) -> std::result::Result<TrustLevel, String> {
    let all = [
        TrustLevel::Open,
        TrustLevel::Closed,
        TrustLevel::Outbound,
        TrustLevel::Peers,
        TrustLevel::Published,
    ];
    all.into_iter()
        .find(|level| word(*level) == text)
        .ok_or_else(|| "expected open, closed, outbound, peers or published".to_owned())
}

fn word(level: TrustLevel) -> &'static str {
    match level {
        TrustLevel::Open => "open",
        TrustLevel::Closed => "closed",
        TrustLevel::Outbound => "outbound",
        TrustLevel::Peers => "peers",
        TrustLevel::Published => "published",
    }
}

fn mtu(text: &str) -> std::result::Result<u32, String> {
    text.parse()
        .ok()
        .filter(|mtu| (1280..=9000).contains(mtu))
        .ok_or_else(|| "expected 1280 to 9000".to_owned())
}

impl Attachment {
    /// Whether its address comes from a DHCP server.
    pub fn dynamic(&self) -> bool {
        self.external.as_ref().is_some_and(|e| e.dynamic)
    }

    fn level(&self) -> TrustLevel {
        self.external.as_ref().map_or(TrustLevel::Open, |e| e.level)
    }

    /// Whether its guest keeps anything from passing.
    pub fn guarded(&self) -> bool {
        self.level() != TrustLevel::Open
    }

    /// Whether published ports are reached at its own address.
    pub fn publishes(&self) -> bool {
        let levels = [TrustLevel::Open, TrustLevel::Peers, TrustLevel::Published];
        self.external.is_some() && levels.contains(&self.level())
    }
}

/// What a guest's packet filter lets through; none where nothing is to be kept out.
pub fn guards(attachments: &[Attachment], ports: &[PortRequest]) -> Vec<String> {
    if !attachments.iter().any(Attachment::guarded) {
        return Vec::new();
    }
    let mut ports: Vec<(u8, u16)> = ports
        .iter()
        .filter(|request| request.everywhere())
        .map(|request| (number(request.protocol), request.port))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    attachments
        .iter()
        .map(|attachment| {
            let external = attachment.external.as_ref();
            let level = attachment.level();
            let peers = external.filter(|_| level == TrustLevel::Peers);
            let guard = Guard {
                interface: format!("eth{}", attachment.interface),
                passes: match level {
                    TrustLevel::Open => Guard::ALL,
                    TrustLevel::Closed => 0,
                    TrustLevel::Outbound => Guard::OUT,
                    TrustLevel::Peers | TrustLevel::Published => Guard::OUT | Guard::PING,
                },
                peers: peers.map_or_else(Vec::new, |e| e.peers.clone()),
                ports: match level {
                    TrustLevel::Published => ports.clone(),
                    _ => Vec::new(),
                },
            };
            guard.line()
        })
        .collect()
}

/// IP's number of a protocol.
fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// Refuses a container that could lift its own packet filter.
///
/// # Errors
/// 400.
pub fn check_capabilities(added: &[String], attachments: &[Attachment]) -> Result<()> {
    let Some(place) = attachments.iter().find(|place| place.guarded()) else {
        return Ok(());
    };
    match added
        .iter()
        .find(|name| PAST_THE_FILTER.contains(&name.as_str()))
    {
        None => Ok(()),
        Some(name) => Err(Error::bad(format!(
            "--cap-add {}: with it the container could lift the packet filter of network {} (trust level {}); leave it out, or use a network that is open",
            name.trim_start_matches("CAP_"),
            place.name,
            word(place.level())
        ))),
    }
}

/// Refuses a network with a packet filter for a process that has packet sockets already.
///
/// # Errors
/// 409.
pub fn check_running(
    name: &str,
    dropped: &[String],
    had: &[Attachment],
    new: &Attachment,
) -> Result<()> {
    let without = |list: &[String]| {
        list.iter()
            .any(|c| matches!(c.as_str(), "ALL" | "CAP_ALL" | "CAP_NET_RAW"))
    };
    if !new.guarded() || had.iter().any(Attachment::guarded) || without(dropped) {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "container {name} runs with the capability NET_RAW, which gets past the packet filter of network {} (trust level {}): stop it before it is connected, or create it with --cap-drop NET_RAW",
        new.name,
        word(new.level())
    )))
}

/// Refuses ports that cannot be published where the container is: its own address has its own ports, and no address of
/// the host.
///
/// # Errors
/// 500 in the manner of Docker's, which tells so at the start.
pub fn check_ports(name: &str, requests: &[PortRequest]) -> Result<()> {
    let refuse = |what: String| {
        Err(Error::internal(format!(
            "driver failed programming external connectivity on endpoint {name}: all of its networks are external, where a port is reached at the container's own address: {what}"
        )))
    };
    for request in requests {
        let (first, last) = request.range;
        if request.range != (0, 0) && !(first..=last).contains(&request.port) {
            return refuse(format!(
                "publish {0}:{0} in place of {1}:{0}",
                request.port, first
            ));
        }
        if let Some(host) = request.host.filter(|_| !request.everywhere()) {
            return refuse(format!("leave the address {host} out"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[(&str, &str)]) -> ContainerNetworks {
        let all = |option: &str| {
            let own = list.iter().filter(|(name, _)| *name == option);
            own.map(|(_, value)| (*value).to_owned()).collect()
        };
        ContainerNetworks {
            container_network: all("network"),
            container_network_gateway: all("gateway"),
            container_network_ip_range: all("range"),
            container_network_dns: all("dns"),
            container_network_firewall: all("firewall"),
            container_network_mtu: all("mtu"),
        }
    }

    #[test]
    fn a_whole_network_and_one_by_dhcp_are_read() {
        let records = options(&[
            ("network", "VM Net:lab"),
            ("network", "dhcp-net"),
            ("gateway", "VM Net:fd00:1::1/64"),
            ("gateway", "VM Net:10.1.0.1/16"),
            ("range", "VM Net:10.1.5.10-10.1.5.20"),
            ("range", "VM Net:fd00:1::1:0/112"),
            ("dns", "VM Net:10.1.0.53"),
            ("firewall", "VM Net:peers"),
            ("mtu", "VM Net:1400"),
        ])
        .read()
        .unwrap();
        let lab = &records[0];
        assert_eq!(
            (lab.name.as_str(), lab.port_group.as_str()),
            ("lab", "VM Net")
        );
        assert_eq!(lab.pools[0].subnet.to_string(), "10.1.0.0/16");
        assert_eq!(lab.pools[1].gateway.to_string(), "fd00:1::1");
        let external = lab.external.as_ref().unwrap();
        assert_eq!(
            (external.level, external.dynamic),
            (TrustLevel::Peers, false)
        );
        assert_eq!(external.peers.len(), 2);
        assert_eq!(lab.options[MTU], "1400");
        let dhcp = &records[1];
        let external = dhcp.external.as_ref().unwrap();
        assert_eq!(
            (external.level, external.dynamic),
            (TrustLevel::Published, true)
        );
        assert_ne!(lab.id, dhcp.id);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (list, want) in [
            (&[("network", ":x")][..], "PORTGROUP:NAME"),
            (&[("network", "pg:bridge")], "another network's"),
            (&[("network", "pg:a"), ("network", "pg:b")], "there already"),
            (&[("gateway", "pg:10.0.0.1/24")], "of a --container-network"),
            (
                &[("network", "pg:a"), ("gateway", "pg:10.0.0.1/24")],
                "ip-range",
            ),
            (
                &[("network", "pg:a"), ("range", "pg:10.0.0.0/24")],
                "gateway",
            ),
            (
                &[("network", "pg:a"), ("range", "pg:10.0.0.9-10.0.0.1")],
                "FIRST-LAST",
            ),
            (
                &[("network", "pg:a"), ("gateway", "pg:10.0.0.0/24")],
                "router's address",
            ),
            (
                &[("network", "pg:a"), ("firewall", "pg:wide")],
                "open, closed",
            ),
            (
                &[("network", "pg:a"), ("firewall", "pg:peers")],
                "ip-range says",
            ),
            (&[("network", "pg:a"), ("dns", "pg:x")], "an address"),
            (&[("network", "pg:a"), ("mtu", "pg:1")], "1280"),
        ] {
            let error = options(list).read().unwrap_err();
            assert!(error.contains(want), "{list:?}: {error}");
        }
    }

    #[test]
    fn a_port_on_external_networks_alone_keeps_its_number_and_names_no_address() {
        let request = |port, range| PortRequest {
            protocol: Protocol::Tcp,
            port,
            host: None,
            range,
        };
        let local = PortRequest {
            host: Some("127.0.0.1".parse().unwrap()),
            ..request(80, (80, 80))
        };
        // Open to the network, it would be more than was asked for.
        let error = check_ports("c", std::slice::from_ref(&local)).unwrap_err();
        assert!(error.message.contains("leave the address 127.0.0.1 out"));
        let everywhere = request(443, (0, 0));
        let external = External {
            level: TrustLevel::Published,
            ..External::default()
        };
        let place: Attachment = serde_json::from_value(serde_json::json!({
            "network": "n", "name": "n", "port_group": "pg", "endpoint": "", "mac": "", "places": [],
            "external": external,
        }))
        .unwrap();
        let guard = Guard::read(&guards(&[place], &[local, everywhere])[0]).unwrap();
        assert_eq!(guard.ports, [(6, 443)]);
        assert!(check_ports("c", &[request(80, (0, 0)), request(80, (80, 80))]).is_ok());
        let error = check_ports("c", &[request(80, (8080, 8080))]).unwrap_err();
        assert!(error.message.contains("publish 80:80 in place of 8080:80"));
    }
}
