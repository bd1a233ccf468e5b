//! Frames on a reliable byte stream.
//!
//! A frame is u32 length of what follows (little-endian), u8 kind, then by kind:
//!
//! | kind | frame | body |
//! | --- | --- | --- |
//! | 1 | handshake | a message of [`crate::handshake`] |
//! | 2 | control | a message of [`crate::message`] |
//! | 3 | data | u32 stream, u8 channel, bytes |
//! | 4 | open | u32 stream, u32 window |
//! | 5 | credit | u32 stream, u32 credit |
//! | 6 | end | u32 stream, u8 channel, u64 left |
//! | 7 | finish | u32 stream |
//! | 8 | drop | u32 stream |
//! | 9, 10 | ping, pong | u64 token |

use crate::handshake;
use crate::message::{Channel, MESSAGE_MAX};
use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Most bytes in one data frame.
pub const DATA_MAX: usize = 64 * 1024;
/// Longest header in bytes: all of a frame but the bytes of handshake, control and data.
pub const HEADER_MAX: usize = 18;

/// Data shorter than this is copied out of the receive buffer, so that a few bytes kept in a
/// stream's queue do not keep the whole buffer.
const COPY_BELOW: usize = 8 * 1024;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A handshake message; only before the session stands.
    Handshake(Bytes),
    /// An encoded control message.
    Control(Bytes),
    /// Bytes of a stream.
    Data {
        /// The stream.
        stream: u32,
        /// The channel.
        channel: Channel,
        /// At most [`DATA_MAX`]; never empty.
        bytes: Bytes,
    },
    /// The sender of this frame opened the stream and takes so much.
    Open {
        /// The stream.
        stream: u32,
        /// Initial credit.
        window: u32,
    },
    /// The sender of this frame takes so much more.
    Credit {
        /// The stream.
        stream: u32,
        /// Further credit.
        credit: u32,
    },
    /// A channel is complete.
    End {
        /// The stream.
        stream: u32,
        /// The channel.
        channel: Channel,
        /// Bytes that were made but not sent.
        left: u64,
    },
    /// Nothing more comes on this stream.
    Finish {
        /// The stream.
        stream: u32,
    },
    /// The sender of this frame no longer reads this stream.
    Drop {
        /// The stream.
        stream: u32,
    },
    /// To be answered with a pong of the same token.
    Ping(u64),
    /// The answer: everything before the ping was received.
    Pong(u64),
}

/// Bytes that are no frame.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// No such kind.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// The length does not fit the kind.
    #[error("a frame of kind {kind} with {length} bytes")]
    Length {
        /// The kind.
        kind: u8,
        /// The length it announced.
        length: u32,
    },
    /// No such channel.
    #[error("unknown channel {0}")]
    Channel(u8),
}

/// Number of a channel on the wire.
pub fn channel_number(channel: Channel) -> u8 {
    match channel {
        Channel::Stdin => 0,
        Channel::Stdout => 1,
        Channel::Stderr => 2,
    }
}

fn channel_of(number: u8) -> Result<Channel, FrameError> {
    match number {
        0 => Ok(Channel::Stdin),
        1 => Ok(Channel::Stdout),
        2 => Ok(Channel::Stderr),
        other => Err(FrameError::Channel(other)),
    }
}

/// The header of a frame on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    bytes: [u8; HEADER_MAX],
    len: usize,
}

