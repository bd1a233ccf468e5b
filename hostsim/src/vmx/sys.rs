//! The few system calls that no safe interface covers.
#![allow(
    unsafe_code,
    reason = "the one module with unsafe code; each block says why it is sound"
)]

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, setsid};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Go on in a process that is nobody's child and in a session of its own: signals and the end of
/// whoever started this one do not reach it. The process that called ends here.
///
/// # Errors
/// The process has more than one thread, or the system refuses.
pub(super) fn detach() -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other(
            "cannot fork: threads were started already",
        ));
    }
    // SAFETY: fork is only dangerous where another thread may hold a lock or be in the middle of
    // a change; it was just checked that there is none, and none can have appeared since, as only
    // this thread could start one.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => std::process::exit(0),
        ForkResult::Child => setsid().map(|_| ()).map_err(io::Error::from),
    }
}

/// Have the kernel kill the command's process when the calling *thread* ends, and let it inherit
/// the given descriptors under their own numbers.
pub(super) fn tie_to_this_thread(command: &mut std::process::Command, inherit: Vec<OwnedFd>) {
    use std::os::unix::process::CommandExt;
    let parent: Pid = getpid();
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: prctl, getppid and
    // fcntl are, and no memory is allocated (an error is made from its number).
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the line above; then nobody would tell us.
            if getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            for fd in &inherit {
                fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            Ok(())
        });
    }
}

/// Make a tap device in the network namespace that `tun` (/dev/net/tun) was opened in, and give its name, which the
/// kernel chooses. Frames have a header for offloads before them (`IFF_VNET_HDR`), as QEMU likes them.
///
/// # Errors
/// The system refuses: it takes CAP_NET_ADMIN.
pub(super) fn make_tap(tun: &std::fs::File) -> io::Result<String> {
    // SAFETY: an ifreq is numbers, bytes and pointers that nobody follows; all zeros is one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"nic%d") {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the request is a whole ifreq that lives through the call, which is what TUNSETIFF reads and writes.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let name = request.ifr_name.iter().map(|c| c.cast_unsigned());
    let name: Vec<u8> = name.take_while(|c| *c != 0).collect();
    String::from_utf8(name).map_err(io::Error::other)
}

/// The frequency in kHz of the time stamp counter, measured against the monotonic clock for
/// `window`; `None` where the counter does not run at a constant rate.
#[cfg(target_arch = "x86_64")]
pub(super) fn measure_tsc_khz(window: Duration) -> Option<u64> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    if !flags.split_whitespace().any(|flag| flag == "constant_tsc") {
        return None;
    }
    // SAFETY: every x86-64 processor has RDTSC; it reads a counter and changes nothing.
    let read = || (unsafe { core::arch::x86_64::_rdtsc() }, Instant::now());
    let (from, start) = read();
    // A measurement needs a stretch of time; this waits for no event.
    std::thread::sleep(window);
    let (to, end) = read();
    let nanoseconds = end.duration_since(start).as_nanos();
    let ticks = u128::from(to.checked_sub(from)?);
    u64::try_from(ticks * 1_000_000 / nanoseconds.max(1))
        .ok()
        .filter(|khz| *khz > 0)
}

/// Only x86-64 hosts have the counter.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn measure_tsc_khz(_window: Duration) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        assert!(detach().unwrap_err().to_string().contains("threads"));
        drop(stop);
        assert!(thread.join().unwrap().is_err());
    }
}
