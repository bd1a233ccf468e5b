//! Uploads of blobs: hashed as they stream in, resumable at the reported offset after a crash, gone when idle.
//!
//! What an answer reports is durable: the staged file is synced, and the metadata hold its length with the hash's state
//! over exactly that much. Bytes beyond it, of a chunk that a crash cut, are cut off when the upload is taken up again.

mod receive;
mod session;
mod turn;

use crate::access::{Permit, Refused};
use crate::audit;
use crate::blobs::{self, Store};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::metadata::{self, Metadata, UploadRow, now};
use crate::names::RepositoryName;
use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use session::Session;
use std::io;
use std::sync::Arc;
use turn::{Slot, Turns};
use uuid::Uuid;

/// Why an upload did not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Never begun, finished, cancelled or expired; or another repository's.
    #[error(
        "there is no such upload here; it may have been finished, cancelled, or idle for too long"
    )]
    Unknown,
    /// The repository's project does not exist.
    #[error("there is no project {0}; a cloud administrator can create it")]
    NoProject(String),
    /// A chunk that does not begin where the last one ended.
    #[error("the chunk begins at {begin}, but {received} bytes have come so far")]
    OutOfOrder {
        /// Where it would begin.
        begin: u64,
        /// Where it must begin.
        received: u64,
    },
    /// The bytes are not those that were announced.
    #[error("the digest of what came is {found}, not {wanted}; the upload is discarded")]
    Digest {
        /// Of what came.
        found: Digest,
        /// What was announced.
        wanted: Digest,
    },
    /// A chunk's length is not the announced one.
    #[error("the chunk has {found} bytes, its Content-Range says {wanted}")]
    Size {
        /// Bytes that came (one more than announced stands for all that follow).
        found: u64,
        /// Bytes announced.
        wanted: u64,
    },
    /// The connection broke; what came is kept.
    #[error("the chunk was cut off: {0}; ask for the upload's offset and go on there")]
    Cut(String),
    /// Who sent it may not any more.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The project may not hold so much.
    #[error(transparent)]
    Quota(#[from] metadata::QuotaExceeded),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] blobs::Error),
    /// The metadata failed.
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
    /// A defect or a damaged file.
    #[error("upload {0}")]
    Broken(String),
}

/// All uploads.
#[derive(Debug)]
pub struct Uploads {
    metadata: Arc<Metadata>,
    store: Arc<Store>,
    turns: Turns,
}

impl Uploads {
    /// Over what is in metadata and store; nothing is read yet.
    #[must_use]
    pub fn new(metadata: Arc<Metadata>, store: Arc<Store>) -> Arc<Self> {
        Arc::new(Uploads {
            metadata,
            store,
            turns: Turns::default(),
        })
    }

    /// After a crash: moves finished files to their places and removes what belongs to no upload. Looks at the staging
    /// folder only, which holds what is on its way.
    ///
    /// # Errors
    /// When the folder or the metadata cannot be read.
    pub fn recover(&self) -> Result<(), Error> {
        for key in self.store.staging().staged_keys()? {
            let (upload, stored) = self.metadata.read(|db| {
                Ok::<_, metadata::Error>((db.upload(&key)?.is_some(), db.is_stored(&key)?))
            })?;
            if stored {
                self.store.settle(&key)?;
            } else if !upload {
                tracing::info!("upload {key} was cut off before it was acknowledged; removed");
                self.store.staging().discard(&key)?;
            }
        }
        Ok(())
    }

    /// Begins an upload; its ID.
    ///
    /// # Errors
    /// When the repository's project does not exist, or nothing can be stored.
    pub async fn begin(
        &self,
        repository: &RepositoryName,
        algorithm: Algorithm,
    ) -> Result<String, Error> {
        let id = Uuid::new_v4().simple().to_string();
        let row = UploadRow {
            id: id.clone(),
            repository: repository.as_str().to_owned(),
            algorithm: algorithm.name().to_owned(),
            received: 0,
            state: Hasher::new(algorithm).save(),
        };
        let project = repository.project().to_owned();
        self.metadata
            .write(move |db| {
                if db.project(&project)?.is_none() {
                    return Err(Error::NoProject(project));
                }
                Ok(db.record_upload(&row)?)
            })
            .await?;
        Ok(id)
    }

