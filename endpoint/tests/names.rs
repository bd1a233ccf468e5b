//! Names of the world outside, for members of a network: namespaces stand for a container, for the endpoint and for the
//! world with its name server. Needs root, `ip` and `nft`; says so and passes where there is none.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod namespaces;

use endpoint::networks::{
    dns::{Directory, Server},
    router::{Router, RouterNetwork},
};
use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use namespaces::{Namespaces, ip};
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// What comes at all comes within this on any machine.
const LIMIT: Duration = Duration::from_secs(30);
/// A resolver asks again after this.
const AGAIN: Duration = Duration::from_secs(10);

const GATEWAY: &str = "10.77.100.1:53";
const OUTSIDE: &str = "198.51.100.1";

impl Namespaces {
    /// A member, with a cable to the router. `None` without root.
    fn connected() -> Option<Namespaces> {
        let spaces = Namespaces::new(&["member"])?;
        let (router, member) = (spaces.full("router"), spaces.full("member"));
        for args in [
            format!("-n {router} link add trunk.100 type veth peer name v100 netns {member}"),
            format!("-n {member} addr add 10.77.100.2/24 dev v100"),
            format!("-n {member} link set v100 up"),
        ] {
            ip(&args);
        }
        Some(spaces)
    }

    /// Runs `work` in the router's namespace: in the appliance, that is the endpoint's own.
    fn as_endpoint(&self, work: impl Future<Output = ()> + Send) {
        let own = std::fs::File::open(self.path("router")).unwrap();
        std::thread::scope(|scope| {
            let running = scope.spawn(move || {
                nix::sched::setns(own, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(work);
            });
            running.join().unwrap();
        });
    }

    /// The network's router, with the name server at its gateway.
    async fn serve(&self) -> (Router, Server) {
        let router = Router::open(&self.path("router"), "trunk", "public", None)
            .await
            .unwrap();
        let network = RouterNetwork {
            vlan: 100,
            gateways: vec![("10.77.100.1".parse().unwrap(), 24)],
            subnets: vec!["10.77.100.0/24".parse().unwrap()],
            internal: false,
            masquerade: true,
        };
        router.apply(&[network], &[]).await.unwrap();
        let server = Server::new(router.namespace().clone(), Arc::new(Names));
        let gateway = (
            "one".to_owned(),
            GATEWAY.parse::<SocketAddr>().unwrap().ip(),
        );
        server.listen(vec![gateway]).await.unwrap();
        (router, server)
    }

    /// The member's question over UDP, and its answer.
    async fn resolve(&self, question: &Message) -> Message {
        let open = || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        };
        let socket = self.space("member").enter(open).await.unwrap();
        socket
            .connect(GATEWAY.parse::<SocketAddr>().unwrap())
            .await
            .unwrap();
        let mut answer = vec![0; 65_535];
        let exchange = async {
            loop {
                socket.send(&question.to_vec().unwrap()).await.unwrap();
                let received = tokio::time::timeout(AGAIN, socket.recv(&mut answer)).await;
                if let Ok(length) = received {
                    return length.unwrap();
                }
            }
        };
        let length = tokio::time::timeout(LIMIT, exchange).await.unwrap();
        Message::from_vec(&answer[..length]).unwrap()
    }

    /// The same over TCP.
    async fn resolve_by_tcp(&self, question: &Message) -> Message {
        let connect = || {
            let to = GATEWAY.parse().unwrap();
            let stream = std::net::TcpStream::connect_timeout(&to, LIMIT)?;
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)
        };
        let mut stream = self.space("member").enter(connect).await.unwrap();
        write(&mut stream, question).await.unwrap();
        let reading = tokio::time::timeout(LIMIT, read(&mut stream));
        reading.await.unwrap().unwrap()
    }
}

/// `web` is a member's name, and other names are known outside.
#[derive(Debug)]
struct Names;

impl Directory for Names {
    fn addresses(&self, _: &str, asker: IpAddr, name: &str) -> Option<Vec<IpAddr>> {
        (name == "web").then(|| vec![asker])
    }

    fn name(&self, _: &str, _: IpAddr, _: IpAddr) -> Option<String> {
        None
    }

    fn servers(&self, network: &str, asker: IpAddr) -> Vec<IpAddr> {
        assert_eq!(
            (network, asker.to_string().as_str()),
            ("one", "10.77.100.2")
        );
        vec![OUTSIDE.parse().unwrap()]
    }
}

async fn read(stream: &mut TcpStream) -> io::Result<Message> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(Message::from_vec(&message).unwrap())
}

async fn write(stream: &mut TcpStream, message: &Message) -> io::Result<()> {
    let message = message.to_vec().unwrap();
    stream.write_u16(message.len().try_into().unwrap()).await?;
    stream.write_all(&message).await
}

fn question(name: &str) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message
}

