//! The endpoint's side of a test VM's link.

use super::vm::{DEADLINE, SECRET};
use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use link::{HostLink, KeyStore, Options, Sender, StreamEvent, StreamReceiver, StreamSender};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use wire::config::Process;
use wire::handshake::{KeyState, NewSession};
use wire::keys::{Identity, Key};
use wire::message::{
    Attach, Channel, ExitStatus, LogRange, Reply, SessionId, SessionState, StreamId, ToGuest,
    ToHost,
};

/// The keys of one VM, in memory.
#[derive(Debug, Clone)]
pub struct Keys(Arc<Mutex<KeyState>>);

impl Keys {
    /// Those of a VM at its first boot.
    ///
    /// # Errors
    /// Never with the harness's own secret.
    pub fn fresh() -> Result<Keys> {
        Ok(Keys(Arc::new(Mutex::new(KeyState::Fresh(Key::from_hex(
            SECRET,
        )?)))))
    }

    fn state(&self) -> Result<std::sync::MutexGuard<'_, KeyState>, String> {
        self.0.lock().map_err(|e| e.to_string())
    }
}

impl KeyStore for Keys {
    async fn lookup(&self, _: Identity) -> Result<Option<KeyState>, String> {
        Ok(Some(self.state()?.clone()))
    }

    async fn store(&self, session: NewSession) -> Result<bool, String> {
        let mut state = self.state()?;
        let admitted = state.admits(&session);
        if admitted {
            *state = KeyState::after(&session);
        }
        Ok(admitted)
    }
}

/// The peer of one link session.
#[derive(Debug)]
pub struct Peer {
    sender: Sender<ToGuest>,
    waiting: Arc<Mutex<HashMap<u32, oneshot::Sender<Reply>>>>,
    events: mpsc::UnboundedReceiver<ToHost>,
    next: u32,
    /// The state that `Ready` told.
    pub container: SessionState,
}

/// An attached stream.
#[derive(Debug)]
pub struct Attached {
    /// To the process.
    pub stdin: StreamSender,
    /// From the process.
    pub output: StreamReceiver,
}

/// What came out of a stream until its end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Bytes that were left behind.
    pub left: u64,
}

impl Output {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Waits for something that a VM does.
///
/// # Errors
/// After [`DEADLINE`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(DEADLINE, future)
        .await
        .map_err(|_| anyhow!("{what} took more than {DEADLINE:?}"))
}

impl Peer {
    /// Carries out the handshake over a reliable stream and waits for `Ready`.
    ///
    /// # Errors
    /// If either fails.
    pub async fn accept<T>(io: T, keys: &Keys) -> Result<Peer>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let options = Options {
            handshake_timeout: DEADLINE,
            ..Options::default()
        };
        let (_, mut link): (_, HostLink) =
            within("the handshake", link::accept(io, keys, None, options)).await??;
        let ToHost::Ready { container, .. } = within("Ready", link.recv()).await?? else {
            bail!("the first message is not Ready")
        };
        let (sender, waiting) = (
            link.sender(),
            Arc::new(Mutex::new(HashMap::<u32, oneshot::Sender<Reply>>::new())),
        );
        let (tell, events) = mpsc::unbounded_channel();
        let answers = Arc::clone(&waiting);
        tokio::spawn(async move {
            while let Ok(message) = link.recv().await {
                match message {
                    ToHost::Answer { request, reply } => {
                        let waiting = answers.lock().ok().and_then(|mut w| w.remove(&request));
                        if let Some(waiting) = waiting {
                            let _ = waiting.send(reply);
                        }
                    }
                    other => drop(tell.send(other)),
                }
            }
        });
        Ok(Peer {
            sender,
            waiting,
            events,
            next: 1,
            container,
        })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// If the link ends, or no answer comes.
    pub async fn request(&mut self, message: impl FnOnce(u32) -> ToGuest) -> Result<Reply> {
        self.ask(message).await?.await
    }

    /// Sends a request; its answer is waited for with what this returns.
    ///
    /// # Errors
    /// If the link ends.
    pub async fn ask<M: FnOnce(u32) -> ToGuest>(
        &mut self,
        message: M,
    ) -> Result<impl Future<Output = Result<Reply>> + use<M>> {
        self.next += 1;
        let request = self.next;
        let (tell, told) = oneshot::channel();
        self.waiting
            .lock()
            .map_err(|e| anyhow!("{e}"))?
            .insert(request, tell);
        self.sender.send(message(request)).await?;
        Ok(async {
            within("an answer", told)
                .await?
                .context("the link ended before the answer")
        })
    }

    fn stream(&mut self, stdin: bool) -> Result<(Attach, Attached)> {
        self.next += 1;
        let stream = StreamId(self.next);
        let (to, from) = self.sender.open(stream)?;
        Ok((
            Attach {
                stream,
                stdin,
                stdout: true,
                stderr: true,
            },
            Attached {
                stdin: to,
                output: from,
            },
        ))
    }

    /// Attaches to a session.
    ///
    /// # Errors
    /// If the tether refuses.
    pub async fn attach(&mut self, session: SessionId, stdin: bool) -> Result<Attached> {
        let (attach, attached) = self.stream(stdin)?;
        match self
            .request(|request| ToGuest::Attach {
                request,
                session,
                attach,
            })
            .await?
        {
            Reply::Done => Ok(attached),
            other => bail!("attach: {other:?}"),
        }
    }

