//! Attaching to a process: a client's connection on one side, a stream of the link on the other.

use super::{
    Target,
    framing::Framing,
    hijack::{Connection, Hijack},
    version::ApiVersion,
};
use crate::{
    app::App,
    containers::{Attached, Container},
    errors::{Error, Result},
    link::session::{Stream, Wants},
};
use axum::{extract::Request, response::Response};
use bytes::BytesMut;
use link::{StreamEvent, StreamReceiver, StreamSender};
use std::{sync::Arc, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use wire::message::Channel;

/// Bytes of stdin that are read at once.
const STDIN: usize = 32 * 1024;
/// Docker's default: ctrl-p ctrl-q.
const DETACH: &[u8] = &[16, 17];

/// A client that has ended the input of a process that others may write to later, or of a terminal, waits for no end of
/// the process. Docker lets go of it at once; here it gets what the process makes of its last words. Closed connections
/// are found so, too: a quiet process makes no output that would.
const AFTER_INPUT: Duration = Duration::from_secs(30);

/// How long the end of a process whose link broke may take to be known: its VM's power state, then its journal.
const LOST_LIMIT: Duration = Duration::from_secs(30);

/// How an attached client went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// All output was delivered.
    Complete,
    /// It typed its detach keys.
    Detached,
    /// Its connection broke.
    Broken,
    /// The link broke: the VM went, or will dial again.
    Lost,
}

/// `POST /containers/{id}/attach`.
pub(super) async fn attach(
    at: Target,
    version: ApiVersion,
    mut request: Request,
) -> Result<Response> {
    let Target {
        app,
        container,
        query,
        ..
    } = at;
    let keys = detach_keys(query.text("detachKeys"))?;
    let hijack = Hijack::of(&mut request)?.format(version, container.spec.config.tty);
    let config = &container.spec.config;
    let stream = query.flag("stream");
    let wants = Wants {
        stdin: query.flag("stdin") && config.open_stdin,
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
    };
    let logs = query.flag("logs").then_some((wants.stdout, wants.stderr));
    // Before the 101, so that a start that the client sends next finds the attach.
    let attached = if stream {
        Some(container.attach(wants).await?)
    } else {
        None
    };
    let (response, connection) = hijack.accept();
    app.containers.tell(&container, "attach", &[]);
    tokio::spawn(async move {
        let Ok(connection) = connection.await else {
            return;
        };
        serve(&app, &container, connection, attached, wants, logs, &keys).await;
    });
    Ok(response)
}

async fn serve(
    app: &Arc<App>,
    container: &Arc<Container>,
    mut connection: Connection,
    attached: Option<Attached>,
    wants: Wants,
    logs: Option<(bool, bool)>,
    keys: &[u8],
) {
    let tty = container.spec.config.tty;
    if let Some((stdout, stderr)) = logs
        && super::logs::replay(app, container, stdout, stderr, &mut connection)
            .await
            .is_err()
    {
        return;
    }
    let stream = match attached {
        Some(Attached::Now(stream)) => Some(stream),
        Some(Attached::Later(later)) => later.await.ok(),
        None => None,
    };
    let Some(stream) = stream else {
        let _client_is_gone = connection.shutdown().await;
        return;
    };
    let stdio = Stdio {
        wants,
        tty,
        stdin_once: container.spec.config.stdin_once,
    };
    let gone = pump(connection, stream, stdio, keys, std::future::ready(())).await;
    if gone == Gone::Detached {
        app.containers.tell(container, "detach", &[]);
    }
}

/// The stdio of a process, as far as a client has to do with it.
#[derive(Debug, Clone, Copy)]
pub struct Stdio {
    /// What of it the client wants.
    pub wants: Wants,
    /// It is a terminal.
    pub tty: bool,
    /// The first client that ends it ends it for the process.
    pub stdin_once: bool,
}

/// Carries bytes both ways until all output is delivered, the client has detached, or either side
/// is gone. A client that does not read holds the process back, as with Docker.
///
/// Once all output is delivered, `settled` is awaited before the connection is closed; where the link broke, for
/// [`LOST_LIMIT`] at most.
pub async fn pump(
    connection: Connection,
    stream: Stream,
    stdio: Stdio,
    keys: &[u8],
    settled: impl Future<Output = ()>,
) -> Gone {
    let Stdio {
        wants,
        tty,
        stdin_once,
    } = stdio;
    let (reader, mut writer) = tokio::io::split(connection);
    let Stream { sender, receiver } = stream;
    let output = outputs(receiver, &mut writer, wants, tty);
    let input = async {
        if wants.stdin && inputs(reader, sender, tty, keys).await == Gone::Detached {
            return Gone::Detached;
        }
        // The end of stdin is not the end of the connection.
        if !wants.stdin || stdin_once && !tty {
            return std::future::pending().await;
        }
        tokio::time::sleep(AFTER_INPUT).await;
        Gone::Broken
    };
    let gone = tokio::select! {
        gone = output => gone,
        gone = input => gone,
    };
    match gone {
        Gone::Complete => settled.await,
        Gone::Lost => {
            let _or_not_in_time = tokio::time::timeout(LOST_LIMIT, settled).await;
        }
        Gone::Detached | Gone::Broken => {}
    }
    let _client_is_gone = writer.shutdown().await;
    gone
}

