//! The one place with unsafe code: descriptors that the safe API does not cover.
#![allow(
    unsafe_code,
    reason = "the one module with unsafe code; each block says why it is sound"
)]

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};
use tokio::{io::unix::AsyncFd, net::UnixStream};

/// Makes tokio's stream out of a freshly accepted stream socket of any family.
pub(crate) fn adopt(fd: RawFd) -> io::Result<UnixStream> {
    // SAFETY: the caller has just got this descriptor from accept4; it is open and owned by nobody else.
    let stream = unsafe { std::os::unix::net::UnixStream::from_raw_fd(fd) };
    UnixStream::from_std(stream)
}

/// Registers a descriptor with the runtime.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd gives the same open descriptor for as long as it lives, and AsyncFd owns it.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

/// What was sent on a unix socket and not yet read by its peer, as the kernel counts it; 0: nothing.
pub(crate) fn unread(socket: &UnixStream) -> io::Result<libc::c_int> {
    let mut bytes = 0;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and SIOCOUTQ (TIOCOUTQ's number) writes one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    nix::errno::Errno::result(result)?;
    Ok(bytes)
}
