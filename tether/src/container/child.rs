//! What a cloned child does on its way from the tether to the program.
//!
//! It reports over a pipe: ready (with its PTY's master, if any), then either the error that ends
//! it or, by the pipe's closing at execve(2), success.

use super::mounts::{self, Plan};
use super::sibling::Orders;
use super::{StartError, caps, environment, init, lookup, seccomp, users};
use crate::boot::system;
use crate::net::filter;
use crate::sys::{process as sys, tty};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, fchown};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use wire::config::{GuestConfig, Process};

/// Docker's limits, where the container has no others: 1,048,576 open files, as many processes and
/// as large cores as there can be.
const DEFAULT_LIMITS: [(u32, u64, u64); 3] = [
    (libc::RLIMIT_NOFILE, 1_048_576, 1_048_576),
    (libc::RLIMIT_NPROC, u64::MAX, u64::MAX),
    (libc::RLIMIT_CORE, u64::MAX, u64::MAX),
];

/// How the child gets into the container.
#[derive(Debug)]
pub enum Entry<'a> {
    /// It is the container's first process, in new pid, mount and IPC namespaces.
    First {
        /// The tree to build.
        plan: Plan,
        /// The tether's own binary, where it is to be the container's init.
        init: Option<OwnedFd>,
    },
    /// It joins the container of this pidfd (the pid namespace was joined by the tether's clone).
    Join(&'a OwnedFd),
    /// It joins the container but for the pid namespace, into which only the program comes ([`super::sibling`]).
    Launch {
        /// A pidfd of the container's.
        container: &'a OwnedFd,
        /// The tether's own binary.
        binary: OwnedFd,
    },
}

/// What of the tether's own binary is executed in place of the program.
enum Afresh {
    /// The container's init.
    Init(OwnedFd),
    /// What clones the program's process.
    Sibling(OwnedFd),
}

/// The child's ends of its pipes.
#[derive(Debug)]
pub struct Ends {
    /// stdin, stdout, stderr; unused with a terminal.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Reports to the tether.
    pub status: OwnedFd,
    /// One byte lets the child go on.
    pub go: OwnedFd,
}

/// Runs in the child; returns only if the program could not be started.
pub fn run(process: &Process, config: &GuestConfig, entry: Entry<'_>, ends: Ends) -> i32 {
    let mut status = File::from(ends.status);
    let go = File::from(ends.go);
    let error = match start(process, config, entry, ends.stdio, &mut status, go) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    // Nobody left to tell if this fails; the exit code says it too.
    let _ = status.write_all(&error.report());
    error.code
}

