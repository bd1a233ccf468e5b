//! `docker rmi` and `docker image prune`.

use super::{Change, ImageRecord, Images, Reference, image_record, parse_id};
use crate::errors::{Error, Result};
use serde_json::{Value, json};
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
    /// ID of the container.
    pub container: String,
    /// Whether it runs.
    pub running: bool,
}

impl Images {
    /// Removes a name of an image, and with its last name the image. `users` are the containers made from it.
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
        let id = parse_id(&image.id)?;
        let by_name = Reference::parse(name)
            .ok()
            .map(|r| r.to_string())
            .filter(|n| image.repo_tags.contains(n) || image.repo_digests.contains(n));
        let short = &image.id["sha256:".len()..][..12];
        let users = users(&image.id);
        let mut removed = Removed::default();

        match &by_name {
            Some(name) => {
                let others = image.repo_tags.iter().any(|t| t != name);
                if others || (image.repo_tags.is_empty() && image.repo_digests.len() > 1) {
                    self.untag(&change, std::slice::from_ref(name)).await?;
                    self.tell("untag", &image.id, name);
                    removed.untagged.push(name.clone());
                    return Ok(removed);
                }
            }
            None => {
                if image.repo_tags.len() > 1 && !force {
                    return Err(Error::conflict(format!(
                        "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
                    )));
                }
            }
        }
        let going: Vec<String> = image.names().cloned().collect();
        if let Some(user) = users.iter().find(|u| u.running).or(users.first()) {
            let container = &user.container[..12.min(user.container.len())];
            let what = by_name.as_ref().map_or_else(
                || format!("delete {short}"),
                |n| format!("remove repository reference \"{n}\""),
            );
            if user.running {
                return Err(Error::conflict(format!(
                    "conflict: unable to {what} (cannot be forced) - image is being used by running container {container}"
                )));
            }
            if !force {
                return Err(Error::conflict(format!(
                    "conflict: unable to {what} (must force) - container {container} is using its referenced image {short}"
                )));
            }
            // Its disks are below the container's own: the names go now. It stays as a dangling image, which
            // `docker image prune` takes once the last container is gone.
            self.untag_all(&change, &image, going, &mut removed).await?;
            return Ok(removed);
        }
        self.untag_all(&change, &image, going, &mut removed).await?;
        removed.freed = self.delete(&id).await?;
        self.tell("delete", &image.id, &image.id);
        removed.deleted.push(image.id.clone());
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
            if (!all && !image.repo_tags.is_empty())
                || !takes(&image)
                || !users(&image.id).is_empty()
            {
                continue;
            }
            let names: Vec<String> = image.names().cloned().collect();
            self.untag_all(&change, &image, names, &mut removed).await?;
            removed.freed += self.delete(&parse_id(&image.id)?).await?;
            self.tell("delete", &image.id, &image.id);
            removed.deleted.push(image.id.clone());
        }
        Ok(removed)
    }

    /// Takes all names of an image away, and tells of it.
    async fn untag_all(
        self: &Arc<Self>,
        change: &Change,
        image: &ImageRecord,
        names: Vec<String>,
        removed: &mut Removed,
    ) -> Result<()> {
        self.untag(change, &names).await?;
        for name in &names {
            self.tell("untag", &image.id, name);
        }
        removed.untagged.extend(names);
        Ok(())
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

    /// Removes the record, then what only it named. Gives the bytes of layers that are gone.
    async fn delete(&self, id: &layers::Digest) -> Result<u64> {
        let Some((generation, image)) = self.read(|s| s.images.get(id).cloned()) else {
            return Ok(0);
        };
        self.store
            .records()
            .remove(&image_record(id), generation)
            .await?;
        self.write(|s| s.images.remove(id));
        let freed = image
            .layers
            .iter()
            .filter(|l| !self.read(|s| s.images.values().any(|(_, i)| i.layers.contains(l))))
            .map(super::StoredLayer::size)
            .sum();
        self.sweep().await?;
        Ok(freed)
    }
}
