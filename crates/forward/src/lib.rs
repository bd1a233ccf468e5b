//! Ports of a machine that lead into a network namespace: what Docker's userland proxy is elsewhere.
//!
//! A [`Forward`] listens at an address of the machine, IPv4 or IPv6, and leads to an address in the namespace, of either
//! kind. Where both ends are of one kind and the client is not this machine itself, the connection in the namespace comes
//! from the client's own address ([`MARK`]). [`serve`] is the program, which holds the ports while whoever asked for them
//! is away; [`Client`] asks it.
//! See docs/decisions/0022-without-root.md.
#![forbid(unsafe_code)]

mod client;
mod datagrams;
mod namespace;
mod protocol;
mod server;
mod streams;

pub use client::Client;
pub use protocol::{Forward, Transport};
pub use server::serve;

/// Answers to connections that bear a client's own address are for nobody in the namespace but this program: its packet
/// filter marks them with this (`socket transparent`, nft(8)), and a rule of routing with this mark brings them to the
/// local sockets by the table of the same number (Documentation/networking/tproxy.rst of the kernel).
pub const MARK: u32 = 0x6d6f;
