//! Remote procedure calls over TCP (RFC 5531), one after the other, as a user by number (`AUTH_SYS`).

use super::xdr::{Garbled, In, Out};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// A server takes a connection, and answers a call, within this.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Bytes of the longest answer: a page of a folder is the longest that is asked for.
const ANSWER_MAX: usize = 1 << 20;
/// From these ports, where the system allows it: many a server listens to no others.
const OWN_PORTS: std::ops::Range<u16> = 700..1000;
/// So many of them are tried.
const OWN_PORTS_TRIED: u16 = 20;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The network.
    #[error("{0}")]
    Network(#[from] io::Error),
    /// Nothing came.
    #[error("the server has not answered for {} s", .0.as_secs())]
    Late(Duration),
    /// There is no such program, or not this version of it.
    #[error("the server has no {0}")]
    Missing(&'static str),
    /// The server does not take who asks.
    #[error("the server refuses the user (sec=sys is what there is)")]
    User,
    /// A status of NFS's, as a number.
    #[error("{}", words(*.0))]
    Status(u32),
    /// The answer is none.
    #[error("the server's answer is not NFS's")]
    Garbled,
    /// More than is done here.
    #[error("{0}")]
    TooMuch(&'static str),
}

impl From<Garbled> for Fault {
    fn from(_: Garbled) -> Self {
        Fault::Garbled
    }
}

impl Fault {
    /// The server knows who asks, and does not let them.
    pub fn is_denied(&self) -> bool {
        matches!(self, Fault::Status(1 | 13))
    }
}

/// NFS's own statuses that matter here; both versions have the system's numbers for the others.
pub const NO_ENTRY: u32 = 2;
pub const EXISTS: u32 = 17;
/// Another minor version is wanted.
pub const MINOR_VERSION: u32 = 10_021;

fn words(status: u32) -> String {
    let text = match status {
        1 => "operation not permitted",
        NO_ENTRY => "no such file or directory",
        5 => "input/output error",
        13 => "permission denied",
        EXISTS => "file exists",
        20 => "not a directory",
        28 => "no space left on device",
        30 => "read-only file system",
        63 => "file name too long",
        66 => "directory not empty",
        69 => "disk quota exceeded",
        70 => "stale NFS file handle",
        10_008 | 10_013 => "the server is busy; try again in a moment",
        10_016 => "the server wants another kind of security than sec=sys",
        MINOR_VERSION => "the server has not NFS 4.0",
        _ => return format!("the server's error {status}"),
    };
    text.to_owned()
}

/// A connection to one program of a server.
#[derive(Debug)]
pub struct Rpc {
    stream: TcpStream,
    number: u32,
    /// Flavour, and what it says: as in each call.
    credential: Vec<u8>,
}

/// A user of the server's, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct User {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
}

impl Rpc {
    /// Connects.
    ///
    /// # Errors
    /// Where nobody listens.
    pub async fn connect(address: SocketAddr, user: User) -> Result<Self, Fault> {
        let stream = timeout(CONNECT_LIMIT, connect(address))
            .await
            .map_err(|_| Fault::Late(CONNECT_LIMIT))??;
        stream.set_nodelay(true)?;
        let who = Out::default()
            .u32(0)
            .opaque(b"mooring")
            .all(&[user.uid, user.gid, 0]);
        Ok(Rpc {
            stream,
            number: 0,
            credential: Out::default().u32(1).opaque(&who.0).0,
        })
    }

    /// Calls a procedure of a program, of which `name` is the name for people; what it answers.
    ///
    /// # Errors
    /// As [`Fault`] says; but for [`Fault::Status`] the connection is of no use then.
    pub async fn call(
        &mut self,
        (program, version): (u32, u32),
        name: &'static str,
        procedure: u32,
        arguments: Out,
    ) -> Result<Vec<u8>, Fault> {
        self.number = self.number.wrapping_add(1);
        let call = Out::default()
            .all(&[self.number, 0, 2, program, version, procedure])
            .raw(&self.credential)
            .all(&[0, 0])
            .raw(&arguments.0);
        // A path and a few names, with what is around them, are in one piece.
        let length = u32::try_from(call.0.len()).map_err(|_| Fault::Garbled)?;
        let record = Out::default().u32(1 << 31 | length).raw(&call.0);
        let exchange = async {
            self.stream.write_all(&record.0).await?;
            self.record().await
        };
        let answer = timeout(CALL_LIMIT, exchange)
            .await
            .map_err(|_| Fault::Late(CALL_LIMIT))??;
        body(&answer, self.number, name).map(<[u8]>::to_vec)
    }

    /// An answer, which may come in several pieces.
    async fn record(&mut self) -> Result<Vec<u8>, Fault> {
        let mut record = Vec::new();
        loop {
            let head = self.stream.read_u32().await?;
            let length = (head & !(1 << 31)) as usize;
            let begin = record.len();
            if begin + length > ANSWER_MAX {
                return Err(Fault::Garbled);
            }
            record.resize(begin + length, 0);
            self.stream.read_exact(&mut record[begin..]).await?;
            if head >> 31 == 1 {
                return Ok(record);
            }
            if length == 0 {
                return Err(Fault::Garbled);
            }
        }
    }
}

/// The results in an answer to call `number`.
pub(super) fn body<'a>(
    answer: &'a [u8],
    number: u32,
    name: &'static str,
) -> Result<&'a [u8], Fault> {
    let mut from = In(answer);
    if from.u32()? != number || from.u32()? != 1 {
        return Err(Fault::Garbled);
    }
    match from.u32()? {
        0 => {}
        1 if from.u32()? == 1 => return Err(Fault::User),
        _ => return Err(Fault::Garbled),
    }
    let _verifier = (from.u32()?, from.opaque(400)?);
    match from.u32()? {
        0 => Ok(from.0),
        1..=3 => Err(Fault::Missing(name)),
        _ => Err(Fault::Garbled),
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = || match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut byte = [0u8; 2];
    getrandom::fill(&mut byte).map_err(|e| io::Error::other(e.to_string()))?;
    let count = OWN_PORTS.end - OWN_PORTS.start;
    let first = u16::from_be_bytes(byte) % count;
    for step in 0..OWN_PORTS_TRIED {
        let own = socket()?;
        let port = OWN_PORTS.start + (first + step) % count;
        match own.bind(SocketAddr::new(any, port)) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => continue,
            // Not root's: the export must say `insecure` then.
            Err(_) => break,
        }
        match own.connect(address).await {
            Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable => {}
            other => return other,
        }
    }
    socket()?.connect(address).await
}