    /// How many bytes of an upload are durable.
    ///
    /// # Errors
    /// When there is none.
    pub fn status(&self, id: &str, repository: &RepositoryName) -> Result<u64, Error> {
        Ok(self.known(id, repository)?.received)
    }

    /// Whether a request works on an upload now: one that comes next ends it.
    #[must_use]
    pub fn is_taken(&self, id: &str) -> bool {
        self.turns.taken(id)
    }

    /// Takes in a chunk; the bytes that are durable now. `range`: where it says it begins, and its length. A chunk of a
    /// client that came back ends the one that was still being waited for.
    ///
    /// # Errors
    /// See [`Error`]; after `OutOfOrder`, `Size` and `Cut` the upload goes on at its [`Uploads::status`].
    pub async fn append<B>(
        self: &Arc<Self>,
        id: &str,
        permit: Permit,
        range: Option<(u64, u64)>,
        body: B,
    ) -> Result<u64, Error>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::fmt::Display + Send,
    {
        self.known(id, &permit.repository)?;
        let (this, id) = (self.clone(), id.to_owned());
        // On a task of its own, so that a client that hangs up leaves an upload that can go on.
        unbroken(async move {
            let turn = this.turns.take(&id).await;
            let mut session = this.resume(&id).await?;
            let received = session
                .receive(&this.metadata, turn.slot(), range, body)
                .await;
            let kept = session.record(&this.store, &this.metadata).await;
            received?;
            kept?;
            this.metadata.read(|db| permit.check::<Error>(db))?;
            Ok(session.received())
        })
        .await
    }

    /// Takes in the last chunk, which may be empty, and makes the blob: verified, durable, readable in the repository.
    ///
    /// # Errors
    /// See [`Error`]; after `Digest` the upload is gone.
    pub async fn finish<B>(
        self: &Arc<Self>,
        id: &str,
        permit: Permit,
        range: Option<(u64, u64)>,
        body: B,
        digest: Digest,
    ) -> Result<(), Error>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::fmt::Display + Send,
    {
        self.known(id, &permit.repository)?;
        let (this, id) = (self.clone(), id.to_owned());
        unbroken(async move {
            let turn = this.turns.take(&id).await;
            let mut session = this.resume(&id).await?;
            session.expect(digest.algorithm());
            let received = session
                .receive(&this.metadata, turn.slot(), range, body)
                .await;
            let done = match received {
                Ok(()) => this.complete(&mut session, digest, true, permit).await,
                Err(e) => Err(e),
            };
            match &done {
                Ok(()) => {}
                Err(Error::Digest { .. } | Error::Quota(_) | Error::Refused(_)) => {
                    this.remove(&id).await?
                }
                Err(_) => session.record(&this.store, &this.metadata).await?,
            }
            done
        })
        .await
    }

    /// Takes in a whole blob in one go. Nothing of it was promised before the end, so nothing is recorded before.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left of it then.
    pub async fn whole<B>(
        self: &Arc<Self>,
        permit: Permit,
        body: B,
        digest: Digest,
    ) -> Result<(), Error>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::fmt::Display + Send,
    {
        let this = self.clone();
        unbroken(async move {
            let id = Uuid::new_v4().simple().to_string();
            let algorithm = digest.algorithm();
            let mut session =
                Session::create(&this.store, &id, &permit.repository, algorithm).await?;
            session.never_record();
            let slot = Slot::default();
            let received = session.receive(&this.metadata, &slot, None, body).await;
            let done = match received {
                Ok(()) => this.complete(&mut session, digest, false, permit).await,
                Err(e) => Err(e),
            };
            if done.is_err() {
                this.store.staging().discard(&id)?;
            }
            done
        })
        .await
    }

    /// Ends an upload for good.
    ///
    /// # Errors
    /// When there is none, or it cannot be removed.
    pub async fn cancel(
        self: &Arc<Self>,
        id: &str,
        repository: &RepositoryName,
    ) -> Result<(), Error> {
        self.known(id, repository)?;
        let (this, id) = (self.clone(), id.to_owned());
        unbroken(async move {
            let _turn = this.turns.take(&id).await;
            this.remove(&id).await
        })
        .await
    }

