//! Whoever wants ports.

use crate::protocol::{ANSWER_MAX, Answer, Forward, Request};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// It answers at once, or hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// The socket of the program that holds the ports.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Of a socket; nothing is asked yet.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    async fn ask(&self, request: &Request) -> io::Result<Answer> {
        let request = serde_json::to_vec(request)?;
        let exchange = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            stream.write_all(&request).await?;
            stream.shutdown().await?;
            let mut answer = Vec::new();
            stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
            Ok(serde_json::from_slice(&answer)?)
        };
        let answer = tokio::time::timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        answer.map_err(|e: io::Error| {
            io::Error::new(
                e.kind(),
                format!(
                    "what holds the published ports, at {}, does not answer: {e}; `vch up` starts it again",
                    self.socket.display()
                ),
            )
        })
    }

    async fn done(&self, request: &Request) -> io::Result<()> {
        match self.ask(request).await? {
            Answer::Refused { kind, message } => Err(kind.error(message)),
            Answer::Done | Answer::Open(_) => Ok(()),
        }
    }

    /// Opens a port.
    ///
    /// # Errors
    /// `AddrInUse`, `PermissionDenied` and `AddrNotAvailable` are the machine's; any other: it does not answer.
    pub async fn add(&self, forward: Forward) -> io::Result<()> {
        self.done(&Request::Add(forward)).await
    }

    /// Closes a port, and the connections through it.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn remove(&self, forward: Forward) -> io::Result<()> {
        self.done(&Request::Remove(forward)).await
    }

    /// The ports that are open.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn list(&self) -> io::Result<Vec<Forward>> {
        match self.ask(&Request::List).await? {
            Answer::Open(open) => Ok(open),
            Answer::Done => Ok(Vec::new()),
            Answer::Refused { kind, message } => Err(kind.error(message)),
        }
    }
}
