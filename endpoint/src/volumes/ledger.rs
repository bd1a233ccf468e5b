//! Which volumes there are and which are on their way out, and what interruptions have left of others in stores.

use super::record::VolumeRecord;
use super::stores::Placed;
use crate::errors::Result;
use crate::insist::insist;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A volume.
#[derive(Debug)]
pub(super) struct Entry {
    pub record: Arc<VolumeRecord>,
    pub generation: u64,
    /// IDs of the containers that mount it.
    pub users: BTreeSet<String>,
}

/// Names of volumes whose disks or folders are being deleted, each with the number of places where they are: none of
/// them may be taken again before all is gone.
#[derive(Debug, Default)]
pub(super) struct Leaving(BTreeMap<String, usize>);

impl Leaving {
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A deletion begins.
    pub fn begin(&mut self, name: &str) {
        *self.0.entry(name.to_owned()).or_default() += 1;
    }

    /// It is done.
    pub fn end(&mut self, name: &str) {
        match self.0.get_mut(name) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.0.remove(name)),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub volumes: BTreeMap<String, Entry>,
    /// Names of volumes whose record cannot be read, with why. Nothing of theirs is deleted, and nobody takes the name.
    pub unread: BTreeMap<String, String>,
    pub leaving: Leaving,
}

/// The volumes of a VCH.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
    /// Held for each change of the records.
    pub change: tokio::sync::Mutex<()>,
}

impl Ledger {
    /// Of these volumes.
    pub fn new(volumes: BTreeMap<String, Entry>) -> Arc<Self> {
        let state = State {
            volumes,
            ..State::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            change: tokio::sync::Mutex::default(),
        })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes the folders of this VCH in a store that no volume has: what an interruption has left. Waits for a server
    /// that is away.
    pub async fn sweep(self: Arc<Self>, store: Placed) {
        let names = match store.names().await {
            Ok(names) => names,
            Err(error) => {
                tracing::warn!(store = store.store, %error, "what may be left of volumes in a store is looked for later");
                insist("a look into a volume store", &store.store, || store.names()).await
            }
        };
        for name in names {
            {
                // Who makes a volume has the folder before the record, and this meanwhile.
                let _change = self.change.lock().await;
                let mut state = self.state();
                let there = state.volumes.get(&name);
                // One in another store keeps its name in this one, too: two stores may be one folder by two names.
                if there.is_some_and(|entry| entry.record.placed.is_some())
                    || state.unread.contains_key(&name)
                {
                    continue;
                }
                state.leaving.begin(&name);
            }
            tracing::info!(
                volume = name,
                store = store.store,
                "left by an interrupted create or rm: deleted"
            );
            let attempt = {
                let (store, name) = (store.clone(), name.clone());
                move || {
                    let (store, name) = (store.clone(), name.clone());
                    async move { store.delete(&name).await }
                }
            };
            self.clone().delete(name, attempt).await;
        }
    }

    /// Deletes what is left of a volume of which [`Leaving`] was told; goes on in the background where that fails.
    pub async fn delete<F, A>(self: Arc<Self>, name: String, attempt: A)
    where
        F: Future<Output = Result<()>> + Send,
        A: Fn() -> F + Send + Sync + 'static,
    {
        match attempt().await {
            Ok(()) => self.state().leaving.end(&name),
            Err(error) => {
                tracing::warn!(volume = name, %error, "a volume's disk or folder is deleted later");
                tokio::spawn(async move {
                    insist("the deletion of a volume's disk or folder", &name, attempt).await;
                    self.state().leaving.end(&name);
                });
            }
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
