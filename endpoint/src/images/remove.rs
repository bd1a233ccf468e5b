//! `docker rmi` and `docker image prune`, as moby's daemon/images/image_delete.go has them.

use super::{Change, ImageRecord, Images, Reference, image_record, parse_id};
use crate::errors::{Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that were taken away.
    pub untagged: Vec<String>,
    /// IDs of images that are gone.
    pub deleted: Vec<String>,
    /// Bytes of layers that are gone.
    pub freed: u64,
}

impl Removed {
    /// As Docker answers it.
    pub fn to_json(&self) -> Value {
        let untagged = self.untagged.iter().map(|n| json!({ "Untagged": n }));
        Value::Array(
            untagged
                .chain(self.deleted.iter().map(|i| json!({ "Deleted": i })))
                .collect(),
        )
    }
}

/// A container that uses an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// ID of the container; none yet where it is being made.
    pub container: Option<String>,
    /// Whether it runs.
    pub running: bool,
}

impl User {
    fn shown(&self) -> String {
        match &self.container {
            Some(id) => format!("container {}", &id[..12.min(id.len())]),
            None => "a container that is being created".to_owned(),
        }
    }
}

/// The repository of a name with a tag or a digest.
fn repository(name: &str) -> &str {
    let end = name.find('@').or_else(|| name.rfind(':'));
    &name[..end.unwrap_or(name.len())]
}

fn is_digest(name: &str) -> bool {
    name.contains('@')
}

/// Whether an image has one name, in a sense: all are of one repository, and no more than one is a tag.
fn is_single(names: &[String]) -> bool {
    let repositories: BTreeSet<&str> = names.iter().map(|n| repository(n)).collect();
    repositories.len() == 1 && names.iter().filter(|n| !is_digest(n)).count() <= 1
}

/// What goes of an image's names with this one of them: with the last tag of a repository its digests, too.
fn going_with(name: &str, names: &[String]) -> Vec<String> {
    let beside = |digest: bool| {
        names.iter().filter(move |other| {
            *other != name && is_digest(other) == digest && repository(other) == repository(name)
        })
    };
    let mut going = vec![name.to_owned()];
    if !is_digest(name) && beside(false).next().is_none() {
        going.extend(beside(true).cloned());
    }
    going
}

/// A removal that was asked for.
struct Asked<'a> {
    /// As the client has named the image.
    name: &'a str,
    /// That is one of its names, not its ID.
    by_name: bool,
    force: bool,
    /// All names of the image.
    names: &'a [String],
    /// The first digits of its ID.
    short: &'a str,
}

impl Asked<'_> {
    /// Docker's conflicts.
    fn check(&self, users: &[User]) -> Result<()> {
        let (short, single) = (self.short, is_single(self.names));
        let refused = |why: String| Err(Error::conflict(format!("conflict: unable to {why}")));
        if self.by_name {
            return match users.first() {
                Some(user) if single && !self.force => refused(format!(
                    "remove repository reference \"{}\" (must force) - {} is using its referenced image {short}",
                    self.name,
                    user.shown()
                )),
                _ => Ok(()),
            };
        }
        if let Some(user) = users.iter().find(|user| user.running) {
            return refused(format!(
                "delete {short} (cannot be forced) - image is being used by running {}",
                user.shown()
            ));
        }
        if self.force {
            return Ok(());
        }
        if !single && !self.names.is_empty() {
            return refused(format!(
                "delete {short} (must be forced) - image is referenced in multiple repositories"
            ));
        }
        match users.first() {
            None => Ok(()),
            Some(user) => {
                let stopped = if user.container.is_some() {
                    "stopped "
                } else {
                    ""
                };
                refused(format!(
                    "delete {short} (must be forced) - image is being used by {stopped}{}",
                    user.shown()
                ))
            }
        }
    }
}

