//! Networks that are not there any more, or never were as far as anyone was told, and whose records may be on the
//! datastore.

use super::{NETWORK, Stored, locked, record::NetworkRecord};
use crate::{insist::insist, records::Records};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// Those networks, by ID: none of their names, port groups and subnets is given to another one before its record is gone.
/// The next start would find two that share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaving(Arc<Mutex<BTreeMap<String, NetworkRecord>>>);

impl Leaving {
    pub fn all(&self) -> Vec<NetworkRecord> {
        locked(&self.0).values().cloned().collect()
    }

    /// Deletes the record of a network, in the background and until that is done.
    pub fn take_back(&self, records: &Records, record: NetworkRecord, generation: u64) {
        let (leaving, records) = (self.clone(), records.clone());
        let id = record.id.clone();
        locked(&leaving.0).insert(id.clone(), record);
        tokio::spawn(async move {
            let name = format!("{NETWORK}{id}");
            insist("the removal of a network's record", &id, || {
                records.remove(&name, generation)
            })
            .await;
            locked(&leaving.0).remove(&id);
        });
    }
}

/// Whether two networks cannot both be there.
fn clash(one: &NetworkRecord, other: &NetworkRecord) -> bool {
    one.name == other.name || one.port_group == other.port_group
}

/// Clients' networks without those of which an earlier endpoint did not know that they were there, since no answer had
/// told it that they were written. Only then did it give their name or their port group to another one: of two that share
/// one, the older is nobody's.
pub(super) fn without_ghosts(
    mut made: Vec<(u64, Stored)>,
    leaving: &Leaving,
    records: &Records,
) -> Vec<(u64, Stored)> {
    made.sort_by_key(|(_, stored)| std::cmp::Reverse(stored.network.created));
    let mut kept: Vec<(u64, Stored)> = Vec::new();
    for (generation, stored) in made {
        let record = &stored.network;
        let Some((_, younger)) = kept.iter().find(|(_, k)| clash(&k.network, record)) else {
            kept.push((generation, stored));
            continue;
        };
        tracing::warn!(
            name = record.name,
            id = record.id,
            port_group = record.port_group,
            younger = younger.network.id,
            "what is left of a network that could not be made or removed: its record is deleted"
        );
        leaving.take_back(records, stored.network, generation);
    }
    kept
}
