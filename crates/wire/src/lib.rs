//! Frames and messages between the tether (in the VM) and the endpoint. No I/O: state machines only.
#![forbid(unsafe_code)]

pub mod config;
pub mod message;
