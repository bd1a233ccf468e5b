//! VMware's telnet protocol between a VM's network-backed serial port and its concentrator
//! (vSPC). Telnet is RFC 854, 856 (BINARY), 857 (ECHO), 858 (SGA); the extensions are sub-options
//! of option 232. [`Server`] is the concentrator, [`Client`] speaks as ESXi does.

mod client;
mod migration;
mod server;
mod telnet;
#[cfg(test)]
mod tests;

pub use client::{Client, ClientEvent, PortIdentity};
pub use migration::{Cookie, MigrationError, Migrations};
pub use server::{Server, ServerEvent};

use thiserror::Error;

/// Longest sub-option in bytes, unescaped; longer ones end the connection.
pub const SUBOPTION_MAX: usize = 1024;

/// The peer does not speak the protocol.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum VspcError {
    /// A sub-option is longer than [`SUBOPTION_MAX`].
    #[error("a telnet sub-option of more than {SUBOPTION_MAX} bytes")]
    TooLong,
    /// A sub-option whose content is none.
    #[error("sub-option {code} of VMware's extension: {reason}")]
    Malformed {
        /// Its code.
        code: u8,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Who opens the serial port's connection, as `DO_PROXY` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// 'C': the port acts as a client of the service.
    Client,
    /// 'S': the port acts as a server.
    Server,
}
