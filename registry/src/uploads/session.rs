//! One upload while a request works on it: its staged file, and the hash over what is in it. Between requests there is
//! only the record, so that idle uploads cost no file and no memory, and a failed write needs no repair.

use super::{Error, rehash};
use crate::blobs::{self, Store};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::metadata::{Metadata, UploadRow};
use crate::names::RepositoryName;
use std::fs::File;
use std::sync::Arc;

/// An upload.
#[derive(Debug)]
pub(super) struct Session {
    id: String,
    repository: RepositoryName,
    pub(super) file: Arc<File>,
    /// `None` while a piece is written, and after a write has failed: nothing can be recorded then.
    pub(super) hasher: Option<Hasher>,
    pub(super) received: u64,
    /// Bytes that the record tells; `None` when it must not have one.
    recorded: Option<u64>,
    synced: u64,
    /// Whether the file's entry in its folder is durable.
    named: bool,
}

impl Session {
    pub(super) async fn create(
        store: &Arc<Store>,
        id: &str,
        repository: &RepositoryName,
        algorithm: Algorithm,
    ) -> Result<Self, Error> {
        let (store, key) = (store.clone(), id.to_owned());
        let file = blocking(move || Ok(store.staging().stage(&key)?)).await?;
        Ok(Session {
            id: id.to_owned(),
            repository: repository.clone(),
            file: Arc::new(file),
            hasher: Some(Hasher::new(algorithm)),
            received: 0,
            recorded: Some(0),
            synced: 0,
            named: false,
        })
    }

    /// From its record: the file is cut to what the hash's state is over.
    pub(super) async fn resume(store: &Arc<Store>, row: UploadRow) -> Result<Self, Error> {
        let damaged = |e: &dyn std::fmt::Display| Error::Broken(format!("{}: {e}", row.id));
        let algorithm: Algorithm = row.algorithm.parse().map_err(|e| damaged(&e))?;
        let hasher = Hasher::restore(algorithm, &row.state).map_err(|e| damaged(&e))?;
        let repository = row.repository.parse().map_err(|e| damaged(&e))?;
        let (store, id, received) = (store.clone(), row.id.clone(), row.received);
        let file = blocking(move || {
            let staging = store.staging();
            match staging.reopen(&id, received) {
                // Made by the first byte.
                Err(e) if e.is_missing() && received == 0 => {
                    let file = staging.stage(&id)?;
                    // Before any record tells of bytes in it.
                    staging.sync_staging()?;
                    Ok(file)
                }
                file => Ok(file?),
            }
        })
        .await?;
        Ok(Session {
            id: row.id,
            repository,
            file: Arc::new(file),
            hasher: Some(hasher),
            received,
            recorded: Some(received),
            synced: received,
            named: true,
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn never_record(&mut self) {
        self.recorded = None;
    }

    pub(super) fn is_recorded(&self) -> bool {
        self.recorded.is_some()
    }

    /// A record was written on the way.
    pub(super) fn is_recorded_to(&mut self, received: u64) {
        self.recorded = Some(received);
    }

    /// Before the first byte, the hash can still be the one that is wanted.
    pub(super) fn expect(&mut self, algorithm: Algorithm) {
        if self.received == 0 && self.algorithm() != Some(algorithm) {
            self.hasher = Some(Hasher::new(algorithm));
        }
    }

    fn algorithm(&self) -> Option<Algorithm> {
        self.hasher.as_ref().map(Hasher::algorithm)
    }

    /// What is to be recorded of it.
    pub(super) fn row(&self) -> UploadRow {
        let (algorithm, state) = match &self.hasher {
            Some(hasher) => (hasher.algorithm(), hasher.save()),
            None => (Algorithm::Sha256, Vec::new()),
        };
        UploadRow {
            id: self.id.clone(),
            repository: self.repository.as_str().to_owned(),
            algorithm: algorithm.name().to_owned(),
            received: self.received,
            state,
        }
    }

    /// After a write that failed, most likely because the disk is full: frees what the record does not tell of, so that
    /// the metadata have room to go on.
    fn give_back(&self) {
        let kept = self.recorded.unwrap_or(0);
        if let Err(e) = self.file.set_len(kept) {
            tracing::warn!("upload {} cannot be cut to {kept} bytes: {e}", self.id);
        }
    }

    /// Makes what came durable, and says so in the record.
    pub(super) async fn record(
        &mut self,
        store: &Arc<Store>,
        metadata: &Metadata,
    ) -> Result<(), Error> {
        if self.hasher.is_none() {
            self.give_back();
            return Ok(());
        }
        if self.recorded.is_none_or(|n| n == self.received) {
            return Ok(());
        }
        self.sync(store).await?;
        let row = self.row();
        metadata.write(move |db| db.record_upload(&row)).await?;
        self.recorded = Some(self.received);
        Ok(())
    }

    /// Makes file and name durable.
    pub(super) async fn sync(&mut self, store: &Arc<Store>) -> Result<(), Error> {
        let (file, id) = (self.file.clone(), self.id.clone());
        let (data, name) = (self.synced < self.received, !self.named);
        if data || name {
            let store = store.clone();
            blocking(move || {
                if data {
                    file.sync_data()
                        .map_err(blobs::Error::file("sync upload", id))?;
                }
                if name {
                    store.staging().sync_staging()?;
                }
                Ok(())
            })
            .await?;
        }
        self.synced = self.received;
        self.named = true;
        Ok(())
    }

    /// The digest of what came.
    pub(super) async fn digest(&mut self, algorithm: Algorithm) -> Result<Digest, Error> {
        match &self.hasher {
            Some(hasher) if hasher.algorithm() == algorithm => Ok(hasher.clone().finish()),
            _ => {
                let (file, length, id) = (self.file.clone(), self.received, self.id.clone());
                blocking(move || {
                    Ok(rehash(&file, length, algorithm)
                        .map_err(blobs::Error::file("read upload", id))?)
                })
                .await
            }
        }
    }
}

/// Runs what may wait for the disk on a thread for that.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(Error::Broken(e.to_string())),
    }
}