/// Who asked for which name.
type Asked = Arc<Mutex<BTreeSet<(IpAddr, String)>>>;

/// The answer of the name server outside: an address; more of them than a datagram takes; what does not answer the
/// question; nothing.
fn answer(question: &Message, from: SocketAddr, tcp: bool, asked: &Asked) -> Option<Message> {
    let query = question.queries[0].clone();
    let name = query.name().to_ascii();
    asked.lock().unwrap().insert((from.ip(), name.clone()));
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.add_query(query.clone());
    let count: u16 = match (name.as_str(), tcp) {
        ("large.example.", false) => {
            answer.metadata.truncation = true;
            0
        }
        ("large.example.", true) => 500,
        ("other.example.", _) => {
            answer.metadata.id ^= 1;
            1
        }
        ("silent.example.", _) => return None,
        _ => 1,
    };
    answer.add_answers((0..count).map(|n| {
        let [high, low] = n.to_be_bytes();
        let data = RData::from(IpAddr::from([192, 0, high, low]));
        Record::from_rdata(query.name().clone(), 60, data)
    }));
    Some(answer)
}

/// The name server outside.
async fn outside(bench: &Namespaces) -> Asked {
    let bind = || {
        let at = (OUTSIDE, 53);
        let (udp, tcp) = (
            std::net::UdpSocket::bind(at)?,
            std::net::TcpListener::bind(at)?,
        );
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?))
    };
    let (udp, tcp) = bench.space("world").enter(bind).await.unwrap();
    let asked = Asked::default();
    let by_udp = asked.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            let question = Message::from_vec(&buffer[..length]).unwrap();
            if let Some(answer) = answer(&question, from, false, &by_udp) {
                udp.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        }
    });
    let by_tcp = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, from) = tcp.accept().await.unwrap();
            let question = read(&mut stream).await.unwrap();
            if let Some(answer) = answer(&question, from, true, &by_tcp) {
                write(&mut stream, &answer).await.unwrap();
            }
        }
    });
    asked
}

fn addresses(answer: &Message) -> Vec<String> {
    let data = answer.answers.iter().map(|record| record.data.to_string());
    data.collect()
}

/// What was asked outside, each by the endpoint, which has its own address there.
fn names_of(asked: &Asked) -> Vec<String> {
    let asked = asked.lock().unwrap().clone();
    let own = IpAddr::from([198, 51, 100, 2]);
    let name = |(from, name): (IpAddr, String)| {
        assert_eq!(from, own, "{name}");
        name
    };
    asked.into_iter().map(name).collect()
}

#[test]
fn a_member_gets_names_of_the_world_outside_and_its_own_stay_inside() {
    let Some(bench) = Namespaces::connected() else {
        return;
    };
    bench.as_endpoint(async {
        let asked = outside(&bench).await;
        let _serving = bench.serve().await;
        let own = bench.resolve(&question("web.")).await;
        assert_eq!(addresses(&own), ["10.77.100.2"]);
        let one = question("one.example.");
        let answer = bench.resolve(&one).await;
        assert_eq!(answer.metadata.id, one.metadata.id);
        assert_eq!(answer.queries, one.queries);
        assert_eq!(addresses(&answer), ["192.0.0.0"]);
        // What is too large for UDP says so, and the member asks again over TCP.
        let large = question("large.example.");
        let answer = bench.resolve(&large).await;
        assert!(answer.metadata.truncation && answer.answers.is_empty());
        let answer = bench.resolve_by_tcp(&large).await;
        assert_eq!(answer.metadata.id, large.metadata.id);
        assert_eq!(answer.answers.len(), 500);
        assert_eq!(names_of(&asked), ["large.example.", "one.example."]);
    });
}

#[test]
fn a_member_is_told_of_a_failure_where_no_good_answer_comes_from_outside() {
    let Some(bench) = Namespaces::connected() else {
        return;
    };
    bench.as_endpoint(async {
        let asked = outside(&bench).await;
        let _serving = bench.serve().await;
        // An answer with another number is none, and silence has its bound: both before a resolver asks again.
        for name in ["other.example.", "silent.example."] {
            let question = question(name);
            let (by_udp, by_tcp) = (bench.resolve(&question), bench.resolve_by_tcp(&question));
            let begun = std::time::Instant::now();
            for answer in <[Message; 2]>::from(tokio::join!(by_udp, by_tcp)) {
                assert_eq!(answer.metadata.id, question.metadata.id);
                assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
                assert_eq!(answer.queries, question.queries);
                assert!(answer.answers.is_empty());
            }
            assert!(begun.elapsed() < AGAIN, "{name}");
        }
        assert_eq!(names_of(&asked), ["other.example.", "silent.example."]);
        // Others are answered all the same.
        let answer = bench.resolve(&question("one.example.")).await;
        assert_eq!(addresses(&answer), ["192.0.0.0"]);
    });
}
