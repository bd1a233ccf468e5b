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

use bytes::Bytes;
use std::future::Future;
use std::marker::PhantomData;
use tokio::io::{AsyncRead, AsyncWrite};
use wire::handshake::{Credentials, KeyState, NewSession};
use wire::keys::Identity;
use wire::message::{Channel, StreamId, ToGuest, ToHost};

pub mod serial;

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
    pub handshake_timeout: std::time::Duration,
}

/// The tether's side of a link.
pub type GuestLink = Link<ToHost, ToGuest>;
/// The endpoint's side of a link.
pub type HostLink = Link<ToGuest, ToHost>;

/// Dials: the tether's handshake over a connected stream. `credentials` remember what later
/// sessions need, also where this one fails.
pub async fn dial<T>(
    io: T,
    credentials: &mut Credentials,
    options: Options,
) -> Result<GuestLink, LinkError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let _ = (io, credentials, options);
    unimplemented!()
}

/// Accepts: the endpoint's handshake over a connected stream. `wanted` is the identity that the
/// transport vouches for, if it does (the serial port's URI names the container).
pub async fn accept<T, K>(
    io: T,
    keys: &K,
    wanted: Option<[u8; 32]>,
    options: Options,
) -> Result<(Identity, HostLink), LinkError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    K: KeyStore,
{
    let _ = (io, keys, wanted, options);
    unimplemented!()
}

/// A session of the link. `Out` is what this side sends, `In` what it receives.
/// Dropping it (and all [`Sender`]s and streams) closes the connection.
#[derive(Debug)]
pub struct Link<Out, In> {
    _p: PhantomData<(Out, In)>,
}

/// A handle for sending control messages and opening streams; cloneable, any number of them.
#[derive(Debug)]
pub struct Sender<Out> {
    _p: PhantomData<Out>,
}

impl<Out> Clone for Sender<Out> {
    fn clone(&self) -> Self {
        unimplemented!()
    }
}

impl<Out, In> Link<Out, In> {
    /// A handle that can be given to other tasks.
    pub fn sender(&self) -> Sender<Out> {
        unimplemented!()
    }

    /// The next control message. `Err` once the link is over; what came before is delivered first.
    /// Cancel-safe.
    pub async fn recv(&mut self) -> Result<In, LinkError> {
        unimplemented!()
    }

    /// See [`Sender::send`].
    pub async fn send(&self, message: Out) -> Result<(), LinkError> {
        let _ = message;
        unimplemented!()
    }

    /// See [`Sender::open`].
    pub fn open(&self, stream: StreamId) -> Result<(StreamSender, StreamReceiver), LinkError> {
        let _ = stream;
        unimplemented!()
    }

    /// See [`Sender::flush`].
    pub async fn flush(&self) -> Result<(), LinkError> {
        unimplemented!()
    }

    /// Why the link ended; waits until it does. Cancel-safe.
    pub async fn closed(&self) -> LinkError {
        unimplemented!()
    }
}

impl<Out> Sender<Out> {
    /// Queues a control message. Waits only while too many are queued. Cancel-safe: queued or not.
    pub async fn send(&self, message: Out) -> Result<(), LinkError> {
        let _ = message;
        unimplemented!()
    }

    /// Opens this side of a stream: both halves. Grants the peer the window. A half that is not
    /// wanted is simply dropped. Each number once per session.
    pub fn open(&self, stream: StreamId) -> Result<(StreamSender, StreamReceiver), LinkError> {
        let _ = stream;
        unimplemented!()
    }

    /// Ends once the peer's link has received everything queued before this call on control and
    /// on streams (data that waits for credit is not queued yet).
    pub async fn flush(&self) -> Result<(), LinkError> {
        unimplemented!()
    }

    /// Why the link ended; waits until it does. Cancel-safe.
    pub async fn closed(&self) -> LinkError {
        unimplemented!()
    }

    /// Ends the link at once, for both sides.
    pub fn close(&self) {
        unimplemented!()
    }
}

/// Why nothing more can be sent on a stream.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// The peer dropped its receiver.
    #[error("the peer no longer reads stream {0}")]
    Dropped(u32),
    /// The link is over.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// The sending half of a stream. Dropping it tells the peer that nothing more comes.
#[derive(Debug)]
pub struct StreamSender {
    _p: (),
}

impl StreamSender {
    /// Sends bytes, waiting for the peer's credit and for room in the queue. Returns once all is
    /// queued. If cancelled, a part may have been queued: use [`StreamSender::ready`] and
    /// [`StreamSender::try_send`] where that matters.
    pub async fn send(&mut self, channel: Channel, bytes: Bytes) -> Result<(), SendError> {
        let _ = (channel, bytes);
        unimplemented!()
    }

    /// Waits until at least one byte can be sent; returns how many could. Cancel-safe.
    pub async fn ready(&mut self) -> Result<usize, SendError> {
        unimplemented!()
    }

    /// Sends as much as is possible now; returns how many bytes that was.
    pub fn try_send(&mut self, channel: Channel, bytes: Bytes) -> Result<usize, SendError> {
        let _ = (channel, bytes);
        unimplemented!()
    }

    /// Tells the peer that this channel is complete, in order behind its bytes. `left`: bytes that
    /// were made but not sent because a drain was cut short; normally 0. Never waits.
    pub fn end(&mut self, channel: Channel, left: u64) -> Result<(), SendError> {
        let _ = (channel, left);
        unimplemented!()
    }

    /// Waits until the peer no longer reads (its receiver was dropped) or the link is over. Cancel-safe.
    pub async fn closed(&self) -> SendError {
        unimplemented!()
    }
}

/// What comes out of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// Bytes of a channel, in order.
    Data(Channel, Bytes),
    /// The channel is complete; `left` bytes were made but are not in it.
    End {
        /// Which.
        channel: Channel,
        /// Bytes that a drain cut short left behind; normally 0.
        left: u64,
    },
}

/// The receiving half of a stream. Dropping it tells the peer to stop sending.
#[derive(Debug)]
pub struct StreamReceiver {
    _p: (),
}

impl StreamReceiver {
    /// The next event; `Ok(None)` once the peer has dropped its sender and all was delivered.
    /// Each call gives the peer back the credit of what the last call delivered: a receiver that
    /// is not called holds the peer's writer back. Cancel-safe.
    pub async fn recv(&mut self) -> Result<Option<StreamEvent>, LinkError> {
        unimplemented!()
    }
}
