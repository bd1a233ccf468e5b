//! The two tasks under a session, and what they share with its handles.

use crate::session::{Handle, Link};
use crate::{LinkError, Options};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::io::IoSlice;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, watch};
use wire::frame::{self, Frame};
use wire::mux::{Mux, Role, Wake};

/// Bytes that one write gathers.
const BATCH: usize = 256 * 1024;
/// Frames that one write gathers.
const BATCH_FRAMES: usize = 64;
/// Bytes that one read asks for.
const READ: usize = 128 * 1024;
/// Encoded control messages that may wait before [`crate::Sender::send`] does.
pub(crate) const CONTROL_QUEUE: usize = 1 << 20;

/// A stream's waiters.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    pub(crate) readable: Notify,
    pub(crate) writable: Notify,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) mux: Mux,
    pub(crate) waiters: HashMap<u32, Arc<Waiters>>,
    pub(crate) flushes: HashMap<u64, tokio::sync::oneshot::Sender<()>>,
}

/// What tasks and handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// There is something to transmit.
    pub(crate) transmit: Notify,
    /// A control message came.
    pub(crate) control: Notify,
    /// The control queues got room (either direction).
    pub(crate) room: Notify,
    /// Set once, when the link is over.
    over: watch::Sender<Option<LinkError>>,
    inbox: usize,
}

impl Shared {
    /// The state. A panic under the lock leaves it consistent enough to tear the link down.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the link for everyone who waits on it. The first reason stands.
    pub(crate) fn end(&self, error: LinkError) {
        let first = self.over.send_if_modified(|over| {
            let first = over.is_none();
            if first {
                *over = Some(error);
            }
            first
        });
        if !first {
            return;
        }
        let mut state = self.lock();
        state.flushes.clear();
        for waiters in state.waiters.values() {
            waiters.readable.notify_waiters();
            waiters.writable.notify_waiters();
        }
        drop(state);
        self.control.notify_waiters();
        self.room.notify_waiters();
        self.transmit.notify_waiters();
    }

    /// Why the link is over, if it is.
    pub(crate) fn over(&self) -> Option<LinkError> {
        self.over.borrow().clone()
    }

    /// Waits until the link is over.
    pub(crate) async fn wait_over(&self) -> LinkError {
        let mut over = self.over.subscribe();
        match over.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(LinkError::Closed),
            Err(_) => LinkError::Closed,
        }
    }

    /// Waits for `notify` until `check` gives something, without missing a notification between
    /// the check and the wait.
    pub(crate) async fn until<T>(
        &self,
        notify: &Notify,
        mut check: impl FnMut(&Shared) -> Option<T>,
    ) -> T {
        loop {
            let notified = notify.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if let Some(found) = check(self) {
                return found;
            }
            notified.await;
        }
    }
}

/// Starts the tasks of a session over `io`; `buffer` holds what was read behind the handshake.
pub(crate) fn start<T, Out, In>(
    io: T,
    buffer: BytesMut,
    role: Role,
    options: &Options,
) -> Link<Out, In>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            mux: Mux::new(role, options.window),
            waiters: HashMap::new(),
            flushes: HashMap::new(),
        }),
        transmit: Notify::new(),
        control: Notify::new(),
        room: Notify::new(),
        over: watch::Sender::new(None),
        inbox: options.inbox.max(1),
    });
    let (reader, writer) = tokio::io::split(io);
    tokio::spawn(drive(shared.clone(), read(shared.clone(), reader, buffer)));
    tokio::spawn(drive(shared.clone(), write(shared.clone(), writer)));
    Link {
        handle: Arc::new(Handle { shared }),
        directions: PhantomData,
    }
}

/// Runs one of the tasks until it or the link ends; either way the link is over afterwards.
async fn drive(shared: Arc<Shared>, task: impl Future<Output = LinkError>) {
    tokio::select! {
        error = task => shared.end(error),
        _ = shared.wait_over() => {}
    }
}

