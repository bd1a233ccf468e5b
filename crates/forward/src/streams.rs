//! TCP: a connection outside is one inside.

use crate::namespace::Namespace;
use crate::protocol::{Forward, Transport};
use socket2::{SockRef, Socket};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

/// Bytes that are under way in each direction of a connection, beside those in sockets.
const BUFFER: usize = 64 * 1024;

/// Accepts and relays until it is dropped; the connections go with it. `room`: a permit for each connection.
pub(crate) async fn relay(
    socket: Socket,
    forward: Forward,
    namespace: Namespace,
    room: Arc<Semaphore>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(socket.into())?;
    let mut connections = JoinSet::new();
    loop {
        let permit = room
            .clone()
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((outside, client)) => {
                    let namespace = namespace.clone();
                    connections.spawn(async move {
                        one(outside, client, forward, &namespace, permit).await;
                    });
                }
                // The client has gone again, or the machine is short of something: the next one may be luckier.
                Err(error) => {
                    tracing::warn!(listen = %forward.listen, %error, "a connection was not accepted");
                    drop(permit);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            },
            // Reaps those that have ended.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn one(
    mut outside: TcpStream,
    client: SocketAddr,
    forward: Forward,
    namespace: &Namespace,
    _permit: OwnedSemaphorePermit,
) {
    let connect = async {
        let to = forward.target;
        let socket = namespace.towards(Transport::Tcp, to, client).await?;
        TcpSocket::from_std_stream(socket.into()).connect(to).await
    };
    let relayed = match connect.await {
        Ok(mut inside) => {
            let _ = outside.set_nodelay(true);
            let _ = inside.set_nodelay(true);
            let relayed =
                copy_bidirectional_with_sizes(&mut outside, &mut inside, BUFFER, BUFFER).await;
            if relayed.is_err() {
                reset(&inside);
            }
            relayed.map(drop)
        }
        Err(error) => Err(error),
    };
    if let Err(error) = relayed {
        tracing::debug!(listen = %forward.listen, target = %forward.target, %error, "a connection broke off");
        // What breaks off inside breaks off outside: it must not look like an end.
        reset(&outside);
    }
}

/// Has the end of a connection be a reset.
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
