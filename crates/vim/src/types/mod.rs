//! Data objects, by what they are about.

mod collector;
mod common;
mod config;
mod device;
mod event;
mod file;
mod host;
mod network;
mod task;
mod vm;

pub use collector::*;
pub use common::*;
pub use config::*;
pub use device::*;
pub use event::*;
pub use file::*;
pub use host::*;
pub use network::*;
pub use task::*;
pub use vm::*;
