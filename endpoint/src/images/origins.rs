//! Where layers are known to be: which blobs of which repositories hold the tar of a diff ID. It spares sending what a
//! registry has. Nothing depends on it: a blob that is not there any more is sent anew.

use super::{Images, ORIGINS, whole};
use layers::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most places that are remembered of one layer.
const PLACES_MAX: usize = 8;

/// A blob that holds a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// Digest of the blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// The registry, as references name it.
    pub domain: String,
    /// The repository there.
    pub path: String,
}

/// Blobs by diff ID, the one that was used last at the end.
pub(super) type Origins = BTreeMap<Digest, Vec<Origin>>;

fn note(origins: &mut Origins, diff_id: Digest, origin: Origin) {
    let known = origins.entry(diff_id).or_default();
    known.retain(|o| *o != origin);
    if known.len() == PLACES_MAX {
        known.remove(0);
    }
    known.push(origin);
}

impl Images {
    /// The blobs that hold a layer, the one that was used last first.
    pub(super) fn origins(&self, diff_id: &Digest) -> Vec<Origin> {
        self.read(|s| {
            let known = s.origins.1.get(diff_id).into_iter().flatten();
            known.rev().cloned().collect()
        })
    }

    /// Remembers where layers are, and forgets those that no image has any more. A failure costs time later, no more.
    pub(super) async fn note_origins(self: &Arc<Self>, found: Vec<(Digest, Origin)>) {
        let change = self.changing().await;
        let (before, old) = self.read(|s| s.origins.clone());
        let mut origins = old.clone();
        for (diff_id, origin) in found {
            note(&mut origins, diff_id, origin);
        }
        self.read(|s| {
            let layers = || s.images.values().flat_map(|(_, i)| &i.layers);
            let used: std::collections::BTreeSet<_> = layers().map(|l| l.diff_id).collect();
            origins.retain(|diff_id, _| used.contains(diff_id));
        });
        if origins == old {
            return;
        }
        let this = self.clone();
        let noted = whole(&change, async move {
            let records = this.store.records();
            let generation = records.save(ORIGINS, before, &origins).await?;
            this.write(|s| s.origins = (generation, origins));
            Ok(())
        });
        if let Err(error) = noted.await {
            tracing::warn!(%error, "where layers came from is not remembered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_s_places_are_bounded_and_the_last_used_stays() {
        let mut origins = Origins::new();
        let diff_id = Digest::of(b"x");
        let origin = |n: usize| Origin {
            digest: Digest::of(&n.to_le_bytes()),
            size: 1,
            media_type: String::new(),
            domain: "r".into(),
            path: format!("p{n}"),
        };
        for n in 0..PLACES_MAX {
            note(&mut origins, diff_id, origin(n));
        }
        note(&mut origins, diff_id, origin(0));
        note(&mut origins, diff_id, origin(99));
        let known = &origins[&diff_id];
        assert_eq!(known.len(), PLACES_MAX);
        assert!(known.contains(&origin(0)) && !known.contains(&origin(1)));
        assert_eq!(known.last(), Some(&origin(99)));
    }
}
