//! Netlink messages: written, sent, and their acknowledgements read (RFC 3549; netlink(7)).

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    socket,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// `NLM_F_REQUEST | NLM_F_ACK`.
pub const REQUEST: u16 = 0x1 | 0x4;
/// `NLM_F_CREATE | NLM_F_REPLACE`.
pub const CREATE: u16 = 0x400 | 0x100;
const NLMSG_ERROR: u16 = 2;
/// A reply of the kernel's is one page at most.
const REPLY: usize = 8192;

/// A netlink socket for requests.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

/// A message in the making: header, fixed part, attributes.
#[derive(Debug)]
pub struct Message(Vec<u8>);

impl Message {
    /// A message of a kind, with its flags and the fixed part of its body.
    #[must_use]
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Message {
        let mut bytes = vec![0u8; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend(fixed);
        Message(bytes)
    }

    /// Appends an attribute.
    #[must_use]
    pub fn with(mut self, attribute: u16, value: &[u8]) -> Message {
        put(&mut self.0, attribute, value);
        self
    }

    /// Asks for an acknowledgement.
    #[must_use]
    pub fn acknowledged(mut self) -> Message {
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | REQUEST;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        let len = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// Appends an attribute to what ends at a boundary of 4 bytes, or is made to.
pub fn put(out: &mut Vec<u8>, attribute: u16, value: &[u8]) {
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(((value.len() + 4) as u16).to_ne_bytes());
    out.extend(attribute.to_ne_bytes());
    out.extend(value);
}

/// A netlink socket that is bound to the multicast groups of the bit set.
///
/// # Errors
/// Those of socket(2) and bind(2).
pub fn open(protocol: SockProtocol, groups: u32, nonblocking: bool) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC
        | if nonblocking {
            SockFlag::SOCK_NONBLOCK
        } else {
            SockFlag::empty()
        };
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

impl Socket {
    /// Opens a socket of a netlink family.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub fn open(protocol: SockProtocol) -> io::Result<Socket> {
        Ok(Socket {
            fd: open(protocol, 0, false)?,
            sequence: 0,
        })
    }

    /// Sends a request and waits for its acknowledgement. Returns the messages that came before it.
    ///
    /// # Errors
    /// The kernel's answer, as an error number.
    pub fn request(&mut self, message: Message) -> io::Result<Vec<Vec<u8>>> {
        self.batch(vec![message])
    }

    /// Sends messages as one datagram and waits for the acknowledgement of the last one that asks for it.
    ///
    /// # Errors
    /// The kernel's answer to the first that it does not take, as an error number.
    pub fn batch(&mut self, messages: Vec<Message>) -> io::Result<Vec<Vec<u8>>> {
        self.sequence += 1;
        let mut bytes = Vec::new();
        for message in messages {
            bytes.extend(message.finish(self.sequence));
        }
        sendto(
            self.fd.as_raw_fd(),
            &bytes,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )?;
        let mut answers = Vec::new();
        let mut buf = vec![0u8; REPLY];
        loop {
            let got = recv(self.fd.as_raw_fd(), &mut buf, MsgFlags::empty())?;
            for (kind, body) in split(&buf[..got]) {
                if kind == NLMSG_ERROR {
                    let code = body
                        .first_chunk::<4>()
                        .map_or(-libc::EPROTO, |b| i32::from_ne_bytes(*b));
                    return if code == 0 {
                        Ok(answers)
                    } else {
                        Err(io::Error::from_raw_os_error(-code))
                    };
                }
                answers.push(body.to_vec());
            }
        }
    }
}

/// The messages (kind, body) in a datagram.
pub fn split(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(*bytes.first_chunk::<4>()?) as usize;
        let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
        let body = bytes.get(16..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The attributes (kind, value) in a piece of a message.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & 0x3fff;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_padded_and_comes_apart_again() {
        let bytes = Message::new(16, REQUEST, &[1, 2, 3, 4])
            .with(3, b"eth0\0")
            .with(4, &[9; 4])
            .finish(7);
        assert_eq!(bytes.len(), 16 + 4 + 12 + 8);
        let (kind, body) = split(&bytes).next().unwrap();
        assert_eq!((kind, &body[..4]), (16, &[1, 2, 3, 4][..]));
        let list: Vec<_> = attributes(&body[4..]).collect();
        assert_eq!(list, [(3, &b"eth0\0"[..]), (4, &[9; 4][..])]);
    }

    #[test]
    fn a_cut_or_lying_message_gives_nothing() {
        assert_eq!(split(&[255, 0, 0, 0, 1, 0]).count(), 0);
        assert_eq!(split(&[0; 16]).count(), 0, "a length of 0 ends it");
        assert_eq!(attributes(&[2, 0, 1, 0]).count(), 0);
    }
}
