//! The only module with `unsafe`: system calls that no kept crate wraps safely, each behind a
//! function that is safe to call.
#![allow(
    unsafe_code,
    reason = "the one module with unsafe code; each block says why it is sound"
)]

pub mod backdoor;
pub mod bpf;
pub mod fs;
#[cfg(all(target_feature = "crt-static", not(test)))]
mod lean;
pub mod mount;
pub mod packet;
pub mod process;
pub mod tty;

use std::io;

/// The result of a raw system call as an `io::Result`.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