fn start(
    process: &Process,
    config: &GuestConfig,
    entry: Entry<'_>,
    stdio: Option<[OwnedFd; 3]>,
    status: &mut File,
    mut go: File,
) -> Result<std::convert::Infallible, StartError> {
    let what =
        |what: &'static str| move |e: std::io::Error| StartError::system(what, "the process", &e);
    let errno = |e: nix::Error| std::io::Error::from(e);
    if let Some(ends) = &stdio {
        for (fd, target) in ends.iter().zip(0..) {
            sys::dup_onto(fd.as_fd(), target).map_err(what("connect stdio of"))?;
        }
    }
    drop(stdio);
    let (first, afresh) = match entry {
        Entry::First { plan, init } => {
            // Nothing of the tether may be within reach once the image decides what a path means.
            sys::close_all_but(&[
                status.as_raw_fd(),
                go.as_raw_fd(),
                init.as_ref().map_or(-1, AsRawFd::as_raw_fd),
            ]);
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP)
                .map_err(errno)
                .map_err(what("make a cgroup namespace for"))?;
            // By the tether's /proc: the container's /proc/sys is only to be read.
            system::set_own_sysctls(&config.limits.sysctls).map_err(StartError::other)?;
            mounts::enter(&plan)?;
            (true, init.map(Afresh::Init))
        }
        Entry::Join(container) => {
            join(container, 0, &[status.as_raw_fd(), go.as_raw_fd()])?;
            (false, None)
        }
        Entry::Launch { container, binary } => {
            let keep = [status.as_raw_fd(), go.as_raw_fd(), binary.as_raw_fd()];
            // By the tether's /proc: the container's has no folder for this process.
            set_oom_score(config)?;
            // The pid namespace for children: this process stays where it is.
            join(container, libc::CLONE_NEWPID, &keep)?;
            (false, Some(Afresh::Sibling(binary)))
        }
    };
    let launches = matches!(afresh, Some(Afresh::Sibling(_)));
    sys::reset_signals();
    let mut master = None;
    if process.tty {
        master = Some(terminal(process, first)?);
    }
    let mut ready = vec![b'R'];
    ready.extend(master.as_ref().map_or(-1, AsRawFd::as_raw_fd).to_le_bytes());
    status.write_all(&ready).map_err(what("report from"))?;
    let mut byte = [0];
    if go.read(&mut byte).map_err(what("wait in"))? == 0 {
        return Err(StartError::other("the tether went away"));
    }
    // The tether has fetched the master by now.
    drop(master);
    let go = launches.then_some(go);

    let passwd = users::read_bounded("/etc/passwd");
    let group = users::read_bounded("/etc/group");
    let who = users::resolve(&process.user, &process.groups, &passwd, &group)?;
    let env = environment::complete(&process.env, &config.hostname, process.tty, &who.home);
    let mut held = caps::resolve(&process.cap_add, &process.cap_drop).map_err(StartError::other)?;
    if filter::guarded(&config.guards) {
        held &= !caps::network();
    }

    nix::unistd::setsid()
        .map_err(errno)
        .map_err(what("make a session for"))?;
    // Where the program gets a process of its own, that one takes the terminal, in a session of its own.
    if process.tty && !launches {
        tty::make_controlling(std::io::stdin().as_fd()).map_err(what("give the terminal to"))?;
    }
    // So that a process that is not root can open /dev/stdout anew.
    for fd in [
        std::io::stdin().as_fd(),
        std::io::stdout().as_fd(),
        std::io::stderr().as_fd(),
    ] {
        let null =
            nix::sys::stat::fstat(fd).is_ok_and(|s| s.st_rdev == nix::sys::stat::makedev(1, 3));
        if !null {
            let _ = fchown(fd, Some(Uid::from_raw(who.uid)), None::<Gid>);
        }
    }
    for (resource, soft, hard) in DEFAULT_LIMITS.into_iter().chain(
        config
            .limits
            .ulimits
            .iter()
            .map(|u| (u.resource, u.soft, u.hard)),
    ) {
        sys::limit(resource, soft, hard).map_err(|e| {
            let reason = super::reason(&e);
            StartError::other(format!("error setting rlimit type {resource}: {reason}"))
        })?;
    }
    if !launches {
        set_oom_score(config)?;
    }
    if config.limits.no_new_privileges {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(what("set no_new_privs of"))?;
    }
    umask(Mode::from_bits_truncate(0o022));
    // Before the capabilities go: without no_new_privs a filter needs CAP_SYS_ADMIN. With it the profile's is installed
    // right before the program: it may refuse what is done until then, as with runc. The profile's is the last one: it
    // may refuse seccomp(2).
    if held & caps::kernel() != 0 {
        sys::install_seccomp(&seccomp::kept_out()).map_err(what("close the kernel's memory to"))?;
    }
    let filter = seccomp::program(&config.seccomp).map_err(|e| StartError::other(e.to_string()))?;
    let confine = || sys::install_seccomp(&filter).map_err(what("install the seccomp filter of"));
    if !config.limits.no_new_privileges {
        confine()?;
    }
    for cap in (0..64).filter(|cap| held & (1u64 << cap) == 0) {
        match sys::prctl(libc::PR_CAPBSET_DROP, cap) {
            // Beyond the kernel's last capability.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => break,
            other => other.map_err(what("drop capabilities of"))?,
        }
    }
    sys::become_user(who.uid, who.gid, &who.groups).map_err(what("set the user of"))?;
    // As execve(2) would leave it: root holds the set, others nothing.
    sys::set_capabilities(if who.uid == 0 { held } else { 0 })
        .map_err(what("set capabilities of"))?;
    if !process.cwd.is_empty() {
        nix::unistd::chdir(process.cwd.as_str())
            .map_err(errno)
            .map_err(|e| chdir_error(&process.cwd, &e))?;
    }

    let program = process.args.first().map(String::as_str).unwrap_or_default();
    let path = lookup::find(
        program,
        environment::value(&env, "PATH").unwrap_or_default(),
    )?;
    let strings = |list: &[String]| -> Result<Vec<CString>, StartError> {
        list.iter()
            .map(|s| {
                CString::new(s.as_str())
                    .map_err(|_| StartError::other(format!("{s:?} contains a NUL byte")))
            })
            .collect()
    };
    let (args, env) = (strings(&process.args)?, strings(&env)?);
    let path = CString::new(path)
        .map_err(|_| StartError::other("the program's path contains a NUL byte"))?;
    if config.limits.no_new_privileges {
        confine()?;
    }
    let error = match (afresh, go) {
        (Some(Afresh::Sibling(binary)), Some(go)) => {
            for fd in [status.as_fd(), go.as_fd()] {
                sys::bequeath(fd).map_err(what("leave a pipe to"))?;
            }
            let orders = Orders {
                status: status.as_raw_fd(),
                go: go.as_raw_fd(),
                tty: process.tty,
                env,
                path,
                args,
            };
            sys::exec_file(binary.as_fd(), &orders.to_args(), &[])
        }
        (Some(Afresh::Init(binary)), _) => {
            let mut all = vec![CString::new(init::NAME).unwrap_or_default(), path];
            all.extend(args);
            sys::exec_file(binary.as_fd(), &all, &env)
        }
        _ => sys::exec(&path, &args, &env),
    };
    Err(lookup::failure(program, &error, false))
}

