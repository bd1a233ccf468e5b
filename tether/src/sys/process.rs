//! Processes: clone into namespaces, join them, credentials, seccomp, exec.
//!
//! The tether has one thread that allocates (the other, which syncs the journal, makes system
//! calls only), so a cloned child finds every lock of the allocator free.

use super::check;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A child as clone3(2) made it.
#[derive(Debug)]
pub struct Child {
    /// Its process ID in the tether's namespace.
    pub pid: i32,
    /// A pidfd of it.
    pub pidfd: OwnedFd,
}

/// Runs `body` in a child of its own address space, in the namespaces of `flags` (CLONE_NEW…) and in
/// the cgroup given. The child ends with `body`'s return value.
///
/// # Errors
/// Those of clone3(2).
pub fn spawn(
    flags: i32,
    cgroup: Option<BorrowedFd<'_>>,
    body: impl FnOnce() -> i32,
) -> io::Result<Child> {
    /// `struct clone_args`, linux/sched.h, version 2.
    #[repr(C, align(8))]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: u64::from(flags.unsigned_abs()) | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(group) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = group.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this is fork(2) with namespaces; `args` and `pidfd` are live. The
    // child has one thread, finds every lock free (see above) and leaves by _exit(2) only.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        let code = body();
        // SAFETY: ends this process without running the tether's destructors.
        unsafe { libc::_exit(code) }
    }
    // SAFETY: CLONE_PIDFD made the kernel store a new descriptor there.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child {
        pid: pid as i32,
        pidfd,
    })
}

/// Runs `body` in a forked child, which ends with its return value; gives the child's process ID.
/// For the container's init: the seccomp profile has no clone3.
///
/// # Errors
/// Those of fork(2).
pub fn fork(body: impl FnOnce() -> i32) -> io::Result<i32> {
    // SAFETY: the init has one thread; the child leaves by _exit(2) only.
    let pid = check(unsafe { libc::fork() }.into())? as i32;
    if pid == 0 {
        exit_now(body());
    }
    Ok(pid)
}

/// Runs `body` in a forked child that is the caller's sibling: a child of the caller's parent, in the pid namespace that
/// the caller has for children. Gives its pidfd. For [`crate::container::sibling`]: clone(2), since the seccomp profile
/// has no clone3.
///
/// # Errors
/// Those of clone(2).
pub fn fork_sibling(body: impl FnOnce() -> i32) -> io::Result<OwnedFd> {
    let flags = libc::CLONE_PARENT | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut pidfd: RawFd = -1;
    // SAFETY: without CLONE_VM and with no stack of its own this is fork(2); the kernel stores the pidfd where `pidfd`
    // is. The caller has one thread; the child leaves by _exit(2) only.
    let pid = check(unsafe {
        libc::syscall(
            libc::SYS_clone,
            i64::from(flags),
            std::ptr::null::<u8>(),
            &raw mut pidfd,
            std::ptr::null::<i32>(),
            0u64,
        )
    })?;
    if pid == 0 {
        exit_now(body());
    }
    // SAFETY: CLONE_PIDFD made the kernel store a new descriptor there.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// Takes over a descriptor that was left open for this program by who executed it; closes it at the next execve(2).
///
/// # Errors
/// `EBADF` where there is none, or where it is one of stdio.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the descriptor is only marked; with none of this number the call fails.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: it is open, and this program, which has just begun, has given it to no other object.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Leaves a descriptor open beyond execve(2), for [`inherited`].
///
/// # Errors
/// Those of fcntl(2).
pub fn bequeath(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed, and only its mark is changed.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) }.into()).map(drop)
}

/// The ID, in the tether's pid namespace, of the process behind a pidfd (proc(5), `fdinfo`).
///
/// # Errors
/// `ESRCH` where it was reaped; `EBADF` where this is no pidfd.
pub fn pid_of(pidfd: BorrowedFd<'_>) -> io::Result<i32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    let number = number.and_then(|number| number.trim().parse().ok());
    match number {
        Some(pid) if pid > 0 => Ok(pid),
        Some(_) => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        None => Err(io::Error::from_raw_os_error(libc::EBADF)),
    }
}

