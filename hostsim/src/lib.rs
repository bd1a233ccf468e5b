//! A simulated ESXi host: the vSphere API in front, a datastore folder and QEMU behind.
#![deny(unsafe_code)]

pub mod datastore;
pub mod events;
pub mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod host;
pub mod inventory;
pub mod log;
pub mod machine;
pub mod network;
pub mod options;
pub mod property;
pub mod serve;
pub mod server;
pub mod session;
pub mod shares;
pub mod state;
pub mod vm;
pub mod vmx;
