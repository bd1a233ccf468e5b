//! The names of images: one record for all of them, so that moving a tag is one write.

use layers::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The record with all names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tags {
    /// `name:tag` to image ID.
    pub tags: BTreeMap<String, Digest>,
    /// `name@sha256:…` to image ID.
    pub digests: BTreeMap<String, Digest>,
    /// What names of either kind meant before, where their image's record comes after this one: if it never does,
    /// that is what they mean.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    former: BTreeMap<String, Digest>,
}

/// The names that an image comes with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// `name:tag`.
    pub tags: Vec<String>,
    /// `name@sha256:…`.
    pub digests: Vec<String>,
}

impl Tags {
    /// Gives names to an image. Those that another image had move.
    pub fn name(&mut self, names: &Names, id: Digest) {
        let of = |list: &[String]| list.iter().map(|n| (n.clone(), id)).collect::<Vec<_>>();
        self.tags.extend(of(&names.tags));
        self.digests.extend(of(&names.digests));
    }

    /// These names, to be written before the record of an image that some of them are for.
    pub fn falling_back_to(mut self, old: &Self) -> Self {
        let moved = |now: &BTreeMap<String, Digest>, then: &BTreeMap<String, Digest>| {
            then.iter()
                .filter(|(name, id)| now.get(*name).is_some_and(|new| new != *id))
                .map(|(name, id)| (name.clone(), *id))
                .collect::<Vec<_>>()
        };
        self.former = moved(&self.tags, &old.tags)
            .into_iter()
            .chain(moved(&self.digests, &old.digests))
            .collect();
        self
    }

    /// The names as they count beside the images that exist.
    pub fn settled(mut self, exists: impl Fn(&Digest) -> bool) -> Self {
        let former = std::mem::take(&mut self.former);
        for names in [&mut self.tags, &mut self.digests] {
            names.retain(|name, id| {
                if !exists(id) {
                    let Some(old) = former.get(name).filter(|old| exists(old)) else {
                        return false;
                    };
                    *id = *old;
                }
                true
            });
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_with_their_image_and_mean_what_they_did_without_it() {
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let names = |tag: &str, digest: &str| Names {
            tags: vec![tag.to_owned()],
            digests: vec![digest.to_owned()],
        };
        let mut before = Tags::default();
        before.name(&names("a:latest", "a@1"), old);
        let mut after = before.clone();
        after.name(&names("a:latest", "a@2"), new);
        after.name(&names("b:latest", "b@2"), new);

        let written = serde_json::to_vec(&after.clone().falling_back_to(&before)).unwrap();
        let read: Tags = serde_json::from_slice(&written).unwrap();
        assert_eq!(read.clone().settled(|_| true), after);
        assert_eq!(read.clone().settled(|id| *id == old), before);
        assert_eq!(read.settled(|_| false), Tags::default());
    }
}
