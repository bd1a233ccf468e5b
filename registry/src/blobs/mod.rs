//! The blobs' bytes. An object has a key (32 hex digits, new for every upload); which digest it holds is in the metadata.
//!
//! Uploads are staged as files in a local folder. A folder store then renames the file; an S3 store sends it in parts.

mod body;
mod folder;
mod object;

pub use body::BlobBody;
pub use folder::Folder;
pub use object::{Objects, S3Settings};

use std::io;
use std::ops::Range;
use std::path::PathBuf;

/// Why the store did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No space left; reads go on.
    #[error("the disk that holds the registry's blobs is full; free some space or collect garbage")]
    Full,
    /// A file or folder of the store.
    #[error("{doing} {path}: {source}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An object store's answer.
    #[error("object store: {0}")]
    Objects(#[from] object_store::Error),
}

impl Error {
    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full,
            _ => Error::File {
                doing,
                path,
                source,
            },
        }
    }

    /// Whether the object is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Error::File { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Error::Objects(e) => matches!(e, object_store::Error::NotFound { .. }),
            Error::Full => false,
        }
    }
}

/// Where blobs are.
#[derive(Debug)]
pub enum Store {
    /// Files in a folder.
    Folder(Folder),
    /// Objects of an S3-compatible service, staged in a folder.
    Objects(Objects),
}

impl Store {
    /// The folder in which uploads are staged.
    #[must_use]
    pub fn staging(&self) -> &Folder {
        match self {
            Store::Folder(folder) => folder,
            Store::Objects(objects) => objects.staging(),
        }
    }

    /// A staged file, which is synced, becomes the object of its key, or is about to: a folder needs nothing done before
    /// the metadata name the object ([`Store::settle`] follows), an object store gets it now.
    ///
    /// # Errors
    /// When the object could not be stored.
    pub async fn keep(&self, key: &str) -> Result<(), Error> {
        match self {
            Store::Folder(_) => Ok(()),
            Store::Objects(objects) => objects.upload(key).await,
        }
    }

    /// Whether [`Store::keep`] makes an object that the metadata do not name yet.
    #[must_use]
    pub fn keeps_first(&self) -> bool {
        matches!(self, Store::Objects(_))
    }

    /// Moves a staged file to its place, or away when the object store has it. Not waited for by anybody: reads look in
    /// both places, and the next start moves what was left.
    ///
    /// # Errors
    /// When the file cannot be moved.
    pub fn settle(&self, key: &str) -> Result<(), Error> {
        match self {
            Store::Folder(folder) => folder.settle(key),
            Store::Objects(objects) => objects.staging().discard(key),
        }
    }

    /// Opens a range of an object for sending.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    pub async fn open(&self, key: &str, range: Range<u64>) -> Result<BlobBody, Error> {
        match self {
            Store::Folder(folder) => Ok(BlobBody::file(folder.open(key)?, range)),
            Store::Objects(objects) => objects.open(key, range).await,
        }
    }

    /// Deletes an object; one that is not there is no error.
    ///
    /// # Errors
    /// When it is still there.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        match self {
            Store::Folder(folder) => folder.delete(key),
            Store::Objects(objects) => objects.delete(key).await,
        }
    }
}
