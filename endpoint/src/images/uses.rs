//! Who is about to make a container of an image, and which images are about to go. A container is in nobody's list until
//! its VM is made: without this its image could go in the meantime.

use super::{ImageRecord, Images, User};
use crate::errors::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Both, by the images' IDs.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// How many containers are being made of it.
    coming: BTreeMap<String, usize>,
    /// Nobody makes one of these any more.
    leaving: BTreeSet<String>,
}

/// An image that stays as long as this is there.
#[derive(Debug)]
pub struct Claim {
    uses: Arc<Uses>,
    image: Arc<ImageRecord>,
}

impl Claim {
    /// The image.
    pub fn image(&self) -> &Arc<ImageRecord> {
        &self.image
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut table = self.uses.table();
        if let Some(count) = table.coming.get_mut(&self.image.id) {
            *count -= 1;
            if *count == 0 {
                table.coming.remove(&self.image.id);
            }
        }
    }
}

/// An image of which no container is made as long as this is there.
#[derive(Debug)]
pub(super) struct Leaving {
    uses: Arc<Uses>,
    id: String,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.uses.table().leaving.remove(&self.id);
    }
}

impl Images {
    /// Takes hold of the image that a reference means, to make a container of it. It is let go of once the container is
    /// among those that the callers of [`Images::remove`] and [`Images::prune`] know of, or is given up.
    ///
    /// # Errors
    /// 404 where there is no such image, or it is being removed.
    pub fn claim(&self, reference: &str) -> Result<Claim> {
        let mut table = self.uses.table();
        let image = self
            .resolve(reference)
            .filter(|image| !table.leaving.contains(&image.id))
            .ok_or_else(|| Error::no_such_image(reference))?;
        *table.coming.entry(image.id.clone()).or_default() += 1;
        Ok(Claim {
            uses: self.uses.clone(),
            image,
        })
    }
}

impl Uses {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The containers of an image, those that are being made among them.
    pub fn of(&self, id: &str, users: impl Fn(&str) -> Vec<User>) -> Vec<User> {
        self.table().of(id, users)
    }

    /// Has nobody make a container of an image any more.
    ///
    /// # Errors
    /// Its containers, where there are any: then it stays as it is.
    pub fn leave(
        self: &Arc<Self>,
        id: &str,
        users: impl Fn(&str) -> Vec<User>,
    ) -> Result<Leaving, Vec<User>> {
        let mut table = self.table();
        // Within the lock: who lets go of an image has added its container by then.
        let users = table.of(id, users);
        if !users.is_empty() {
            return Err(users);
        }
        table.leaving.insert(id.to_owned());
        Ok(Leaving {
            uses: self.clone(),
            id: id.to_owned(),
        })
    }
}

impl Table {
    fn of(&self, id: &str, users: impl Fn(&str) -> Vec<User>) -> Vec<User> {
        let mut all = users(id);
        if self.coming.contains_key(id) {
            all.push(User {
                container: None,
                running: false,
            });
        }
        all
    }
}
