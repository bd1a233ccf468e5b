//! What a job's child does, from its clone to its last record.

use super::{changes, place, read, write};
use crate::boot::disk::Found;
use crate::container::{StartError, reason};
use crate::sys::process as sys;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use wire::config::GuestConfig;
use wire::files::{Failure, FailureKind, Job, PIECE_MAX, Record, piece_header, put};

/// Capabilities of a child that is in its place: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_ADMIN (for the overlay's own
/// attributes), MKNOD, SETFCAP.
const HELD: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 21 | 1 << 27 | 1 << 31;

/// Runs a job; the exit code tells nobody anything.
pub fn run(job: &Job, config: &GuestConfig, disk: &Found, input: OwnedFd, output: OwnedFd) -> i32 {
    // Whatever a file tree makes it take, the tether lives on.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    sys::close_all_but(&[input.as_raw_fd(), output.as_raw_fd()]);
    sys::reset_signals();
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    let mut out = Output {
        file: output.into(),
        buffer: Vec::with_capacity(PIECE_MAX),
    };
    let last = match work(job, config, disk, input.into(), &mut out) {
        Ok(()) => Record::End,
        Err(failure) => Record::Failed(failure),
    };
    // Nobody left to tell if this fails.
    i32::from(out.record(&last).and_then(|()| out.flush()).is_err())
}

fn work(
    job: &Job,
    config: &GuestConfig,
    disk: &Found,
    input: File,
    out: &mut Output,
) -> Result<(), Failure> {
    let lower = place::enter(job, config, disk)?;
    sys::set_capabilities(HELD).map_err(failed("giving up capabilities", Path::new("")))?;
    match (job, lower) {
        (Job::Stat { path }, _) => read::stat(path, out).map(drop),
        (Job::Read { path }, _) => read::read(path, out),
        (
            Job::Write {
                path,
                keep_kinds,
                owner,
            },
            _,
        ) => write::write(path, *keep_kinds, owner, input),
        (Job::Export, _) => read::export(out),
        (Job::Changes, Some(lower)) => changes::list(&lower, out),
        (Job::Layer, Some(lower)) => changes::layer(&lower, out),
        (Job::Changes | Job::Layer, None) => Err(system("there are no layers to compare with")),
    }
}

/// A failure that is neither the request's fault nor "not found".
pub fn system(message: impl Into<String>) -> Failure {
    Failure {
        kind: FailureKind::System,
        message: message.into(),
    }
}

/// A failure that is the request's fault.
pub fn bad(message: impl Into<String>) -> Failure {
    Failure {
        kind: FailureKind::Bad,
        message: message.into(),
    }
}

/// Makes failures out of the system's errors, in Go's words.
pub fn failed<'a>(what: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Failure + 'a {
    move |error| Failure {
        kind: match error.raw_os_error() {
            Some(libc::ENOENT) => FailureKind::NotFound,
            _ => FailureKind::System,
        },
        message: format!("{what} {}: {}", path.display(), reason(&error)),
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        system(error.message)
    }
}

/// Where records go.
#[derive(Debug)]
pub struct Output {
    file: File,
    buffer: Vec<u8>,
}

impl Output {
    /// Writes a record.
    ///
    /// # Errors
    /// Where nobody reads any more, or the record is too long.
    pub fn record(&mut self, record: &Record) -> io::Result<()> {
        put(record, &mut self.buffer).map_err(io::Error::other)?;
        if self.buffer.len() >= PIECE_MAX {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes a piece of a file, of at most [`PIECE_MAX`] bytes.
    ///
    /// # Errors
    /// Where nobody reads any more.
    pub fn piece(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(&piece_header(bytes.len()));
        self.buffer.extend_from_slice(bytes);
        self.flush()
    }

    /// Hands on what waits.
    ///
    /// # Errors
    /// Where nobody reads any more.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}