async fn read<R: AsyncRead>(
    shared: Arc<Shared>,
    mut reader: ReadHalf<R>,
    mut buffer: BytesMut,
) -> LinkError {
    loop {
        if let Err(error) = dispatch(&shared, &mut buffer) {
            return error;
        }
        shared
            .until(&shared.room, |s| {
                (s.lock().mux.control_waiting() < s.inbox).then_some(())
            })
            .await;
        if buffer.capacity() - buffer.len() < READ / 4 {
            buffer.reserve(READ);
        }
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return LinkError::Io("the peer closed it".into()),
            Ok(_) => {}
            Err(error) => return LinkError::Io(error.to_string()),
        }
    }
}

/// Takes the whole frames out of `buffer` and wakes whom they concern.
fn dispatch(shared: &Shared, buffer: &mut BytesMut) -> Result<(), LinkError> {
    let mut state = shared.lock();
    let mut last = Wake::Nobody;
    loop {
        let frame = frame::decode(buffer).map_err(|e| LinkError::Protocol(e.to_string()))?;
        let Some(frame) = frame else { break };
        let wake = state
            .mux
            .receive(frame)
            .map_err(|e| LinkError::Protocol(e.to_string()))?;
        if wake != last {
            notify(shared, &mut state, last);
        }
        last = wake;
    }
    notify(shared, &mut state, last);
    Ok(())
}

fn notify(shared: &Shared, state: &mut State, wake: Wake) {
    match wake {
        Wake::Control => shared.control.notify_waiters(),
        Wake::Transmit => shared.transmit.notify_waiters(),
        Wake::Readable(id) => {
            if let Some(waiters) = state.waiters.get(&id) {
                waiters.readable.notify_waiters();
            }
        }
        Wake::Writable(id) => {
            if let Some(waiters) = state.waiters.get(&id) {
                waiters.writable.notify_waiters();
            }
        }
        Wake::Flushed(token) => {
            if let Some(done) = state.flushes.remove(&token) {
                let _ = done.send(()); // Nobody waits any more: nothing to tell.
            }
        }
        Wake::Nobody => {}
    }
}

async fn write<W: AsyncWrite>(shared: Arc<Shared>, mut writer: WriteHalf<W>) -> LinkError {
    let mut batch = Vec::with_capacity(BATCH_FRAMES);
    let mut flat = BytesMut::new();
    loop {
        if !gather(&shared, &mut batch) {
            if let Err(error) = writer.flush().await {
                return LinkError::Io(error.to_string());
            }
            shared
                .until(&shared.transmit, |s| gather(s, &mut batch).then_some(()))
                .await;
        }
        let written = if writer.is_write_vectored() {
            write_vectored(&mut writer, &mut batch).await
        } else {
            flat.clear();
            for (header, payload) in batch.drain(..) {
                flat.extend_from_slice(header.as_bytes());
                flat.extend_from_slice(&payload);
            }
            writer.write_all(&flat).await
        };
        if let Err(error) = written {
            return LinkError::Io(error.to_string());
        }
    }
}

/// Takes the next frames to transmit; false if there are none.
fn gather(shared: &Shared, batch: &mut Vec<(frame::Header, Bytes)>) -> bool {
    let mut state = shared.lock();
    let mut bytes = 0;
    let mut control = false;
    while bytes < BATCH && batch.len() < BATCH_FRAMES {
        let Some(frame) = state.mux.transmit() else {
            break;
        };
        match &frame {
            Frame::Control(_) => control = true,
            Frame::Data { stream, .. } => {
                if let Some(waiters) = state.waiters.get(stream) {
                    waiters.writable.notify_waiters();
                }
            }
            _ => {}
        }
        let parts = frame.into_parts();
        bytes += parts.1.len();
        batch.push(parts);
    }
    if control {
        shared.room.notify_waiters();
    }
    !batch.is_empty()
}

async fn write_vectored<W: AsyncWrite>(
    writer: &mut WriteHalf<W>,
    batch: &mut Vec<(frame::Header, Bytes)>,
) -> std::io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(batch.len() * 2);
    for (header, payload) in batch.iter() {
        slices.push(IoSlice::new(header.as_bytes()));
        if !payload.is_empty() {
            slices.push(IoSlice::new(payload));
        }
    }
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let count = writer.write_vectored(rest).await?;
        if count == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, count);
    }
    batch.clear();
    Ok(())
}
