//! Foreign names, with name servers on the loopback interface that answer as a test wants.

use super::*;
use hickory_proto::{
    op::Message,
    rr::{Name, RData, Record, RecordType},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// What comes at all comes within this on any machine. [`PATIENCE`] fits in.
const LIMIT: Duration = Duration::from_secs(30);

fn question_for(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 0x1234;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn question() -> Message {
    question_for("mooring.example.", RecordType::A)
}

/// An answer with so many addresses.
fn answer_to(question: &Message, addresses: u16) -> Message {
    let mut message = Message::response(question.metadata.id, question.metadata.op_code);
    message.add_queries(question.queries.iter().cloned());
    message.add_answers((0..addresses).map(|n| {
        let [high, low] = n.to_be_bytes();
        let data = RData::from(IpAddr::from([192, 0, high, low]));
        Record::from_rdata(question.queries[0].name.clone(), 60, data)
    }));
    message
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

/// Messages that look like an answer and are none, with why not.
fn no_answers() -> Vec<(&'static str, Vec<u8>)> {
    let good = answer_to(&question(), 1);
    let mut other_number = good.clone();
    other_number.metadata.id ^= 1;
    let other_name = question_for("mooring.example.com.", RecordType::A);
    let other_kind = question_for("mooring.example.", RecordType::AAAA);
    let mut two_questions = good.clone();
    two_questions.add_query(other_kind.queries[0].clone());
    let mut no_question = good.clone();
    no_question.queries.clear();
    vec![
        ("nothing", Vec::new()),
        ("less than a header", bytes(&good)[..11].to_vec()),
        ("a question cut off", bytes(&good)[..20].to_vec()),
        ("another number", bytes(&other_number)),
        ("the question itself", bytes(&question())),
        ("another name", bytes(&answer_to(&other_name, 1))),
        ("another type", bytes(&answer_to(&other_kind, 1))),
        ("a further question", bytes(&two_questions)),
        ("no question, and no error", bytes(&no_question)),
    ]
}

/// A name server that answers its first question over UDP with these messages, one after the other. It gives that question
/// back.
async fn serve_udp(messages: Vec<Vec<u8>>) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut asked = vec![0; 512];
        let (length, from) = socket.recv_from(&mut asked).await.unwrap();
        for message in messages {
            socket.send_to(&message, from).await.unwrap();
        }
        asked.truncate(length);
        asked
    });
    (at, serving)
}

/// A name server that answers its first question over TCP with these bytes, and closes the connection.
async fn serve_tcp(reply: Vec<u8>) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let asked = read_framed(&mut stream).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &reply)
            .await
            .unwrap();
        asked
    });
    (at, serving)
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    [&length.to_be_bytes(), message].concat()
}

async fn asked_of<const N: usize>(servers: [SocketAddr; N], tcp: bool) -> Option<Vec<u8>> {
    let question = bytes(&question());
    let asking = ask_at(&servers, &question, tcp);
    tokio::time::timeout(LIMIT, asking).await.unwrap()
}

#[test]
fn name_servers_are_read_from_resolv_conf() {
    let text = "# x\nnameserver 10.0.0.1\n search a\nnameserver\tfd00::1\nnameserver x\n";
    let servers: Vec<String> = resolv_conf(text).iter().map(IpAddr::to_string).collect();
    assert_eq!(servers, ["10.0.0.1", "fd00::1"]);
}

#[test]
fn an_answer_has_the_question_s_number_and_the_question() {
    let asked = bytes(&question());
    assert!(answers(&bytes(&answer_to(&question(), 1)), &asked));
    for (what, message) in no_answers() {
        assert!(!answers(&message, &asked), "{what}");
    }
    // Names are the same in small letters and in capitals.
    let shouted = question_for("MOORING.Example.", RecordType::A);
    assert!(answers(&bytes(&answer_to(&shouted, 1)), &asked));
    // A server that did not understand the question tells so by a header alone.
    let mut error = Message::response(0x1234, question().metadata.op_code);
    error.metadata.response_code = ResponseCode::FormErr;
    assert_eq!(bytes(&error).len(), 12);
    assert!(answers(&bytes(&error), &asked));
}

