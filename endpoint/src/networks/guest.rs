//! A container's places as its guest is told of them.

use super::attachment::Attachment;
use std::{cmp::Reverse, net::IpAddr};
use wire::config::{FROM_LEASE, Interface};

/// What a guest is told of its networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestNetwork {
    /// Its interfaces.
    pub interfaces: Vec<Interface>,
    /// Its name servers.
    pub dns: Vec<String>,
    /// Lines of /etc/hosts: address, names.
    pub hosts: Vec<(String, Vec<String>)>,
    /// What `host-gateway` is: the endpoint as the container's gateway.
    pub gateways: Vec<IpAddr>,
    /// Its packet filter.
    pub guards: Vec<String>,
}

/// The place whose network has the default route of a family: the highest priority, then the name, as Docker has it.
/// Networks that lead nowhere have none.
pub fn way_out(attachments: &[Attachment], ipv6: bool) -> Option<&Attachment> {
    attachments
        .iter()
        .filter(|a| !a.internal && (a.place(ipv6).is_some() || !ipv6 && a.dynamic()))
        .min_by_key(|a| (Reverse(a.wanted.priority), a.name.as_str()))
}

/// The interfaces of a guest.
pub fn interfaces(attachments: &[Attachment]) -> Vec<Interface> {
    let gateway = |attachment: &Attachment, ipv6: bool| {
        way_out(attachments, ipv6)
            .filter(|way| way.network == attachment.network)
            .and_then(|way| match way.dynamic() {
                true => (!ipv6).then(|| FROM_LEASE.to_owned()),
                false => way.place(ipv6).map(|place| place.gateway.to_string()),
            })
    };
    attachments
        .iter()
        .map(|attachment| Interface {
            mac: attachment.mac.clone(),
            name: format!("eth{}", attachment.interface),
            addresses: attachment
                .places
                .iter()
                .filter(|_| !attachment.dynamic())
                .map(super::attachment::Place::net)
                .collect(),
            gateways: [false, true]
                .into_iter()
                .filter_map(|ipv6| gateway(attachment, ipv6))
                .collect(),
            mtu: attachment.mtu,
        })
        .collect()
}

/// The name servers of a guest: the gateway of one of its own networks, which knows the names of its neighbours and
/// passes on the rest. On the default network, which has no names, those that the client gave go into the file.
/// Where the endpoint has no part in any of its networks, theirs are asked; none: DHCP's.
pub fn name_servers(attachments: &[Attachment], given: &[String]) -> Vec<String> {
    let own: Vec<Attachment> = attachments
        .iter()
        .filter(|a| a.external.is_none())
        .cloned()
        .collect();
    if own.is_empty() && given.is_empty() {
        return outside(attachments);
    }
    let attachments = own.as_slice();
    let named = attachments.iter().any(|a| !a.on_bridge());
    if attachments.is_empty() || !named && !given.is_empty() {
        return given.to_vec();
    }
    let candidates = || attachments.iter().filter(|a| !named || !a.on_bridge());
    let chosen = way_out(attachments, false)
        .filter(|way| !named || !way.on_bridge())
        .or_else(|| candidates().next());
    chosen
        .into_iter()
        .filter_map(|attachment| attachment.places.first())
        .map(|place| place.gateway.to_string())
        .collect()
}

/// The name servers of networks that are not the endpoint's: those that are named, or the router.
fn outside(attachments: &[Attachment]) -> Vec<String> {
    let named = attachments.iter().filter_map(|a| a.external.as_ref());
    let named: Vec<String> = named.flat_map(|e| &e.dns).map(IpAddr::to_string).collect();
    if !named.is_empty() {
        return named;
    }
    let way = way_out(attachments, false).or_else(|| way_out(attachments, true));
    way.filter(|way| !way.dynamic())
        .and_then(|way| way.places.first())
        .map(|place| place.gateway.to_string())
        .into_iter()
        .collect()
}