impl Images {
    /// Removes a name of an image, and with its last name the image; by its ID, all of its names and the image. `users`
    /// are the containers made from it.
    ///
    /// # Errors
    /// Docker's conflicts, where a container or a further name is in the way.
    pub async fn remove(
        self: &Arc<Self>,
        name: &str,
        force: bool,
        users: impl Fn(&str) -> Vec<User>,
    ) -> Result<Removed> {
        let change = self.changing().await;
        let image = self
            .resolve(name)
            .ok_or_else(|| Error::no_such_image(name))?;
        let names: Vec<String> = image.names().cloned().collect();
        let by_name = Reference::parse(name)
            .ok()
            .map(|r| r.to_string())
            .filter(|n| names.contains(n));
        let asked = Asked {
            name,
            by_name: by_name.is_some(),
            force,
            names: &names,
            short: &image.id["sha256:".len()..][..12],
        };
        let in_the_way = self.uses.of(&image.id, &users);
        asked.check(&in_the_way)?;
        let (going, told) = match &by_name {
            // As Docker, the digests that go with a tag go without an event.
            Some(name) => (going_with(name, &names), 1),
            None => (names.clone(), names.len()),
        };
        // With a container its disks are below that one's own: the names go now. It stays as a dangling image, which
        // `docker image prune` takes once the last container is gone.
        let leaving = if going.len() < names.len() || !in_the_way.is_empty() {
            None
        } else {
            match self.uses.leave(&image.id, &users) {
                Ok(leaving) => Some(leaving),
                // One has come this very moment.
                Err(in_the_way) => {
                    asked.check(&in_the_way)?;
                    None
                }
            }
        };
        let mut removed = Removed::default();
        self.untag(&change, &going).await?;
        for name in &going[..told] {
            self.tell("untag", &image.id, name);
        }
        removed.untagged = going;
        if leaving.is_some() {
            self.delete(&image, &mut removed).await?;
        }
        Ok(removed)
    }

    /// Removes images without a name (`all`: those without a container) that no container uses, of those that `takes`
    /// is true of.
    ///
    /// # Errors
    /// Where the datastore refuses.
    pub async fn prune(
        self: &Arc<Self>,
        all: bool,
        takes: impl Fn(&ImageRecord) -> bool,
        users: impl Fn(&str) -> Vec<User>,
    ) -> Result<Removed> {
        let change = self.changing().await;
        let mut removed = Removed::default();
        for image in self.all() {
            if (!all && !image.repo_tags.is_empty()) || !takes(&image) {
                continue;
            }
            let Ok(_leaving) = self.uses.leave(&image.id, &users) else {
                continue;
            };
            let names: Vec<String> = image.names().cloned().collect();
            self.untag(&change, &names).await?;
            for name in &names {
                self.tell("untag", &image.id, name);
            }
            removed.untagged.extend(names);
            self.delete(&image, &mut removed).await?;
        }
        Ok(removed)
    }

    async fn untag(self: &Arc<Self>, change: &Change, names: &[String]) -> Result<()> {
        self.change_tags(change, |tags| {
            for name in names {
                tags.tags.remove(name);
                tags.digests.remove(name);
            }
        })
        .await
    }

