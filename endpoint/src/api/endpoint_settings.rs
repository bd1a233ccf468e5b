//! A container's places on networks, as `inspect` and a row of `ps` show them.

use super::version::ApiVersion;
use crate::{
    containers::{Container, names::SHORT_ID, places::dns_names, state::Status},
    networks::{
        attachment::Attachment,
        record::{BRIDGE, NONE, builtin_id},
    },
};
use serde::Serialize;
use std::{collections::BTreeMap, net::IpAddr};

/// Docker's `EndpointSettings` (Engine API 1.50). Addresses show while the container runs. The default is a place that
/// is none.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct EndpointSettings<'a> {
    #[serde(rename = "IPAMConfig")]
    asked: Option<Asked>,
    links: Option<&'a [String]>,
    aliases: Option<Vec<&'a str>>,
    pub(super) mac_address: &'a str,
    driver_opts: Option<()>,
    gw_priority: i64,
    #[serde(rename = "NetworkID")]
    network_id: String,
    #[serde(rename = "EndpointID")]
    pub(super) endpoint_id: &'a str,
    pub(super) gateway: Address,
    #[serde(rename = "IPAddress")]
    pub(super) ip_address: Address,
    #[serde(rename = "IPPrefixLen")]
    pub(super) ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    pub(super) ipv6_gateway: Address,
    #[serde(rename = "GlobalIPv6Address")]
    pub(super) global_ipv6_address: Address,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub(super) global_ipv6_prefix_len: u8,
    #[serde(rename = "DNSNames")]
    dns_names: Option<Vec<String>>,
}

/// An address, or an empty text.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Address(Option<IpAddr>);

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(address) => to.collect_str(address),
            None => to.serialize_str(""),
        }
    }
}

/// The addresses that were asked for.
#[derive(Debug, Serialize)]
struct Asked {
    #[serde(rename = "IPv4Address", skip_serializing_if = "Option::is_none")]
    ipv4: Option<IpAddr>,
    #[serde(rename = "IPv6Address", skip_serializing_if = "Option::is_none")]
    ipv6: Option<IpAddr>,
}

/// All places by the name of their network; one that was made without is on `none`.
pub(super) fn endpoints<'a>(
    container: &'a Container,
    status: &'a Status,
    version: ApiVersion,
) -> BTreeMap<&'a str, EndpointSettings<'a>> {
    if status.networks.is_empty() && container.spec.networks.is_empty() {
        let none = EndpointSettings {
            network_id: builtin_id(NONE),
            ..Default::default()
        };
        return BTreeMap::from([(NONE, none)]);
    }
    let places = status.networks.iter();
    places
        .map(|place| {
            let shown = endpoint(container, status, place, version);
            (place.name.as_str(), shown)
        })
        .collect()
}

fn endpoint<'a>(
    container: &'a Container,
    status: &Status,
    place: &'a Attachment,
    version: ApiVersion,
) -> EndpointSettings<'a> {
    let live = Some(place).filter(|_| status.running());
    let place_of = |ipv6: bool| live.and_then(|place| place.place(ipv6));
    let address = |ipv6: bool| Address(place_of(ipv6).map(|p| p.address));
    let gateway = |ipv6: bool| {
        let place = place_of(ipv6).filter(|p| !place.internal && !p.gateway.is_unspecified());
        Address(place.map(|p| p.gateway))
    };
    let prefix = |ipv6: bool| place_of(ipv6).map_or(0, |p| p.prefix);
    let wanted = &place.wanted;
    let mut aliases: Vec<&str> = wanted.aliases.iter().map(String::as_str).collect();
    if version < ApiVersion(1, 45) && place.name != BRIDGE {
        // Later versions have it among the DNS names alone.
        aliases.push(&container.id()[..SHORT_ID]);
    }
    EndpointSettings {
        asked: (wanted.ipv4.is_some() || wanted.ipv6.is_some()).then_some(Asked {
            ipv4: wanted.ipv4,
            ipv6: wanted.ipv6,
        }),
        links: Some(wanted.links.as_slice()).filter(|links| !links.is_empty()),
        aliases: Some(aliases).filter(|aliases| !aliases.is_empty()),
        mac_address: live.map_or("", |p| &p.mac),
        driver_opts: None,
        gw_priority: wanted.priority,
        network_id: place.network.clone(),
        endpoint_id: live.map_or("", |p| &p.endpoint),
        gateway: gateway(false),
        ip_address: address(false),
        ip_prefix_len: prefix(false),
        ipv6_gateway: gateway(true),
        global_ipv6_address: address(true),
        global_ipv6_prefix_len: prefix(true),
        dns_names: Some(dns_names(container, status, place)).filter(|names| !names.is_empty()),
    }
}
