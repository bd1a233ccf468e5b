//! Records on the datastore: immutable, generation-numbered files with a checksum inside
//! (`name.N.json`); of each name the highest valid one counts
//! (docs/decisions/0010-records-as-generation-files.md).

use crate::errors::{Error, Result};
use crate::images::progress::human;
use crate::vsphere::Vsphere;
use bytes::Bytes;
use layers::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vim::DatastorePath;
use vim::types::DatastoreSearchSpec;

/// The largest record file that is read, and so the largest one that is written, in bytes.
pub const RECORD_MAX: usize = 32 << 20;

/// A folder of records.
#[derive(Debug, Clone)]
pub struct Records {
    vsphere: Arc<Vsphere>,
    folder: DatastorePath,
    /// Generations that may be there beside the one that counts: not heard to be written, or to be deleted.
    strays: Arc<Mutex<BTreeSet<(String, u64)>>>,
}

/// A record that was not deleted, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum Unremoved {
    /// It is there as before.
    #[error(transparent)]
    Refused(Error),
    /// No answer came: it may be gone, and nothing may build on it any more.
    #[error(transparent)]
    Unheard(Error),
}

impl From<Unremoved> for Error {
    fn from(unremoved: Unremoved) -> Self {
        match unremoved {
            Unremoved::Refused(error) | Unremoved::Unheard(error) => error,
        }
    }
}

/// What a record file holds.
#[derive(Serialize, Deserialize)]
struct Envelope {
    generation: u64,
    /// Of the payload's bytes.
    checksum: Digest,
    payload: String,
}

/// A record with its generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<T> {
    /// Number in the file's name.
    pub generation: u64,
    /// What it says.
    pub value: T,
}

/// What [`Records::load`] has found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Of each name the record that counts.
    pub records: BTreeMap<String, Record<Bytes>>,
    /// Names whose newest record is there and cannot be read. Nothing of these was deleted.
    pub unreadable: BTreeMap<String, Unreadable>,
}

/// A record that is there and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Number in the file's name.
    pub generation: u64,
    /// Why not.
    pub error: Error,
}

impl Loaded {
    /// The records, where none may be passed over.
    ///
    /// # Errors
    /// Where one cannot be read.
    pub fn whole(self) -> Result<BTreeMap<String, Record<Bytes>>> {
        match self.unreadable.into_values().next() {
            None => Ok(self.records),
            Some(Unreadable { error, .. }) => Err(error),
        }
    }
}

/// What a failed transfer is told as.
pub(crate) fn failed(what: String) -> impl FnOnce(vim::Error) -> Error {
    move |e| {
        let full = matches!(e, vim::Error::Status { status: 507, .. });
        let hint = if full { FREE_SPACE } else { "" };
        Error::internal(format!("{what}: {e}{hint}"))
    }
}

/// What to do about a datastore that is full.
const FREE_SPACE: &str = "; free space on the datastore and try again";

/// Uploads a file of `length` bytes.
///
/// # Errors
/// Where the datastore refuses, or has no room. ESXi closes the connection of an upload for which there is none, without
/// a word: then the datastore is asked.
pub(crate) async fn upload(
    vsphere: &Vsphere,
    path: &DatastorePath,
    content: impl tokio::io::AsyncRead + Send + Sync + 'static,
    length: u64,
) -> Result<()> {
    let put =
        vsphere
            .client()
            .file_put_stream(vsphere.datacenter_path(), path, content, Some(length));
    let Err(error) = put.await else {
        return Ok(());
    };
    if matches!(error, vim::Error::Http { .. })
        && let Ok(free) = vsphere.free_space().await
        && free < length
    {
        let (free, length) = (human(free), human(length));
        return Err(Error::internal(format!(
            "cannot upload {path}: no space left on the datastore: {free} are free, and the file has {length}{FREE_SPACE}"
        )));
    }
    Err(failed(format!("cannot upload {path}"))(error))
}

