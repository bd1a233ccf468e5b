//! The two halves of a stream.

use crate::LinkError;
use crate::driver::{Shared, Waiters};
use crate::session::Handle;
use bytes::Bytes;
use std::sync::Arc;
use wire::message::Channel;
use wire::mux::{Incoming, StreamError};

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

/// What the two halves have in common. Keeps the link open.
#[derive(Debug)]
pub(crate) struct Half {
    handle: Arc<Handle>,
    id: u32,
    waiters: Arc<Waiters>,
    sends: bool,
}

impl Half {
    pub(crate) fn new(handle: Arc<Handle>, id: u32, waiters: Arc<Waiters>, sends: bool) -> Half {
        Half {
            handle,
            id,
            waiters,
            sends,
        }
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        let shared = &self.handle.shared;
        let mut state = shared.lock();
        if self.sends {
            state.mux.finish(self.id);
        } else {
            state.mux.drop_receiver(self.id);
        }
        // This half and the table: the other half is gone, so nobody waits any more.
        if Arc::strong_count(&self.waiters) == 2 {
            state.waiters.remove(&self.id);
        }
        drop(state);
        shared.transmit.notify_waiters();
    }
}

/// The sending half of a stream. Dropping it tells the peer that nothing more comes.
#[derive(Debug)]
pub struct StreamSender {
    half: Half,
}

impl StreamSender {
    pub(crate) fn new(half: Half) -> StreamSender {
        StreamSender { half }
    }

    /// Sends bytes, waiting for the peer's credit and for room in the queue. Returns once all is
    /// queued. If cancelled, a part may have been queued: use [`StreamSender::ready`] and
    /// [`StreamSender::try_send`] where that matters.
    pub async fn send(&mut self, channel: Channel, mut bytes: Bytes) -> Result<(), SendError> {
        while !bytes.is_empty() {
            self.ready().await?;
            let count = self.try_send(channel, bytes.clone())?;
            bytes = bytes.slice(count..);
        }
        Ok(())
    }

    /// Waits until at least one byte can be sent; returns how many could. Cancel-safe.
    pub async fn ready(&mut self) -> Result<usize, SendError> {
        let id = self.half.id;
        let ready = |s: &Shared| {
            if let Some(over) = s.over() {
                return Some(Err(over.into()));
            }
            match s.lock().mux.sendable(id) {
                Ok(0) => None,
                Ok(count) => Some(Ok(count)),
                Err(_) => Some(Err(SendError::Dropped(id))),
            }
        };
        self.half
            .shared()
            .until(&self.half.waiters.writable, ready)
            .await
    }

    /// Sends as much as is possible now; returns how many bytes that was.
    pub fn try_send(&mut self, channel: Channel, mut bytes: Bytes) -> Result<usize, SendError> {
        let (id, shared) = (self.half.id, self.half.shared());
        if let Some(over) = shared.over() {
            return Err(over.into());
        }
        let mut sent = 0;
        let mut state = shared.lock();
        while !bytes.is_empty() {
            match state.mux.send(id, channel, &mut bytes).map_err(dropped)? {
                0 => break,
                count => sent += count,
            }
        }
        drop(state);
        shared.transmit.notify_waiters();
        Ok(sent)
    }

    /// Tells the peer that this channel is complete, in order behind its bytes. `left`: bytes that
    /// were made but not sent because a drain was cut short; normally 0. Never waits.
    pub fn end(&mut self, channel: Channel, left: u64) -> Result<(), SendError> {
        let shared = self.half.shared();
        if let Some(over) = shared.over() {
            return Err(over.into());
        }
        let ended = shared.lock().mux.end(self.half.id, channel, left);
        shared.transmit.notify_waiters();
        ended.map_err(dropped)
    }

    /// Waits until the peer no longer reads (its receiver was dropped) or the link is over. Cancel-safe.
    pub async fn closed(&self) -> SendError {
        let id = self.half.id;
        let closed = |s: &Shared| {
            s.over().map(SendError::from).or_else(|| {
                let sendable = s.lock().mux.sendable(id);
                sendable.err().map(|_| SendError::Dropped(id))
            })
        };
        self.half
            .shared()
            .until(&self.half.waiters.writable, closed)
            .await
    }
}

fn dropped(error: StreamError) -> SendError {
    match error {
        StreamError::Dropped(id) | StreamError::Used(id) => SendError::Dropped(id),
        StreamError::Full => SendError::Link(LinkError::Protocol(error.to_string())),
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
    half: Half,
}

impl StreamReceiver {
    pub(crate) fn new(half: Half) -> StreamReceiver {
        StreamReceiver { half }
    }

    /// The next event; `Ok(None)` once the peer has dropped its sender and all was delivered.
    /// What came before the link ended is delivered before its error. What is delivered is given
    /// back to the peer as credit: a receiver that is not called holds the peer's writer back.
    /// Cancel-safe.
    pub async fn recv(&mut self) -> Result<Option<StreamEvent>, LinkError> {
        let id = self.half.id;
        let (shared, waiters) = (self.half.shared(), &self.half.waiters);
        let next = |s: &Shared| match s.lock().mux.receive_stream(id) {
            Incoming::Data(channel, bytes) => Some(Ok(Some(StreamEvent::Data(channel, bytes)))),
            Incoming::End { channel, left } => Some(Ok(Some(StreamEvent::End { channel, left }))),
            Incoming::Finished => Some(Ok(None)),
            Incoming::Nothing => s.over().map(Err),
        };
        let event = shared.until(&waiters.readable, next).await;
        // Credit may have to be transmitted.
        shared.transmit.notify_waiters();
        event
    }
}
