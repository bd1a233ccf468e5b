//! Sockets in a network namespace. A namespace is entered by one thread, and a socket stays in the one that it was made
//! in: a thread that lives in there makes them for all others.

use crate::protocol::Transport;
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::mpsc;
use tokio::sync::oneshot;

struct Wish {
    transport: Transport,
    domain: Domain,
    made: oneshot::Sender<io::Result<Socket>>,
}

/// A namespace that this process's main threads are not in.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    wishes: mpsc::Sender<Wish>,
}

impl Namespace {
    /// Enters it.
    pub(crate) fn enter(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let (wishes, wished) = mpsc::channel::<Wish>();
        let (entered, has_entered) = mpsc::channel();
        std::thread::Builder::new()
            .name("namespace".to_owned())
            .spawn(move || {
                let inside = setns(&file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
                let ok = inside.is_ok();
                let _ = entered.send(inside);
                if !ok {
                    return;
                }
                for Wish {
                    transport,
                    domain,
                    made,
                } in wished
                {
                    let _nobody_waits = made.send(socket(transport, domain));
                }
            })?;
        has_entered
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace ended")))?;
        Ok(Self { wishes })
    }

    async fn socket(&self, transport: Transport, to: SocketAddr) -> io::Result<Socket> {
        let gone = || io::Error::other("the thread in the namespace is gone");
        let (made, socket) = oneshot::channel();
        let wish = Wish {
            transport,
            domain: Domain::for_address(to),
            made,
        };
        self.wishes.send(wish).map_err(|_| gone())?;
        socket.await.map_err(|_| gone())?
    }

    /// A socket that is to be connected to a target, and bears the address of the client where that can be.
    pub(crate) async fn towards(
        &self,
        transport: Transport,
        target: SocketAddr,
        client: SocketAddr,
    ) -> io::Result<Socket> {
        if can_bear(client.ip(), target.ip()) {
            let socket = self.socket(transport, target).await?;
            // For IPv6, too: the kernel has one flag for both.
            let bound = socket
                .set_ip_transparent_v4(true)
                .and_then(|()| socket.bind(&client.into()));
            match bound {
                Ok(()) => return Ok(socket),
                Err(error) => {
                    tracing::debug!(%client, %error, "it is seen by the router's address");
                }
            }
        }
        self.socket(transport, target).await
    }
}

/// Whether an answer to this address finds its way back through the namespace's router: not to one that means a machine
/// itself or a single link.
fn can_bear(client: IpAddr, target: IpAddr) -> bool {
    match (client, target) {
        (IpAddr::V4(client), IpAddr::V4(_)) => !client.is_loopback() && !client.is_link_local(),
        (IpAddr::V6(client), IpAddr::V6(_)) => {
            !client.is_loopback() && !client.is_unicast_link_local()
        }
        _ => false,
    }
}

/// A socket of the namespace that this thread is in.
fn socket(transport: Transport, domain: Domain) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(domain, kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A socket of this process's own namespace that is bound to an address.
pub(crate) fn listener(transport: Transport, address: SocketAddr) -> io::Result<Socket> {
    let socket = socket(transport, Domain::for_address(address))?;
    if address.is_ipv6() {
        // IPv4 has its own, and its own answer to whether the port is free.
        socket.set_only_v6(true)?;
    }
    if transport == Transport::Tcp {
        // Connections of before that still time out keep nobody from listening.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if transport == Transport::Tcp {
        socket.listen(1024)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_borne_where_answers_can_come_back_to_it() {
        let can =
            |client: &str, target: &str| can_bear(client.parse().unwrap(), target.parse().unwrap());
        assert!(can("192.0.2.7", "172.17.0.2"));
        assert!(can("2001:db8::7", "fd00::2"));
        assert!(!can("127.0.0.1", "172.17.0.2"));
        assert!(!can("169.254.1.1", "172.17.0.2"));
        assert!(!can("::1", "fd00::2"));
        assert!(!can("fe80::1", "fd00::2"));
        assert!(!can("2001:db8::7", "172.17.0.2"));
    }
}