impl Records {
    /// The records in a folder; it is made where it is missing.
    ///
    /// # Errors
    /// Where the datastore refuses.
    pub async fn open(vsphere: Arc<Vsphere>, folder: DatastorePath) -> Result<Self> {
        make_folder(&vsphere, &folder).await?;
        Ok(Records {
            vsphere,
            folder,
            strays: Arc::default(),
        })
    }

    /// Name and generation of every record file.
    ///
    /// # Errors
    /// Where the datastore cannot be listed.
    pub async fn names(&self) -> Result<Vec<(String, u64)>> {
        let files = names(&self.vsphere, &self.folder).await?;
        let split = files.iter().filter_map(|file| split(file));
        Ok(split.map(|(n, g)| (n.to_owned(), g)).collect())
    }

    /// Reads all records: of each name the highest valid one. Files of older generations, and damaged ones
    /// that a whole one replaces, are deleted. One that the datastore does not give is told of beside the others.
    ///
    /// # Errors
    /// Where the datastore cannot be read.
    pub async fn load(&self) -> Result<Loaded> {
        let mut generations: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for file in names(&self.vsphere, &self.folder).await? {
            if let Some((name, generation)) = split(&file) {
                generations
                    .entry(name.to_owned())
                    .or_default()
                    .push(generation);
            }
        }
        let mut out = Loaded::default();
        for (name, mut numbers) in generations {
            numbers.sort_unstable_by(|a, b| b.cmp(a));
            let mut found = false;
            for generation in numbers {
                let path = self.folder.join(file_name(&name, generation));
                if found {
                    self.forget(&name, generation).await;
                    continue;
                }
                let bytes = match fetch(&self.vsphere, &path).await {
                    Ok(bytes) => bytes,
                    // What had been told to delete it is done with that only now.
                    Err(error) if error.is_not_found() => continue,
                    Err(error) if is_of_the_file(&error) => {
                        let error = unreadable(&path, &error);
                        let entry = Unreadable { generation, error };
                        out.unreadable.insert(name.clone(), entry);
                        // It may be the one that counts, or the one before it: both stay.
                        break;
                    }
                    Err(error) => return Err(failed(format!("cannot read {path}"))(error)),
                };
                match open(&bytes, generation) {
                    Some(value) => {
                        let record = Record { generation, value };
                        out.records.insert(name.clone(), record);
                        found = true;
                    }
                    // Half-written when something died; the one before it still counts.
                    None => {
                        tracing::warn!(%path, "a damaged record is passed over");
                        self.forget(&name, generation).await;
                    }
                }
            }
        }
        Ok(out)
    }

    /// Writes a record of the generation after `before` (0: none), then deletes the one before.
    ///
    /// # Errors
    /// Where it is larger than could be read back, or the datastore refuses; then the record is as it was.
    pub async fn save<T: Serialize>(&self, name: &str, before: u64, value: &T) -> Result<u64> {
        let generation = before + 1;
        let bytes = seal(name, generation, value)?;
        let path = self.folder.join(file_name(name, generation));
        let stray = (name.to_owned(), generation);
        if let Err(error) = write(&self.vsphere, &path, bytes).await {
            self.strays().insert(stray);
            return Err(error);
        }
        self.strays().remove(&stray);
        if before > 0 {
            self.forget(name, before).await;
        }
        Ok(generation)
    }

    /// Deletes a record.
    ///
    /// # Errors
    /// Where the datastore refuses.
    pub async fn remove(&self, name: &str, generation: u64) -> Result<()> {
        Ok(self.try_remove(name, generation).await?)
    }

    /// Deletes a record of this generation, with what else may be there of its name.
    ///
    /// # Errors
    /// Where the datastore refuses or does not answer; which of them, is told.
    pub async fn try_remove(&self, name: &str, generation: u64) -> Result<(), Unremoved> {
        let strays: Vec<u64> = {
            let all = self.strays();
            let own = all.iter().filter(|(n, g)| n == name && *g != generation);
            own.map(|(_, stray)| *stray).collect()
        };
        for stray in strays {
            let gone = self.delete(name, stray).await;
            // The one that counts goes last: the record is there as long as that is.
            gone.map_err(|error| Unremoved::Refused(error.into()))?;
        }
        self.delete(name, generation).await
    }

