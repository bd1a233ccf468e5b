//! The endpoint as its networks' gateway, with real packets: namespaces stand for containers and for the world outside.
//! Needs root, `ip` and `nft`; says so and passes where there is none.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod namespaces;

use endpoint::networks::{
    dns::{Directory, Server},
    router::{Protocol, Published, Router, RouterNetwork},
};
use namespaces::{Namespaces, ip};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// What is let through arrives within this on any machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is not let through is given so long.
const NOTHING: Duration = Duration::from_millis(700);

impl Namespaces {
    /// With members `a` (VLAN 100), `b` (101) and `c` (102, internal). `None` without root.
    fn connected() -> Option<Namespaces> {
        let bench = Namespaces::new(&["a", "b", "c"])?;
        let router = bench.full("router");
        for (name, vlan) in [("a", 100), ("b", 101), ("c", 102)] {
            let member = bench.full(name);
            // Not every kernel has VLANs: a cable for each.
            ip(&format!(
                "-n {router} link add trunk.{vlan} type veth peer name v{vlan} netns {member}"
            ));
            ip(&format!(
                "-n {member} addr add 10.77.{vlan}.2/24 dev v{vlan}"
            ));
            ip(&format!(
                "-n {member} addr add fd77:{vlan}::2/64 dev v{vlan} nodad"
            ));
            ip(&format!("-n {member} link set v{vlan} up"));
            ip(&format!("-n {member} route add default via 10.77.{vlan}.1"));
            ip(&format!(
                "-n {member} -6 route add default via fd77:{vlan}::1"
            ));
        }
        Some(bench)
    }

    async fn router(&self) -> Router {
        self.router_beside(None).await
    }

    async fn router_beside(&self, outside: Option<&Path>) -> Router {
        Router::open(&self.path("router"), "trunk", "public", outside)
            .await
            .unwrap()
    }

    /// A server that answers with the address that it sees.
    async fn serve(&self, name: &str, port: u16) {
        let listener = self
            .space(name)
            .enter(move || {
                let listener = std::net::TcpListener::bind(("::", port))?;
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener)
            })
            .await
            .unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, from)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut byte = [0];
                    while stream.read(&mut byte).await.is_ok_and(|n| n > 0) {
                        let seen = format!("{}\n", from.ip().to_canonical());
                        if stream.write_all(seen.as_bytes()).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
    }

    async fn connect(&self, name: &str, to: &str) -> io::Result<TcpStream> {
        let to: SocketAddr = to.parse().unwrap();
        let stream = self
            .space(name)
            .enter(move || {
                let stream = std::net::TcpStream::connect_timeout(&to, NOTHING)?;
                stream.set_nonblocking(true)?;
                TcpStream::from_std(stream)
            })
            .await?;
        Ok(stream)
    }

    /// Whom a server says that it sees.
    async fn seen(&self, name: &str, to: &str) -> io::Result<String> {
        // The first packet may wait for an address to be resolved.
        let mut stream = match self.connect(name, to).await {
            Ok(stream) => stream,
            Err(_) => self.connect(name, to).await?,
        };
        ask(&mut stream).await
    }

    async fn pings(&self, name: &str, to: &str) -> bool {
        let name = self.full(name);
        let to = to.to_owned();
        let ping = tokio::process::Command::new("ip")
            .args([
                "netns", "exec", &name, "busybox", "ping", "-c", "1", "-W", "1", &to,
            ])
            .output();
        ping.await.unwrap().status.success()
    }
}

async fn ask(stream: &mut TcpStream) -> io::Result<String> {
    let exchange = async {
        stream.write_all(b"?").await?;
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            line.push(stream.read_u8().await?);
        }
        Ok(String::from_utf8_lossy(&line).trim().to_owned())
    };
    tokio::time::timeout(PATIENCE, exchange).await?
}

fn network(vlan: u16, internal: bool) -> RouterNetwork {
    RouterNetwork {
        vlan,
        gateways: vec![
            (format!("10.77.{vlan}.1").parse().unwrap(), 24),
            (format!("fd77:{vlan}::1").parse().unwrap(), 64),
        ],
        subnets: vec![
            format!("10.77.{vlan}.0/24").parse().unwrap(),
            format!("fd77:{vlan}::/64").parse().unwrap(),
        ],
        internal,
        masquerade: true,
    }
}

