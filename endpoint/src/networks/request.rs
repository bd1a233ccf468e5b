//! What a client asks for with `docker network create`, checked in Docker's words.

use super::{
    addresses::first_host,
    record::{BRIDGE, NONE, Pool},
};
use crate::api::off::NO_MANAGER;
use crate::errors::{Error, Kind, Result};
use crate::texts;
use ipnet::IpNet;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, net::IpAddr};

/// Longest name of a network, in bytes.
const NAME_MAX: usize = 255;
/// Driver options that mean something here.
const OPTIONS: &[&str] = &[
    MTU,
    MASQUERADE,
    HOST_ADDRESS,
    "com.docker.network.bridge.name",
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.enable_ipv4",
    "com.docker.network.enable_ipv6",
];
/// The option that sets the MTU of the members' interfaces, in bytes.
pub const MTU: &str = "com.docker.network.driver.mtu";
/// The option that turns address translation towards the outside off.
pub const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
/// The option with the host address of published ports that name none.
pub const HOST_ADDRESS: &str = "com.docker.network.bridge.host_binding_ipv4";

/// A request that has passed every check that needs no other network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkRequest {
    /// Its name.
    pub name: String,
    /// No way out.
    pub internal: bool,
    /// Means nothing outside of a swarm.
    pub attachable: bool,
    /// An IPv6 subnet is wanted.
    pub ipv6: bool,
    /// The subnets that were named.
    pub pools: Vec<Pool>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `--opt`.
    pub options: BTreeMap<String, String>,
}

impl NetworkRequest {
    /// Reads the body of `POST /networks/create`.
    ///
    /// # Errors
    /// 400 for wrong values, 403 for names that are taken by Docker itself, 404 for a driver that there is not,
    /// 501 for what is not supported.
    pub fn read(body: &Value) -> Result<Self> {
        let body = body
            .as_object()
            .ok_or_else(|| Error::bad("invalid JSON: expected an object"))?;
        let name = text(body, "Name")?.to_owned();
        check_name(&name)?;
        check_driver(text(body, "Driver")?)?;
        for (field, option) in [
            ("Ingress", "--ingress"),
            ("ConfigOnly", "--config-only"),
            ("ConfigFrom", "--config-from"),
        ] {
            if body.get(field).is_some_and(|value| !is_default(value)) {
                return Err(not_supported(option, "it belongs to a swarm"));
            }
        }
        if text(body, "Scope")? == "swarm" {
            return Err(Error::new(
                Kind::Forbidden,
                "cannot create a swarm scoped network when swarm is not active",
            ));
        }
        if !matches!(text(body, "Scope")?, "" | "local") {
            return Err(not_supported("--scope", "networks are of this host alone"));
        }
        if body.get("EnableIPv4") == Some(&Value::Bool(false)) {
            return Err(not_supported("--ipv4=false", "each network has IPv4"));
        }
        let options = texts(body, "Options")?;
        check_options(&options)?;
        let pools = pools(body)?;
        Ok(Self {
            name,
            internal: flag(body, "Internal"),
            attachable: flag(body, "Attachable"),
            ipv6: flag(body, "EnableIPv6") || pools.iter().any(|p| p.subnet.addr().is_ipv6()),
            pools,
            labels: texts(body, "Labels")?,
            options,
        })
    }
}

fn not_supported(option: &str, why: &str) -> Error {
    Error::new(
        Kind::NotImplemented,
        format!("{option} is not supported by Mooring: {why}"),
    )
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.values().all(is_default),
        _ => false,
    }
}

fn text<'a>(body: &'a Map<String, Value>, field: &str) -> Result<&'a str> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Error::bad(format!("invalid {field}: expected a text"))),
    }
}

fn flag(body: &Map<String, Value>, field: &str) -> bool {
    body.get(field).and_then(Value::as_bool).unwrap_or(false)
}

fn texts(body: &Map<String, Value>, field: &str) -> Result<BTreeMap<String, String>> {
    texts::by_name(body.get(field).unwrap_or(&Value::Null))
        .ok_or_else(|| Error::bad(format!("invalid {field}: expected texts by name")))
}

fn check_name(name: &str) -> Result<()> {
    if name.trim().is_empty() {
        return Err(Error::bad("invalid network name: name is empty"));
    }
    if [BRIDGE, NONE, "host", "default"].contains(&name) {
        return Err(Error::new(
            Kind::Forbidden,
            format!("operation is not permitted on predefined {name} network"),
        ));
    }
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b' ' | b'/');
    if name.len() > NAME_MAX || !name.bytes().all(good) || name.contains('/') {
        return Err(Error::bad(format!(
            "invalid network name {name:?}: only letters, digits, '-', '_' and '.' are allowed, {NAME_MAX} at most"
        )));
    }
    Ok(())
}

