//! What a job's child does, from its clone to its last record.

use super::tree::{Kernel, described, in_image};
use super::{place, write};
use crate::boot::disk::Found;
use crate::container::mounts::follow;
use crate::container::{StartError, reason};
use crate::sys::process as sys;
pub use filetree::system;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use wire::config::GuestConfig;
use wire::files::{Failure, FailureKind, Job, Record};

type Output = filetree::Output<File>;

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
    let mut out = Output::new(output.into());
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
        (Job::Stat { path }, _) => stat(path, out).map(drop),
        (Job::Read { path }, _) => {
            let found = stat(path, out)?;
            filetree::read(&mut Kernel::at(OsStr::from_bytes(path)), &found, out)
        }
        (
            Job::Write {
                path,
                keep_kinds,
                owner,
            },
            _,
        ) => write::write(path, *keep_kinds, owner, input),
        (Job::Export, _) => filetree::export(&mut Kernel::at("/"), out),
        (Job::Changes, Some(lower)) => {
            let image = &mut |path: &[u8]| in_image(&lower, path);
            filetree::list(&mut Kernel::at("/"), image, out)
        }
        (Job::Layer, Some(lower)) => {
            let image = &mut |path: &[u8]| in_image(&lower, path);
            filetree::layer(&mut Kernel::at("/"), image, out)
        }
        (Job::Changes | Job::Layer, None) => Err(system("there are no layers to compare with")),
    }
}

/// Tells what a path means.
fn stat(path: &[u8], out: &mut Output) -> Result<filetree::Found, Failure> {
    let path = Path::new(OsStr::from_bytes(path));
    let found = fs::symlink_metadata(path).map_err(failed("lstat", path))?;
    let target = if found.is_symlink() {
        // As far as it leads somewhere.
        follow(path, &mut |_, _| Ok(())).map_err(failed("lstat", path))?
    } else {
        PathBuf::new()
    };
    let found = described(&found);
    filetree::stat(&found, target.into_os_string().into_vec(), out)?;
    Ok(found)
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
