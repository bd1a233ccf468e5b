//! The resolver's options: name servers and hosts.

use super::fields::Fields;
use super::refused;
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