fn check_driver(driver: &str) -> Result<()> {
    match driver {
        "" | "default" | "bridge" => Ok(()),
        "host" | "null" => Err(Error::new(
            Kind::Forbidden,
            format!("only one instance of \"{driver}\" network is allowed"),
        )),
        "overlay" => Err(Error::unavailable(NO_MANAGER)),
        other => Err(Error::not_found(format!(
            "plugin \"{other}\" not found: networks of this host have the driver bridge"
        ))),
    }
}

fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in options {
        if !OPTIONS.contains(&name.as_str()) {
            return Err(not_supported(
                &format!("--opt {name}"),
                "no such option is known",
            ));
        }
        let bad = |want: &str| Error::bad(format!("invalid --opt {name}={value}: expected {want}"));
        match name.as_str() {
            MTU => {
                let mtu: u32 = value.parse().map_err(|_| bad("a number of bytes"))?;
                if !(1280..=9000).contains(&mtu) {
                    return Err(bad("1280 to 9000"));
                }
            }
            HOST_ADDRESS => {
                value
                    .parse::<std::net::Ipv4Addr>()
                    .map_err(|_| bad("an IPv4 address"))?;
            }
            "com.docker.network.bridge.enable_icc" if boolean(value) == Some(false) => {
                return Err(not_supported(
                    "--opt com.docker.network.bridge.enable_icc=false",
                    "members of a network share a port group; use a network each",
                ));
            }
            MASQUERADE | "com.docker.network.bridge.enable_icc" if boolean(value).is_none() => {
                return Err(bad("true or false"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Go's `strconv.ParseBool`.
pub fn boolean(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn pools(body: &Map<String, Value>) -> Result<Vec<Pool>> {
    let Some(ipam) = body.get("IPAM").and_then(Value::as_object) else {
        return Ok(Vec::new());
    };
    if !matches!(text(ipam, "Driver")?, "" | "default") {
        return Err(Error::bad(format!(
            "could not find IPAM driver {:?}: there is only the default one",
            text(ipam, "Driver")?
        )));
    }
    let mut pools: Vec<Pool> = Vec::new();
    let list = match ipam.get("Config") {
        None | Some(Value::Null) => return Ok(pools),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Error::bad("invalid IPAM.Config: expected a list")),
    };
    for entry in list {
        let Some(entry) = entry.as_object() else {
            return Err(Error::bad("invalid IPAM.Config: expected objects"));
        };
        // A client may send an entry that says nothing.
        let Some(pool) = pool(entry)? else { continue };
        if pools
            .iter()
            .any(|other| other.subnet.addr().is_ipv6() == pool.subnet.addr().is_ipv6())
        {
            return Err(not_supported(
                "more than one subnet of a family",
                "a network has one IPv4 and one IPv6 subnet",
            ));
        }
        pools.push(pool);
    }
    Ok(pools)
}

fn pool(entry: &Map<String, Value>) -> Result<Option<Pool>> {
    let net = |field: &str| -> Result<Option<IpNet>> {
        let text = text(entry, field)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse::<IpNet>()
            .map(|net| Some(net.trunc()))
            .map_err(|_| Error::bad(format!("invalid {field} {text}: expected ADDRESS/PREFIX")))
    };
    let Some(subnet) = net("Subnet")? else {
        if entry.values().all(is_default) {
            return Ok(None);
        }
        return Err(Error::bad(
            "invalid network config: every IPRange or Gateway needs a corresponding Subnet",
        ));
    };
    if text(entry, "Subnet")?.parse() != Ok(subnet) {
        return Err(Error::bad(format!(
            "invalid network config: invalid subnet {}: it should be {subnet}",
            text(entry, "Subnet")?
        )));
    }
    let widest = if subnet.addr().is_ipv6() { 126 } else { 30 };
    if !(8..=widest).contains(&subnet.prefix_len()) {
        return Err(Error::bad(format!(
            "invalid subnet {subnet}: its prefix length must be 8 to {widest}"
        )));
    }
    if !for_hosts(&subnet) {
        return Err(Error::bad(format!(
            "invalid subnet {subnet}: it has addresses that are not for hosts (loopback, link-local, multicast or reserved ones)"
        )));
    }
    let range = net("IPRange")?;
    if range.is_some_and(|range| !subnet.contains(&range)) {
        return Err(Error::bad(format!(
            "invalid network config: invalid ip-range {}: it is outside of the subnet {subnet}",
            text(entry, "IPRange")?
        )));
    }
    let inside = |text: &str, what: &str| -> Result<IpAddr> {
        text.parse()
            .ok()
            .filter(|address| subnet.contains(address))
            .ok_or_else(|| {
                Error::bad(format!(
                    "invalid network config: invalid {what} {text}: expected an address in the subnet {subnet}"
                ))
            })
    };
    let gateway = match text(entry, "Gateway")? {
        "" => first_host(&range.unwrap_or(subnet)),
        address => inside(address, "gateway")?,
    };
    let auxiliary = texts(entry, "AuxiliaryAddresses")?
        .into_iter()
        .map(|(name, address)| Ok((name, inside(&address, "auxiliary address")?)))
        .collect::<Result<_>>()?;
    Ok(Some(Pool {
        subnet,
        range,
        between: None,
        gateway,
        auxiliary,
    }))
}

/// Whether all addresses of a subnet can be those of hosts on a network: the router's own loopback must stay its own.
fn for_hosts(subnet: &IpNet) -> bool {
    const SPECIAL: [&str; 8] = [
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/3",
        // Unspecified, loopback, and what stands for IPv4.
        "::/8",
        "64:ff9b::/96",
        "fe80::/10",
        "ff00::/8",
    ];
    let special = SPECIAL.iter().filter_map(|net| net.parse::<IpNet>().ok());
    special
        .into_iter()
        .all(|special| !special.contains(subnet) && !subnet.contains(&special))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_whole_request_is_read() {
        let request = NetworkRequest::read(&json!({
            "Name": "back", "Driver": "bridge", "CheckDuplicate": true, "Internal": true,
            "EnableIPv6": false, "Labels": {"a": "b"}, "Options": {MTU: "1400"},
            "IPAM": {"Driver": "default", "Config": [
                {"Subnet": "10.9.0.0/16", "IPRange": "10.9.4.0/24", "Gateway": "10.9.0.9",
                 "AuxiliaryAddresses": {"printer": "10.9.4.4"}},
                {"Subnet": "fd00:9::/64"}]},
        }))
        .unwrap();
        assert!(request.internal && request.ipv6);
        assert_eq!(request.pools[0].gateway.to_string(), "10.9.0.9");
        assert_eq!(request.pools[1].gateway.to_string(), "fd00:9::1");
        assert_eq!(request.pools[0].auxiliary.len(), 1);
    }

    #[test]
    fn a_subnet_is_one_for_hosts() {
        for (subnet, good) in [
            ("127.0.0.0/8", false),
            ("127.5.0.0/16", false),
            ("169.254.169.0/24", false),
            ("239.0.0.0/8", false),
            ("0.0.0.0/8", false),
            ("::/64", false),
            ("fe80::/64", false),
            ("ff02::/64", false),
            ("10.0.0.0/8", true),
            ("203.0.113.0/24", true),
            ("fd00::/8", true),
            ("2001:db8::/64", true),
        ] {
            let request = json!({"Name": "x", "IPAM": {"Config": [{"Subnet": subnet}]}});
            let read = NetworkRequest::read(&request);
            assert_eq!(read.is_ok(), good, "{subnet}: {read:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, want) in [
            (json!({}), "name is empty"),
            (json!({"Name": "bridge"}), "predefined bridge network"),
            (json!({"Name": "a b/c"}), "invalid network name"),
            (
                json!({"Name": "x", "Driver": "nosuch"}),
                "plugin \"nosuch\" not found",
            ),
            (json!({"Name": "x", "Driver": "host"}), "only one instance"),
            (json!({"Name": "x", "Options": {"foo": "1"}}), "--opt foo"),
            (json!({"Name": "x", "Options": {MTU: "12"}}), "1280 to 9000"),
            (
                json!({"Name": "x", "IPAM": {"Config": [{"Gateway": "10.0.0.1"}]}}),
                "corresponding Subnet",
            ),
            (
                json!({"Name": "x", "IPAM": {"Config": [{"Subnet": "10.0.0.7/24"}]}}),
                "it should be 10.0.0.0/24",
            ),
            (
                json!({"Name": "x", "IPAM": {"Config": [{"Subnet": "10.0.0.0/31"}]}}),
                "prefix length",
            ),
            (
                json!({"Name": "x", "IPAM": {"Config": [{"Subnet": "10.0.0.0/24", "Gateway": "10.0.1.1"}]}}),
                "invalid gateway",
            ),
            (
                json!({"Name": "x", "IPAM": {"Config": [{"Subnet": "10.0.0.0/24"}, {"Subnet": "10.1.0.0/24"}]}}),
                "more than one subnet",
            ),
            (
                json!({"Name": "x", "Ingress": true}),
                "--ingress is not supported",
            ),
        ] {
            let error = NetworkRequest::read(&body).unwrap_err();
            assert!(
                error.message.contains(want),
                "{body}: {} lacks {want}",
                error.message
            );
        }
    }
}
