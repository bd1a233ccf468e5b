//! Addresses of the default network, 172.17.0.0/16, each given once.

use std::{collections::HashSet, net::Ipv4Addr};

/// Prefix length of the default network.
pub const PREFIX: u8 = 16;
/// Its gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 1);
/// Its range.
pub const SUBNET: &str = "172.17.0.0/16";
const FIRST: u32 = u32::from_be_bytes([172, 17, 0, 2]);
/// Above it are the name server of hostsim's user network and the broadcast address.
const LAST: u32 = u32::from_be_bytes([172, 17, 255, 250]);

/// Which addresses are taken. The next one is searched from the last one given, so that an
/// address is not reused at once.
#[derive(Debug)]
pub struct Addresses {
    taken: HashSet<u32>,
    next: u32,
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            taken: HashSet::new(),
            next: FIRST,
        }
    }
}

impl Addresses {
    /// Notes an address that a container has.
    pub fn note(&mut self, address: Ipv4Addr) {
        let address = u32::from(address);
        self.taken.insert(address);
        if (FIRST..=LAST).contains(&address) && address >= self.next {
            self.next = if address == LAST { FIRST } else { address + 1 };
        }
    }

    /// Takes a free one; `None` where all are taken.
    pub fn take(&mut self) -> Option<Ipv4Addr> {
        let found = (self.next..=LAST)
            .chain(FIRST..self.next)
            .find(|candidate| !self.taken.contains(candidate))?;
        self.taken.insert(found);
        self.next = if found == LAST { FIRST } else { found + 1 };
        Some(found.into())
    }

    /// Gives one back.
    pub fn release(&mut self, address: Ipv4Addr) {
        self.taken.remove(&u32::from(address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_never_given_twice() {
        let mut pool = Addresses::default();
        pool.note(Ipv4Addr::new(172, 17, 0, 2));
        let mut seen = HashSet::new();
        while let Some(address) = pool.take() {
            assert!(seen.insert(address));
        }
        assert_eq!(seen.len(), (LAST - FIRST) as usize);
        let one = Ipv4Addr::new(172, 17, 3, 4);
        pool.release(one);
        assert_eq!(pool.take(), Some(one));
        assert_eq!(pool.take(), None);
    }
}