impl Header {
    fn new(kind: u8, payload: usize) -> Header {
        let mut header = Header {
            bytes: [0; HEADER_MAX],
            len: 4,
        };
        header.put(&[kind]);
        // The payload's length for now; `done` adds what follows it in the header.
        header.bytes[..4].copy_from_slice(&(payload as u32).to_le_bytes());
        header
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Header {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        self
    }

    fn done(mut self) -> Header {
        let [a, b, c, d, ..] = self.bytes;
        let length = u32::from_le_bytes([a, b, c, d]) + (self.len - 4) as u32;
        self.bytes[..4].copy_from_slice(&length.to_le_bytes());
        self
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Frame {
    /// The frame as header and payload, so that the payload need not be copied.
    pub fn into_parts(self) -> (Header, Bytes) {
        let stream_header = |kind, stream: u32, payload| {
            let mut header = Header::new(kind, payload);
            header.put(&stream.to_le_bytes());
            header
        };
        let (header, payload) = match self {
            Frame::Handshake(bytes) => (Header::new(1, bytes.len()), bytes),
            Frame::Control(bytes) => (Header::new(2, bytes.len()), bytes),
            Frame::Data {
                stream,
                channel,
                bytes,
            } => {
                let mut header = stream_header(3, stream, bytes.len());
                header.put(&[channel_number(channel)]);
                (header, bytes)
            }
            Frame::Open {
                stream,
                window: number,
            }
            | Frame::Credit {
                stream,
                credit: number,
            } => {
                let kind = if matches!(self, Frame::Open { .. }) {
                    4
                } else {
                    5
                };
                let mut header = stream_header(kind, stream, 0);
                header.put(&number.to_le_bytes());
                (header, Bytes::new())
            }
            Frame::End {
                stream,
                channel,
                left,
            } => {
                let mut header = stream_header(6, stream, 0);
                header
                    .put(&[channel_number(channel)])
                    .put(&left.to_le_bytes());
                (header, Bytes::new())
            }
            Frame::Finish { stream } => (stream_header(7, stream, 0), Bytes::new()),
            Frame::Drop { stream } => (stream_header(8, stream, 0), Bytes::new()),
            Frame::Ping(token) | Frame::Pong(token) => {
                let kind = if matches!(self, Frame::Ping(_)) {
                    9
                } else {
                    10
                };
                let mut header = Header::new(kind, 0);
                header.put(&token.to_le_bytes());
                (header, Bytes::new())
            }
        };
        (header.done(), payload)
    }

    /// Appends the whole frame to `out`.
    pub fn encode(self, out: &mut BytesMut) {
        let (header, payload) = self.into_parts();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&payload);
    }
}

/// Takes the next whole frame off the front of `buffer`; `Ok(None)`: more bytes are needed.
/// The length is checked against the kind before anything waits for it.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    if buffer.len() < 5 {
        return Ok(None);
    }
    let length = u32::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
    let kind = buffer[4];
    // Bounds of the body, without the kind.
    let (min, max) = match kind {
        1 => (1, handshake::MESSAGE_MAX),
        2 => (1, MESSAGE_MAX),
        3 => (6, 5 + DATA_MAX),
        4 | 5 => (8, 8),
        6 => (13, 13),
        7 | 8 => (4, 4),
        9 | 10 => (8, 8),
        other => return Err(FrameError::Kind(other)),
    };
    let body = (length as usize)
        .checked_sub(1)
        .filter(|body| (min..=max).contains(body));
    let Some(body) = body else {
        return Err(FrameError::Length { kind, length });
    };
    if buffer.len() < 5 + body {
        return Ok(None);
    }
    buffer.advance(5);
    let mut body = buffer.split_to(body);
    Ok(Some(match kind {
        1 => Frame::Handshake(body.freeze()),
        2 => Frame::Control(Bytes::copy_from_slice(&body)),
        3 => {
            let (stream, channel) = (body.get_u32_le(), channel_of(body.get_u8())?);
            let bytes = if body.len() < COPY_BELOW {
                Bytes::copy_from_slice(&body)
            } else {
                body.freeze()
            };
            Frame::Data {
                stream,
                channel,
                bytes,
            }
        }
        4 => Frame::Open {
            stream: body.get_u32_le(),
            window: body.get_u32_le(),
        },
        5 => Frame::Credit {
            stream: body.get_u32_le(),
            credit: body.get_u32_le(),
        },
        6 => {
            let (stream, channel) = (body.get_u32_le(), channel_of(body.get_u8())?);
            Frame::End {
                stream,
                channel,
                left: body.get_u64_le(),
            }
        }
        7 => Frame::Finish {
            stream: body.get_u32_le(),
        },
        8 => Frame::Drop {
            stream: body.get_u32_le(),
        },
        9 => Frame::Ping(body.get_u64_le()),
        _ => Frame::Pong(body.get_u64_le()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn channel() -> impl Strategy<Value = Channel> {
        prop_oneof![
            Just(Channel::Stdin),
            Just(Channel::Stdout),
            Just(Channel::Stderr)
        ]
    }

    pub(crate) fn frame() -> impl Strategy<Value = Frame> {
        let bytes = |max| proptest::collection::vec(any::<u8>(), 1..max).prop_map(Bytes::from);
        prop_oneof![
            bytes(90).prop_map(Frame::Handshake),
            bytes(300).prop_map(Frame::Control),
            (any::<u32>(), channel(), bytes(20_000)).prop_map(|(stream, channel, bytes)| {
                Frame::Data {
                    stream,
                    channel,
                    bytes,
                }
            }),
            (any::<u32>(), any::<u32>())
                .prop_map(|(stream, window)| Frame::Open { stream, window }),
            (any::<u32>(), any::<u32>())
                .prop_map(|(stream, credit)| Frame::Credit { stream, credit }),
            (any::<u32>(), channel(), any::<u64>()).prop_map(|(stream, channel, left)| {
                Frame::End {
                    stream,
                    channel,
                    left,
                }
            }),
            any::<u32>().prop_map(|stream| Frame::Finish { stream }),
            any::<u32>().prop_map(|stream| Frame::Drop { stream }),
            any::<u64>().prop_map(Frame::Ping),
            any::<u64>().prop_map(Frame::Pong),
        ]
    }

    proptest! {
        #[test]
        fn frames_come_back_however_the_stream_is_cut(
            frames in proptest::collection::vec(frame(), 0..12), cut in 1usize..5000,
        ) {
            let mut stream = BytesMut::new();
            frames.iter().for_each(|f| f.clone().encode(&mut stream));
            let (mut buffer, mut back) = (BytesMut::new(), Vec::new());
            for piece in stream.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = decode(&mut buffer).unwrap() {
                    back.push(frame);
                }
            }
            prop_assert_eq!(back, frames);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer) {}
        }
    }

    #[test]
    fn an_oversized_length_is_refused_from_its_header_alone() {
        let mut buffer = BytesMut::from(&[0xff, 0xff, 0xff, 0x7f, 3][..]);
        assert_eq!(
            decode(&mut buffer),
            Err(FrameError::Length {
                kind: 3,
                length: 0x7fff_ffff
            })
        );
        let mut buffer = BytesMut::from(&[0, 0, 0, 0, 3][..]);
        assert_eq!(
            decode(&mut buffer),
            Err(FrameError::Length { kind: 3, length: 0 })
        );
    }

    #[test]
    fn bytes_on_the_wire_are_pinned() {
        let mut out = BytesMut::new();
        let bytes = Bytes::from_static(b"hi");
        Frame::Data {
            stream: 0x0102,
            channel: Channel::Stderr,
            bytes,
        }
        .encode(&mut out);
        Frame::Credit {
            stream: 3,
            credit: 0x1_0000,
        }
        .encode(&mut out);
        assert_eq!(
            &out[..],
            b"\x08\0\0\0\x03\x02\x01\0\0\x02hi\x09\0\0\0\x05\x03\0\0\0\0\0\x01\0"
        );
    }
}