async fn outputs(
    mut receiver: StreamReceiver,
    writer: &mut WriteHalf<Connection>,
    wants: Wants,
    tty: bool,
) -> Gone {
    let framing = Framing::of(tty);
    let (mut stdout, mut stderr) = wants.outputs(tty);
    loop {
        // Without output there is only stdin: the stream ends with the process.
        match receiver.recv().await {
            Ok(Some(StreamEvent::Data(channel, bytes))) => {
                let header = framing.header(channel, bytes.len());
                if writer.write_all(&header).await.is_err()
                    || writer.write_all(&bytes).await.is_err()
                    || writer.flush().await.is_err()
                {
                    return Gone::Broken;
                }
            }
            Ok(Some(StreamEvent::End { channel, left })) => {
                if left > 0 {
                    tracing::warn!(left, "output that was made but not delivered");
                }
                match channel {
                    Channel::Stdin => continue,
                    Channel::Stdout => stdout = false,
                    Channel::Stderr => stderr = false,
                }
                if !stdout && !stderr {
                    return Gone::Complete;
                }
            }
            Ok(None) => return Gone::Complete,
            Err(_) => return Gone::Lost,
        }
    }
}

async fn inputs(
    mut reader: ReadHalf<Connection>,
    mut sender: StreamSender,
    tty: bool,
    keys: &[u8],
) -> Gone {
    let mut scan = Detach::new(if tty { keys } else { &[] });
    let mut buffer = BytesMut::with_capacity(STDIN);
    loop {
        buffer.reserve(STDIN);
        match reader.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => {
                let rest = scan.rest();
                if !rest.is_empty() {
                    let _nobody_reads = sender.send(Channel::Stdin, rest.into()).await;
                }
                let _nobody_reads = sender.end(Channel::Stdin, 0);
                return Gone::Broken;
            }
            Ok(_) => {
                let (pass, detached) = scan.pass(buffer.split().freeze());
                if !pass.is_empty() && sender.send(Channel::Stdin, pass).await.is_err() {
                    return Gone::Broken;
                }
                if detached {
                    return Gone::Detached;
                }
            }
        }
    }
}

/// Looks for the detach keys in what is typed.
#[derive(Debug)]
struct Detach {
    keys: Vec<u8>,
    seen: usize,
}

impl Detach {
    fn new(keys: &[u8]) -> Self {
        Self {
            keys: keys.to_vec(),
            seen: 0,
        }
    }

    /// What of the bytes goes to the process, and whether the keys are complete.
    fn pass(&mut self, bytes: bytes::Bytes) -> (bytes::Bytes, bool) {
        if self.keys.is_empty() {
            return (bytes, false);
        }
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if byte == self.keys[self.seen] {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    self.seen = 0;
                    return (out.into(), true);
                }
                continue;
            }
            out.extend(self.rest());
            if byte == self.keys[0] && self.keys.len() > 1 {
                self.seen = 1;
            } else {
                out.push(byte);
            }
        }
        (out.into(), false)
    }

    /// Keys that were held back and led to nothing.
    fn rest(&mut self) -> Vec<u8> {
        let held = self.keys[..self.seen].to_vec();
        self.seen = 0;
        held
    }
}

/// Detach keys as Docker writes them: `ctrl-p,ctrl-q`, `a,b`, `ctrl-@`. Empty: the default.
///
/// # Errors
/// 400 for anything else.
pub fn detach_keys(text: &str) -> Result<Vec<u8>> {
    if text.is_empty() {
        return Ok(DETACH.to_vec());
    }
    text.split(',')
        .map(|key| {
            let control = key.strip_prefix("ctrl-").map(str::as_bytes);
            match (key.as_bytes(), control) {
                (_, Some([letter @ (b'a'..=b'z' | b'A'..=b'Z')])) => {
                    Ok(letter.to_ascii_lowercase() - b'a' + 1)
                }
                (_, Some([b'@'])) => Ok(0),
                (_, Some([sign @ b'['..=b'_'])) => Ok(sign - b'[' + 27),
                ([byte], None) => Ok(*byte),
                _ => Err(Error::bad(format!("Invalid detach keys ({text}) provided"))),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_read_as_docker_reads_them() {
        assert_eq!(detach_keys("").unwrap(), DETACH);
        assert_eq!(
            detach_keys("ctrl-a,d,ctrl-@,ctrl-\\").unwrap(),
            [1, b'd', 0, 28]
        );
        for wrong in ["ctrl-", "ab", "ctrl-1", "a,,b"] {
            assert!(detach_keys(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_that_lead_to_nothing_reach_the_process() {
        let mut scan = Detach::new(DETACH);
        let (pass, detached) = scan.pass(vec![b'a', 16, b'b'].into());
        assert_eq!((&pass[..], detached), (&[b'a', 16, b'b'][..], false));
        assert_eq!(scan.pass(vec![16].into()), (bytes::Bytes::new(), false));
        let (pass, detached) = scan.pass(vec![16, 17].into());
        assert_eq!((&pass[..], detached), (&[16][..], true));
    }
}
