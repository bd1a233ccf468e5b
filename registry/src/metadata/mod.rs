//! The metadata: everything but the blobs' bytes. All SQL is in this module and below it.
//!
//! Readers run side by side, each on a connection of its own, and see what was committed. Writers are jobs for one
//! thread that commits them in groups (one fsync for all that wait), so a job never meets another's half-done work.
//! What a write answered is on the disk. A version on another database has to offer [`Metadata`], [`Read`] and [`Write`].

mod audit;
mod blobs;
mod garbage;
mod labels;
mod manifests;
mod members;
mod projects;
mod quotas;
mod robots;
mod rules;
mod schema;
mod settings;
mod tags;
mod tokens;
mod trash;
mod uploads;
mod users;
mod visible;
mod webhooks;
mod writer;

pub use audit::{AuditEntry, AuditFilter};
pub use blobs::{Blob, Unlink};
pub use garbage::{Garbage, Place};
pub use labels::{LabelRow, RepositoryRow, TagDetail};
pub use manifests::{Descriptor, Manifest, NewManifest, PutManifest, RemoveManifest};
pub use members::Member;
pub use projects::{Project, ProjectId, RemoveProject, Repository, RepositoryId};
pub use quotas::QuotaExceeded;
pub use robots::{NewRobot, Robot};
pub use rules::{ImmutableRule, RetentionRule, TagRow};
pub use tokens::TokenKey;
pub use trash::Trash;
pub use uploads::UploadRow;
pub use users::{ChangeUser, User};
pub use webhooks::{Delivery, Webhook};

use rusqlite::{Connection, OpenFlags};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use writer::Writer;

/// Why the metadata could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No space left; reads go on.
    #[error("the disk that holds the registry's metadata is full; free some space")]
    Full,
    /// The database's own words.
    #[error("metadata: {0}")]
    Database(Arc<rusqlite::Error>),
    /// The file could not be opened or brought up to date.
    #[error("open the metadata in {path}: {source}")]
    Open {
        /// The database's file.
        path: PathBuf,
        /// What the database said.
        source: Arc<rusqlite::Error>,
    },
    /// A newer version wrote it.
    #[error(
        "the metadata in {path} have schema {found}, this program knows {known}; use the newer program"
    )]
    Newer {
        /// The database's file.
        path: PathBuf,
        /// Version found.
        found: u32,
        /// Newest version known.
        known: u32,
    },
    /// The writing thread has ended.
    #[error(
        "the metadata are closed: the registry is shutting down, or its writer failed (see its log)"
    )]
    Closed,
    /// What was read back is not what was written.
    #[error("the metadata are damaged: {0}")]
    Damaged(&'static str),
}

impl Error {
    fn open(path: &Path, source: rusqlite::Error) -> Self {
        Error::Open {
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(e: rusqlite::Error) -> Self {
        // Where the index of the log cannot grow, it is for want of room, too.
        let index = e
            .sqlite_error()
            .is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE);
        match e.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Error::Full,
            _ if index => Error::Full,
            _ => Error::Database(Arc::new(e)),
        }
    }
}

/// This module's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Milliseconds since 1970.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Idle reading connections that are kept.
const KEPT_READERS: usize = 8;

/// The open database.
#[derive(Debug)]
pub struct Metadata {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    writer: Writer,
}

/// Looks things up. Each call is one statement and so one consistent view.
#[derive(Debug)]
pub struct Read<'a>(&'a Connection);

/// Changes things; all that one job does becomes visible at once or not at all.
#[derive(Debug)]
pub struct Write<'a>(Read<'a>);

impl<'a> Deref for Write<'a> {
    type Target = Read<'a>;

    fn deref(&self) -> &Read<'a> {
        &self.0
    }
}

impl Read<'_> {
    /// Runs a look-up of more than one statement on one view.
    ///
    /// # Errors
    /// Whatever `look` says, or that the database cannot be read.
    pub fn at_once<T>(&self, look: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        self.0.execute_batch("BEGIN DEFERRED")?;
        let found = look(self);
        self.0.execute_batch("ROLLBACK")?;
        found
    }
}

impl Metadata {
    /// Opens the database, making it or bringing it up to date where needed. Reads no more than the schema's version.
    ///
    /// # Errors
    /// When the file cannot be opened, or a newer program wrote it.
    pub fn open(path: &Path) -> Result<Self> {
        let at = |source| Error::open(path, source);
        let mut connection = Connection::open(path).map_err(at)?;
        configure(&connection).map_err(at)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
                 -- So that REPLACE does not get round the triggers that guard rows.
                 PRAGMA recursive_triggers = ON;
                 PRAGMA journal_size_limit = 67108864;",
            )
            .map_err(at)?;
        schema::migrate(&mut connection, path)?;
        Ok(Metadata {
            path: path.to_owned(),
            readers: Mutex::default(),
            writer: Writer::start(connection),
        })
    }

    /// Runs a short look-up in place: point reads by an index, microseconds when they are in memory. What may take longer
    /// belongs on a blocking thread ([`Metadata::read_long`]).
    ///
    /// # Errors
    /// Whatever `look` says, or that the database cannot be read.
    pub fn read<T, E: From<Error>>(
        &self,
        look: impl FnOnce(&Read<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let connection = match self.idle().pop() {
            Some(connection) => connection,
            None => self.reader()?,
        };
        let result = look(&Read(&connection));
        let mut idle = self.idle();
        if idle.len() < KEPT_READERS {
            idle.push(connection);
        }
        result
    }

    /// Runs a look-up that may walk over much, on a blocking thread.
    ///
    /// # Errors
    /// As [`Metadata::read`].
    pub async fn read_long<T, E>(
        self: &Arc<Self>,
        look: impl FnOnce(&Read<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.read(look))
            .await
            .unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Runs a change, and returns when it is durable. An error undoes the whole job. The job goes on when the caller is
    /// dropped, so a client that hangs up leaves no half of it.
    ///
    /// # Errors
    /// Whatever `change` says, or that it could not be made durable.
    pub async fn write<T, E>(
        &self,
        change: impl FnOnce(&Write<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.writer.run(change).await
    }

    /// Hands in a change that nobody waits for; a failure is logged.
    pub fn write_later(&self, change: impl FnOnce(&Write<'_>) -> Result<()> + Send + 'static) {
        self.writer.later(change);
    }

    /// Changes that were handed in and have not begun.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.writer.waiting()
    }

    /// Transactions that were committed since the start.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.writer.commits()
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // A panic while the list was held leaves it whole: it is pushed to and popped from, no more.
        self.readers.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn reader(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        configure(&connection)?;
        connection.execute_batch("PRAGMA query_only = ON; PRAGMA mmap_size = 134217728;")?;
        Ok(connection)
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(30))?;
    connection.set_prepared_statement_cache_capacity(128);
    connection.execute_batch("PRAGMA temp_store = MEMORY; PRAGMA cache_size = -1024;")
}

/// Sizes are kept as SQLite's signed integers; none of ours comes near the limit.
fn size_in(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn size_out(size: i64) -> u64 {
    u64::try_from(size).unwrap_or(0)
}
