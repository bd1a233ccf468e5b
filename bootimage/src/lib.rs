//! Boot images for container VMs: from a kernel package and the tether to an initramfs and an ISO.
//!
//! [`build::build`] is the whole way; the other modules are its steps. Everything written is
//! reproducible: the same kernel package, tether and options give the same bytes.
#![forbid(unsafe_code)]

pub mod build;
pub mod compress;
pub mod cpio;
pub mod efi;
mod error;
pub mod initramfs;
pub mod inspect;
pub mod iso;
pub mod kernel;
pub mod modinfo;
pub mod modules;
pub mod order;
pub mod package;
pub mod testing;
pub mod vmlinux;

pub use error::{Error, Result};