fn all() -> [RouterNetwork; 3] {
    [network(100, false), network(101, false), network(102, true)]
}

fn published(host_port: u16, target: &str) -> Published {
    Published {
        protocol: Protocol::Tcp,
        host: if target.contains(':') {
            "::"
        } else {
            "0.0.0.0"
        }
        .parse()
        .unwrap(),
        host_port,
        target: target.parse().unwrap(),
        target_port: 80,
    }
}

#[tokio::test]
async fn members_reach_the_world_with_the_endpoint_s_address_and_those_of_an_internal_network_do_not()
 {
    let Some(bench) = Namespaces::connected() else {
        return;
    };
    let router = bench.router().await;
    router.apply(&all(), &[]).await.unwrap();
    bench.serve("world", 80).await;
    assert_eq!(
        bench.seen("a", "198.51.100.1:80").await.unwrap(),
        "198.51.100.2"
    );
    assert!(bench.connect("c", "198.51.100.1:80").await.is_err());
    // A member that puts another network's address on its packets is not let out.
    let (a, world) = (bench.full("a"), "198.51.100.1:80");
    ip(&format!("-n {a} addr add 10.77.101.77/32 dev v100"));
    ip(&format!(
        "-n {a} route replace default via 10.77.100.1 src 10.77.101.77"
    ));
    assert!(bench.connect("a", world).await.is_err());
}

#[tokio::test]
async fn networks_must_not_reach_each_other() {
    let Some(bench) = Namespaces::connected() else {
        return;
    };
    let router = bench.router().await;
    router.apply(&all(), &[]).await.unwrap();
    bench.serve("b", 80).await;
    for gateway in ["10.77.100.1", "fd77:100::1"] {
        assert!(bench.pings("a", gateway).await, "its own gateway {gateway}");
    }
    for stranger in [
        "10.77.101.2",
        "fd77:101::2",
        "10.77.101.1",
        "fd77:101::1",
        "198.51.100.2",
    ] {
        assert!(!bench.pings("a", stranger).await, "{stranger}");
    }
    for to in ["10.77.101.2:80", "[fd77:101::2]:80"] {
        assert!(bench.connect("a", to).await.is_err(), "{to}");
    }
    // From outside, nobody reaches a member by a route over the endpoint.
    ip(&format!(
        "-n {} route add 10.77.0.0/16 via 198.51.100.2",
        bench.full("world")
    ));
    assert!(bench.connect("world", "10.77.101.2:80").await.is_err());
}

#[tokio::test]
async fn a_published_port_is_reached_from_outside_from_other_networks_and_from_its_own() {
    let Some(bench) = Namespaces::connected() else {
        return;
    };
    let router = bench.router().await;
    let ports = [published(8080, "10.77.100.2")];
    router.apply(&all(), &ports).await.unwrap();
    bench.serve("a", 80).await;
    // The world's own address arrives, not the endpoint's.
    assert_eq!(
        bench.seen("world", "198.51.100.2:8080").await.unwrap(),
        "198.51.100.1"
    );
    assert!(bench.seen("b", "10.77.101.1:8080").await.is_ok());
    assert!(bench.seen("a", "10.77.100.1:8080").await.is_ok());
    assert!(bench.connect("world", "198.51.100.2:8081").await.is_err());
    router.apply(&all(), &[]).await.unwrap();
    assert!(bench.connect("world", "198.51.100.2:8080").await.is_err());
}

