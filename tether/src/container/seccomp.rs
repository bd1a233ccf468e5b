//! The seccomp filter, which the endpoint has compiled (crates/seccomp) and the guest installs.

use crate::sys::process::BpfInstruction;
use wire::config::{ConfigError, seccomp_program};

/// The program out of a configuration's text.
///
/// # Errors
/// If it is none.
pub fn program(text: &str) -> Result<Vec<BpfInstruction>, ConfigError> {
    let bytes = seccomp_program(text)?;
    let instruction = |&[a, b, jump_true, jump_false, c, d, e, f]: &[u8; 8]| BpfInstruction {
        code: u16::from_le_bytes([a, b]),
        jump_true,
        jump_false,
        k: u32::from_le_bytes([c, d, e, f]),
    };
    let (all, _) = bytes.as_chunks::<8>();
    Ok(all.iter().map(instruction).collect())
}
