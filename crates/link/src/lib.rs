//! The link between tether and endpoint over tokio: `wire`'s state machines, driven.
//!
//! [`dial`] (tether) and [`accept`] (endpoint) take any reliable byte stream, carry out the
//! handshake and return a [`Link`]. Over a serial port, [`serial::reliable`] first makes a
//! reliable stream of the lossy pipe.
//!
//! What holds on a [`Link`]:
//! - Control messages arrive in order among themselves, and pass stream data: a full stream
//!   never delays them. Nothing orders a control message against stream data; the end of a
//!   channel is told in the stream itself ([`StreamEvent::End`]).
//! - Nobody is sent what he did not ask for: [`Link::open`] is what grants the peer the right to
//!   send on a stream. The endpoint opens a stream *before* it sends the message that names it,
//!   the tether when it handles that message.
//! - [`Link::flush`] ends once the peer's link has received all that was queued before. So the
//!   tether ends with: streams ended, `flush`, `send(Goodbye)`, `flush`, power off.
#![forbid(unsafe_code)]

use std::future::Future;
use std::time::Duration;
use wire::handshake::{KeyState, NewSession};
use wire::keys::Identity;
use wire::message::{ToGuest, ToHost};

mod driver;
pub mod serial;
mod session;
mod setup;
mod stream;

pub use session::{Link, Sender};
pub use setup::{accept, dial};
pub use stream::{SendError, StreamEvent, StreamReceiver, StreamSender};

/// Why a link could not be made, or ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// The stream under the link ended or failed.
    #[error("the link's connection broke: {0}")]
    Io(String),
    /// The peer is not who it should be, or speaks another version.
    #[error("link handshake: {0}")]
    Handshake(String),
    /// The peer did not keep to the protocol.
    #[error("the peer broke the link protocol: {0}")]
    Protocol(String),
    /// The link was closed on this side.
    #[error("the link was closed")]
    Closed,
    /// The key store could not look up or store.
    #[error("link keys: {0}")]
    Keys(String),
    /// The stream number was opened before in this session.
    #[error("stream {0} was already opened on this link")]
    StreamUsed(u32),
}

/// Where the endpoint keeps the keys of its VMs' links.
pub trait KeyStore: Send + Sync {
    /// What is known of this boot of this VM; `Ok(None)` if there is no such VM, it is not this
    /// virtual container host's, or the boot is not its current one.
    fn lookup(
        &self,
        identity: Identity,
    ) -> impl Future<Output = Result<Option<KeyState>, String>> + Send;

    /// Stores a session before it is confirmed. Must check, in one step with the writing, that
    /// the present state [`KeyState::admits`] it; `Ok(false)` if it does not.
    fn store(&self, session: NewSession) -> impl Future<Output = Result<bool, String>> + Send;
}

/// Sizes of a link. The default suits both transports.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes that a peer may send on a stream ahead of its reader.
    pub window: u32,
    /// Received control messages that wait for [`Link::recv`] before the link stops reading.
    pub inbox: usize,
    /// How long the handshake may take.
    pub handshake_timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            window: 512 * 1024,
            inbox: 256,
            handshake_timeout: Duration::from_secs(30),
        }
    }
}

/// The tether's side of a link.
pub type GuestLink = Link<ToHost, ToGuest>;
/// The endpoint's side of a link.
pub type HostLink = Link<ToGuest, ToHost>;
