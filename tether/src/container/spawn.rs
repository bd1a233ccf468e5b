//! The tether's side of starting a process: pipes, the clone, and the child's reports.

use super::cgroup::Cgroup;
use super::child::{self, Ends, Entry};
use super::mounts::Plan;
use super::{StartError, caps};
use crate::io::fd::AsyncFile;
use crate::reaper::Reaper;
use crate::sys::process as sys;
use crate::sys::process::{Child, Ended};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use wire::config::{GuestConfig, Process};

/// Where the process is started.
#[derive(Debug)]
pub enum Place<'a> {
    /// As the container's first process.
    First {
        /// The tree to build.
        plan: Plan,
        /// Run the small init (`--init`).
        init: bool,
    },
    /// Beside the process of this pidfd.
    Beside(&'a OwnedFd),
}

/// The tether's ends of a process's stdio.
#[derive(Debug)]
pub struct Stdio {
    /// To the process: a pipe, or the PTY's master. `None`: it reads /dev/null.
    pub stdin: Option<AsyncFile>,
    /// From the process: a pipe, or the PTY's master.
    pub stdout: AsyncFile,
    /// From the process; with a PTY there is none.
    pub stderr: Option<AsyncFile>,
    /// The PTY's master, for its size.
    pub tty: Option<OwnedFd>,
}

/// A child that is ready in the container and waits to be let go.
#[derive(Debug)]
pub struct Waiting {
    /// Process ID in the tether's namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// How it ended, once it has.
    pub ended: oneshot::Receiver<Ended>,
    status: AsyncFile,
    go: AsyncFile,
    stdio: Stdio,
}

/// Clones a child and waits until it is ready in its place, or has failed there.
///
/// # Errors
/// Why it could not be made ready. The child, if any, has ended or will at once.
pub async fn prepare(
    process: &Process,
    config: &GuestConfig,
    cgroup: &Cgroup,
    reaper: &Reaper,
    place: Place<'_>,
) -> Result<Waiting, StartError> {
    let system = |e: io::Error| StartError::system("start", "a process", &e);
    let held = held(process);
    if held & caps::nodes() != 0 {
        cgroup.closes_devices().map_err(|error| {
            StartError::other(format!(
                "closing the VM's devices to the container (BPF_CGROUP_DEVICE, which a capability like SYS_ADMIN needs): \
                 {error}; drop the capability, or use a kernel with CONFIG_CGROUP_BPF"
            ))
        })?;
    }
    // Who may trace in the container has it from there: from the container's own process, or from an exec like this.
    let launches = (held | self::held(&config.process)) & caps::tracing() != 0;
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|e| system(e.into()));
    let (status_in, status_out) = pipe()?;
    let (go_in, go_out) = pipe()?;
    let (mut ours, mut theirs) = (None, None);
    if !process.tty {
        let (stdin_in, stdin_out) = if process.stdin {
            let (i, o) = pipe()?;
            (i, Some(o))
        } else {
            (
                OwnedFd::from(File::open("/dev/null").map_err(system)?),
                None,
            )
        };
        let ((out_in, out_out), (err_in, err_out)) = (pipe()?, pipe()?);
        theirs = Some([stdin_in, out_out, err_out]);
        ours = Some((stdin_out, out_in, err_in));
    }
    let ends = Ends {
        stdio: theirs,
        status: status_out,
        go: go_in,
    };
    // The child must not hold the tether's ends: its own stdin would never end.
    let beside = matches!(place, Place::Beside(_));
    let mut child = match place {
        Place::First { plan, init } => {
            let init = if init {
                Some(OwnedFd::from(File::open("/proc/self/exe").map_err(system)?))
            } else {
                None
            };
            let flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC;
            sys::spawn(flags, Some(cgroup.folder().as_fd()), || {
                child::run(process, config, Entry::First { plan, init }, ends)
            })
        }
        Place::Beside(container) if launches => {
            let binary = OwnedFd::from(File::open("/proc/self/exe").map_err(system)?);
            let entry = Entry::Launch { container, binary };
            spawn_beside(cgroup, || child::run(process, config, entry, ends))
        }
        Place::Beside(container) => {
            let own = File::open("/proc/self/ns/pid").map_err(system)?;
            sys::join_namespaces(container.as_fd(), libc::CLONE_NEWPID)
                .map_err(|e| StartError::system("enter", "the container (has it ended?)", &e))?;
            let child = spawn_beside(cgroup, || {
                child::run(process, config, Entry::Join(container), ends)
            });
            // Children of the tether that are not the container's are never cloned after this fails.
            sys::join_namespaces(own.as_fd(), libc::CLONE_NEWPID).map_err(system)?;
            child
        }
    }
    .map_err(system)?;

    // Registered before the event loop can reap it.
    let mut ended = reaper.watch(child.pid);
    let mut status = AsyncFile::new(status_in).map_err(system)?;
    let go = AsyncFile::new(go_out).map_err(system)?;
    let mut head = [0u8; 5];
    let got = read_some(&mut status, &mut head).await.map_err(system)?;
    if head[0] != b'R' || got < head.len() {
        return Err(failure(&head[..got], &mut status).await);
    }
    let stdio = match ours {
        Some((stdin, stdout, stderr)) => Stdio {
            stdin: stdin.map(AsyncFile::new).transpose().map_err(system)?,
            stdout: AsyncFile::new(stdout).map_err(system)?,
            stderr: Some(AsyncFile::new(stderr).map_err(system)?),
            tty: None,
        },
        None => {
            let number = i32::from_le_bytes([head[1], head[2], head[3], head[4]]);
            let master = sys::take_fd(child.pidfd.as_fd(), number).map_err(system)?;
            let again = || master.try_clone().and_then(AsyncFile::new).map_err(system);
            Stdio {
                stdin: Some(again()?),
                stdout: again()?,
                stderr: None,
                tty: Some(master),
            }
        }
    };
    if beside && launches {
        (child, ended) = launched(&child, &go, &mut status, reaper).await?;
    }
    Ok(Waiting {
        pid: child.pid,
        pidfd: child.pidfd,
        ended,
        status,
        go,
        stdio,
    })
}

