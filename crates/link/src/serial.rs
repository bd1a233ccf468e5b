//! A reliable stream over a serial pipe that loses, corrupts and interrupts.
//!
//! A task of its own drives `wire::arq` over the pipe of the moment. It knows two kinds of
//! handles: [`SerialStream`], one connection, and [`Pipe`], the place under it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, WriteHalf, split};
use tokio::sync::Notify;
use wire::arq::{Arq, Name, State};

/// Bytes that one write to the pipe gathers: little, so that control messages do not wait behind it.
const WRITE: usize = 4096;
/// Bytes that one read from the pipe takes.
const READ: usize = 16 * 1024;
/// How long a pipe may take for the last packet, once nobody holds the connection any more.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(1);

/// What a pipe is made of.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Which side of the serial port this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The tether: opens each connection.
    Dialer,
    /// The endpoint: answers.
    Listener,
}

/// A reliable, ordered byte stream over a lossy pipe, to be given to `dial` or `accept`.
///
/// It ends when the peer closed it, and fails when the peer no longer knows it (it was restarted)
/// or began another one. A pipe that goes away does not end it: it waits for the next. Flushing
/// waits for nothing, shutting down until the peer has everything. Dropping it tells the peer.
#[derive(Debug)]
pub struct SerialStream {
    owner: Arc<Owner>,
    /// Which connection of the pipe this is.
    number: u64,
}

/// The place of the pipe under a [`SerialStream`].
#[derive(Debug)]
pub struct Pipe {
    owner: Arc<Owner>,
    side: Side,
}

/// Ends the task when the last handle is dropped.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    /// The task has something to look at: bytes, another pipe, the end.
    work: Notify,
    /// The pipe was lost, or a listener's connection was opened or broke.
    changed: Notify,
}

struct Inner {
    arq: Arq,
    /// Counts connections; a stream of an earlier one is over.
    number: u64,
    /// A pipe to be taken in place of the present one.
    pipe: Option<Box<dyn Io>>,
    /// No pipe, and none to be taken.
    lost: bool,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("arq", &self.arq.state())
            .field("lost", &self.lost)
            .finish()
    }
}

impl Inner {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_one();
    }
}

/// Makes a reliable stream over `io` (a tty, or the payload of a vSPC connection). Spawns a task
/// that lives as long as the handles.
///
/// A listener's stream is one connection of the peer: it is usable from the peer's opening on
/// (reads and writes wait until then). When the peer opens another one (the tether was restarted,
/// or gave the session up), this stream fails, and [`Pipe::next`] gives the next.
pub fn reliable<T>(io: T, side: Side) -> io::Result<(SerialStream, Pipe)>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let now = now();
    let arq = match side {
        Side::Dialer => Arq::dialer(random()?, now),
        Side::Listener => Arq::listener(now),
    };
    let inner = Inner {
        arq,
        number: 0,
        pipe: Some(Box::new(io)),
        lost: false,
        closed: false,
        reader: None,
        writer: None,
    };
    let shared = Arc::new(Shared {
        inner: Mutex::new(inner),
        work: Notify::new(),
        changed: Notify::new(),
    });
    tokio::spawn(drive(shared.clone()));
    let owner = Arc::new(Owner { shared });
    Ok((
        SerialStream {
            owner: owner.clone(),
            number: 0,
        },
        Pipe { owner, side },
    ))
}

impl Pipe {
    /// Puts another pipe under the stream (the serial port's proxy connection came back). The
    /// session goes on behind the last acknowledged frame.
    pub fn replace<T>(&self, io: T)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut inner = self.owner.shared.lock();
        inner.pipe = Some(Box::new(io));
        inner.lost = false;
        drop(inner);
        self.owner.shared.work.notify_one();
    }

    /// Waits until the present pipe is gone (end of file or error). Cancel-safe.
    pub async fn lost(&self) {
        self.until(|inner| inner.lost.then_some(())).await;
    }

    /// The next connection over the same pipe. Dialer: opens one, at once. Listener: waits until
    /// the present one is over (its stream was dropped, or the peer opened another); its stream
    /// is then usable from the peer's opening on. The former stream fails. Cancel-safe.
    pub async fn next(&mut self) -> io::Result<SerialStream> {
        let shared = &self.owner.shared;
        if self.side == Side::Listener {
            self.until(|inner| (inner.arq.state() == State::Broken).then_some(()))
                .await;
        }
        let name = random()?;
        let mut inner = shared.lock();
        inner.arq.next_connection(name, now());
        inner.number += 1;
        inner.wake();
        let number = inner.number;
        drop(inner);
        shared.work.notify_one();
        Ok(SerialStream {
            owner: self.owner.clone(),
            number,
        })
    }

    async fn until<T>(&self, mut check: impl FnMut(&Inner) -> Option<T>) -> T {
        let shared = &self.owner.shared;
        loop {
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = check(&shared.lock()) {
                return found;
            }
            changed.await;
        }
    }
}

impl SerialStream {
    /// The connection's state, locked, if this stream is still the pipe's.
    fn current(&self) -> Option<MutexGuard<'_, Inner>> {
        Some(self.owner.shared.lock()).filter(|inner| inner.number == self.number)
    }
}

fn broken() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionReset,
        "the peer of the serial link began anew",
    )
}

