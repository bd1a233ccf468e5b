//! The virtual serial port concentrator: where the VMs' network-backed serial ports connect.
//!
//! Each connection names its service, `mooring:<vch>:<container id>`; only those of this VCH's
//! running VMs pass. Under a container's link there is one place for a pipe: a later connection of
//! the same port takes it over, and the session goes on.

use super::{
    certificate::{Certificate, CertificateError, write},
    vsock::accept,
};
use crate::containers::Containers;
use link::serial::{Pipe, Side, reliable};
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::TcpListener,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;
use wire::vspc::{Direction, Migrations, Server, ServerEvent};

/// TLS and the naming of the service must be done by then.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// A migration that was begun and not finished is forgotten after this.
const MIGRATION: Duration = Duration::from_secs(600);
/// Bytes between the telnet side and the link.
const PIPE: usize = 64 * 1024;

/// Why there is no concentrator.
#[derive(Debug, thiserror::Error)]
pub enum ConcentratorError {
    /// Its certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Its socket.
    #[error("the concentrator cannot listen at {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// The listener and what its connections share.
pub struct Concentrator {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    thumbprint: String,
    vch: String,
}

impl std::fmt::Debug for Concentrator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Concentrator")
            .field("vch", &self.vch)
            .finish_non_exhaustive()
    }
}

/// A new pipe for a container's link.
type NewPipe = DuplexStream;

#[derive(Default)]
struct Ports {
    links: HashMap<String, mpsc::Sender<NewPipe>>,
}

struct Shared {
    containers: Arc<Containers>,
    vch: String,
    ports: Mutex<Ports>,
    migrations: Mutex<Migrations<String>>,
}

/// Keeps the concentrator's port in the run folder.
const PORT_FILE: &str = "vspc-port";

impl Concentrator {
    /// Whether there was one at an earlier start, so that VMs may still dial it.
    pub fn was_used(folder: &Path) -> bool {
        folder.join(PORT_FILE).exists()
    }

    /// Listens. With port 0 the port of the last time is taken again, since running VMs dial it.
    ///
    /// # Errors
    /// Where certificate or socket cannot be had.
    pub async fn bind(
        address: SocketAddr,
        folder: &Path,
        vch: &str,
    ) -> Result<Self, ConcentratorError> {
        let certificate = Certificate::load_or_make(folder)?;
        let kept = folder.join(PORT_FILE);
        let mut wanted = address;
        if address.port() == 0
            && let Some(port) = std::fs::read_to_string(&kept)
                .ok()
                .and_then(|t| t.trim().parse().ok())
        {
            wanted.set_port(port);
        }
        let failed = |address| move |source| ConcentratorError::Bind { address, source };
        let listener = match TcpListener::bind(wanted).await {
            Err(error) if wanted != address => {
                tracing::warn!(%error, %wanted, "the concentrator's port is taken: VMs that run are out of reach until started anew");
                TcpListener::bind(address).await
            }
            other => other,
        }
        .map_err(failed(wanted))?;
        let port = listener.local_addr().map_err(failed(wanted))?.port();
        write(&kept, port.to_string().as_bytes()).map_err(failed(wanted))?;
        Ok(Self {
            listener,
            acceptor: TlsAcceptor::from(certificate.config),
            thumbprint: certificate.thumbprint,
            vch: vch.to_owned(),
        })
    }

    /// The proxy URI for serial ports, with the host's name for this machine where it has one.
    ///
    /// # Errors
    /// Where the socket has no address.
    pub fn proxy_uri(&self, host: Option<&str>) -> io::Result<String> {
        let local = self.listener.local_addr()?;
        let host = host.map_or_else(
            || match local.ip() {
                std::net::IpAddr::V6(ip) => format!("[{ip}]"),
                ip => ip.to_string(),
            },
            str::to_owned,
        );
        Ok(format!(
            "telnets://{host}:{}#thumbprint={}",
            local.port(),
            self.thumbprint
        ))
    }

