//! The resolver's options: name servers and hosts.

use super::fields::Fields;
use crate::errors::{Error, Result};
use std::net::IpAddr;

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

/// What stands for the address of the container's gateway (moby, opts/hosts.go).
pub const HOST_GATEWAY: &str = "host-gateway";

/// Lines of /etc/hosts: address or `host-gateway`, name.
pub(super) fn extra_hosts(fields: &Fields<'_>) -> Result<Vec<(String, String)>> {
    fields
        .list("ExtraHosts")?
        .into_iter()
        .map(|entry| {
            let (name, address) = entry
                .split_once([':', '='])
                .ok_or_else(|| Error::bad(format!("bad format for add-host: {entry:?}")))?;
            let bare = address.trim_start_matches('[').trim_end_matches(']');
            let known = address == HOST_GATEWAY || bare.parse::<IpAddr>().is_ok();
            if name.is_empty() || !known {
                return Err(Error::bad(format!(
                    "invalid IP address in add-host: {address:?}"
                )));
            }
            Ok((bare.to_owned(), name.to_owned()))
        })
        .collect()
}
