//! One request a connection, one answer: JSON, and the end of the stream behind it.

use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;

/// The longest request, in bytes.
pub(crate) const REQUEST_MAX: u64 = 4096;
/// The longest answer, in bytes: a list of all ports.
pub(crate) const ANSWER_MAX: u64 = 16 << 20;
/// Ports that are open at once, at most.
pub(crate) const FORWARDS_MAX: usize = 65_536;

/// What is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

/// A port of the machine that leads into the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Forward {
    /// Of what.
    pub transport: Transport,
    /// Where it listens. `[::]` is IPv6 alone.
    pub listen: SocketAddr,
    /// Where it leads to.
    pub target: SocketAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Opens a port. One that is open with the same target is no error.
    Add(Forward),
    /// Closes one, and the connections through it. Where it is not open, that is fine.
    Remove(Forward),
    /// The ports that are open.
    List,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Done,
    Open(Vec<Forward>),
    Refused { kind: Refusal, message: String },
}

/// Errors that whoever asks tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refusal {
    /// Something listens there already.
    InUse,
    /// A port that takes a privilege.
    Forbidden,
    /// The machine has no such address.
    NoAddress,
    Other,
}

impl Refusal {
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Refusal::InUse,
            io::ErrorKind::PermissionDenied => Refusal::Forbidden,
            io::ErrorKind::AddrNotAvailable => Refusal::NoAddress,
            _ => Refusal::Other,
        }
    }

    pub(crate) fn error(self, message: String) -> io::Error {
        let kind = match self {
            Refusal::InUse => io::ErrorKind::AddrInUse,
            Refusal::Forbidden => io::ErrorKind::PermissionDenied,
            Refusal::NoAddress => io::ErrorKind::AddrNotAvailable,
            Refusal::Other => io::ErrorKind::Other,
        };
        io::Error::new(kind, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_as_agreed() {
        let forward = Forward {
            transport: Transport::Tcp,
            listen: "[::]:8080".parse().unwrap(),
            target: "172.17.0.2:80".parse().unwrap(),
        };
        let text = r#"{"add":{"transport":"tcp","listen":"[::]:8080","target":"172.17.0.2:80"}}"#;
        assert_eq!(serde_json::to_string(&Request::Add(forward)).unwrap(), text);
        assert_eq!(
            serde_json::from_str::<Request>(text).unwrap(),
            Request::Add(forward)
        );
        assert_eq!(serde_json::to_string(&Request::List).unwrap(), r#""list""#);
        assert_eq!(
            serde_json::to_string(&Answer::Open(Vec::new())).unwrap(),
            r#"{"open":[]}"#
        );
        let refused = Answer::Refused {
            kind: Refusal::InUse,
            message: "m".into(),
        };
        assert_eq!(
            serde_json::to_string(&refused).unwrap(),
            r#"{"refused":{"kind":"in_use","message":"m"}}"#
        );
    }
}