    /// Serves connections for ever.
    pub async fn serve(self, containers: Arc<Containers>) {
        let shared = Arc::new(Shared {
            containers,
            vch: self.vch,
            ports: Mutex::default(),
            migrations: Mutex::new(Migrations::new(MIGRATION)),
        });
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let (shared, acceptor) = (shared.clone(), self.acceptor.clone());
                    tokio::spawn(async move {
                        let _best_effort = stream.set_nodelay(true);
                        match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                            Ok(Ok(stream)) => {
                                if let Err(error) = shared.connection(stream).await {
                                    tracing::info!(%peer, %error, "serial port");
                                }
                            }
                            Ok(Err(error)) => {
                                tracing::info!(%peer, %error, "serial port: TLS refused")
                            }
                            Err(_) => tracing::info!(%peer, "serial port: TLS timed out"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a serial port");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// What a connection has become.
enum Step {
    /// Still being named.
    Unnamed,
    /// A VM's port.
    Port(String),
}

impl Shared {
    /// One connection of a serial port, from the negotiation to its end.
    async fn connection<T>(self: &Arc<Self>, stream: T) -> io::Result<()>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut server = Server::new();
        let mut pipe: Option<DuplexStream> = None;
        let mut port: Option<String> = None;
        // Until when nothing goes to the VM, since it moves to another host.
        let mut held: Option<Instant> = None;
        let mut from_host = vec![0u8; 16 * 1024];
        let mut from_link = vec![0u8; 16 * 1024];
        let deadline = tokio::time::Instant::now() + HANDSHAKE;
        loop {
            let output = server.take_output();
            if !output.is_empty() {
                writer.write_all(&output).await?;
                writer.flush().await?;
            }
            let linked = pipe.is_some() && held.is_none();
            let from_pipe = async {
                match &mut pipe {
                    Some(pipe) => pipe.read(&mut from_link).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                count = reader.read(&mut from_host) => {
                    let count = count?;
                    if count == 0 {
                        return Ok(());
                    }
                    let mut data = Vec::new();
                    server.receive(&from_host[..count], &mut data).map_err(io::Error::other)?;
                    while let Some(event) = server.next_event() {
                        match self.event(&mut server, event, &mut port, &mut held)? {
                            Step::Port(id) if pipe.is_none() => pipe = Some(self.plug(&id).await),
                            Step::Port(_) | Step::Unnamed => {}
                        }
                    }
                    if let (Some(pipe), false) = (&mut pipe, data.is_empty()) {
                        pipe.write_all(&data).await?;
                    }
                }
                count = from_pipe, if linked => {
                    let count = count?;
                    if count == 0 {
                        // Another connection of the same port has taken over.
                        return Ok(());
                    }
                    server.send(&from_link[..count]);
                }
                () = tokio::time::sleep_until(held.map_or(deadline, Into::into)), if held.is_some() => {
                    // It goes on from where it was, unless its destination was heard of meanwhile.
                    held = port.as_ref().and_then(|id| self.held_until(id));
                }
                () = tokio::time::sleep_until(deadline), if port.is_none() => {
                    return Err(io::Error::other("it did not name its service in time"));
                }
            }
        }
    }

    fn event(
        &self,
        server: &mut Server,
        event: ServerEvent,
        port: &mut Option<String>,
        held: &mut Option<Instant>,
    ) -> io::Result<Step> {
        let migrations = || {
            self.migrations
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        match event {
            ServerEvent::Proxy { direction, uri } => {
                let id = self.check(direction, &uri);
                // Its pipe and its migrations are those of the service that it has.
                if port.is_some() && *port != id {
                    return Err(io::Error::other("it has a service and asked for another"));
                }
                server.answer_proxy(id.is_some());
                match id {
                    Some(id) => {
                        *port = Some(id.clone());
                        return Ok(Step::Port(id));
                    }
                    None => {
                        tracing::warn!(
                            ?uri,
                            "a serial port asked for a service that is none of this host's running VMs"
                        )
                    }
                }
            }
            ServerEvent::VmotionBegin { sequence } => {
                let Some(id) = port.clone() else {
                    return Ok(Step::Unnamed);
                };
                let mut secret = [0u8; 16];
                getrandom::fill(&mut secret).map_err(io::Error::other)?;
                let now = Instant::now();
                let mut migrations = migrations();
                match migrations.begin(id.clone(), &sequence, secret, now) {
                    Ok(cookie) => {
                        *held = migrations.until(&id, now);
                        server.go_ahead(&cookie);
                    }
                    Err(_) => server.not_now(&sequence),
                }
            }
            ServerEvent::VmotionPeer { cookie } => {
                let id = migrations()
                    .peer(&cookie, Instant::now())
                    .map_err(io::Error::other)?;
                server.peer_ok(&cookie);
                *port = Some(id);
            }
            ServerEvent::VmotionComplete { .. } => {
                if let Some(id) = port.clone() {
                    migrations().end(&id);
                    return Ok(Step::Port(id));
                }
            }
            ServerEvent::VmotionAbort { .. } => {
                if let Some(id) = port.as_ref() {
                    migrations().end(id);
                }
                *held = None;
            }
            ServerEvent::VcUuid(_)
            | ServerEvent::VmName(_)
            | ServerEvent::BiosUuid(_)
            | ServerEvent::LocationUuid(_) => {}
        }
        Ok(Step::Unnamed)
    }

    fn held_until(&self, port: &String) -> Option<Instant> {
        let migrations = self.migrations.lock();
        let migrations = migrations.unwrap_or_else(PoisonError::into_inner);
        migrations.until(port, Instant::now())
    }

    /// The container that a service URI names, if it is one of this VCH's and its VM is on.
    fn check(&self, direction: Direction, uri: &str) -> Option<String> {
        let rest = uri.strip_prefix("mooring:")?;
        let (vch, id) = rest.rsplit_once(':')?;
        let container = self.containers.by_id(id)?;
        (direction == Direction::Client && vch == self.vch && container.status().on)
            .then(|| id.to_owned())
    }

    /// Gives the link of a container a new pipe; the other end is the connection's.
    async fn plug(self: &Arc<Self>, id: &str) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let existing = {
            let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
            ports.links.get(id).cloned()
        };
        let theirs = match existing {
            Some(link) => match link.send(theirs).await {
                Ok(()) => return ours,
                Err(returned) => returned.0,
            },
            None => theirs,
        };
        let (sender, receiver) = mpsc::channel(1);
        self.ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .links
            .insert(id.to_owned(), sender.clone());
        let (shared, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            shared.clone().link(&id, theirs, receiver).await;
            let mut ports = shared.ports.lock().unwrap_or_else(PoisonError::into_inner);
            if ports
                .links
                .get(&id)
                .is_some_and(|own| own.same_channel(&sender))
            {
                ports.links.remove(&id);
            }
        });
        ours
    }

    /// The link over a container's serial port, through all its pipes and sessions, until its VM
    /// is off.
    async fn link(
        self: Arc<Self>,
        id: &str,
        first: DuplexStream,
        mut pipes: mpsc::Receiver<NewPipe>,
    ) {
        let Some(container) = self.containers.by_id(id) else {
            return;
        };
        let mut wanted = [0u8; 32];
        if hex::decode_to_slice(id, &mut wanted).is_err() {
            return;
        }
        let (stream, mut pipe): (_, Pipe) = match reliable(first, Side::Listener) {
            Ok(both) => both,
            Err(error) => return tracing::warn!(%id, %error, "serial link"),
        };
        let mut serving = tokio::spawn(accept(stream, self.containers.clone(), Some(wanted)));
        let mut watch = container.watch();
        loop {
            tokio::select! {
                new = pipes.recv() => match new {
                    Some(new) => pipe.replace(new),
                    None => break,
                },
                next = pipe.next() => match next {
                    Ok(stream) => {
                        // The former session ends by itself: its stream is over.
                        serving = tokio::spawn(accept(stream, self.containers.clone(), Some(wanted)));
                    }
                    Err(_) => break,
                },
                gone = watch.wait_for(|status| !status.on || status.gone) => {
                    drop(gone);
                    break;
                }
            }
        }
        // What is on its way may still hold the container's last messages.
        let _ended = tokio::time::timeout(Duration::from_secs(5), &mut serving).await;
        serving.abort();
    }
}

#[cfg(test)]
#[path = "concentrator_tests.rs"]
mod tests;