/// Ends this process at once.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) does not return and touches no memory of ours.
    unsafe { libc::_exit(code) }
}

/// setns(2) by a pidfd or a namespace's file.
///
/// # Errors
/// Those of setns(2).
pub fn join_namespaces(fd: BorrowedFd<'_>, kinds: i32) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed for the call; no memory is passed.
    check(unsafe { libc::setns(fd.as_raw_fd(), kinds) }.into()).map(drop)
}

/// Gives a copy of descriptor `fd` of the process behind `pidfd` (pidfd_getfd(2)).
///
/// # Errors
/// Those of pidfd_getfd(2).
pub fn take_fd(pidfd: BorrowedFd<'_>, fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; the returned descriptor is new and ours.
    unsafe {
        let fd = check(libc::syscall(
            libc::SYS_pidfd_getfd,
            pidfd.as_raw_fd(),
            fd,
            0,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Sends `signal` (1 to 64, real-time ones too) to the process behind `pidfd`.
///
/// # Errors
/// Those of pidfd_send_signal(2); `ESRCH` once it was reaped.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo is allowed; the rest are plain numbers.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// kill(2) with any signal number, real-time ones too.
///
/// # Errors
/// Those of kill(2).
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// How a reaped child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it.
    Signaled(i32),
}

impl Ended {
    /// The code that Docker gives: the exit code, or 128 + signal.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Ended::Exited(code) => code,
            Ended::Signaled(signal) => 128 + signal,
        }
    }
}

/// Reaps one child that has ended, any child; `None` where there is none (or, with `wait`, no child at all).
///
/// # Errors
/// Those of waitpid(2) other than `ECHILD`.
pub fn reap(wait: bool) -> io::Result<Option<(i32, Ended)>> {
    let mut status = 0;
    // SAFETY: `status` is a live int.
    let pid = match check(
        unsafe { libc::waitpid(-1, &raw mut status, if wait { 0 } else { libc::WNOHANG }) }.into(),
    ) {
        Ok(0) => return Ok(None),
        Ok(pid) => pid as i32,
        Err(e) if e.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
        Err(e) => return Err(e),
    };
    let ended = if libc::WIFSIGNALED(status) {
        Ended::Signaled(libc::WTERMSIG(status))
    } else {
        Ended::Exited(libc::WEXITSTATUS(status))
    };
    Ok(Some((pid, ended)))
}

/// Gives every signal its default action and blocks none: what a program expects to find.
pub fn reset_signals() {
    // SAFETY: sigaction with SIG_DFL and an empty mask touch no memory of ours; errors (SIGKILL, SIGSTOP) are expected.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Blocks every signal in this thread, so that [`wait_signal`] can take them one by one.
pub fn block_all_signals() {
    // SAFETY: `all` is initialised by sigfillset.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

/// Waits for the next signal among all (which must be blocked).
///
/// # Errors
/// Those of sigwaitinfo(2).
pub fn wait_signal() -> io::Result<i32> {
    // SAFETY: `all` is initialised by sigfillset; a null siginfo is allowed.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        Ok(check(libc::sigwaitinfo(&raw const all, std::ptr::null_mut()).into())? as i32)
    }
}

/// prctl(2) with one argument.
///
/// # Errors
/// Those of prctl(2).
pub fn prctl(option: i32, argument: u64) -> io::Result<()> {
    // SAFETY: only used with options whose argument is a number; the rest is zero.
    check(
        unsafe {
            libc::prctl(
                option,
                argument as libc::c_ulong,
                0 as libc::c_ulong,
                0 as libc::c_ulong,
                0 as libc::c_ulong,
            )
        }
        .into(),
    )
    .map(drop)
}

/// capset(2): effective and permitted become `set`, inheritable becomes empty.
///
/// # Errors
/// Those of capset(2).
pub fn set_capabilities(set: u64) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    const LINUX_CAPABILITY_VERSION_3: u32 = 0x2008_0522;
    let header = Header {
        version: LINUX_CAPABILITY_VERSION_3,
        pid: 0,
    };
    let (low, high) = (set as u32, (set >> 32) as u32);
    // Two times {effective, permitted, inheritable}.
    let data: [u32; 6] = [low, low, 0, high, high, 0];
    // SAFETY: `header` and `data` have the layout of version 3: one header, two data structs.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Sets a resource limit of this process (prlimit64(2)); `u64::MAX`: none.
///
/// # Errors
/// Those of prlimit64(2); `EINVAL` for a resource that there is not.
pub fn limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limits: [u64; 2] = [soft, hard];
    // SAFETY: `limits` has the layout of `struct rlimit64`; a null old limit is allowed.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            limits.as_ptr(),
            std::ptr::null::<u64>(),
        )
    })
    .map(drop)
}

