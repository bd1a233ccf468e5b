//! The name server of the networks: on each gateway's port 53, names of containers for those that share a network with
//! them, everything else from the endpoint's own name servers (RFC 1035).

mod answer;
pub mod forward;
mod room;

use super::router::namespace::Namespace;
use room::Room;
use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinHandle,
};

/// The port of name servers.
const PORT: u16 = 53;
/// Questions over UDP that are being answered, of one network at once, and of one asker. More are dropped: the asker
/// repeats them.
const QUESTIONS: (usize, usize) = (256, 64);
/// TCP connections, likewise. More are closed.
const CONNECTIONS: (usize, usize) = (128, 16);
/// A TCP connection that says nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// Largest question over UDP, in bytes.
const UDP_MAX: usize = 4096;

/// Who has which name.
pub trait Directory: fmt::Debug + Send + Sync {
    /// The addresses of a name for the container that has `asker`'s address on a network, in that container's networks;
    /// `None` where nothing there has that name.
    fn addresses(&self, network: &str, asker: IpAddr, name: &str) -> Option<Vec<IpAddr>>;
    /// The name of whoever has an address, in the asker's networks.
    fn name(&self, network: &str, asker: IpAddr, address: IpAddr) -> Option<String>;
    /// Whom to ask for other names on behalf of the asker; none: nobody.
    fn servers(&self, network: &str, asker: IpAddr) -> Vec<IpAddr>;
}

/// The answer of a name server that knows `web` and nobody to ask for the rest.
#[cfg(any(test, fuzzing))]
pub(crate) fn answer_alone(question: &[u8], asker: IpAddr) -> Option<Vec<u8>> {
    #[derive(Debug)]
    struct Web;
    impl Directory for Web {
        fn addresses(&self, _: &str, asker: IpAddr, name: &str) -> Option<Vec<IpAddr>> {
            (name == "web").then(|| vec![asker])
        }
        fn name(&self, _: &str, asker: IpAddr, address: IpAddr) -> Option<String> {
            (asker == address).then(|| "web.net".to_owned())
        }
        fn servers(&self, _: &str, _: IpAddr) -> Vec<IpAddr> {
            Vec::new()
        }
    }
    let context = Context {
        network: "net".into(),
        directory: Arc::new(Web),
    };
    // With nobody to ask, it waits for nothing.
    futures_util::FutureExt::now_or_never(answer::answer(&context, question, asker, false))?
}

/// The name servers of all networks.
#[derive(Debug, Clone)]
pub struct Server {
    namespace: Namespace,
    directory: Arc<dyn Directory>,
    tasks: Arc<Mutex<BTreeMap<(String, IpAddr), Tasks>>>,
}

#[derive(Debug)]
struct Tasks([JoinHandle<()>; 2]);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// What one question is answered with.
#[derive(Debug, Clone)]
struct Context {
    network: Arc<str>,
    directory: Arc<dyn Directory>,
}

impl Server {
    /// One that listens nowhere yet.
    pub fn new(namespace: Namespace, directory: Arc<dyn Directory>) -> Self {
        Self {
            namespace,
            directory,
            tasks: Arc::default(),
        }
    }

    /// Listens at the gateways of these networks (ID, address), and nowhere else.
    ///
    /// # Errors
    /// Those of bind(2), naming the address.
    pub async fn listen(&self, gateways: Vec<(String, IpAddr)>) -> io::Result<()> {
        let tasks = || self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks().retain(|key, _| gateways.contains(key));
        for (network, gateway) in gateways {
            let key = (network, gateway);
            if tasks().contains_key(&key) {
                continue;
            }
            let address = SocketAddr::new(gateway, PORT);
            let bound = self.namespace.enter(move || {
                let udp = std::net::UdpSocket::bind(address)?;
                let tcp = std::net::TcpListener::bind(address)?;
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
                Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?))
            });
            let (udp, tcp) = bound.await.map_err(|e| {
                io::Error::new(e.kind(), format!("cannot listen at {address}: {e}"))
            })?;
            let context = Context {
                network: key.0.as_str().into(),
                directory: self.directory.clone(),
            };
            let both = Tasks([
                tokio::spawn(serve_udp(Arc::new(udp), context.clone())),
                tokio::spawn(serve_tcp(tcp, context)),
            ]);
            tasks().insert(key, both);
        }
        Ok(())
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, context: Context) {
    let room = Room::new(QUESTIONS.0, QUESTIONS.1);
    let mut buffer = vec![0u8; UDP_MAX];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error of an answer that nobody waits for.
            Err(error) => {
                tracing::debug!(%error, "name server");
                continue;
            }
        };
        let Some(place) = room.enter(from.ip()) else {
            continue;
        };
        let (question, socket, context) =
            (buffer[..length].to_vec(), socket.clone(), context.clone());
        tokio::spawn(async move {
            let _place = place;
            if let Some(answer) = answer::answer(&context, &question, from.ip(), false).await {
                let _asker_is_gone = socket.send_to(&answer, from).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, context: Context) {
    let room = Room::new(CONNECTIONS.0, CONNECTIONS.1);
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let Some(place) = room.enter(from.ip()) else {
                    continue;
                };
                let context = context.clone();
                tokio::spawn(async move {
                    let _place = place;
                    let _closed = connection(stream, from, &context).await;
                });
            }
            Err(error) => {
                // No descriptor is left: nothing tells when there is one again.
                tracing::warn!(%error, "name server");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Questions on one connection, each with its length before it (RFC 1035, 4.2.2).
async fn connection(mut stream: TcpStream, from: SocketAddr, context: &Context) -> io::Result<()> {
    loop {
        let question = tokio::time::timeout(IDLE, read_framed(&mut stream)).await??;
        let Some(answer) = answer::answer(context, &question, from.ip(), true).await else {
            return Ok(());
        };
        tokio::time::timeout(IDLE, write_framed(&mut stream, &answer)).await??;
    }
}

/// Reads a message with its length before it.
async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0u8; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes a message with its length before it.
async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}
