//! What an interruption has left on the datastore, and its deletion.

use super::store::Store;
use super::{Images, ORIGINS, State, TAGS, image_record};
use crate::errors::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Pauses between attempts to clean up while the hypervisor is away, and how many there are (about an hour in all; the
/// next start tries again).
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(30);
const SWEEPS: usize = 120;

/// An image that is being put on the datastore. Whatever ends that before it counts, an error or a client that goes
/// away, what there is of it is deleted.
pub(super) struct Unfinished(Option<Arc<Images>>);

impl Unfinished {
    /// Declared behind the lock on changes, so that the deletion waits for it.
    pub fn new(images: &Arc<Images>) -> Self {
        Unfinished(Some(images.clone()))
    }

    /// The image counts.
    pub fn finished(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Without a runtime the endpoint is ending, and its next start cleans up.
        if let (Some(images), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(images.sweep_until_done());
        }
    }
}

impl Images {
    /// Deletes what an image that was not finished has left, as soon as the datastore answers.
    pub(super) async fn sweep_until_done(self: Arc<Self>) {
        let mut pause = FIRST_PAUSE;
        for _ in 0..SWEEPS {
            let change = self.changing().await;
            match self.sweep().await {
                Ok(0) => return,
                Ok(files) => tracing::warn!(files, "an unfinished image is left in part"),
                Err(error) => {
                    tracing::warn!(error = error.message, "an unfinished image is left for now")
                }
            }
            drop(change);
            // The hypervisor is away; there is no event that tells of its return.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// Deletes records that do not count, then VMDKs and recipes that no record names; how many could not be. The
    /// caller holds `change`, or is alone. An image's record names its whole chain, so that no parent of what stays goes.
    pub(super) async fn sweep(&self) -> Result<usize> {
        // A record of which it was never heard that it was written names VMDKs that are deleted next: it goes first,
        // or a later start would believe it.
        let counting = self.read(Counting::of);
        let found = self.store.records().names().await?;
        for (name, generation) in counting.doomed(&found) {
            self.store.records().remove(name, *generation).await?;
        }
        if !counting.unreadable.is_empty() {
            // What is in no image that can be read may be in one of those.
            return Ok(0);
        }
        let keep: BTreeSet<String> =
            self.read(|s| s.images.values().flat_map(|(_, i)| i.files()).collect());
        let names = self.store.disk_names().await?;
        let rubbish = names
            .into_iter()
            .filter(|n| !keep.contains(n) && !self.is_leased(n))
            .collect();
        Ok(remove_all(&self.store, rubbish).await)
    }
}

/// The records that count.
#[derive(Debug, Default)]
struct Counting {
    /// Names and generations; 0: none.
    generations: BTreeMap<String, u64>,
    /// Names of those that cannot be read.
    unreadable: BTreeSet<String>,
}

impl Counting {
    fn of(state: &State) -> Self {
        let images = state.images.iter();
        let mut generations: BTreeMap<String, u64> = images
            .map(|(id, (generation, _))| (image_record(id), *generation))
            .collect();
        generations.insert(TAGS.to_owned(), state.tags.0);
        generations.insert(ORIGINS.to_owned(), state.origins.0);
        Counting {
            generations,
            unreadable: state.unreadable.keys().cloned().collect(),
        }
    }

    /// Those of the files found that do not count.
    fn doomed<'a>(
        &'a self,
        found: &'a [(String, u64)],
    ) -> impl Iterator<Item = &'a (String, u64)> + 'a {
        found.iter().filter(|(name, generation)| {
            if self.unreadable.contains(name) {
                return false;
            }
            match self.generations.get(name) {
                None | Some(0) => true,
                Some(counts) if counts == generation => false,
                // Where the one that counts is not there, this may be all that is left.
                Some(counts) => found.iter().any(|(n, g)| n == name && g == counts),
            }
        })
    }
}

/// Deletes files; a VMDK with a child cannot be deleted, so children first, found by trying. How many are left.
async fn remove_all(store: &Store, mut rubbish: Vec<String>) -> usize {
    while !rubbish.is_empty() {
        let mut left = Vec::new();
        let mut last = None;
        let before = rubbish.len();
        // Guards and seals have no children of the image's own.
        rubbish.sort_by_key(|n| {
            (
                !n.ends_with("-guard.vmdk"),
                !n.ends_with("-seal.vmdk"),
                n.clone(),
            )
        });
        for name in rubbish {
            if let Err(error) = store.remove_disk(&name).await {
                last = Some(error);
                left.push(name);
            }
        }
        if left.len() == before {
            // A container of a removed image may still hold them; the next start tries again.
            tracing::warn!(files = ?left, error = last.map(|e| e.message), "left on the datastore");
            return left.len();
        }
        rubbish = left;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_name_nothing_goes_while_the_record_that_counts_is_not_there() {
        let counting = Counting {
            generations: [("tags", 3), ("origins", 0), ("image-a", 1)]
                .map(|(name, generation)| (name.to_owned(), generation))
                .into(),
            unreadable: ["image-b".to_owned()].into(),
        };
        let doomed = |found: &[(&str, u64)]| {
            let found: Vec<_> = found.iter().map(|(n, g)| ((*n).to_owned(), *g)).collect();
            let doomed = counting.doomed(&found).map(|(n, g)| format!("{n}.{g}"));
            doomed.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            doomed(&[("tags", 2), ("tags", 3), ("tags", 4)]),
            "tags.2 tags.4"
        );
        assert_eq!(doomed(&[("tags", 4)]), "");
        assert_eq!(doomed(&[("tags", 2), ("tags", 4)]), "");
        assert_eq!(doomed(&[("origins", 1), ("image-a", 1)]), "origins.1");
        assert_eq!(doomed(&[("image-a", 2), ("image-c", 1)]), "image-c.1");
        assert_eq!(doomed(&[("image-b", 1), ("image-b", 2)]), "");
    }
}
