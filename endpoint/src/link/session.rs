//! One session of a link: requests and their answers, and streams.

use crate::errors::{Error, Result};
use link::{Sender, StreamReceiver, StreamSender};
use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::sync::{oneshot, watch};
use wire::message::{Attach, Reply, SessionId, StreamId, ToGuest};

/// For what a tether does at once, this is no answer. Long: an answer waits for a vCPU, for memory and for what else is on
/// the line.
const ANSWER: Duration = Duration::from_secs(120);

/// The endpoint's handle on a tether.
#[derive(Debug)]
pub struct Session {
    /// The boot that it belongs to.
    pub boot: u64,
    sender: Sender<ToGuest>,
    waiting: Mutex<Option<HashMap<u32, oneshot::Sender<Reply>>>>,
    next_request: AtomicU32,
    next_stream: AtomicU32,
    next_exec: AtomicU32,
    /// Whether the numbers that execs have already are known.
    numbered: watch::Sender<bool>,
    /// Whether the tether has said that it waits for its start.
    waits: AtomicBool,
}

/// What an attached client wants of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wants {
    /// To send stdin.
    pub stdin: bool,
    /// Stdout, or the terminal's output.
    pub stdout: bool,
    /// Stderr.
    pub stderr: bool,
}

impl Wants {
    /// Whether the ends of stdout and stderr are waited for. A terminal has no stderr.
    pub fn outputs(self, tty: bool) -> (bool, bool) {
        (self.stdout, self.stderr && !tty)
    }
}

/// Both halves of an opened stream.
#[derive(Debug)]
pub struct Stream {
    /// To the guest.
    pub sender: StreamSender,
    /// From the guest.
    pub receiver: StreamReceiver,
}

impl Session {
    /// A session over a link that has just been accepted.
    pub fn new(boot: u64, sender: Sender<ToGuest>) -> Self {
        Self {
            boot,
            sender,
            waiting: Mutex::new(Some(HashMap::new())),
            next_request: AtomicU32::new(1),
            next_stream: AtomicU32::new(1),
            next_exec: AtomicU32::new(1),
            numbered: watch::Sender::new(false),
            waits: AtomicBool::new(false),
        }
    }

    fn lost() -> Error {
        Error::unavailable(
            "the connection to the container's VM was lost; it dials again by itself, repeat the command",
        )
    }

    /// It does not answer.
    pub(crate) fn silent() -> Error {
        Error::unavailable(
            "the container's VM does not answer: it is suspended, its host or datastore is stuck, or its kernel is; `docker stop` and `docker kill` power it off",
        )
    }

    /// Sends a request and waits for its answer, which comes at once from a tether that runs.
    ///
    /// # Errors
    /// 503 where the link breaks first, or no answer comes.
    pub async fn request(&self, make: impl FnOnce(u32) -> ToGuest) -> Result<Reply> {
        tokio::time::timeout(ANSWER, self.long_request(make))
            .await
            .unwrap_or_else(|_| Err(Self::silent()))
    }

    /// Like [`Session::request`], where the answer takes as long as what is asked for.
    ///
    /// # Errors
    /// 503 where the link breaks first.
    pub async fn long_request(&self, make: impl FnOnce(u32) -> ToGuest) -> Result<Reply> {
        let request = self.next_request.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        match &mut *self.waiting() {
            Some(waiting) => waiting.insert(request, answer),
            None => return Err(Self::lost()),
        };
        // Whoever waits may be gone before there is an answer, and there may be none.
        let _forgotten = Forget {
            session: self,
            request,
        };
        if self.sender.send(make(request)).await.is_err() {
            return Err(Self::lost());
        }
        answered.await.map_err(|_| Self::lost())
    }

    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u32, oneshot::Sender<Reply>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Like [`Session::request`], where the only good answer is `Done`.
    ///
    /// # Errors
    /// 503 where the link breaks, 500 with the tether's words where it could not be done.
    pub async fn done(&self, make: impl FnOnce(u32) -> ToGuest) -> Result<()> {
        match self.request(make).await? {
            Reply::Done => Ok(()),
            Reply::Error(message) => Err(Error::internal(message)),
            other => Err(Error::internal(format!(
                "unexpected answer of the guest: {other:?}"
            ))),
        }
    }

    /// Takes an answer to its request. One that nobody waits for is dropped.
    pub fn answer(&self, request: u32, reply: Reply) {
        if let Some(answer) = self.waiting().as_mut().and_then(|w| w.remove(&request)) {
            let _nobody_waits = answer.send(reply);
        }
    }

    /// Fails all that wait: the link is over. Streams may still hold what came before.
    pub fn close(&self) {
        self.numbered();
        self.waiting().take();
    }

    /// Ends the link itself, with all streams, whoever still holds one: nothing more comes.
    pub fn end(&self) {
        self.close();
        self.sender.close();
    }

    /// Opens a stream that the guest does not know of yet.
    ///
    /// # Errors
    /// 503 where the link is over.
    pub fn open(&self) -> Result<(StreamId, Stream)> {
        let id = StreamId(self.next_stream.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = self.sender.open(id).map_err(|_| Self::lost())?;
        Ok((id, Stream { sender, receiver }))
    }

    /// Opens a stream onto a session's stdio.
    ///
    /// # Errors
    /// 503 where the link is over.
    pub fn open_attach(&self, wants: Wants) -> Result<(Attach, Stream)> {
        let (stream, both) = self.open()?;
        let attach = Attach {
            stream,
            stdin: wants.stdin,
            stdout: wants.stdout,
            stderr: wants.stderr,
        };
        Ok((attach, both))
    }

    /// Attaches a new stream to a session.
    ///
    /// # Errors
    /// As [`Session::done`].
    pub async fn attach(&self, session: SessionId, wants: Wants) -> Result<Stream> {
        let (attach, stream) = self.open_attach(wants)?;
        self.done(|request| ToGuest::Attach {
            request,
            session,
            attach,
        })
        .await?;
        Ok(stream)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// As [`Session::done`].
    pub async fn signal(&self, session: SessionId, signal: i32) -> Result<()> {
        self.done(|request| ToGuest::Signal {
            request,
            session,
            signal,
        })
        .await
    }

    /// Sets the size of a terminal.
    ///
    /// # Errors
    /// As [`Session::done`].
    pub async fn resize(&self, session: SessionId, rows: u16, cols: u16) -> Result<()> {
        self.done(|request| ToGuest::Resize {
            request,
            session,
            rows,
            cols,
        })
        .await
    }

    /// A number for a new exec. After a reconnect it waits until those are known that run already.
    pub async fn new_exec(&self) -> SessionId {
        let mut numbered = self.numbered.subscribe();
        // The sender is this session's own, and so does not go before.
        let _is_known = numbered.wait_for(|known| *known).await;
        SessionId(self.next_exec.fetch_add(1, Ordering::Relaxed))
    }

    /// Notes a number that an exec has already.
    pub fn note_exec(&self, session: SessionId) {
        self.next_exec
            .fetch_max(session.0.saturating_add(1), Ordering::Relaxed);
    }

    /// The tether waits for its start; whether that is news. It may say so as often as it likes.
    pub fn waits(&self) -> bool {
        !self.waits.swap(true, Ordering::AcqRel)
    }

    /// All such numbers are noted.
    pub fn numbered(&self) {
        self.numbered.send_replace(true);
    }
}

/// Nobody waits for this answer any more.
struct Forget<'a> {
    session: &'a Session,
    request: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = &mut *self.session.waiting() {
            waiting.remove(&self.request);
        }
    }
}