    /// Removes uploads that got no byte for `idle` milliseconds; how many.
    ///
    /// # Errors
    /// When the metadata or the store fail.
    pub async fn expire(self: &Arc<Self>, idle: i64) -> Result<u64, Error> {
        let before = now().saturating_sub(idle);
        let old = self
            .metadata
            .read(|db| db.uploads_untouched_since(before))?;
        let mut removed = 0;
        for id in old {
            if self.turns.active(&id).is_some_and(|at| at > before) {
                continue;
            }
            let _turn = self.turns.take(&id).await;
            match self.remove(&id).await {
                Ok(()) => removed += 1,
                Err(Error::Unknown) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(removed)
    }

    /// The upload's record, if it is one of this repository.
    fn known(&self, id: &str, repository: &RepositoryName) -> Result<UploadRow, Error> {
        self.metadata
            .read(|db| db.upload(id))?
            .filter(|row| row.repository == repository.as_str())
            .ok_or(Error::Unknown)
    }

    /// The upload as it is recorded. Called with the turn.
    async fn resume(&self, id: &str) -> Result<Session, Error> {
        let row = self
            .metadata
            .read(|db| db.upload(id))?
            .ok_or(Error::Unknown)?;
        Session::resume(&self.store, row).await
    }

    async fn remove(&self, id: &str) -> Result<(), Error> {
        let key = id.to_owned();
        let was = self
            .metadata
            .write(move |db| db.forget_upload(&key))
            .await?;
        self.store.staging().discard(id)?;
        if was { Ok(()) } else { Err(Error::Unknown) }
    }

    /// Verifies, makes durable, and hands the blob to the repository.
    async fn complete(
        &self,
        session: &mut Session,
        wanted: Digest,
        recorded: bool,
        permit: Permit,
    ) -> Result<(), Error> {
        let found = session.digest(wanted.algorithm()).await?;
        if found != wanted {
            return Err(Error::Digest { found, wanted });
        }
        session.sync(&self.store).await?;
        let (key, size) = (session.id().to_owned(), session.received());
        if self.store.keeps_first() {
            let key = key.clone();
            // Should we end before the metadata name it, the next start deletes the object.
            self.metadata
                .write(move |db| db.throw_away(&key, size, true))
                .await?;
        }
        self.store.keep(&key).await?;
        let (id, repository) = (key.clone(), session.repository().clone());
        let keeps_first = self.store.keeps_first();
        let draft = permit.draft.clone();
        let new = draft
            .commit(&self.metadata, StatusCode::CREATED, move |db, _| {
                permit.check::<Error>(db)?;
                let repository = db
                    .ensure_repository(&repository)?
                    .ok_or_else(|| Error::NoProject(repository.project().to_owned()))?;
                if recorded && !db.forget_upload(&id)? {
                    return Err(Error::Unknown);
                }
                let new = db.charged(repository.project, || {
                    Ok::<_, Error>(db.add_blob(repository.id, &wanted, size, &id)?)
                })?;
                if keeps_first && new {
                    db.take_out(&id)?;
                } else if keeps_first {
                    db.throw_away(&id, size, false)?;
                }
                // A blob that was there already is one that was pushed.
                Ok::<_, Error>(audit::Done(new))
            })
            .await;
        if let (Err(Error::Quota(_) | Error::Refused(_)), true) = (&new, keeps_first) {
            // The object was written for nothing; the next collection deletes it.
            let id = key.clone();
            self.metadata
                .write(move |db| db.throw_away(&id, size, false))
                .await?;
        }
        let audit::Done(new) = new?;
        // The blob is there; what is left is tidying, which the next start does if this fails.
        let tidied = if new {
            self.store.settle(&key)
        } else {
            self.store.staging().discard(&key)
        };
        if let Err(e) = tidied {
            tracing::warn!("after upload {key}: {e}");
        }
        Ok(())
    }
}

/// Runs to its end even when the caller is dropped.
async fn unbroken<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(e) => Err(Error::Broken(e.to_string())),
    }
}

/// Hashes a file anew: only for a blob whose algorithm was told after its bytes.
fn rehash(file: &std::fs::File, length: u64, algorithm: Algorithm) -> io::Result<Digest> {
    use std::os::unix::fs::FileExt;
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    while at < length {
        let most = usize::try_from(length - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        file.read_exact_at(&mut buffer[..most], at)?;
        hasher.update(&buffer[..most]);
        at += most as u64;
    }
    Ok(hasher.finish())
}
