//! Docker's way to carry stdout and stderr on one connection (Engine API, "Attach to a
//! container", "Stream format"): 8 bytes of header before each piece; nothing with a terminal.

use bytes::{BufMut, Bytes, BytesMut};
use wire::message::Channel;

/// How output is put on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// A terminal's output, as it is.
    Raw,
    /// Stdout and stderr, with headers.
    Multiplexed,
}

impl Framing {
    /// The framing of a process with or without terminal.
    pub fn of(tty: bool) -> Self {
        if tty { Self::Raw } else { Self::Multiplexed }
    }

    /// The header that goes before `length` bytes of a channel; empty where there is none.
    pub fn header(self, channel: Channel, length: usize) -> Bytes {
        match self {
            Self::Raw => Bytes::new(),
            Self::Multiplexed => {
                let kind = match channel {
                    Channel::Stdin => 0,
                    Channel::Stdout => 1,
                    Channel::Stderr => 2,
                };
                let mut out = BytesMut::with_capacity(8);
                out.put_u8(kind);
                out.put_bytes(0, 3);
                // A piece comes out of a frame of the link, far below 4 GiB.
                out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
                out.freeze()
            }
        }
    }

    /// A piece with its header.
    pub fn frame(self, channel: Channel, bytes: &[u8]) -> Bytes {
        let header = self.header(channel, bytes.len());
        let mut out = BytesMut::with_capacity(header.len() + bytes.len());
        out.extend_from_slice(&header);
        out.extend_from_slice(bytes);
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_dockers() {
        let framed = Framing::Multiplexed.frame(Channel::Stderr, b"abc");
        assert_eq!(&framed[..], b"\x02\0\0\0\0\0\0\x03abc");
        assert_eq!(&Framing::Raw.frame(Channel::Stdout, b"abc")[..], b"abc");
    }
}