fn set_oom_score(config: &GuestConfig) -> Result<(), StartError> {
    let score = config.limits.oom_score_adj.to_string();
    std::fs::write("/proc/self/oom_score_adj", score)
        .map_err(|e| StartError::system("set oom_score_adj of", "the process", &e))
}

/// Joins a container's namespaces, and `more` of them for children, and keeps no other descriptor than these. The root
/// is the container's then.
fn join(container: &OwnedFd, more: i32, keep: &[RawFd]) -> Result<(), StartError> {
    let what =
        |what: &'static str| move |e: std::io::Error| StartError::system(what, "the process", &e);
    let kinds = libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP | libc::CLONE_NEWIPC | more;
    sys::join_namespaces(container.as_fd(), kinds)
        .map_err(what("join the container's namespaces for"))?;
    sys::close_all_but(keep);
    nix::unistd::chdir("/")
        .map_err(std::io::Error::from)
        .map_err(what("chdir for"))
}

fn chdir_error(cwd: &str, error: &std::io::Error) -> StartError {
    let code = match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => 127,
        Some(libc::EACCES) => 126,
        _ => 125,
    };
    StartError {
        code,
        message: format!("chdir to cwd ({cwd:?}) failed: {}", super::reason(error)),
    }
}

/// Opens a PTY of the container's own devpts, connects stdio to it, and returns its master.
fn terminal(process: &Process, first: bool) -> Result<OwnedFd, StartError> {
    let what = |e: std::io::Error| StartError::system("open a terminal in", "the container", &e);
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = open("/dev/pts/ptmx", flags, Mode::empty()).map_err(|e| what(e.into()))?;
    let peer = tty::pty_peer(master.as_fd()).map_err(what)?;
    if let Some((rows, cols)) = process.size {
        tty::set_size(master.as_fd(), rows, cols).map_err(what)?;
    }
    if first {
        mounts::console(tty::pty_number(master.as_fd()).map_err(what)?)?;
    }
    for target in 0..3 {
        sys::dup_onto(peer.as_fd(), target).map_err(what)?;
    }
    Ok(master)
}
