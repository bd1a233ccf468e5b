//! What `docker update` has changed of a container while its VM was on: records, since vSphere drops a VM's keys that
//! were set while it ran. A record counts before the key. It is written before a client hears that the change was made.

use super::state::Changes;
use crate::{
    errors::Result,
    records::{self, Records},
    vsphere::Vsphere,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use vim::DatastorePath;

/// What the name of a record begins with; the container's ID follows.
const CHANGES: &str = "changes-";

/// The records of a VCH.
#[derive(Debug)]
pub struct KeptChanges {
    records: Records,
    /// By container: the record's generation and value.
    kept: Mutex<HashMap<String, (u64, Changes)>>,
}

impl KeptChanges {
    /// Reads what there is.
    ///
    /// # Errors
    /// Where the datastore cannot be read.
    pub async fn open(vsphere: Arc<Vsphere>, vch: &str) -> Result<Self> {
        let folder = DatastorePath::new(vsphere.datastore(), format!("mooring/{vch}"));
        let records = Records::open(vsphere, folder.join("changes")).await?;
        let mut kept = HashMap::new();
        // They are small and the endpoint's own words: one that cannot be read is no client's doing.
        for (name, record) in records.load().await?.whole()? {
            if let Some(container) = name.strip_prefix(CHANGES) {
                let value: Changes = records::decode(&name, &record.value)?;
                kept.insert(container.to_owned(), (record.generation, value));
            }
        }
        Ok(Self {
            records,
            kept: Mutex::new(kept),
        })
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, (u64, Changes)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was changed of a container, if that is not in its VM's key.
    pub(super) fn of(&self, container: &str) -> Option<Changes> {
        self.kept()
            .get(container)
            .map(|(_, changes)| changes.clone())
    }

    /// Writes down what was changed. Of one container one at a time.
    ///
    /// # Errors
    /// Those of the datastore; then what was there before still counts.
    pub(super) async fn keep(&self, container: &str, changes: &Changes) -> Result<()> {
        let before = self.kept().get(container).map_or(0, |(g, _)| *g);
        let name = format!("{CHANGES}{container}");
        let generation = self.records.save(&name, before, changes).await?;
        self.kept()
            .insert(container.to_owned(), (generation, changes.clone()));
        Ok(())
    }

    /// Forgets a container that is gone.
    pub(super) async fn forget(&self, container: &str) {
        let Some((generation, _)) = self.kept().remove(container) else {
            return;
        };
        let name = format!("{CHANGES}{container}");
        if let Err(error) = self.records.remove(&name, generation).await {
            tracing::warn!(container, %error, "the record of its changes stays until the next start");
        }
    }

    /// Forgets containers that do not exist: what an interrupted removal left.
    pub async fn sweep(&self, exists: impl Fn(&str) -> bool) {
        let gone: Vec<String> = {
            let kept = self.kept();
            kept.keys().filter(|id| !exists(id)).cloned().collect()
        };
        for id in gone {
            self.forget(&id).await;
        }
    }
}
