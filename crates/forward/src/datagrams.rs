//! UDP: each client has a socket inside, until nothing was heard from either side for a while.

use crate::namespace::Namespace;
use crate::protocol::{Forward, Transport};
use socket2::Socket;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a client that says nothing and hears nothing is remembered: as long as by Docker's proxy.
const IDLE: Duration = Duration::from_secs(90);
/// Clients of one port at once, at most; a datagram of another one is lost.
const CLIENTS_MAX: usize = 1024;
/// Datagrams of a client that wait while its socket is made, at most; further ones are lost.
const WAITING_MAX: usize = 64;
/// The longest datagram, in bytes.
const DATAGRAM_MAX: usize = 65_535;

/// Relays until it is dropped.
pub(crate) async fn relay(
    socket: Socket,
    forward: Forward,
    namespace: Namespace,
) -> io::Result<()> {
    let outside = Arc::new(UdpSocket::from_std(socket.into())?);
    let mut clients: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        tokio::select! {
            received = outside.recv_from(&mut buffer) => {
                // What comes as an error is about a datagram of before: its client is not there any more.
                let Ok((length, client)) = received else { continue };
                let datagram = buffer.get(..length).unwrap_or_default().to_vec();
                let datagram = match clients.get(&client).map(|known| known.try_send(datagram)) {
                    Some(Ok(()) | Err(mpsc::error::TrySendError::Full(_))) => continue,
                    // It has just been forgotten.
                    Some(Err(mpsc::error::TrySendError::Closed(datagram))) => datagram,
                    None => buffer.get(..length).unwrap_or_default().to_vec(),
                };
                if clients.len() >= CLIENTS_MAX {
                    continue;
                }
                let (sender, receiver) = mpsc::channel(WAITING_MAX);
                // There is room: it is new.
                let _ = sender.try_send(datagram);
                clients.insert(client, sender);
                let (outside, namespace) = (outside.clone(), namespace.clone());
                tasks.spawn(async move {
                    if let Err(error) = one(receiver, client, forward, &outside, &namespace).await {
                        tracing::debug!(listen = %forward.listen, %client, %error, "a client's datagrams broke off");
                    }
                    client
                });
            }
            Some(ended) = tasks.join_next() => {
                // Unless it came back in the meantime, with a new task.
                if let Ok(client) = ended && clients.get(&client).is_some_and(mpsc::Sender::is_closed) {
                    clients.remove(&client);
                }
            }
        }
    }
}

/// The datagrams of one client.
async fn one(
    mut datagrams: mpsc::Receiver<Vec<u8>>,
    client: SocketAddr,
    forward: Forward,
    outside: &UdpSocket,
    namespace: &Namespace,
) -> io::Result<()> {
    let to = forward.target;
    let inside = namespace.towards(Transport::Udp, to, client).await?;
    let inside = UdpSocket::from_std(inside.into())?;
    inside.connect(to).await?;
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let step = async {
            tokio::select! {
                datagram = datagrams.recv() => match datagram {
                    // That nobody listens there now is as if it were lost.
                    Some(datagram) => { let _ = inside.send(&datagram).await; true }
                    None => false,
                },
                received = inside.recv(&mut buffer) => {
                    if let Ok(length) = received {
                        let answer = buffer.get(..length).unwrap_or_default();
                        let _ = outside.send_to(answer, client).await;
                    }
                    true
                }
            }
        };
        match timeout(IDLE, step).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return Ok(()),
        }
    }
}
