//! Files: look-up inside a root, modules, loop devices, the random pool, memory's state.

use super::check;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `RESOLVE_NO_MAGICLINKS` of openat2(2).
pub const NO_MAGICLINKS: u64 = 0x02;
/// `RESOLVE_IN_ROOT` of openat2(2).
pub const IN_ROOT: u64 = 0x10;

/// openat2(2): opens `path` relative to `dir` (or the working directory) with the `resolve` rules.
///
/// # Errors
/// Those of openat2(2); `EXDEV` or `ELOOP` where `resolve` forbids the way.
pub fn openat2(
    dir: Option<BorrowedFd<'_>>,
    path: &CStr,
    flags: i32,
    resolve: u64,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct OpenHow {
        flags: u64,
        mode: u64,
        resolve: u64,
    }
    let how = OpenHow {
        flags: u64::from((flags | libc::O_CLOEXEC).unsigned_abs()),
        mode: 0,
        resolve,
    };
    let dir = dir.map_or(libc::AT_FDCWD, |d| d.as_raw_fd());
    // SAFETY: `path` is NUL-terminated, `how` is a live `struct open_how` of the size given.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            dir,
            path.as_ptr(),
            &raw const how,
            size_of::<OpenHow>(),
        )
    })?;
    // SAFETY: the kernel just returned this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// finit_module(2) with these parameters, as on modprobe's command line.
///
/// # Errors
/// Those of finit_module(2); `EEXIST` where the module is loaded or built in.
pub fn finit_module(module: BorrowedFd<'_>, parameters: &CStr) -> io::Result<()> {
    // SAFETY: the parameter string ends with a NUL and is borrowed, as the descriptor is.
    check(unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            module.as_raw_fd(),
            parameters.as_ptr(),
            0,
        )
    })
    .map(drop)
}

/// Credits `seed` to the kernel's random pool (RNDADDENTROPY, random(4)).
///
/// # Errors
/// Those of the ioctl; `EPERM` without CAP_SYS_ADMIN.
pub fn add_entropy(random: BorrowedFd<'_>, seed: &[u8; 32]) -> io::Result<()> {
    #[repr(C)]
    struct PoolInfo {
        entropy_bits: i32,
        bytes: i32,
        seed: [u8; 32],
    }
    const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
    let info = PoolInfo {
        entropy_bits: 256,
        bytes: 32,
        seed: *seed,
    };
    // SAFETY: `info` has the layout of `struct rand_pool_info` with 32 bytes behind it.
    check(unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const info) }.into())
        .map(drop)
}

/// Attaches `backing` read-only to a free loop device (LOOP_CTL_GET_FREE, LOOP_CONFIGURE, loop(4))
/// that goes when its last user goes. Returns the device's number and its open descriptor, which
/// must stay open until the device is mounted.
///
/// # Errors
/// Those of opening the devices and of the ioctls.
pub fn attach_loop(backing: BorrowedFd<'_>) -> io::Result<(u32, OwnedFd)> {
    const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
    const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
    const LO_FLAGS_READ_ONLY: u32 = 1;
    const LO_FLAGS_AUTOCLEAR: u32 = 4;
    /// `struct loop_config` with its `struct loop_info64`, linux/loop.h.
    #[repr(C)]
    struct LoopConfig {
        fd: u32,
        block_size: u32,
        numbers: [u64; 5],
        lo_number: u32,
        lo_encrypt_type: u32,
        lo_encrypt_key_size: u32,
        lo_flags: u32,
        names: [u8; 64 + 64 + 32],
        init: [u64; 2],
        reserved: [u64; 8],
    }
    let control = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")?;
    // SAFETY: the ioctl takes no argument and returns a number.
    let number =
        check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) }.into())? as u32;
    let device = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/dev/loop{number}"))?;
    let config = LoopConfig {
        fd: backing.as_raw_fd() as u32,
        block_size: 0,
        numbers: [0; 5],
        lo_number: 0,
        lo_encrypt_type: 0,
        lo_encrypt_key_size: 0,
        lo_flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
        names: [0; 160],
        init: [0; 2],
        reserved: [0; 8],
    };
    // SAFETY: `config` has the layout of `struct loop_config`; the kernel only reads it.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }.into())?;
    Ok((number, device.into()))
}

/// An eventfd(2), close-on-exec; its counter starts at 0.
///
/// # Errors
/// Those of eventfd(2).
pub fn eventfd(nonblocking: bool) -> io::Result<OwnedFd> {
    let flags = libc::EFD_CLOEXEC | if nonblocking { libc::EFD_NONBLOCK } else { 0 };
    // SAFETY: plain numbers; the returned descriptor is owned by nobody else.
    unsafe {
        let fd = check(libc::eventfd(0, flags).into())?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Bytes that can be read from `fd` without blocking (FIONREAD).
///
/// # Errors
/// Those of the ioctl.
pub fn readable_bytes(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut n: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int through the pointer.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut n) }.into())?;
    Ok(usize::try_from(n).unwrap_or(0))
}

/// Puts a descriptor on the event loop.
///
/// # Errors
/// Those of epoll_ctl(2).
pub fn register(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names the same open descriptor for as long as the AsyncFd owns it.
    unsafe { Ok(tokio::io::unix::AsyncFd::register(fd)?) }
}

/// Puts a descriptor on the event loop for what the kernel tells by POLLPRI.
///
/// # Errors
/// Those of epoll_ctl(2).
pub fn register_notices(fd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    let interest = tokio::io::Interest::PRIORITY;
    // SAFETY: as above.
    unsafe {
        Ok(tokio::io::unix::AsyncFd::register_with_interest(
            fd, interest,
        )?)
    }
}

/// Takes a lease for writing on a file that is open for reading, as a container may (fcntl(2), `F_SETLEASE`).
///
/// # Errors
/// Those of fcntl(2).
#[cfg(test)]
pub fn take_lease(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed, the rest are numbers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) }.into()).map(drop)
}

/// Names of the extended attributes of `path`, which is not followed, each ended by a NUL.
///
/// # Errors
/// Those of llistxattr(2); none where the file system has no attributes.
pub fn list_attributes(path: &CStr) -> io::Result<Vec<u8>> {
    grow(|buffer, size| {
        // SAFETY: the path ends with a NUL; the kernel writes at most `size` bytes, which `buffer` has.
        unsafe { libc::llistxattr(path.as_ptr(), buffer.cast(), size) }
    })
    .or_else(|e| match e.raw_os_error() {
        Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
        _ => Err(e),
    })
}

/// The value of an extended attribute of `path`, which is not followed.
///
/// # Errors
/// Those of lgetxattr(2).
pub fn attribute(path: &CStr, name: &CStr) -> io::Result<Vec<u8>> {
    grow(|buffer, size| {
        // SAFETY: both texts end with a NUL; the kernel writes at most `size` bytes, which `buffer` has.
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.cast(), size) }
    })
}

/// Sets an extended attribute of `path`, which is not followed.
///
/// # Errors
/// Those of lsetxattr(2).
pub fn set_attribute(path: &CStr, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: both texts end with a NUL; the kernel reads `value.len()` bytes of `value`.
    check(i64::from(unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    }))
    .map(drop)
}

/// Asks for a size, then for as many bytes. The kernel's limit is 64 KiB.
fn grow(get: impl Fn(*mut u8, usize) -> isize) -> io::Result<Vec<u8>> {
    let size = check(get(std::ptr::null_mut(), 0) as i64)?;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    let got = check(get(bytes.as_mut_ptr(), bytes.len()) as i64)?;
    bytes.truncate(usize::try_from(got).unwrap_or(0));
    Ok(bytes)
}
