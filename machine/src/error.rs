//! What can go wrong, each with what to do about it.

use std::path::PathBuf;

/// Errors of `vch`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// It was told to stop before the host served.
    #[error("interrupted before it served; {what}")]
    Interrupted {
        /// What has become of its parts.
        what: &'static str,
    },
    /// Another `vch` works on the same state folder.
    #[error("another vch is working on {}; wait for it to end, or name another folder with --state", path.display())]
    Locked {
        /// The state folder.
        path: PathBuf,
    },
    /// The state folder has a record that this version cannot read.
    #[error("{} is not a state file that this version can read ({reason}); `vch down` of the version that wrote it, or remove the folder", path.display())]
    State {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A program of Mooring is missing.
    #[error("program {name} is not beside vch in {}; build it with `make build`, or name its folder with --programs", folder.display())]
    NoProgram {
        /// Its name.
        name: &'static str,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// No boot files.
    #[error("no boot files in {}: {missing} is missing; make them with `make iso`, or name their folder with --boot", folder.display())]
    NoBoot {
        /// Where they were looked for.
        folder: PathBuf,
        /// The first one that is missing.
        missing: &'static str,
    },
    /// A part could not be started.
    #[error("{name} did not start: {reason}{log}")]
    Start {
        /// The part.
        name: &'static str,
        /// Why.
        reason: String,
        /// The end of its log, on lines of its own.
        log: String,
    },
    /// A part did not end.
    #[error(
        "{name} (process {pid}) did not end within {seconds} s of SIGTERM and was killed; its log says why"
    )]
    Stop {
        /// The part.
        name: &'static str,
        /// Its process.
        pid: u32,
        /// How long was waited.
        seconds: u64,
    },
    /// The network could not be made or removed.
    #[error("cannot {action}: {reason}")]
    Network {
        /// What was tried.
        action: String,
        /// Why it failed, and what to do about it.
        reason: String,
    },
    /// The hypervisor refused something.
    #[error("{action}: {reason}")]
    Hypervisor {
        /// What was tried.
        action: String,
        /// The fault.
        reason: String,
    },
    /// A bad option.
    #[error("{0}")]
    Option(String),
}

impl Error {
    /// A file error, for `map_err`.
    pub fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File {
            action,
            path,
            source,
        }
    }
}
