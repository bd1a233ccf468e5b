//! Frames and messages between the tether (in the VM) and the endpoint. No I/O: state machines only.
//!
//! From the bottom up: [`arq`] makes a reliable byte stream of a lossy serial pipe; [`frame`]
//! cuts a reliable byte stream into frames; [`handshake`] proves both ends to each other;
//! [`mux`] carries control messages ([`message`]) and streams with credit. [`vspc`] is VMware's
//! telnet protocol between a serial port and its concentrator, [`config`] what a boot is told,
//! [`restart`] when a process that has ended is started again, [`health`] what its checks say,
//! [`limits`] what bounds it, [`masks`] what is hidden from it, [`files`]
//! how a container's files are read and written.
//! The crate `link` drives all of it over tokio.
#![forbid(unsafe_code)]

pub mod arq;
pub mod config;
pub mod files;
pub mod frame;
pub mod handshake;
pub mod health;
pub mod keys;
pub mod limits;
pub mod log;
pub mod masks;
pub mod message;
pub mod mux;
pub mod restart;
pub mod version;
pub mod volume;
pub mod vspc;
