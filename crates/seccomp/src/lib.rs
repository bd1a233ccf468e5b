//! Compiles seccomp profiles of Docker's form into the programs that a container VM's kernel takes (seccomp(2)).
//!
//! The endpoint compiles, since it knows the capabilities; the guest only installs what it gets. No I/O, no system calls.
//!
//! Whatever a profile says, a few calls stay refused ([`GUARD`]): no socket of the family AF_VSOCK, which leads to the
//! VM's host, on none of the ways to one. What a filter cannot refuse is an `in` or `out` instruction: under VMware ring
//! 3 reaches the backdoor port whatever is set here. Nothing secret may therefore stay in guestinfo (the link's secret is
//! of no use after the first session).

#![forbid(unsafe_code)]

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod numbers;
mod profile;
mod program;

pub use profile::Profile;
pub use program::{GUARD, Instruction};

use base64::{Engine, engine::general_purpose::STANDARD};
use std::collections::BTreeSet;
use thiserror::Error;

/// Instructions of a program, at most (linux/bpf_common.h, `BPF_MAXINSNS`).
pub const PROGRAM_MAX: usize = 4096;
/// Bytes of a profile, at most.
pub const PROFILE_MAX: usize = 256 << 10;

/// Docker's default profile (moby, profiles/seccomp/default.json, as of Docker 28 less io_uring, which newer ones leave
/// out, too).
const DEFAULT: &str = include_str!("default.json");

/// Why there is no program for a profile.
#[derive(Debug, Error)]
pub enum SeccompError {
    /// Too many bytes.
    #[error("the seccomp profile has {0} bytes; {PROFILE_MAX} are possible")]
    TooLong(usize),
    /// Not the JSON of a profile.
    #[error("Decoding seccomp profile failed: {0}")]
    Json(#[from] serde_json::Error),
    /// It says something that there is not.
    #[error("{0}")]
    Wrong(String),
    /// More instructions than a kernel takes.
    #[error(
        "the seccomp profile takes {0} instructions; a kernel takes {PROGRAM_MAX}: name fewer calls with arguments"
    )]
    TooLarge(usize),
}

/// The capabilities that a container has by default: Docker's less MKNOD.
const CAPABILITIES: [&str; 13] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The capabilities of a container to which these were added, and from which those were dropped (`CAP_…`; `ALL` drops
/// all that were not added by name).
pub fn held(add: &[String], drop: &[String]) -> BTreeSet<String> {
    if drop.iter().any(|name| name == "ALL") {
        return add.iter().cloned().collect();
    }
    let default = CAPABILITIES.iter().map(|name| (*name).to_owned());
    let all = default.chain(add.iter().cloned());
    all.filter(|name| !drop.contains(name)).collect()
}

/// The program of a profile, given as JSON, for a container with these capabilities (`CAP_…`).
///
/// # Errors
/// In Docker's words where it has some.
pub fn custom(
    json: &str,
    capabilities: &BTreeSet<String>,
) -> Result<Vec<Instruction>, SeccompError> {
    Profile::read(json)?.compile(capabilities)
}

/// The program of Docker's default profile.
///
/// # Errors
/// None that the tests do not show.
pub fn builtin(capabilities: &BTreeSet<String>) -> Result<Vec<Instruction>, SeccompError> {
    custom(DEFAULT, capabilities)
}

/// The program for no profile: what is refused anyway.
///
/// # Errors
/// None that the tests do not show.
pub fn unconfined() -> Result<Vec<Instruction>, SeccompError> {
    Profile::default().compile(&BTreeSet::new())
}

/// A program as a text, for a guest's configuration: base64 of its `struct sock_filter`s, little endian.
pub fn to_text(program: &[Instruction]) -> String {
    let bytes: Vec<u8> = program.iter().flat_map(|one| one.bytes()).collect();
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests;
