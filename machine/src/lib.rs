//! `vch`: the life of a virtual container host. For now `up`, `status` and `down` for one machine:
//! a simulated ESXi host (hostsim) and an endpoint beside each other.
#![forbid(unsafe_code)]

pub mod boot;
pub mod down;
pub mod error;
pub mod external;
pub mod hypervisor;
mod interrupt;
pub mod network;
pub mod options;
pub mod parts;
pub mod ports;
pub mod process;
pub mod registries;
pub mod registry;
pub mod state;
pub mod status;
pub mod up;
pub mod uplink;

pub use error::Error;
