//! The program that holds the ports.

use crate::namespace::{Namespace, listener};
use crate::protocol::{Answer, FORWARDS_MAX, Forward, REQUEST_MAX, Refusal, Request, Transport};
use crate::{datagrams, streams};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Who asks does so at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections at once, at most.
const CONNECTIONS_MAX: u64 = 16_384;

/// A port that is open.
#[derive(Debug)]
struct Open {
    forward: Forward,
    task: JoinHandle<io::Result<()>>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves requests at a socket, with the ports' inner side in a namespace; `ready` is called once it does.
///
/// # Errors
/// Those of the socket and of the namespace. It does not end otherwise.
pub async fn serve(
    socket: &Path,
    namespace: &Path,
    ready: impl FnOnce(),
) -> io::Result<Infallible> {
    let named = |path: &Path| {
        let path = path.display().to_string();
        move |e: io::Error| io::Error::new(e.kind(), format!("{path}: {e}"))
    };
    let inside = Namespace::enter(namespace).map_err(named(namespace))?;
    match fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(named(socket)(e)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(named(socket))?;
    let mut ports = Ports {
        namespace: inside,
        room: Arc::new(Semaphore::new(room())),
        open: HashMap::new(),
    };
    ready();
    loop {
        let (stream, _) = listener.accept().await?;
        // One at a time: a request takes no time.
        match tokio::time::timeout(PATIENCE, ports.answer(stream)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a request was cut short"),
            Err(_) => tracing::warn!("a request took too long"),
        }
    }
}

/// As many connections as there are descriptors for, two each, less some for everything else.
fn room() -> usize {
    let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, hard)| {
        match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(_) => soft,
        }
    });
    usize::try_from((most / 4).min(CONNECTIONS_MAX)).unwrap_or(256)
}

struct Ports {
    namespace: Namespace,
    room: Arc<Semaphore>,
    open: HashMap<(Transport, SocketAddr), Open>,
}

impl Ports {
    async fn answer(&mut self, mut stream: UnixStream) -> io::Result<()> {
        let mut request = Vec::new();
        (&mut stream)
            .take(REQUEST_MAX)
            .read_to_end(&mut request)
            .await?;
        let answer = match serde_json::from_slice(&request) {
            Ok(Request::Add(forward)) => self.add(forward),
            Ok(Request::Remove(forward)) => {
                self.remove(&forward).await;
                Answer::Done
            }
            Ok(Request::List) => Answer::Open(self.list()),
            Err(error) => Answer::Refused {
                kind: Refusal::Other,
                message: format!("no request: {error}"),
            },
        };
        stream.write_all(&serde_json::to_vec(&answer)?).await?;
        stream.shutdown().await
    }

    fn list(&self) -> Vec<Forward> {
        self.open.values().map(|open| open.forward).collect()
    }

    fn add(&mut self, forward: Forward) -> Answer {
        let key = (forward.transport, forward.listen);
        if self
            .open
            .get(&key)
            .is_some_and(|open| open.forward == forward)
        {
            return Answer::Done;
        }
        if self.open.len() >= FORWARDS_MAX {
            return Answer::Refused {
                kind: Refusal::Other,
                message: format!("more than {FORWARDS_MAX} ports"),
            };
        }
        // One of ours that leads elsewhere is in the way as anybody's.
        let socket = match listener(forward.transport, forward.listen) {
            Ok(socket) => socket,
            Err(error) => {
                return Answer::Refused {
                    kind: Refusal::of(&error),
                    message: error.to_string(),
                };
            }
        };
        let (namespace, room) = (self.namespace.clone(), self.room.clone());
        let task = tokio::spawn(async move {
            let done = match forward.transport {
                Transport::Tcp => streams::relay(socket, forward, namespace, room).await,
                Transport::Udp => datagrams::relay(socket, forward, namespace).await,
            };
            if let Err(error) = &done {
                tracing::error!(listen = %forward.listen, %error, "a published port is closed");
            }
            done
        });
        self.open.insert(key, Open { forward, task });
        Answer::Done
    }

    async fn remove(&mut self, forward: &Forward) {
        let key = (forward.transport, forward.listen);
        let of_it = |open: &Open| open.forward == *forward;
        if self.open.get(&key).is_some_and(of_it)
            && let Some(mut open) = self.open.remove(&key)
        {
            // Its socket is closed before the answer: the port is free for whoever is next.
            open.task.abort();
            let _ = (&mut open.task).await;
        }
    }
}
