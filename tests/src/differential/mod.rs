//! The differential set: the same commands against Debian's dockerd and against Mooring, compared by a program.
//!
//! tests/differential/README.md says how the cases are written.

pub mod case;
pub mod compare;
pub mod json;
pub mod known;
pub mod normal;
pub mod page;
pub mod set;
pub mod side;

use std::path::PathBuf;

/// The folder with the cases and the known differences.
pub fn folder() -> PathBuf {
    crate::places::root().join("tests/differential")
}