    /// Removes the record, then what only it named. The caller holds `change`, and has nobody make a container of it.
    async fn delete(&self, shown: &ImageRecord, removed: &mut Removed) -> Result<()> {
        let id = &parse_id(&shown.id)?;
        let Some((generation, image)) = self.read(|s| s.images.get(id).cloned()) else {
            return Ok(());
        };
        self.store
            .records()
            .remove(&image_record(id), generation)
            .await?;
        self.write(|s| s.images.remove(id));
        let freed: u64 = image
            .layers
            .iter()
            .filter(|l| !self.read(|s| s.images.values().any(|(_, i)| i.layers.contains(l))))
            .map(super::StoredLayer::size)
            .sum();
        self.sweep().await?;
        removed.freed += freed;
        self.tell("delete", &shown.id, &shown.id);
        removed.deleted.push(shown.id.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn a_digest_goes_with_the_last_tag_of_its_own_repository() {
        for (name, all, going) in [
            ("a:1", &["a:1"][..], &["a:1"][..]),
            ("a:1", &["a:1", "a@d", "a@e"], &["a:1", "a@d", "a@e"]),
            ("a:1", &["a:1", "a:2", "a@d"], &["a:1"]),
            // Held by another repository's digest (`docker tag redis@sha256:… tmp:1`, `docker rmi tmp:1`).
            ("tmp:1", &["tmp:1", "redis@d"], &["tmp:1"]),
            ("a:1", &["a:1", "b:1", "a@d", "b@d"], &["a:1", "a@d"]),
            (
                "h:5000/a:1",
                &["h:5000/a:1", "h:5000/a/b:1", "h:5000/a@d"],
                &["h:5000/a:1", "h:5000/a@d"],
            ),
            ("a@d", &["a:1", "a@d"], &["a@d"]),
            ("a@d", &["a@d", "a@e"], &["a@d"]),
        ] {
            assert_eq!(
                going_with(name, &names(all)),
                names(going),
                "{name} of {all:?}"
            );
        }
    }

    #[test]
    fn one_repository_with_one_tag_at_most_is_a_single_name() {
        for (all, is) in [
            (&[][..], false),
            (&["a:1"], true),
            (&["a@d"], true),
            (&["a:1", "a@d"], true),
            (&["a@d", "a@e"], true),
            (&["a:1", "a:2"], false),
            (&["a:1", "b@d"], false),
            (&["a@d", "b@d"], false),
        ] {
            assert_eq!(is_single(&names(all)), is, "{all:?}");
        }
    }

    #[test]
    fn conflicts_are_dockers() {
        let user = |running| User {
            container: Some("0123456789abcdef".to_owned()),
            running,
        };
        let coming = User {
            container: None,
            running: false,
        };
        let check = |by_name, force, all: &[&str], users: &[User]| {
            let asked = Asked {
                name: if by_name { "a" } else { "ab" },
                by_name,
                force,
                names: &names(all),
                short: "ab",
            };
            asked
                .check(users)
                .map_err(|e| e.message)
                .err()
                .unwrap_or_default()
        };
        let one = &["a:latest", "a@d"][..];
        let more = &["a:latest", "b@d"][..];
        let by_reference = "conflict: unable to remove repository reference \"a\" (must force) - container 0123456789ab is using its referenced image ab";
        for running in [true, false] {
            assert_eq!(check(true, false, one, &[user(running)]), by_reference);
            assert_eq!(check(true, true, one, &[user(running)]), "");
            assert_eq!(check(true, false, more, &[user(running)]), "");
        }
        let runs = "conflict: unable to delete ab (cannot be forced) - image is being used by running container 0123456789ab";
        for (force, all) in [(true, one), (false, one), (true, more), (false, more)] {
            assert_eq!(check(false, force, all, &[user(false), user(true)]), runs);
        }
        assert_eq!(
            check(false, false, more, &[user(false)]),
            "conflict: unable to delete ab (must be forced) - image is referenced in multiple repositories"
        );
        for all in [one, &[]] {
            assert_eq!(
                check(false, false, all, &[user(false)]),
                "conflict: unable to delete ab (must be forced) - image is being used by stopped container 0123456789ab"
            );
        }
        for (force, all) in [
            (true, one),
            (true, more),
            (true, &[]),
            (false, one),
            (false, &[]),
        ] {
            assert_eq!(check(false, force, all, &[]), "");
        }
        assert_eq!(
            check(true, false, one, std::slice::from_ref(&coming)),
            "conflict: unable to remove repository reference \"a\" (must force) - a container that is being created is using its referenced image ab"
        );
        assert_eq!(
            check(false, false, one, &[coming]),
            "conflict: unable to delete ab (must be forced) - image is being used by a container that is being created"
        );
    }
}
