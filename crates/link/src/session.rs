//! The handles of a session.

use crate::LinkError;
use crate::driver::{CONTROL_QUEUE, Shared};
use crate::stream::{StreamReceiver, StreamSender};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use wire::message::{StreamId, decode, encode};
use wire::mux::StreamError;

/// Ends the link when the last handle is dropped.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.end(LinkError::Closed);
    }
}

/// A session of the link. `Out` is what this side sends, `In` what it receives.
/// Dropping it and all [`Sender`]s and stream halves closes the connection, whatever is queued:
/// [`Link::flush`] first.
pub struct Link<Out, In> {
    pub(crate) handle: Arc<Handle>,
    pub(crate) directions: PhantomData<fn(Out) -> In>,
}

/// A handle for sending control messages and opening streams; cloneable, any number of them.
pub struct Sender<Out> {
    handle: Arc<Handle>,
    direction: PhantomData<fn(Out)>,
}

impl<Out, In> fmt::Debug for Link<Out, In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("over", &self.handle.shared.over())
            .finish()
    }
}

impl<Out> fmt::Debug for Sender<Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("over", &self.handle.shared.over())
            .finish()
    }
}

impl<Out> Clone for Sender<Out> {
    fn clone(&self) -> Self {
        Sender {
            handle: self.handle.clone(),
            direction: PhantomData,
        }
    }
}

impl<Out: Serialize, In: DeserializeOwned> Link<Out, In> {
    /// A handle that can be given to other tasks.
    pub fn sender(&self) -> Sender<Out> {
        Sender {
            handle: self.handle.clone(),
            direction: PhantomData,
        }
    }

    /// The next control message. `Err` once the link is over; what came before is delivered first.
    /// Cancel-safe. Must be called all the time: a link whose inbox is full stops reading.
    pub async fn recv(&mut self) -> Result<In, LinkError> {
        let shared = &self.handle.shared;
        let message = shared
            .until(&shared.control, |s| {
                let message = s.lock().mux.receive_control();
                message.map(Ok).or_else(|| s.over().map(Err))
            })
            .await?;
        shared.room.notify_waiters();
        decode(&message).map_err(|e| {
            let error = LinkError::Protocol(e.to_string());
            shared.end(error.clone());
            error
        })
    }

    /// See [`Sender::send`].
    pub async fn send(&self, message: Out) -> Result<(), LinkError> {
        self.sender().send(message).await
    }

    /// See [`Sender::open`].
    pub fn open(&self, stream: StreamId) -> Result<(StreamSender, StreamReceiver), LinkError> {
        self.sender().open(stream)
    }

    /// See [`Sender::flush`].
    pub async fn flush(&self) -> Result<(), LinkError> {
        self.sender().flush().await
    }

    /// Why the link ended; waits until it does. Cancel-safe.
    pub async fn closed(&self) -> LinkError {
        self.handle.shared.wait_over().await
    }
}

impl<Out: Serialize> Sender<Out> {
    /// Queues a control message. Waits only while too many are queued. Cancel-safe: queued or not.
    pub async fn send(&self, message: Out) -> Result<(), LinkError> {
        let message = encode(&message).map_err(|e| LinkError::Protocol(e.to_string()))?;
        let mut message = Some(message.into());
        let shared = &self.handle.shared;
        shared
            .until(&shared.room, |s| {
                if let Some(over) = s.over() {
                    return Some(Err(over));
                }
                let mut state = s.lock();
                if state.mux.control_queued() > CONTROL_QUEUE {
                    return None;
                }
                message.take().map(|message| {
                    state.mux.send_control(message);
                    Ok(())
                })
            })
            .await?;
        shared.transmit.notify_waiters();
        Ok(())
    }

    /// Opens this side of a stream: both halves. Grants the peer the window. A half that is not
    /// wanted is simply dropped; so is a stream that is refused, since the peer waits for it to end.
    pub fn open(&self, stream: StreamId) -> Result<(StreamSender, StreamReceiver), LinkError> {
        let shared = &self.handle.shared;
        if let Some(over) = shared.over() {
            return Err(over);
        }
        let mut state = shared.lock();
        state.mux.open(stream.0).map_err(|e| match e {
            StreamError::Used(id) => LinkError::StreamUsed(id),
            other => LinkError::Protocol(other.to_string()),
        })?;
        let waiters = state.waiters.entry(stream.0).or_default().clone();
        drop(state);
        shared.transmit.notify_waiters();
        let half =
            |side| crate::stream::Half::new(self.handle.clone(), stream.0, waiters.clone(), side);
        Ok((
            StreamSender::new(half(true)),
            StreamReceiver::new(half(false)),
        ))
    }

    /// Ends once the peer's link has received everything queued before this call on control and
    /// on streams (data that waits for credit is not queued yet).
    pub async fn flush(&self) -> Result<(), LinkError> {
        let shared = &self.handle.shared;
        let (done, flushed) = tokio::sync::oneshot::channel();
        {
            let mut state = shared.lock();
            let token = state.mux.flush();
            state.flushes.insert(token, done);
        }
        // The link may have ended before the entry was made; then nobody removes it.
        if let Some(over) = shared.over() {
            return Err(over);
        }
        shared.transmit.notify_waiters();
        match flushed.await {
            Ok(()) => Ok(()),
            Err(_) => Err(shared.over().unwrap_or(LinkError::Closed)),
        }
    }

    /// Why the link ended; waits until it does. Cancel-safe.
    pub async fn closed(&self) -> LinkError {
        self.handle.shared.wait_over().await
    }

    /// Ends the link at once, for both sides.
    pub fn close(&self) {
        self.handle.shared.end(LinkError::Closed);
    }
}
