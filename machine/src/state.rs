//! The state folder: who works on it, which parts were started, with which options.

use crate::Error;
use crate::network::Kind;
use crate::options::Options;
use crate::process::Process;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// The version of [`Record`] that this build writes.
const VERSION: u32 = 1;

/// How long the lock is waited for. A `vch` that was killed while it started a program has it until that program begins.
const MOMENT: Duration = Duration::from_secs(2);

/// A part that was started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part {
    /// Its process.
    pub process: Process,
    /// What it said when it was ready (hostsim: URL and thumbprint; endpoint: DOCKER_HOST; registry: URL).
    pub ready: String,
}

/// What was last asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// `vch up`: what ends is started again.
    #[default]
    Up,
    /// `vch down` is at work, or was cut short: the endpoint has been told to start no container by itself.
    Ending,
    /// `vch down` has ended it.
    Down,
}

/// What the state folder remembers between two calls of `vch`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Layout of this record.
    pub version: u32,
    /// Identity of this virtual container host; a part of every VM key `mooring.vch`.
    pub vch: String,
    /// Whether it is to run.
    #[serde(default)]
    pub wanted: Wanted,
    /// The options that it was started with.
    pub options: Options,
    /// The kind of network that it was last started with.
    #[serde(default)]
    pub network: Option<Kind>,
    /// Why it is of this kind, as it was said at the start.
    #[serde(default)]
    pub network_why: Option<String>,
    /// What keeps the network's namespaces, where an ordinary user made them.
    #[serde(default)]
    pub namespaces: Option<Part>,
    /// The way out of the containers' network, where that is on bridges.
    #[serde(default)]
    pub uplink: Option<Part>,
    /// What holds published ports, where the network is on bridges.
    #[serde(default)]
    pub ports: Option<Part>,
    /// The registry beside the endpoint, where one was asked for.
    #[serde(default)]
    pub registry: Option<Part>,
    /// The simulated ESXi host.
    pub hostsim: Option<Part>,
    /// The Docker endpoint.
    pub endpoint: Option<Part>,
}

impl Record {
    /// A record of a new virtual container host.
    pub fn new(vch: String, options: Options) -> Self {
        Record {
            version: VERSION,
            vch,
            wanted: Wanted::Up,
            options,
            network: None,
            network_why: None,
            namespaces: None,
            uplink: None,
            ports: None,
            registry: None,
            hostsim: None,
            endpoint: None,
        }
    }
}

/// A state folder that this process alone works on, until it is dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the folder (mode 0700: it holds keys and credentials) and takes its lock.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(Error::file("make folder", path))?;
        let path = path.canonicalize().map_err(Error::file("resolve", path))?;
        let lock_path = path.join("lock");
        let lock = File::options()
            .create(true)
            .append(true)
            .open(&lock_path)
            .map_err(Error::file("open", &lock_path))?;
        match locked_within(lock, MOMENT) {
            Some(Ok(lock)) => Ok(StateDir { path, _lock: lock }),
            None => Err(Error::Locked { path }),
            Some(Err(source)) => Err(Error::File {
                action: "lock",
                path: lock_path,
                source,
            }),
        }
    }

    /// The folder, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The record, if there is one.
    ///
    /// # Errors
    /// [`Error::State`] when it cannot be read.
    pub fn load(&self) -> Result<Option<Record>, Error> {
        load(&self.path)
    }

    /// Writes the record so that it is there, old or new, whenever power fails.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, record: &Record) -> Result<(), Error> {
        let path = record_path(&self.path);
        let new = path.with_extension("json.new");
        let text = serde_json::to_vec_pretty(record).map_err(|e| Error::State {
            path: path.clone(),
            reason: e.to_string(),
        })?;
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(Error::file("write", &path))
    }
}

/// The file with its lock; `None` where somebody else has that for longer.
fn locked_within(file: File, limit: Duration) -> Option<std::io::Result<File>> {
    let (send, receive) = mpsc::channel();
    // A lock cannot be waited for with a limit. Who comes too late drops the file, and the lock with it.
    std::thread::spawn(move || {
        let locked = flock(&file, FlockOperation::LockExclusive);
        let _ = send.send(locked.map(|()| file).map_err(Into::into));
    });
    receive.recv_timeout(limit).ok()
}

fn record_path(state: &Path) -> PathBuf {
    state.join("vch.json")
}

/// Reads the record of a state folder without its lock (`vch status` works while `vch up` runs).
///
/// # Errors
/// [`Error::State`] when it cannot be read.
pub fn load(state: &Path) -> Result<Option<Record>, Error> {
    let path = record_path(state);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::file("read", path)(e)),
    };
    let record: Record = serde_json::from_slice(&text).map_err(|e| Error::State {
        path: path.clone(),
        reason: e.to_string(),
    })?;
    if record.version == VERSION {
        Ok(Some(record))
    } else {
        Err(Error::State {
            path,
            reason: format!("its version is {}, ours {VERSION}", record.version),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_vch_is_refused_while_the_first_works() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(dir.path()).unwrap();
        assert!(matches!(
            StateDir::open(dir.path()),
            Err(Error::Locked { .. })
        ));
        drop(first);
        StateDir::open(dir.path()).unwrap();
    }

    #[test]
    fn a_record_comes_back_and_a_damaged_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        assert!(state.load().unwrap().is_none());
        state
            .save(&Record::new("one".into(), Options::default()))
            .unwrap();
        assert_eq!(state.load().unwrap().unwrap().vch, "one");
        fs::write(dir.path().join("vch.json"), b"{\"version\":").unwrap();
        assert!(matches!(state.load(), Err(Error::State { .. })));
    }
}