    /// Deletes what no longer counts; if that fails, the record's removal or the next start tries again.
    async fn forget(&self, name: &str, generation: u64) {
        if let Err(error) = self.delete(name, generation).await {
            tracing::warn!(%error, "an old record stays until the next start");
            self.strays().insert((name.to_owned(), generation));
        }
    }

    async fn delete(&self, name: &str, generation: u64) -> Result<(), Unremoved> {
        let path = self.folder.join(file_name(name, generation));
        if let Err(error) = unlink(&self.vsphere, &path).await {
            let unheard = is_unheard(&error);
            let error = failed(format!("cannot delete {path}"))(error);
            return Err(match unheard {
                true => Unremoved::Unheard(error),
                false => Unremoved::Refused(error),
            });
        }
        self.strays().remove(&(name.to_owned(), generation));
        Ok(())
    }

    fn strays(&self) -> MutexGuard<'_, BTreeSet<(String, u64)>> {
        self.strays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a folder with its parents; one that exists is left as it is.
///
/// # Errors
/// Where the datastore refuses.
pub async fn make_folder(vsphere: &Vsphere, folder: &DatastorePath) -> Result<()> {
    vsphere
        .client()
        .make_directory(Some(vsphere.datacenter()), folder, true)
        .await
        .map_err(failed(format!("cannot make the folder {folder}")))
}

/// Names of the files in a folder.
///
/// # Errors
/// Where the datastore cannot be listed.
pub async fn names(vsphere: &Vsphere, folder: &DatastorePath) -> Result<Vec<String>> {
    let found = vsphere
        .client()
        .search_datastore(vsphere.browser(), folder, DatastoreSearchSpec::default())
        .await
        .map_err(failed(format!("cannot list {folder}")))?;
    Ok(found.file.into_iter().map(|f| f.path).collect())
}

/// Reads a small file whole, up to [`RECORD_MAX`].
///
/// # Errors
/// Where the datastore refuses, or the file is larger.
pub async fn read(vsphere: &Vsphere, path: &DatastorePath) -> Result<Bytes> {
    fetch(vsphere, path)
        .await
        .map_err(failed(format!("cannot read {path}")))
}

async fn fetch(vsphere: &Vsphere, path: &DatastorePath) -> Result<Bytes, vim::Error> {
    let body = vsphere
        .client()
        .file_get(vsphere.datacenter_path(), path, None)
        .await?;
    body.bytes(RECORD_MAX).await.map(Bytes::from)
}

/// Whether it is this file that cannot be read, and another attempt would end as this one.
fn is_of_the_file(error: &vim::Error) -> bool {
    matches!(
        error,
        vim::Error::TooLarge { .. } | vim::Error::Status { status: 500, .. }
    )
}

fn unreadable(path: &DatastorePath, why: &dyn std::fmt::Display) -> Error {
    Error::internal(format!(
        "the record {path} cannot be read: {why}; put the file back from a backup, or delete it to do without what it tells of"
    ))
}

async fn write(vsphere: &Vsphere, path: &DatastorePath, bytes: Vec<u8>) -> Result<()> {
    let length = bytes.len() as u64;
    upload(vsphere, path, std::io::Cursor::new(bytes), length).await
}

/// Deletes a file; one that is not there is deleted already.
///
/// # Errors
/// Where the datastore refuses.
pub async fn delete(vsphere: &Vsphere, path: &DatastorePath) -> Result<()> {
    unlink(vsphere, path)
        .await
        .map_err(failed(format!("cannot delete {path}")))
}

async fn unlink(vsphere: &Vsphere, path: &DatastorePath) -> Result<(), vim::Error> {
    match vsphere
        .client()
        .file_delete(vsphere.datacenter_path(), path)
        .await
    {
        Err(e) if e.is_not_found() => Ok(()),
        other => other,
    }
}

/// Whether a request may have been done all the same.
fn is_unheard(error: &vim::Error) -> bool {
    match error {
        // A proxy's word: nothing came of what it had passed on.
        vim::Error::Status { status, .. } => matches!(status, 502 | 504),
        // Nothing was sent where there was no connection.
        vim::Error::Fault { .. } | vim::Error::Connect { .. } | vim::Error::Config { .. } => false,
        _ => true,
    }
}

pub(crate) fn file_name(name: &str, generation: u64) -> String {
    format!("{name}.{generation}.json")
}

/// Name and generation of a record file.
pub(crate) fn split(file: &str) -> Option<(&str, u64)> {
    let (name, generation) = file.strip_suffix(".json")?.rsplit_once('.')?;
    Some((name, generation.parse().ok()?))
}

/// What is written into a record's file.
fn seal<T: Serialize>(name: &str, generation: u64, value: &T) -> Result<Vec<u8>> {
    let fail =
        |e: serde_json::Error| Error::internal(format!("cannot write the record {name}: {e}"));
    let payload = serde_json::to_string(value).map_err(fail)?;
    let envelope = Envelope {
        generation,
        checksum: Digest::of(payload.as_bytes()),
        payload,
    };
    let bytes = serde_json::to_vec(&envelope).map_err(fail)?;
    if bytes.len() > RECORD_MAX {
        return Err(Error::bad(format!(
            "the record {name} would have {}, and one of more than {} could not be read back: give what it tells of less text (names, labels, options)",
            human(bytes.len() as u64),
            human(RECORD_MAX as u64)
        )));
    }
    Ok(bytes)
}

/// Looks whether a record could be written, before anything is done that would then be in vain.
///
/// # Errors
/// 400 where it is larger than could be read back.
pub fn check<T: Serialize>(name: &str, value: &T) -> Result<()> {
    // As long as a generation's number can be.
    seal(name, u64::MAX, value).map(drop)
}

/// The payload of a record file, if it is whole and of this generation.
pub(crate) fn open(bytes: &[u8], generation: u64) -> Option<Bytes> {
    let envelope: Envelope = serde_json::from_slice(bytes).ok()?;
    (envelope.generation == generation
        && envelope.checksum == Digest::of(envelope.payload.as_bytes()))
    .then(|| envelope.payload.into())
}

/// Reads a record's payload.
///
/// # Errors
/// Where it is not of this shape: written by another version.
pub fn decode<T: DeserializeOwned>(name: &str, payload: &[u8]) -> Result<T> {
    serde_json::from_slice(payload).map_err(|e| {
        Error::internal(format!(
            "the record {name} cannot be read: {e}; another version of the endpoint may have written it: start that one, or delete the record's file to do without what it tells of"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_was_cut_or_changed_does_not_count() {
        let payload = "{\"a\":1}".to_owned();
        let whole = serde_json::to_vec(&Envelope {
            generation: 3,
            checksum: Digest::of(payload.as_bytes()),
            payload: payload.clone(),
        })
        .unwrap();
        assert_eq!(open(&whole, 3).as_deref(), Some(payload.as_bytes()));
        assert_eq!(open(&whole, 2), None);
        for cut in 0..whole.len() {
            assert_eq!(open(&whole[..cut], 3), None);
        }
        let changed = String::from_utf8(whole).unwrap().replace("1}", "2}");
        assert_eq!(open(changed.as_bytes(), 3), None);
    }

    #[test]
    fn no_record_is_written_that_could_not_be_read_back() {
        // With the quotes around it, and those escaped.
        let around = seal("x", u64::MAX, &"").unwrap().len();
        let most = "a".repeat(RECORD_MAX - around);
        assert_eq!(seal("x", u64::MAX, &most).unwrap().len(), RECORD_MAX);
        check("x", &most).unwrap();
        let error = check("x", &(most + "a")).unwrap_err();
        assert!(error.message.contains("the record x would have"), "{error}");
    }

    #[test]
    fn names_hold_their_generation() {
        assert_eq!(split("tags.12.json"), Some(("tags", 12)));
        assert_eq!(
            split(&file_name("image-ab.cd", 1)),
            Some(("image-ab.cd", 1))
        );
        for other in ["tags.json", "x.vmdk", "a.b.json", ".json"] {
            assert_eq!(split(other), None);
        }
    }
}
