//! Packets of the serial transport, and finding them in a pipe that also carries noise.
//!
//! Layout (little-endian): magic `A6 4D`, u8 kind, u16 length of the payload, u32 connection,
//! u32 sequence, u32 acknowledged, u16 window in KiB, u16 total and u8 cell (data), payload,
//! u32 CRC-32 of everything before it but the magic.

use memchr::memchr;

const MAGIC: [u8; 2] = [0xa6, 0x4d];
/// Bytes of a packet beside its payload.
pub(super) const OVERHEAD: usize = HEADER + 4;
const HEADER: usize = 22;
/// Longest payload.
pub(super) const PAYLOAD_MAX: usize = 1024;
/// Shortest payload that packets are cut to.
pub(super) const PAYLOAD_MIN: usize = 64;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The dialer begins a connection.
    Open = 1,
    /// The listener has it.
    Opened = 2,
    /// A part of a frame: all of it, or cells of it.
    Data = 3,
    /// A frame without bytes: the end of the sender's stream.
    Finish = 4,
    /// What was received; the payload is a bitmap of what is there behind the acknowledged.
    Ack = 5,
    /// The connection of this number does not exist here (any more).
    Reset = 6,
    /// The listener asks what connection there is: it is new, or its pipe is.
    Probe = 7,
    /// The dialer's answer where it has one. Open and Resume bear the connection's token.
    Resume = 8,
}

/// A packet's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) kind: Kind,
    pub(super) connection: u32,
    /// Data, Finish: number of the frame. Ack: the newest transmission that came.
    pub(super) sequence: u32,
    /// Ack: all frames before this one are there. Data, Finish: number of this transmission.
    pub(super) acknowledged: u32,
    /// KiB that the sender takes.
    pub(super) window: u16,
    /// Data: bytes of the whole frame.
    pub(super) total: u16,
    /// Data: where in the frame the payload begins, in cells of 64 bytes.
    pub(super) cell: u8,
}

impl Packet {
    pub(super) fn encode(&self, payload: &[u8], out: &mut Vec<u8>) {
        let start = out.len() + 2;
        out.extend_from_slice(&MAGIC);
        out.push(self.kind as u8);
        out.extend_from_slice(&(payload.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.connection.to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.acknowledged.to_le_bytes());
        out.extend_from_slice(&self.window.to_le_bytes());
        out.extend_from_slice(&self.total.to_le_bytes());
        out.push(self.cell);
        out.extend_from_slice(payload);
        let crc = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }
}

/// Finds packets in what a pipe delivers.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    buffer: Vec<u8>,
    at: usize,
}

impl Scanner {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        // What was scanned goes before the buffer grows: it never holds more than this and a packet.
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Forgets a half packet: the pipe is another one.
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
        self.at = 0;
    }

    /// The next whole and valid packet, with its payload.
    pub(super) fn next_packet(&mut self) -> Option<(Packet, &[u8])> {
        loop {
            let rest = &self.buffer[self.at..];
            match memchr(MAGIC[0], rest) {
                Some(skip) => self.at += skip,
                None => {
                    self.at = self.buffer.len();
                    return None;
                }
            }
            let rest = &self.buffer[self.at..];
            if rest.len() < 5 {
                // Not even a length: is it one so far?
                if rest.get(1).is_some_and(|byte| *byte != MAGIC[1]) {
                    self.at += 1;
                    continue;
                }
                return None;
            }
            let length = usize::from(u16::from_le_bytes([rest[3], rest[4]]));
            let Some(kind) = kind(rest[2]).filter(|_| rest[1] == MAGIC[1] && length <= PAYLOAD_MAX)
            else {
                self.at += 1;
                continue;
            };
            let whole = OVERHEAD + length;
            if rest.len() < whole {
                return None;
            }
            let crc = u32_at(rest, whole - 4);
            if crc32fast::hash(&rest[2..whole - 4]) != crc {
                // Not the length's word either: only the first byte is known to be none.
                self.at += 1;
                continue;
            }
            let packet = Packet {
                kind,
                connection: u32_at(rest, 5),
                sequence: u32_at(rest, 9),
                acknowledged: u32_at(rest, 13),
                window: u16::from_le_bytes([rest[17], rest[18]]),
                total: u16::from_le_bytes([rest[19], rest[20]]),
                cell: rest[21],
            };
            let from = self.at + HEADER;
            self.at += whole;
            return Some((packet, &self.buffer[from..from + length]));
        }
    }
}

fn kind(number: u8) -> Option<Kind> {
    Some(match number {
        1 => Kind::Open,
        2 => Kind::Opened,
        3 => Kind::Data,
        4 => Kind::Finish,
        5 => Kind::Ack,
        6 => Kind::Reset,
        7 => Kind::Probe,
        8 => Kind::Resume,
        _ => return None,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
