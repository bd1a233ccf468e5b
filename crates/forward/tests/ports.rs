//! Ports of this machine's loopback that lead into a namespace of the test's own. Takes root and `ip`; says so and passes
//! where there is none.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use forward::{Client, Forward, Transport};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixStream};
use tokio::sync::{Mutex, MutexGuard};

/// Where the servers of the tests are, in the namespace.
const INSIDE: &str = "10.99.0.1";

static NUMBER: AtomicU32 = AtomicU32::new(0);
/// One test at a time: the ports are this process's, and a program that another test starts has them, too, between its fork
/// and its exec, so that one which was closed could not be had again for a moment. What holds ports elsewhere
/// (`vch hold-ports`) starts no programs.
static ALONE: Mutex<()> = Mutex::const_new(());

struct Rig {
    name: String,
    folder: tempfile::TempDir,
    client: Client,
    // Let go after the last program.
    _alone: MutexGuard<'static, ()>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

fn ip(args: &str) {
    let done = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {args}: {done:?}");
}

impl Rig {
    async fn new() -> Option<Rig> {
        let alone = ALONE.lock().await;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mf{}-{number}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        if !made.is_ok_and(|out| out.status.success()) {
            println!("skipped: it needs root, and ip, to make a namespace");
            return None;
        }
        ip(&format!("-n {name} addr add {INSIDE}/32 dev lo"));
        ip(&format!("-n {name} link set lo up"));
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("api.sock");
        let rig = Rig {
            client: Client::new(&socket),
            name,
            folder,
            _alone: alone,
        };
        let inside = rig.path();
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let ready = || ready.send(()).unwrap();
            forward::serve(&socket, &inside, ready).await.unwrap();
        });
        is_ready.await.unwrap();
        Some(rig)
    }

    fn path(&self) -> PathBuf {
        format!("/run/netns/{}", self.name).into()
    }

    /// Does something in the namespace, on a thread that is thrown away.
    fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> T {
        let file = File::open(self.path()).unwrap();
        let runtime = tokio::runtime::Handle::current();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
                let _runtime = runtime.enter();
                work().unwrap()
            });
            thread.join().unwrap()
        })
    }

    /// A server in there that answers, once the client has sent all, with all of it.
    fn echo(&self) -> SocketAddr {
        let listener = self.inside(|| {
            let listener = std::net::TcpListener::bind((INSIDE, 0))?;
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut all = Vec::new();
                    stream.read_to_end(&mut all).await.unwrap();
                    stream.write_all(&all).await.unwrap();
                });
            }
        });
        at
    }

    /// Opens a port of this machine.
    async fn open(&self, transport: Transport, address: &str, target: SocketAddr) -> Forward {
        let forward = Forward {
            transport,
            listen: SocketAddr::new(address.parse().unwrap(), free(transport)),
            target,
        };
        self.client.add(forward).await.unwrap();
        forward
    }
}

/// A port that is free at this moment, of both kinds of addresses.
fn free(transport: Transport) -> u16 {
    let at = match transport {
        Transport::Tcp => std::net::TcpListener::bind("[::]:0").unwrap().local_addr(),
        Transport::Udp => std::net::UdpSocket::bind("[::]:0").unwrap().local_addr(),
    };
    at.unwrap().port()
}

async fn exchange(at: SocketAddr, data: &[u8]) -> Vec<u8> {
    let (mut from, mut to) = TcpStream::connect(at).await.unwrap().into_split();
    let mut back = Vec::new();
    let (sent, read) = tokio::join!(
        async {
            to.write_all(data).await?;
            to.shutdown().await
        },
        from.read_to_end(&mut back)
    );
    sent.unwrap();
    read.unwrap();
    back
}

#[tokio::test]
async fn what_is_sent_arrives_whole_and_an_end_is_passed_on_while_the_other_side_still_talks() {
    let Some(rig) = Rig::new().await else { return };
    let target = rig.echo();
    let data: Vec<u8> = (0..1_000_003u32).flat_map(u32::to_le_bytes).collect();
    for address in ["127.0.0.1", "::1"] {
        let forward = rig.open(Transport::Tcp, address, target).await;
        assert!(exchange(forward.listen, &data).await == data, "{address}");
    }
}

