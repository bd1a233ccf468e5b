//! Questions about names that are not ours, passed on as they are.

use super::{PORT, UDP_MAX, read_framed, write_framed};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::net::{TcpStream, UdpSocket};

/// For the answer of one server.
const PATIENCE: Duration = Duration::from_secs(3);

/// The first answer that one of the servers gives.
pub(super) async fn ask(servers: &[IpAddr], question: &[u8], tcp: bool) -> Option<Vec<u8>> {
    for server in servers {
        let at = SocketAddr::new(*server, PORT);
        let asking = async {
            match tcp {
                true => by_tcp(at, question).await,
                false => by_udp(at, question).await,
            }
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%server, %error, "name server"),
            Err(_) => tracing::debug!(%server, "the name server does not answer"),
        }
    }
    None
}

async fn by_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A socket for each question: its port is random, and only that server's answer gets in.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0u8; UDP_MAX];
    loop {
        let length = socket.recv(&mut answer).await?;
        if answers(&answer[..length], question) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn by_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, question).await?;
    read_framed(&mut stream).await
}

/// Whether a message is an answer with the question's number.
fn answers(answer: &[u8], question: &[u8]) -> bool {
    answer.len() >= 12 && answer[..2] == question[..2] && answer[2] & 0x80 != 0
}

/// The name servers of a resolv.conf(5).
pub fn resolv_conf(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_from_resolv_conf() {
        let text = "# x\nnameserver 10.0.0.1\n search a\nnameserver\tfd00::1\nnameserver x\n";
        let servers: Vec<String> = resolv_conf(text).iter().map(IpAddr::to_string).collect();
        assert_eq!(servers, ["10.0.0.1", "fd00::1"]);
    }

    #[tokio::test]
    async fn an_answer_with_another_number_is_passed_over() {
        let question = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let mut good = question;
        good[2] = 0x81;
        let mut wrong = good;
        wrong[0] = 0;
        assert!(answers(&good, &question));
        assert!(!answers(&wrong, &question));
        assert!(!answers(&question, &question), "a question is no answer");
        assert!(!answers(&[0x12, 0x34], &question));
    }
}