    /// Starts the container.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn start(&mut self) -> Result<Reply> {
        self.request(|request| ToGuest::Start { request }).await
    }

    /// Starts an exec, attached.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn exec(&mut self, process: Process) -> Result<(Reply, SessionId, Attached)> {
        let (attach, attached) = self.stream(process.stdin)?;
        self.next += 1;
        let session = SessionId(self.next);
        let reply = self
            .request(|request| ToGuest::Exec {
                request,
                session,
                process,
                attach: Some(attach),
            })
            .await?;
        Ok((reply, session, attached))
    }

    /// Runs an exec without input to its end.
    ///
    /// # Errors
    /// If it does not start or does not end.
    pub async fn run(&mut self, process: Process) -> Result<(Output, i32)> {
        let (reply, session, attached) = self.exec(process).await?;
        if !matches!(reply, Reply::Started { .. }) {
            bail!("exec: {reply:?}");
        }
        let output = attached.collect().await?;
        Ok((output, self.exit(session).await?.code))
    }

    /// Asks for logs and collects them.
    ///
    /// # Errors
    /// If the tether refuses or breaks off.
    pub async fn logs(&mut self, tail: Option<u64>, follow: bool) -> Result<Output> {
        let (attach, attached) = self.stream(false)?;
        let range = LogRange {
            stdout: true,
            stderr: true,
            since: 0,
            until: 0,
            tail,
            follow,
        };
        match self
            .request(|request| ToGuest::Logs {
                request,
                stream: attach.stream,
                range,
            })
            .await?
        {
            Reply::Done => attached.collect_logs().await,
            other => bail!("logs: {other:?}"),
        }
    }

    /// The next message that is no answer.
    ///
    /// # Errors
    /// If the link ended.
    pub async fn event(&mut self) -> Result<ToHost> {
        within("an event", self.events.recv())
            .await?
            .context("the link ended")
    }

    /// The events that have come and were not asked for: those that were sent before the last answer are among them.
    pub fn told(&mut self) -> Vec<ToHost> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    /// Waits until the container is between two runs: how the last one ended.
    ///
    /// # Errors
    /// If the link ends before.
    pub async fn restarting(&mut self) -> Result<ExitStatus> {
        loop {
            if let ToHost::Restarting { status, .. } = self.event().await? {
                return Ok(status);
            }
        }
    }

    /// Waits for a session's exit.
    ///
    /// # Errors
    /// If the link ends before.
    pub async fn exit(&mut self, wanted: SessionId) -> Result<ExitStatus> {
        loop {
            if let ToHost::Exit { session, status } = self.event().await?
                && session == wanted
            {
                return Ok(status);
            }
        }
    }

    /// Waits for a fault of the boot: its step, and what it says.
    ///
    /// # Errors
    /// If something else comes, or the link ends before.
    pub async fn fault(&mut self) -> Result<(String, String)> {
        loop {
            match self.event().await? {
                ToHost::BootFault { step, message } => return Ok((step, message)),
                ToHost::Life(_) => {}
                other => anyhow::bail!("no fault: {other:?}"),
            }
        }
    }

    /// Waits for `Goodbye`.
    ///
    /// # Errors
    /// If the link ends before.
    pub async fn goodbye(&mut self) -> Result<()> {
        while self.event().await? != ToHost::Goodbye {}
        Ok(())
    }

    /// Breaks the link, as an endpoint that is killed does.
    pub fn hang_up(self) {
        self.sender.close();
    }
}

impl Attached {
    /// Writes to stdin.
    ///
    /// # Errors
    /// If the stream is over.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(within(
            "stdin",
            self.stdin
                .send(Channel::Stdin, Bytes::copy_from_slice(bytes)),
        )
        .await??)
    }

    /// Reads until the stream ends.
    ///
    /// # Errors
    /// If the link ends before.
    pub async fn collect(mut self) -> Result<Output> {
        let mut out = Output::default();
        while self.next(&mut out).await? {}
        Ok(out)
    }

    /// Reads until stdout contains `text`.
    ///
    /// # Errors
    /// If the stream ends before.
    pub async fn wait_for(&mut self, out: &mut Output, text: &str) -> Result<()> {
        while !out.text().contains(text) {
            if !self.next(out).await? {
                bail!("the stream ended without {text:?}: {:?}", out.text());
            }
        }
        Ok(())
    }

    async fn next(&mut self, out: &mut Output) -> Result<bool> {
        match within("output", self.output.recv()).await?? {
            Some(StreamEvent::Data(Channel::Stderr, bytes)) => out.stderr.extend(bytes),
            Some(StreamEvent::Data(_, bytes)) => out.stdout.extend(bytes),
            Some(StreamEvent::End { left, .. }) => out.left += left,
            None => return Ok(false),
        }
        Ok(true)
    }

    async fn collect_logs(self) -> Result<Output> {
        let raw = self.collect().await?;
        let (mut decoder, mut out) = (
            wire::log::LogDecoder::new(),
            Output {
                left: raw.left,
                ..Output::default()
            },
        );
        for piece in raw.stdout.chunks(4096) {
            decoder.push(piece);
            while let Some(record) = decoder.next_record()? {
                let to = if record.channel == Channel::Stderr {
                    &mut out.stderr
                } else {
                    &mut out.stdout
                };
                to.extend(record.bytes);
            }
        }
        if decoder.pending() != 0 {
            bail!("the log stream was cut within a record");
        }
        Ok(out)
    }
}
