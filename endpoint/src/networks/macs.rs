//! Which MAC addresses are taken. A client may give one to several connections: it is free once the last of them is gone.

use std::collections::{HashMap, HashSet};

/// The addresses, each with the IDs of its connections.
#[derive(Debug, Default)]
pub(super) struct Macs(HashMap<String, HashSet<String>>);

impl Macs {
    /// Takes an address for a connection if nobody has it.
    pub fn take(&mut self, mac: &str, connection: &str) -> bool {
        let free = !self.0.contains_key(mac);
        if free {
            self.note(mac, connection);
        }
        free
    }

    /// A connection has this address, whoever else may.
    pub fn note(&mut self, mac: &str, connection: &str) {
        let all = self.0.entry(mac.to_owned()).or_default();
        all.insert(connection.to_owned());
    }

    /// A connection is gone.
    pub fn release(&mut self, mac: &str, connection: &str) {
        if let Some(all) = self.0.get_mut(mac) {
            all.remove(connection);
            if all.is_empty() {
                self.0.remove(mac);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_two_is_taken_until_both_are_gone() {
        let mut macs = Macs::default();
        assert!(macs.take("a", "one"));
        assert!(!macs.take("a", "two"));
        macs.note("a", "two");
        // As for each container that is read, also where it was just made.
        macs.note("a", "two");
        macs.release("a", "one");
        macs.release("a", "one");
        assert!(!macs.take("a", "three"));
        macs.release("a", "two");
        assert!(macs.take("a", "three"));
    }
}