/// Becomes `uid`, `gid` with exactly these additional groups. By the calls that runc makes, which a seccomp profile
/// allows: with the capabilities that they need, they set the saved IDs, too.
///
/// # Errors
/// Those of setgroups(2), setgid(2), setuid(2).
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: `groups` is a live slice of gid_t with its length; raw calls, since this process has one thread.
    unsafe {
        check(libc::syscall(
            libc::SYS_setgroups,
            groups.len(),
            groups.as_ptr(),
        ))?;
        check(libc::syscall(libc::SYS_setgid, gid))?;
        check(libc::syscall(libc::SYS_setuid, uid)).map(drop)
    }
}

/// One instruction of classic BPF (`struct sock_filter`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BpfInstruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip where a comparison holds.
    pub jump_true: u8,
    /// Instructions to skip where it does not.
    pub jump_false: u8,
    /// Constant.
    pub k: u32,
}

/// Installs a seccomp filter for this process and all that it starts.
///
/// # Errors
/// Those of seccomp(2); `EINVAL` for a program of more than 4,096 instructions.
pub fn install_seccomp(program: &[BpfInstruction]) -> io::Result<()> {
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const BpfInstruction,
    }
    const SECCOMP_SET_MODE_FILTER: u32 = 1;
    let len =
        u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = Program {
        len,
        filter: program.as_ptr(),
    };
    // SAFETY: `program` has the layout of `struct sock_fprog` over a live slice.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    })
    .map(drop)
}

/// Marks every descriptor from `first` on close-on-exec (close_range(2)).
///
/// # Errors
/// Those of close_range(2).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: only flags are changed.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Closes every descriptor from 3 on but those in `keep`. For a cloned child, before it reads
/// anything that the image decides: no descriptor of the tether is then left to be reached.
pub fn close_all_but(keep: &[RawFd]) {
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(*fd).ok())
        .filter(|fd| *fd > 2)
        .collect();
    keep.sort_unstable();
    let mut from = 3u32;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > from {
            // SAFETY: this child never uses the tether's other descriptors again, nor runs their destructors.
            unsafe {
                libc::syscall(
                    libc::SYS_close_range,
                    from,
                    fd - u32::from(fd != u32::MAX),
                    0,
                )
            };
        }
        from = fd.saturating_add(1);
    }
}

/// dup2(2) onto one of 0, 1, 2.
///
/// # Errors
/// Those of dup2(2).
pub fn dup_onto(fd: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    // SAFETY: the target is a standard descriptor of this child, owned by no Rust object.
    check(unsafe { libc::dup2(fd.as_raw_fd(), target) }.into()).map(drop)
}

/// Null-terminated, as execve(2) takes it.
fn pointers(list: &[CString]) -> Vec<*const libc::c_char> {
    let all = list.iter().map(|s| s.as_ptr());
    all.chain([std::ptr::null()]).collect()
}

/// execve(2), which each seccomp profile allows that lets a program start; returns only if it fails.
#[must_use]
pub fn exec(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays are null-terminated and point to NUL-terminated strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// execveat(2) of an open file; returns only if it fails.
#[must_use]
pub fn exec_file(file: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> io::Error {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both arrays are null-terminated and point to NUL-terminated strings that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}