#[tokio::test]
async fn a_port_that_nobody_serves_breaks_off_and_does_not_look_like_an_end() {
    let Some(rig) = Rig::new().await else { return };
    let nobody = SocketAddr::new(INSIDE.parse().unwrap(), 9);
    let forward = rig.open(Transport::Tcp, "127.0.0.1", nobody).await;
    let mut stream = TcpStream::connect(forward.listen).await.unwrap();
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn each_client_s_datagrams_are_answered_to_it() {
    let Some(rig) = Rig::new().await else { return };
    let server = rig.inside(|| {
        let socket = std::net::UdpSocket::bind((INSIDE, 0))?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    });
    let target = server.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_535];
        loop {
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            server.send_to(&buffer[..length], from).await.unwrap();
        }
    });
    for (address, any) in [("127.0.0.1", "127.0.0.1:0"), ("::1", "[::1]:0")] {
        let forward = rig.open(Transport::Udp, address, target).await;
        let mut clients = Vec::new();
        for text in ["one", "two", "", "four"] {
            let client = UdpSocket::bind(any).await.unwrap();
            client.connect(forward.listen).await.unwrap();
            client.send(text.as_bytes()).await.unwrap();
            clients.push((client, text));
        }
        let mut buffer = [0; 100];
        for (client, text) in &clients {
            let length = client.recv(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], text.as_bytes());
            // The second one takes the same way.
            client.send(b"again").await.unwrap();
            assert_eq!(client.recv(&mut buffer).await.unwrap(), 5);
        }
    }
}

#[tokio::test]
async fn a_port_is_had_once_and_free_again_once_it_is_closed() {
    let Some(rig) = Rig::new().await else { return };
    let target = rig.echo();
    let all = rig.open(Transport::Tcp, "0.0.0.0", target).await;
    let six = Forward {
        listen: SocketAddr::new("::".parse().unwrap(), all.listen.port()),
        ..all
    };
    rig.client.add(six).await.unwrap();
    // Asked for again, as by an endpoint that was started again.
    rig.client.add(all).await.unwrap();
    let mut open = rig.client.list().await.unwrap();
    open.sort();
    assert_eq!(open, [all, six]);
    let elsewhere = Forward {
        target: "10.99.0.2:1".parse().unwrap(),
        ..all
    };
    let error = rig.client.add(elsewhere).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
    // It is not the one that is open.
    rig.client.remove(elsewhere).await.unwrap();
    assert_eq!(rig.client.list().await.unwrap().len(), 2);

    let mut stream = TcpStream::connect(("127.0.0.1", all.listen.port()))
        .await
        .unwrap();
    stream.write_all(b"x").await.unwrap();
    rig.client.remove(all).await.unwrap();
    rig.client.add(elsewhere).await.unwrap();
    rig.client.remove(elsewhere).await.unwrap();
    // The connection went with its port.
    let ended = stream.read(&mut [0]).await;
    assert!(ended.as_ref().map_or(true, |n| *n == 0), "{ended:?}");
    assert_eq!(rig.client.list().await.unwrap(), [six]);

    let none = Forward {
        listen: "192.0.2.77:80".parse().unwrap(),
        ..all
    };
    let error = rig.client.add(none).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable, "{error}");
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_next_one_is_served() {
    let Some(rig) = Rig::new().await else { return };
    let socket = rig.folder.path().join("api.sock");
    let long = vec![b'['; 1 << 20];
    for request in [&b""[..], b"{", b"\"everything\"", b"{\"add\":{}}", &long] {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        // It may be cut off before it has sent all.
        let _ = stream.write_all(request).await;
        let _ = stream.shutdown().await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(
            answer.is_empty() || answer.contains("no request"),
            "{answer}"
        );
        assert!(rig.client.list().await.unwrap().is_empty());
    }
    // One who says nothing is given up, and one who goes away is, too.
    drop(UnixStream::connect(&socket).await.unwrap());
    assert!(rig.client.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_namespace_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none");
    let error = forward::serve(&folder.path().join("s"), &none, || ())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
}