/// Clones a child into the container's cgroup. Where that is full, the child moves there by itself: an exec, which may be
/// what ends the others, is let in nevertheless.
fn spawn_beside(cgroup: &Cgroup, body: impl FnOnce() -> i32) -> io::Result<Child> {
    let full = cgroup.is_full();
    let group = (!full).then(|| cgroup.folder().as_fd());
    sys::spawn(0, group, || match full.then(|| cgroup.join()) {
        Some(Err(_)) => 125,
        _ => body(),
    })
}

/// The capabilities that a process is to have. Where that cannot be told, its own child says why.
fn held(process: &Process) -> u64 {
    caps::resolve(&process.cap_add, &process.cap_drop).unwrap_or(0)
}

/// Lets a child outside of the container's pid namespace give up its rights and clone the process that becomes the
/// program ([`super::sibling`]); gives that one, which waits.
async fn launched(
    launcher: &Child,
    go: &AsyncFile,
    status: &mut AsyncFile,
    reaper: &Reaper,
) -> Result<(Child, oneshot::Receiver<Ended>), StartError> {
    let system = |e: io::Error| StartError::system("start", "a process", &e);
    go.write_whole(&[1]).await.map_err(system)?;
    let mut head = [0u8; 5];
    let got = read_some(status, &mut head).await.map_err(system)?;
    let [b'P', a, b, c, d] = head else {
        return Err(failure(&head[..got], status).await);
    };
    let number = i32::from_le_bytes([a, b, c, d]);
    // What is told may be the container's; whose descriptor it is, is not.
    let pidfd = sys::take_fd(launcher.pidfd.as_fd(), number).map_err(system)?;
    let pid = sys::pid_of(pidfd.as_fd()).map_err(system)?;
    // It has not been reaped, and is not before the event loop runs again.
    let ended = reaper.watch(pid);
    Ok((Child { pid, pidfd }, ended))
}

impl Waiting {
    /// Lets the child become its program. Returns its stdio once it has.
    ///
    /// # Errors
    /// Why the program could not be started, with Docker's code.
    pub async fn go(mut self) -> Result<(OwnedFd, oneshot::Receiver<Ended>, Stdio), StartError> {
        let system = |e: io::Error| StartError::system("start", "a process", &e);
        self.go.write_all(&[1]).await.map_err(system)?;
        let mut head = [0u8; 5];
        let got = read_some(&mut self.status, &mut head)
            .await
            .map_err(system)?;
        if got > 0 {
            return Err(failure(&head[..got], &mut self.status).await);
        }
        Ok((self.pidfd, self.ended, self.stdio))
    }
}

async fn read_some(file: &mut AsyncFile, buf: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buf.len() {
        match file.read(&mut buf[got..]).await? {
            0 => break,
            n => got += n,
        }
    }
    Ok(got)
}

async fn failure(head: &[u8], status: &mut AsyncFile) -> StartError {
    let mut text = Vec::new();
    // Bounded by the pipe's writer (4 KiB); what cannot be read is missing from the message only.
    let _ = status.take(8192).read_to_end(&mut text).await;
    match head {
        [b'E', a, b, c, d] => StartError {
            code: i32::from_le_bytes([*a, *b, *c, *d]),
            message: String::from_utf8_lossy(&text).into_owned(),
        },
        _ => StartError::other("the process was killed before it could be started"),
    }
}