impl AsyncRead for SerialStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(mut inner) = self.current() else {
            return Poll::Ready(Err(broken()));
        };
        if inner.arq.readable() > 0 {
            let count = inner.arq.read(buf.initialize_unfilled());
            buf.advance(count);
            drop(inner);
            // The window may have opened.
            self.owner.shared.work.notify_one();
            return Poll::Ready(Ok(()));
        }
        if inner.arq.is_over() {
            return Poll::Ready(Ok(()));
        }
        if inner.arq.state() == State::Broken {
            return Poll::Ready(Err(broken()));
        }
        inner.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for SerialStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(mut inner) = self.current() else {
            return Poll::Ready(Err(broken()));
        };
        if inner.arq.state() == State::Broken {
            return Poll::Ready(Err(broken()));
        }
        let count = inner.arq.write(bytes);
        if count == 0 && !bytes.is_empty() {
            inner.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(inner);
        self.owner.shared.work.notify_one();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(mut inner) = self.current() else {
            return Poll::Ready(Err(broken()));
        };
        inner.arq.finish();
        if inner.arq.is_idle() {
            return Poll::Ready(Ok(()));
        }
        if inner.arq.state() == State::Broken {
            return Poll::Ready(Err(broken()));
        }
        inner.writer = Some(cx.waker().clone());
        drop(inner);
        self.owner.shared.work.notify_one();
        Poll::Pending
    }
}

impl Drop for SerialStream {
    fn drop(&mut self) {
        if let Some(mut inner) = self.current() {
            inner.arq.reset(now());
        }
        self.owner.shared.work.notify_one();
        self.owner.shared.changed.notify_waiters();
    }
}

/// Drives the connection over one pipe after the other, until no handle is left.
async fn drive(shared: Arc<Shared>) {
    loop {
        let pipe = {
            let mut inner = shared.lock();
            let pipe = inner.pipe.take();
            if inner.closed && pipe.is_none() {
                return;
            }
            if pipe.is_some() {
                inner.arq.repiped(now());
            }
            pipe
        };
        match pipe {
            Some(io) => {
                run(&shared, io).await;
                let mut inner = shared.lock();
                if inner.closed {
                    return;
                }
                inner.lost = inner.pipe.is_none();
                drop(inner);
                shared.changed.notify_waiters();
            }
            None => shared.work.notified().await,
        }
    }
}

/// What [`run`] sends: packets that were taken from the state machine and not yet written.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    at: usize,
    flush: bool,
}

/// Drives the connection over one pipe, until that ends or is replaced.
async fn run(shared: &Shared, io: Box<dyn Io>) {
    let (mut reader, mut writer) = split(io);
    let mut input = vec![0; READ];
    let mut out = Out::default();
    let mut farewell = None;
    loop {
        let timeout = {
            let mut inner = shared.lock();
            if inner.pipe.is_some() {
                return;
            }
            let now = now();
            let before = inner.arq.state();
            inner.arq.tick(now);
            if inner.arq.state() != before {
                inner.wake();
                shared.changed.notify_waiters();
            }
            if out.at == out.bytes.len() {
                out.bytes.clear();
                out.at = 0;
                while out.bytes.len() < WRITE && inner.arq.transmit(now, &mut out.bytes) {}
            }
            // What is to be sent has its time once the pipe took what is pending.
            let mut timeout = match out.at < out.bytes.len() {
                true => inner.arq.next_look(),
                false => inner.arq.next_timeout(),
            };
            if inner.closed {
                let until = *farewell.get_or_insert(now + FAREWELL);
                let said = out.bytes.is_empty() && !out.flush && timeout.is_none();
                if said || now >= until {
                    return;
                }
                timeout = Some(timeout.map_or(until, |at| at.min(until)));
            }
            timeout
        };
        let pending = out.at < out.bytes.len();
        let tick = async {
            match timeout {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            read = reader.read(&mut input) => match read {
                Ok(count) if count > 0 => {
                    let mut inner = shared.lock();
                    let before = inner.arq.state();
                    inner.arq.receive(&input[..count], now());
                    if inner.arq.readable() > 0 || inner.arq.is_over() {
                        inner.reader.take().into_iter().for_each(Waker::wake);
                    }
                    if inner.arq.room() > 0 || inner.arq.is_idle() {
                        inner.writer.take().into_iter().for_each(Waker::wake);
                    }
                    if inner.arq.state() != before {
                        inner.wake();
                        drop(inner);
                        shared.changed.notify_waiters();
                    }
                }
                _ => return,
            },
            pushed = push(&mut writer, &out), if pending || out.flush => match pushed {
                Ok(0) => out.flush = false,
                Ok(count) => {
                    out.at += count;
                    out.flush = true;
                    let mut inner = shared.lock();
                    if inner.arq.room() > 0 {
                        inner.writer.take().into_iter().for_each(Waker::wake);
                    }
                }
                Err(_) => return,
            },
            () = tick => {}
            () = shared.work.notified() => {}
        }
    }
}

/// Writes what is pending, or flushes; how many bytes, 0 for a flush. Cancel-safe as both are.
async fn push(writer: &mut WriteHalf<Box<dyn Io>>, out: &Out) -> io::Result<usize> {
    if out.at == out.bytes.len() {
        writer.flush().await?;
        return Ok(0);
    }
    match writer.write(&out.bytes[out.at..]).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}

/// The state machine's clock: tokio's, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn random() -> io::Result<Name> {
    let mut bytes = [0; Name::BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(Name::new(bytes))
}