/// An INIT or INIT ACK of SCTP with its checksum (RFC 9260, 3.1 and 3.3.2): what a connection begins with.
fn sctp_init(chunk: u8, from: u16, to: u16) -> Vec<u8> {
    let tag = if chunk == 1 { 0u32 } else { 7 };
    let mut packet = [from.to_be_bytes(), to.to_be_bytes()].concat();
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([chunk, 0, 0, 20]);
    // Its tag, its window, one stream each way, its first number.
    packet.extend([0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let sum = crc32c::crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

/// All packets of SCTP that come to a namespace. The kernels of test machines have no SCTP of their own, and answer none.
async fn sctp_socket(bench: &Namespaces, name: &str) -> UdpSocket {
    let open = || {
        let socket = socket(
            AddressFamily::Inet,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::Sctp,
        )?;
        UdpSocket::from_std(socket.into())
    };
    bench.space(name).enter(open).await.unwrap()
}

/// The next packet: its sender, and its ports.
async fn sctp_heard(socket: &UdpSocket) -> Option<(String, u16, u16)> {
    let mut packet = [0; 2048];
    let received = tokio::time::timeout(NOTHING, socket.recv(&mut packet)).await;
    let length = received.ok()?.unwrap();
    // A raw socket of IPv4 gets the header, too (raw(7)).
    let (ip, sctp) = packet[..length].split_at(usize::from(packet[0] & 15) * 4);
    let mut plain = sctp.to_vec();
    plain[8..12].fill(0);
    assert_eq!(crc32c::crc32c(&plain).to_le_bytes(), sctp[8..12]);
    let port = |at: usize| u16::from_be_bytes([sctp[at], sctp[at + 1]]);
    let from: [u8; 4] = ip[12..16].try_into().unwrap();
    Some((IpAddr::from(from).to_string(), port(0), port(2)))
}

#[tokio::test]
async fn a_published_port_of_sctp_is_translated_both_ways_and_no_other_one_is() {
    let Some(bench) = Namespaces::connected() else {
        return;
    };
    let router = bench.router().await;
    let mut port = published(8080, "10.77.100.2");
    port.protocol = Protocol::Sctp;
    router.apply(&all(), &[port]).await.unwrap();
    let (world, a) = (
        sctp_socket(&bench, "world").await,
        sctp_socket(&bench, "a").await,
    );
    for (to, arrives) in [(8081, false), (8080, true)] {
        let init = sctp_init(1, 5000, to);
        world.send_to(&init, "198.51.100.2:0").await.unwrap();
        let seen = ("198.51.100.1".to_owned(), 5000, 80);
        assert_eq!(sctp_heard(&a).await, arrives.then_some(seen));
    }
    a.send_to(&sctp_init(2, 80, 5000), "198.51.100.1:0")
        .await
        .unwrap();
    let answer = ("198.51.100.2".to_owned(), 8080, 5000);
    assert_eq!(sctp_heard(&world).await, Some(answer));
}

#[tokio::test]
async fn connections_go_on_while_rules_change_and_after_the_endpoint_s_end() {
    let Some(bench) = Namespaces::connected() else {
        return;
    };
    let router = bench.router().await;
    let ports = [published(8080, "10.77.100.2")];
    router.apply(&all(), &ports).await.unwrap();
    bench.serve("a", 80).await;
    bench.serve("world", 80).await;
    assert!(bench.seen("world", "198.51.100.2:8080").await.is_ok());
    let mut inwards = bench.connect("world", "198.51.100.2:8080").await.unwrap();
    let mut outwards = bench.connect("a", "198.51.100.1:80").await.unwrap();
    for round in 0..5 {
        let more = [
            published(8080, "10.77.100.2"),
            published(9000 + round, "10.77.101.2"),
        ];
        router.apply(&all(), &more).await.unwrap();
        ask(&mut inwards).await.unwrap();
        ask(&mut outwards).await.unwrap();
    }
    drop(router);
    ask(&mut inwards).await.unwrap();
    assert!(bench.seen("world", "198.51.100.2:8080").await.is_ok());
    // The next one takes over what is there.
    let router = bench.router().await;
    router.apply(&all(), &ports).await.unwrap();
    ask(&mut inwards).await.unwrap();
    ask(&mut outwards).await.unwrap();
}

#[tokio::test]
async fn addresses_go_with_their_network() {
    let Some(bench) = Namespaces::connected() else {
        return;
    };
    let router = bench.router().await;
    router.apply(&all(), &[]).await.unwrap();
    assert!(bench.pings("a", "10.77.100.1").await);
    router.apply(&all()[1..], &[]).await.unwrap();
    let shown = Command::new("ip")
        .args(["-n", &bench.full("router"), "-o", "addr"])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        !shown.contains("10.77.100.1") && !shown.contains("fd77:100::1"),
        "{shown}"
    );
    assert!(
        shown.contains("10.77.101.1") && shown.contains("fd77:101::1"),
        "{shown}"
    );
}

/// `web` is 10.77.100.2 for whoever asks on network `one`.
#[derive(Debug)]
struct Names;

impl Directory for Names {
    fn addresses(&self, network: &str, asker: IpAddr, name: &str) -> Option<Vec<IpAddr>> {
        let known = network == "one" && asker == IpAddr::from([10, 77, 100, 2]) && name == "web";
        known.then(|| vec![IpAddr::from([10, 77, 100, 2])])
    }

    fn name(&self, _: &str, _: IpAddr, _: IpAddr) -> Option<String> {
        None
    }

    fn servers(&self, _: &str, _: IpAddr) -> Vec<IpAddr> {
        Vec::new()
    }
}

/// A question about `web`'s address; the last four bytes of the answer are it.
const QUESTION: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03web\0\0\x01\0\x01";

async fn resolve(bench: &Namespaces, name: &str, server: &str) -> Option<Vec<u8>> {
    let server: SocketAddr = format!("{server}:53").parse().unwrap();
    let socket = bench
        .space(name)
        .enter(|| {
            let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        })
        .await
        .unwrap();
    let mut answer = vec![0u8; 512];
    for _ in 0..2 {
        socket.send_to(QUESTION, server).await.ok()?;
        let reply = tokio::time::timeout(NOTHING, socket.recv(&mut answer)).await;
        if let Ok(Ok(length)) = reply {
            answer.truncate(length);
            return Some(answer);
        }
    }
    None
}

#[tokio::test]
async fn the_name_server_answers_its_own_network_only() {
    let Some(bench) = Namespaces::connected() else {
        return;
    };
    let router = bench.router().await;
    router.apply(&all(), &[]).await.unwrap();
    let server = Server::new(router.namespace().clone(), Arc::new(Names));
    let gateways = |list: &[(&str, &str)]| {
        let owned = list.iter();
        owned
            .map(|(id, address)| ((*id).to_owned(), address.parse().unwrap()))
            .collect()
    };
    let both = [("one", "10.77.100.1"), ("two", "10.77.101.1")];
    server.listen(gateways(&both)).await.unwrap();
    let answer = resolve(&bench, "a", "10.77.100.1").await.unwrap();
    assert_eq!(answer[answer.len() - 4..], [10, 77, 100, 2]);
    // Another network does not know the name: NXDOMAIN.
    let answer = resolve(&bench, "b", "10.77.101.1").await.unwrap();
    assert_eq!(answer[3] & 15, 3);
    // And nobody asks the name server of a network that is not his.
    assert_eq!(resolve(&bench, "b", "10.77.100.1").await, None);
    assert_eq!(resolve(&bench, "world", "198.51.100.2").await, None);
    // A network that is gone has none any more.
    server.listen(gateways(&both[1..])).await.unwrap();
    assert_eq!(resolve(&bench, "a", "10.77.100.1").await, None);
}

#[tokio::test]
async fn ports_at_ipv6_lead_to_members_that_have_it_and_one_at_an_address_is_at_no_other() {
    let Some(bench) = Namespaces::connected() else {
        return;
    };
    let (router_name, world) = (bench.full("router"), bench.full("world"));
    for (namespace, link, address) in [
        (&router_name, "public", "2001:db8::2/64"),
        (&world, "out", "2001:db8::1/64"),
        (&router_name, "public", "198.51.100.3/24"),
    ] {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        ip(&format!(
            "-n {namespace} addr add {address} dev {link} {nodad}"
        ));
    }
    let router = bench.router().await;
    let one = Published {
        host: "198.51.100.3".parse().unwrap(),
        ..published(8081, "10.77.100.2")
    };
    let ports = [published(8080, "fd77:100::2"), one];
    router.apply(&all(), &ports).await.unwrap();
    bench.serve("a", 80).await;
    // Until the kernel has made sure of its link-local addresses (RFC 4862, 5.4), it asks no neighbour.
    let began = std::time::Instant::now();
    let seen = loop {
        match bench.seen("world", "[2001:db8::2]:8080").await {
            Err(_) if began.elapsed() < PATIENCE => {}
            seen => break seen.unwrap(),
        }
    };
    assert_eq!(seen, "2001:db8::1");
    assert!(bench.seen("b", "[fd77:101::1]:8080").await.is_ok());
    assert!(bench.connect("world", "198.51.100.2:8080").await.is_err());
    assert_eq!(
        bench.seen("world", "198.51.100.3:8081").await.unwrap(),
        "198.51.100.1"
    );
    assert!(bench.connect("world", "198.51.100.2:8081").await.is_err());
}

/// Has the world be a machine that holds ports for the router, as beside hostsim, with a client of its own.
async fn machine(bench: &mut Namespaces, folder: &Path) -> PathBuf {
    bench.add("client");
    let (world, client, router) = (
        bench.full("world"),
        bench.full("client"),
        bench.full("router"),
    );
    ip(&format!(
        "-n {world} link add lan type veth peer name lan netns {client}"
    ));
    for (namespace, number) in [(&world, 1), (&client, 7)] {
        ip(&format!(
            "-n {namespace} addr add 192.0.2.{number}/24 dev lan"
        ));
        ip(&format!(
            "-n {namespace} addr add 2001:db8:7::{number}/64 dev lan nodad"
        ));
        ip(&format!("-n {namespace} link set lan up"));
    }
    let mark = forward::MARK;
    for family in ["-4", "-6"] {
        ip(&format!(
            "-n {router} {family} route add local default dev lo table {mark}"
        ));
        ip(&format!(
            "-n {router} {family} rule add fwmark {mark} lookup {mark}"
        ));
    }
    let socket = folder.join("api.sock");
    let (at, inside, own) = (socket.clone(), bench.path("router"), bench.path("world"));
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let own = std::fs::File::open(own).unwrap();
        nix::sched::setns(own, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let ready = || ready.send(()).unwrap();
        runtime
            .block_on(forward::serve(&at, &inside, ready))
            .unwrap();
    });
    is_ready.await.unwrap();
    socket
}

#[tokio::test]
async fn a_client_of_the_machine_is_seen_by_its_own_address_and_the_machine_itself_is_not() {
    let Some(mut bench) = Namespaces::connected() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let socket = machine(&mut bench, folder.path()).await;
    let router = bench.router_beside(Some(&socket)).await;
    router.apply(&all(), &[]).await.unwrap();
    bench.serve("a", 80).await;
    bench.serve("c", 80).await;
    let outside = router.outside().unwrap();
    for (port, target) in [
        (8080, "10.77.100.2:80"),
        (8081, "[fd77:100::2]:80"),
        // Nothing goes out of an internal network; what is published of it is nevertheless reached.
        (8082, "10.77.102.2:80"),
    ] {
        for address in ["0.0.0.0", "::"] {
            let forward = forward::Forward {
                transport: forward::Transport::Tcp,
                listen: (address.parse::<IpAddr>().unwrap(), port).into(),
                target: target.parse().unwrap(),
            };
            outside.add(forward).await.unwrap();
        }
    }
    for (from, to, seen) in [
        ("client", "192.0.2.1:8080", "192.0.2.7"),
        ("client", "[2001:db8:7::1]:8080", "10.77.100.1"),
        ("client", "192.0.2.1:8081", "fd77:100::1"),
        ("client", "[2001:db8:7::1]:8081", "2001:db8:7::7"),
        ("world", "127.0.0.1:8080", "10.77.100.1"),
        ("world", "[::1]:8080", "10.77.100.1"),
        ("world", "192.0.2.1:8080", "192.0.2.1"),
        ("client", "192.0.2.1:8082", "192.0.2.7"),
    ] {
        assert_eq!(bench.seen(from, to).await.unwrap(), seen, "{from} to {to}");
    }
    // The rules are loaded anew beside connections that bear an address.
    let mut inwards = bench.connect("client", "192.0.2.1:8080").await.unwrap();
    assert_eq!(ask(&mut inwards).await.unwrap(), "192.0.2.7");
    router
        .apply(&all(), &[published(9000, "10.77.101.2")])
        .await
        .unwrap();
    assert_eq!(ask(&mut inwards).await.unwrap(), "192.0.2.7");
    // A member gets nowhere by an address of the outside.
    let (a, stranger) = (bench.full("a"), "10.77.101.2:80");
    ip(&format!("-n {a} addr add 192.0.2.7/32 dev v100"));
    ip(&format!(
        "-n {a} route replace default via 10.77.100.1 src 192.0.2.7"
    ));
    bench.serve("b", 80).await;
    assert!(bench.connect("a", stranger).await.is_err());
}
