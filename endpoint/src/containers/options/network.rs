//! The network's options: mode, name servers, hosts, addresses.

use super::fields::Fields;
use super::{is_default, refused};
use crate::errors::{Error, Result};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};

/// Whether the mode is `none`.
pub(super) fn is_none(fields: &Fields<'_>) -> Result<bool> {
    match fields.text("NetworkMode")? {
        "" | "default" | "bridge" => Ok(false),
        "none" => Ok(true),
        "host" => Err(refused(
            "--network host",
            "a container VM has a network stack of its own; use bridge or none",
        )),
        other if other.starts_with("container:") => Err(refused(
            &format!("--network {other}"),
            "containers do not share a VM; use bridge or none",
        )),
        other => Err(Error::not_found(format!("network {other} not found"))),
    }
}

/// Name servers.
pub(super) fn name_servers(fields: &Fields<'_>) -> Result<Vec<String>> {
    let list = fields.list("Dns")?;
    for address in &list {
        if address.parse::<IpAddr>().is_err() {
            return Err(Error::bad(format!(
                "invalid IP address in --dns: {address}"
            )));
        }
    }
    Ok(list)
}

/// Lines of /etc/hosts: address, name.
pub(super) fn extra_hosts(fields: &Fields<'_>) -> Result<Vec<(String, String)>> {
    fields
        .list("ExtraHosts")?
        .into_iter()
        .map(|entry| {
            let (name, address) = entry
                .split_once([':', '='])
                .ok_or_else(|| Error::bad(format!("bad format for add-host: {entry:?}")))?;
            if address == "host-gateway" {
                return Err(refused(
                    "--add-host …:host-gateway",
                    "give the address itself",
                ));
            }
            let bare = address.trim_start_matches('[').trim_end_matches(']');
            if name.is_empty() || bare.parse::<IpAddr>().is_err() {
                return Err(Error::bad(format!(
                    "invalid IP address in add-host: {address:?}"
                )));
            }
            Ok((bare.to_owned(), name.to_owned()))
        })
        .collect()
}

/// Checks `NetworkingConfig`; the mode was checked with the `HostConfig`. Gives the MAC address
/// that was asked for.
///
/// # Errors
/// 400 for what Docker refuses on the default network too, 501 for what is not supported yet.
pub fn check_networking(networking: &Value, no_network: bool) -> Result<Option<String>> {
    let Some(endpoints) = networking.get("EndpointsConfig").filter(|e| !e.is_null()) else {
        return Ok(None);
    };
    let endpoints = endpoints
        .as_object()
        .ok_or_else(|| Error::bad("invalid NetworkingConfig: EndpointsConfig must be an object"))?;
    let mut mac = None;
    for (network, settings) in endpoints {
        let fits = match network.as_str() {
            "default" | "bridge" => !no_network,
            "none" => no_network,
            _ => return Err(Error::not_found(format!("network {network} not found"))),
        };
        if !fits {
            return Err(Error::bad(format!(
                "conflicting options: cannot attach both no network and network {network}"
            )));
        }
        let Some(settings) = settings.as_object() else {
            continue;
        };
        for (field, value) in settings.iter().filter(|(_, value)| !is_default(value)) {
            match field.as_str() {
                "MacAddress" => mac = Some(mac_address(value.as_str().unwrap_or(""))?),
                "IPAMConfig" => {
                    return Err(Error::bad(
                        "invalid config for network bridge: invalid endpoint settings: user specified IP address is supported on user defined networks only",
                    ));
                }
                "Aliases" => {
                    return Err(Error::bad(
                        "invalid config for network bridge: invalid endpoint settings: network-scoped alias is supported only for containers in user defined networks",
                    ));
                }
                "Links" => return Err(refused("--link", "links come with networks")),
                "DriverOpts" => return Err(refused("--network driver-opt", "leave it out")),
                "GwPriority" => return Err(refused("--network gw-priority", "leave it out")),
                // State that a client may hand back from an inspect: it is assigned anew.
                "NetworkID"
                | "EndpointID"
                | "Gateway"
                | "IPAddress"
                | "IPPrefixLen"
                | "IPv6Gateway"
                | "GlobalIPv6Address"
                | "GlobalIPv6PrefixLen"
                | "DNSNames" => {}
                other => return Err(refused(other, "no such option is known")),
            }
        }
    }
    Ok(mac)
}

/// Checks a MAC address: vSphere takes hand-made ones from 00:50:56:00:00:00 to
/// 00:50:56:3f:ff:ff only.
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

/// The MAC address of a container without a chosen one: from its address, as Docker does, but in
/// vSphere's range. One /16 gives each address its own.
pub fn mac_of(address: Ipv4Addr) -> String {
    let [_, b, c, d] = address.octets();
    format!("00:50:56:{:02x}:{c:02x}:{d:02x}", b & 0x3f)
}