#[tokio::test]
async fn question_and_answer_are_passed_on_as_they_are() {
    let answer = bytes(&answer_to(&question(), 3));
    let (at, serving) = serve_udp(vec![answer.clone()]).await;
    assert_eq!(asked_of([at], false).await, Some(answer.clone()));
    assert_eq!(serving.await.unwrap(), bytes(&question()));
    let (at, serving) = serve_tcp(framed(&answer)).await;
    assert_eq!(asked_of([at], true).await, Some(answer));
    assert_eq!(serving.await.unwrap(), bytes(&question()));
}

#[tokio::test]
async fn what_is_no_answer_is_passed_over_until_the_answer_comes() {
    let good = bytes(&answer_to(&question(), 2));
    for (what, message) in no_answers() {
        let (at, _serving) = serve_udp(vec![message, good.clone()]).await;
        assert_eq!(asked_of([at], false).await, Some(good.clone()), "{what}");
    }
}

#[tokio::test]
async fn an_answer_that_another_one_sends_is_not_taken() {
    let good = bytes(&answer_to(&question(), 2));
    let forged = bytes(&answer_to(&question(), 1));
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = server.local_addr().unwrap();
    // Neither from another port of that address, nor from that port of another address.
    let strangers = [
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
        UdpSocket::bind(("127.0.0.2", at.port())).await.unwrap(),
    ];
    let answer = good.clone();
    tokio::spawn(async move {
        let (_, from) = server.recv_from(&mut [0; 512]).await.unwrap();
        for stranger in strangers {
            stranger.send_to(&forged, from).await.unwrap();
        }
        server.send_to(&answer, from).await.unwrap();
    });
    assert_eq!(asked_of([at], false).await, Some(good));
}

#[tokio::test]
async fn an_answer_over_udp_is_passed_on_whole_or_not_at_all() {
    let of_length = |length: usize| {
        let mut answer = bytes(&answer_to(&question(), 2));
        answer.resize(length, 0);
        answer
    };
    let (at, _serving) = serve_udp(vec![of_length(UDP_MAX)]).await;
    assert_eq!(asked_of([at], false).await, Some(of_length(UDP_MAX)));
    for length in [UDP_MAX + 1, UDP_MAX + 2, 60_000] {
        let (too_long, _serving) = serve_udp(vec![of_length(length)]).await;
        assert_eq!(asked_of([too_long], false).await, None, "{length}");
    }
}

#[tokio::test]
async fn over_tcp_another_server_is_asked_where_one_sends_no_answer() {
    let good = bytes(&answer_to(&question(), 500));
    assert!(good.len() > UDP_MAX);
    let mut wrong = no_answers();
    for (_, message) in &mut wrong {
        *message = framed(message);
    }
    wrong.push(("no byte", Vec::new()));
    let cut = framed(&good)[..good.len()].to_vec();
    wrong.push(("an answer cut off", cut));
    for (what, reply) in wrong {
        let (bad, _bad) = serve_tcp(reply).await;
        let (next, _next) = serve_tcp(framed(&good)).await;
        let answer = asked_of([bad, next], true).await;
        assert_eq!(answer.as_ref(), Some(&good), "{what}");
    }
}

#[tokio::test]
async fn a_server_that_is_silent_or_not_there_leads_to_the_next_one() {
    let good = bytes(&answer_to(&question(), 1));
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (next, _serving) = serve_udp(vec![good.clone()]).await;
    // Its port is the next one's, at an address where nobody is.
    let absent = SocketAddr::from(([127, 0, 0, 3], next.port()));
    let begun = std::time::Instant::now();
    let servers = [absent, silent.local_addr().unwrap(), next];
    assert_eq!(asked_of(servers, false).await, Some(good));
    // The silent one has its time, and the one that is not there takes none.
    assert!(begun.elapsed() >= PATIENCE);
    assert!(begun.elapsed() < PATIENCE * 2);
    let heard = silent.recv(&mut [0; 512]).await.unwrap();
    assert_eq!(heard, bytes(&question()).len());
}

#[tokio::test]
async fn a_server_that_takes_a_connection_and_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    assert_eq!(asked_of([at], true).await, None);
    assert_eq!(asked_of([], false).await, None, "nobody is asked");
}
