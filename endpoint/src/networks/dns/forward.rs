//! Questions about names that are not ours, passed on as they are.

use super::{PORT, UDP_MAX, read_framed, write_framed};
use hickory_proto::{
    op::{Header, MessageType, Query, ResponseCode},
    serialize::binary::{BinDecodable, BinDecoder},
};
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
    let at = |server: &IpAddr| SocketAddr::new(*server, PORT);
    let servers: Vec<SocketAddr> = servers.iter().map(at).collect();
    ask_at(&servers, question, tcp).await
}

async fn ask_at(servers: &[SocketAddr], question: &[u8], tcp: bool) -> Option<Vec<u8>> {
    for &server in servers {
        let asking = async {
            match tcp {
                true => by_tcp(server, question).await,
                false => by_udp(server, question).await,
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
    // One byte more: what fills it is too long, and was perhaps cut.
    let mut answer = vec![0u8; UDP_MAX + 1];
    loop {
        let length = socket.recv(&mut answer).await?;
        if !answers(&answer[..length], question) {
            continue;
        }
        if length > UDP_MAX {
            return Err(io::Error::other("its answer is too long for UDP"));
        }
        answer.truncate(length);
        return Ok(answer);
    }
}

async fn by_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, question).await?;
    let answer = read_framed(&mut stream).await?;
    match answers(&answer, question) {
        true => Ok(answer),
        false => Err(io::Error::other(
            "what it sends is no answer to the question",
        )),
    }
}

/// Whether a message is an answer with the question's number, to that question (RFC 5452, 9.1). An error may come without
/// it: that of a server that did not understand it.
fn answers(answer: &[u8], question: &[u8]) -> bool {
    let (Some((asked, what)), Some((head, of))) = (beginning(question), beginning(answer)) else {
        return false;
    };
    let bare_error = of.is_none() && head.response_code != ResponseCode::NoError;
    head.id == asked.id && head.message_type == MessageType::Response && (of == what || bare_error)
}

/// Header and question of a message; `None` where it has several, or is none.
fn beginning(message: &[u8]) -> Option<(Header, Option<Query>)> {
    let mut decoder = BinDecoder::new(message);
    let header = Header::read(&mut decoder).ok()?;
    let query = match header.counts.queries {
        0 => None,
        1 => Some(Query::read(&mut decoder).ok()?),
        _ => return None,
    };
    Some((header, query))
}

/// The name servers of a resolv.conf(5).
pub fn resolv_conf(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse().ok())
        .collect()
}

#[cfg(test)]
#[path = "forward_tests.rs"]
mod tests;