/// The endpoint's addresses as a container's gateway, IPv4 first: on the network with the default route of that kind,
/// else on any that is its own. What it publishes is reached there; on a user-mode network it is the machine itself.
pub fn own_gateways(attachments: &[Attachment]) -> Vec<IpAddr> {
    let gateway = |ipv6| {
        let own = |a: &&Attachment| a.external.is_none() && a.place(ipv6).is_some();
        way_out(attachments, ipv6)
            .filter(own)
            .or_else(|| attachments.iter().find(own))
            .and_then(|attachment| attachment.place(ipv6))
            .map(|place| place.gateway)
    };
    [false, true].into_iter().filter_map(gateway).collect()
}

/// The number of the next interface.
pub fn next_interface(attachments: &[Attachment]) -> u32 {
    (0..)
        .find(|number| attachments.iter().all(|a| a.interface != *number))
        .unwrap_or(0)
}

/// Where a container's published ports lead to: its addresses on the network with its default route of that kind; none
/// where that way out is not the endpoint's, by which the answers would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Targets {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

impl Targets {
    /// Of a container with these places; `None`: it has no such address.
    pub fn of(attachments: &[Attachment]) -> Option<Self> {
        let address = |ipv6| {
            let own = |a: &&Attachment| a.external.is_none() && a.place(ipv6).is_some();
            way_out(attachments, ipv6)
                .or_else(|| attachments.iter().find(own))
                .filter(|way| way.external.is_none())
                .and_then(|attachment| attachment.place(ipv6))
                .map(|place| place.address)
        };
        let (v4, v6) = (address(false), address(true));
        (v4.is_some() || v6.is_some()).then_some(Self { v4, v6 })
    }

    /// The one for a port at this address of the host: of the same kind, else of the other, where somebody carries
    /// between both.
    pub fn for_host(self, host: IpAddr, between_kinds: bool) -> Option<IpAddr> {
        let (same, other) = if host.is_ipv4() {
            (self.v4, self.v6)
        } else {
            (self.v6, self.v4)
        };
        same.or(other.filter(|_| between_kinds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::attachment::{Place, Wanted};

    fn on(name: &str, address: &str, priority: i64, internal: bool, interface: u32) -> Attachment {
        let address: IpAddr = address.parse().unwrap();
        let gateway = match address {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                IpAddr::from([a, b, c, 1])
            }
            other => other,
        };
        Attachment {
            network: name.repeat(2),
            name: name.to_owned(),
            port_group: "pg".to_owned(),
            endpoint: "ab".repeat(32),
            mac: "00:50:56:00:00:01".to_owned(),
            places: vec![Place {
                address,
                prefix: 24,
                gateway,
            }],
            mtu: 0,
            internal,
            external: None,
            interface,
            wanted: Wanted {
                priority,
                ..Wanted::default()
            },
        }
    }

    #[test]
    fn one_network_has_the_default_route_and_the_name_server() {
        let places = [
            on("bridge", "172.17.0.2", 0, false, 0),
            on("back", "10.0.1.2", 0, true, 1),
            on("front", "10.0.2.2", 0, false, 2),
        ];
        let interfaces = interfaces(&places);
        let gateways: Vec<usize> = interfaces.iter().map(|i| i.gateways.len()).collect();
        assert_eq!(gateways, [1, 0, 0]);
        // The default network has the way out by its name, but no names.
        assert_eq!(name_servers(&places, &["9.9.9.9".to_owned()]), ["10.0.1.1"]);
        let only = [on("bridge", "172.17.0.2", 0, false, 0)];
        assert_eq!(name_servers(&only, &[]), ["172.17.0.1"]);
        assert_eq!(name_servers(&only, &["9.9.9.9".to_owned()]), ["9.9.9.9"]);
        assert!(name_servers(&[], &[]).is_empty());
        let priority = [
            on("a", "10.0.1.2", 0, false, 0),
            on("b", "10.0.2.2", 5, false, 1),
        ];
        assert_eq!(way_out(&priority, false).unwrap().name, "b");
        assert_eq!(
            Targets::of(&priority).unwrap().v4.unwrap().to_string(),
            "10.0.2.2"
        );
    }

    #[test]
    fn interfaces_keep_their_numbers() {
        let places = [
            on("a", "10.0.1.2", 0, false, 0),
            on("b", "10.0.2.2", 0, false, 2),
        ];
        assert_eq!(next_interface(&places), 1);
        assert_eq!(interfaces(&places)[1].name, "eth2");
    }
}
