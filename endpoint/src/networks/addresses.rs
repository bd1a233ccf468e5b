//! The addresses of one network: each is given to one container at a time.

use super::record::Pool;
use crate::errors::{Error, Result};
use ipnet::IpNet;
use std::{collections::HashSet, net::IpAddr};

/// Which addresses of a network are taken. The next one is searched from the last one given, so that an address is not
/// reused at once.
#[derive(Debug, Default)]
pub struct Addresses {
    taken: HashSet<IpAddr>,
    last: Vec<Option<u128>>,
}

impl Addresses {
    /// Notes an address that a container has.
    pub fn note(&mut self, address: IpAddr) {
        self.taken.insert(address);
    }

    /// Takes a free one of a pool, or the one that was asked for.
    ///
    /// # Errors
    /// 400 in Docker's words where the wanted one is not of the pool, 403 where it is taken, 409 where all are taken.
    pub fn take(&mut self, pool: &Pool, wanted: Option<IpAddr>) -> Result<IpAddr> {
        if let Some(wanted) = wanted {
            if !pool.subnet.contains(&wanted) {
                return Err(Error::bad(
                    "user specified IP address is supported only when connecting to networks with user configured subnets that contain it"
                        .to_owned()
                        + &format!(": {wanted} is not in {}", pool.subnet),
                ));
            }
            let outside = |(first, last)| !(first..=last).contains(&wanted);
            if pool.between.is_some_and(outside) {
                return Err(Error::bad(format!(
                    "{wanted} is not among the addresses that the administrator lets containers of this network have"
                )));
            }
            if reserved(pool, wanted) || !self.taken.insert(wanted) {
                return Err(Error::new(
                    crate::errors::Kind::Forbidden,
                    "Address already in use",
                ));
            }
            return Ok(wanted);
        }
        let (first, last) = match pool.between {
            Some((first, last)) => (ip_to_number(first), ip_to_number(last)),
            None => bounds(pool.range.as_ref().unwrap_or(&pool.subnet)),
        };
        let slot = usize::from(pool.subnet.addr().is_ipv6());
        if self.last.len() <= slot {
            self.last.resize(slot + 1, None);
        }
        let start = match self.last[slot] {
            Some(before) if (first..last).contains(&before) => before + 1,
            _ => first,
        };
        // A network has at most a few thousand members, so that a free one is near, however large the subnet is.
        let found = (start..=last)
            .chain(first..start)
            .take(self.taken.len() + RESERVED + pool.auxiliary.len())
            .map(|number| number_to_ip(&pool.subnet, number))
            .find(|address| !self.taken.contains(address) && !reserved(pool, *address))
            .ok_or_else(|| {
                Error::conflict(format!(
                    "no available IPv{} addresses on this network's address pools: {} is used up; remove containers or create a network with a larger subnet",
                    if slot == 0 { 4 } else { 6 },
                    pool.subnet
                ))
            })?;
        self.taken.insert(found);
        self.last[slot] = Some(ip_to_number(found));
        Ok(found)
    }

    /// Gives one back.
    pub fn release(&mut self, address: IpAddr) {
        self.taken.remove(&address);
    }
}

/// Addresses that may be passed over beside those taken: network, broadcast, gateway, and one for good measure.
const RESERVED: usize = 4;

/// Whether no container may have an address: it is the network's own.
fn reserved(pool: &Pool, address: IpAddr) -> bool {
    address == pool.gateway
        || address == pool.subnet.network()
        || address.is_ipv4() && address == pool.subnet.broadcast() && pool.subnet.prefix_len() < 31
        || pool.auxiliary.values().any(|other| *other == address)
}

fn ip_to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address of a number in a subnet's family.
fn number_to_ip(subnet: &IpNet, number: u128) -> IpAddr {
    match subnet {
        // A number between the bounds of an IPv4 subnet fits.
        IpNet::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
        IpNet::V6(_) => IpAddr::V6(number.into()),
    }
}

fn bounds(net: &IpNet) -> (u128, u128) {
    (ip_to_number(net.network()), ip_to_number(net.broadcast()))
}

/// The first address of a subnet that a host can have: a network's gateway, unless one is named.
pub fn first_host(subnet: &IpNet) -> IpAddr {
    number_to_ip(subnet, bounds(subnet).0 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str, range: Option<&str>) -> Pool {
        let subnet: IpNet = subnet.parse().unwrap();
        Pool {
            gateway: first_host(&subnet),
            range: range.map(|r| r.parse().unwrap()),
            between: None,
            subnet,
            auxiliary: Default::default(),
        }
    }

    #[test]
    fn an_address_is_never_given_twice() {
        let pool = pool("172.18.0.0/24", None);
        let mut addresses = Addresses::default();
        addresses.note("172.18.0.7".parse().unwrap());
        let mut seen = HashSet::new();
        while let Ok(address) = addresses.take(&pool, None) {
            assert!(seen.insert(address), "{address} twice");
        }
        // Without the network, the broadcast address, the gateway and the one that is noted.
        assert_eq!(seen.len(), 252);
        assert!(!seen.contains(&"172.18.0.1".parse::<IpAddr>().unwrap()));
        let one: IpAddr = "172.18.0.200".parse().unwrap();
        addresses.release(one);
        assert_eq!(addresses.take(&pool, None).unwrap(), one);
        assert!(
            addresses
                .take(&pool, None)
                .unwrap_err()
                .message
                .contains("used up")
        );
    }

    #[test]
    fn a_released_address_is_not_given_at_once() {
        let pool = pool("10.0.0.0/29", None);
        let mut addresses = Addresses::default();
        let first = addresses.take(&pool, None).unwrap();
        addresses.release(first);
        assert_ne!(addresses.take(&pool, None).unwrap(), first);
    }

    #[test]
    fn a_range_and_a_wanted_address_are_respected() {
        let pool = pool("10.1.0.0/16", Some("10.1.5.0/30"));
        let mut addresses = Addresses::default();
        let wanted = "10.1.9.9".parse().unwrap();
        assert_eq!(addresses.take(&pool, Some(wanted)).unwrap(), wanted);
        assert!(addresses.take(&pool, Some(wanted)).is_err());
        assert!(
            addresses
                .take(&pool, Some("10.2.0.1".parse().unwrap()))
                .is_err()
        );
        assert!(addresses.take(&pool, Some(pool.gateway)).is_err());
        let range: IpNet = "10.1.5.0/30".parse().unwrap();
        for _ in 0..4 {
            assert!(range.contains(&addresses.take(&pool, None).unwrap()));
        }
        assert!(addresses.take(&pool, None).is_err());
    }

    #[test]
    fn six_and_four_do_not_mix() {
        let (four, six) = (pool("10.0.0.0/24", None), pool("fd00:1::/64", None));
        let mut addresses = Addresses::default();
        assert_eq!(addresses.take(&four, None).unwrap().to_string(), "10.0.0.2");
        assert_eq!(addresses.take(&six, None).unwrap().to_string(), "fd00:1::2");
        assert_eq!(addresses.take(&four, None).unwrap().to_string(), "10.0.0.3");
    }
}
