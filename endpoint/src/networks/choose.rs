//! Which subnet a network gets that names none, and which it cannot have.

use super::{
    addresses::first_host,
    record::{NetworkRecord, Pool},
};
use crate::errors::{Error, Kind, Result};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, net::Ipv6Addr, str::FromStr};

/// A range that subnets are cut out of: `172.18.0.0/15,16` is one of networks with 16 bits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPool {
    base: Ipv4Net,
    size: u8,
}

impl FromStr for AddressPool {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("{text:?}: expected BASE/PREFIX,SIZE, as in 10.16.0.0/12,24");
        let (base, size) = text.split_once(',').ok_or_else(wrong)?;
        let base: Ipv4Net = base.parse().map_err(|_| wrong())?;
        let size = size.parse().map_err(|_| wrong())?;
        if !(base.prefix_len()..=29).contains(&size) {
            return Err(wrong());
        }
        Ok(Self {
            base: base.trunc(),
            size,
        })
    }
}

/// Docker's own pools, without the default network's.
pub const DEFAULT_POOLS: [&str; 5] = [
    "172.18.0.0/15,16",
    "172.20.0.0/14,16",
    "172.24.0.0/14,16",
    "172.28.0.0/14,16",
    "192.168.0.0/16,20",
];

/// The subnets of a new network: those that were named, and others where a family has none.
///
/// # Errors
/// 403 in Docker's words where one overlaps with another network's, 409 where no pool has one left.
pub fn subnets(
    wanted: &[Pool],
    ipv6: bool,
    id: &str,
    pools: &[AddressPool],
    others: &[&NetworkRecord],
    own: &[IpNet],
) -> Result<Vec<Pool>> {
    let taken = |net: &IpNet| {
        let overlap = |other: &IpNet| other.contains(net) || net.contains(other);
        let networks = others.iter().flat_map(|n| &n.pools);
        networks.map(|pool| &pool.subnet).chain(own).any(overlap)
    };
    for pool in wanted {
        if taken(&pool.subnet) {
            return Err(Error::new(
                Kind::Forbidden,
                format!(
                    "invalid pool request: Pool overlaps with other one on this address space: {}",
                    pool.subnet
                ),
            ));
        }
    }
    let mut out = wanted.to_vec();
    let has = |out: &[Pool], six: bool| out.iter().any(|p| p.subnet.addr().is_ipv6() == six);
    if !has(&out, false) {
        let subnet = pools
            .iter()
            .filter_map(|pool| pool.base.subnets(pool.size).ok())
            .flatten()
            .map(IpNet::V4)
            .find(|net| !taken(net))
            .ok_or_else(|| {
                Error::conflict(
                    "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network: name one with --subnet, or remove networks",
                )
            })?;
        out.insert(0, pool(subnet));
    }
    if ipv6 && !has(&out, true) {
        let subnet = unique_local(id);
        if taken(&subnet) {
            return Err(Error::conflict(format!(
                "{subnet} is in use: name an IPv6 subnet with --subnet"
            )));
        }
        out.push(pool(subnet));
    }
    Ok(out)
}

fn pool(subnet: IpNet) -> Pool {
    Pool {
        gateway: first_host(&subnet),
        subnet,
        range: None,
        between: None,
        auxiliary: BTreeMap::new(),
    }
}

/// A unique local IPv6 subnet (RFC 4193) out of a network's ID, which is random.
fn unique_local(id: &str) -> IpNet {
    let hash = Sha256::digest(id);
    let mut octets = [0u8; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&hash[..7]);
    // 64 is a prefix length.
    let net = Ipv6Net::new(Ipv6Addr::from(octets), 64)
        .unwrap_or_else(|_| unreachable!("64 is a prefix length of IPv6"));
    IpNet::V6(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Vec<AddressPool> {
        DEFAULT_POOLS.iter().map(|p| p.parse().unwrap()).collect()
    }

    #[test]
    fn subnets_come_from_the_pools_in_their_order_and_never_twice() {
        let mut records = vec![NetworkRecord::bridge("pg", 100)];
        let mut seen = Vec::new();
        loop {
            let others: Vec<&NetworkRecord> = records.iter().collect();
            let id = records.len().to_string();
            let Ok(pools) = subnets(&[], true, &id, &defaults(), &others, &[]) else {
                break;
            };
            seen.push(pools[0].subnet.to_string());
            assert_eq!(pools[1].subnet.prefix_len(), 64);
            let mut record = NetworkRecord::bridge("pg", 1);
            record.pools = pools;
            records.push(record);
        }
        assert_eq!(seen.len(), 14 + 16);
        assert_eq!(
            (seen[0].as_str(), seen[14].as_str()),
            ("172.18.0.0/16", "192.168.0.0/20")
        );
    }

    #[test]
    fn an_overlap_is_refused_in_dockers_words() {
        let bridge = NetworkRecord::bridge("pg", 100);
        let own: IpNet = "10.0.2.0/24".parse().unwrap();
        for subnet in [
            "172.17.3.0/24",
            "172.16.0.0/12",
            "10.0.2.128/25",
            "10.0.0.0/8",
        ] {
            let wanted = [pool(subnet.parse().unwrap())];
            let error = subnets(&wanted, false, "x", &defaults(), &[&bridge], &[own]).unwrap_err();
            assert!(error.message.contains("Pool overlaps"), "{subnet}");
        }
    }

    #[test]
    fn a_pool_of_an_option_is_checked() {
        assert!("10.16.0.0/12,24".parse::<AddressPool>().is_ok());
        for wrong in ["", "10.0.0.0/8", "10.0.0.0/8,4", "10.0.0.0/8,30", "x,24"] {
            assert!(wrong.parse::<AddressPool>().is_err(), "{wrong}");
        }
    }
}
