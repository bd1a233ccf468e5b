//! A client of QEMU's machine protocol (QMP): JSON objects, one a line.
//!
//! Only what the shim needs: the greeting, commands with their answers in order of their IDs, and
//! events. Spec: docs/interop/qmp-spec.rst of QEMU.

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

/// Longest line taken from QEMU.
const LINE_MAX: u64 = 1024 * 1024;
/// How long a QEMU that has come up may take for an answer. Whoever waits holds up all else that is asked of its VM.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum QmpError {
    /// QEMU said no.
    #[error("QEMU refused {command}: {message}")]
    Refused {
        command: &'static str,
        message: String,
    },
    /// The connection is gone; QEMU has ended or is about to.
    #[error("QEMU's QMP connection ended during {command}")]
    Closed { command: &'static str },
    /// QEMU says nothing.
    #[error("QEMU has not answered {command} within {} s", ANSWER_LIMIT.as_secs())]
    Late { command: &'static str },
    /// What came was no QMP.
    #[error("QMP: {0}")]
    Io(#[from] io::Error),
}

/// An event: its name and its data.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) data: Value,
}

/// Commands that wait for their answer; `None` once the connection has ended.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Result<Value, String>>>>>>;

/// A QMP connection in command mode.
#[derive(Debug)]
pub(super) struct Qmp {
    writer: OwnedWriteHalf,
    waiting: Waiting,
    next_id: u64,
}

impl Qmp {
    /// Take the greeting and enter command mode. The receiver ends with the connection.
    pub(super) async fn connect(
        stream: UnixStream,
    ) -> Result<(Qmp, mpsc::UnboundedReceiver<Event>), QmpError> {
        let (reader, writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let greeting = next(&mut reader).await?.ok_or(QmpError::Closed {
            command: "the greeting",
        })?;
        if greeting.get("QMP").is_none() {
            return Err(io::Error::other("no QMP greeting").into());
        }
        let (events, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(read(reader, waiting.clone(), events));
        let mut qmp = Qmp {
            writer,
            waiting,
            next_id: 0,
        };
        // QEMU may be long in coming up; whoever starts it has a limit for all of that.
        qmp.exchange("qmp_capabilities", json!({}), None).await?;
        Ok((qmp, receiver))
    }

    /// Carry out a command and return what QEMU answers in time.
    pub(super) async fn execute(
        &mut self,
        command: &'static str,
        arguments: Value,
    ) -> Result<Value, QmpError> {
        self.send(command, arguments, None).await
    }

    /// Give QEMU a descriptor under a name, for a command to come.
    pub(super) async fn give(&mut self, name: &str, fd: BorrowedFd<'_>) -> Result<(), QmpError> {
        let arguments = json!({ "fdname": name });
        self.send("getfd", arguments, Some(fd)).await.map(drop)
    }

    async fn send(
        &mut self,
        command: &'static str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Value, QmpError> {
        let exchange = self.exchange(command, arguments, fd);
        tokio::time::timeout(ANSWER_LIMIT, exchange)
            .await
            .unwrap_or(Err(QmpError::Late { command }))
    }

    async fn exchange(
        &mut self,
        command: &'static str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Value, QmpError> {
        let id = self.next_id;
        self.next_id += 1;
        let (sender, answer) = oneshot::channel();
        match self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
        {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(QmpError::Closed { command }),
        };
        let line = json!({ "execute": command, "arguments": arguments, "id": id });
        let line = format!("{line}\n");
        let rest = match fd {
            Some(fd) => {
                let sent = send_with(self.writer.as_ref(), line.as_bytes(), fd).await?;
                line.as_bytes().get(sent..).unwrap_or_default()
            }
            None => line.as_bytes(),
        };
        if self.writer.write_all(rest).await.is_err() {
            return Err(QmpError::Closed { command });
        }
        match answer.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(message)) => Err(QmpError::Refused { command, message }),
            Err(_) => Err(QmpError::Closed { command }),
        }
    }
}

/// Send bytes with a descriptor; how many were sent.
async fn send_with(stream: &UnixStream, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<usize> {
    let send = || {
        let fds = [fd.as_raw_fd()];
        sendmsg::<()>(
            stream.as_raw_fd(),
            &[io::IoSlice::new(bytes)],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .map_err(io::Error::from)
    };
    stream.async_io(Interest::WRITABLE, send).await
}

async fn next(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Value>> {
    let mut line = Vec::new();
    reader.take(LINE_MAX).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

/// Sort what comes into answers and events until the connection ends.
async fn read(
    mut reader: BufReader<OwnedReadHalf>,
    waiting: Waiting,
    events: mpsc::UnboundedSender<Event>,
) {
    while let Ok(Some(mut message)) = next(&mut reader).await {
        if let Some(name) = message.get("event").and_then(Value::as_str) {
            let name = name.to_owned();
            let data = message.get_mut("data").map(Value::take).unwrap_or_default();
            // Nobody listening is fine: the VM is being ended.
            let _ = events.send(Event { name, data });
            continue;
        }
        let Some(id) = message.get("id").and_then(Value::as_u64) else {
            continue;
        };
        let sender = match waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
        {
            Some(waiting) => waiting.remove(&id),
            None => None,
        };
        let answer = match message.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => Err(message["error"]["desc"]
                .as_str()
                .unwrap_or("no reason given")
                .to_owned()),
        };
        if let Some(sender) = sender {
            let _ = sender.send(answer);
        }
    }
    // Whoever still waits learns that no answer will come.
    *waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A QEMU that hangs from the first command on.
    pub(crate) async fn hanging() -> (Qmp, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let hello = b"{\"QMP\": {}}\n{\"return\": {}, \"id\": 0}\n";
        let (connected, _) = tokio::join!(Qmp::connect(ours), theirs.write_all(hello));
        (connected.unwrap().0, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_qemu_that_hangs_is_not_waited_for() {
        let (mut qmp, _qemu) = hanging().await;
        let asked = qmp.execute("system_powerdown", json!({}));
        let answer = tokio::time::timeout(Duration::from_secs(60), asked).await;
        let answer = answer.unwrap();
        assert!(matches!(answer, Err(QmpError::Late { .. })), "{answer:?}");
    }
}
