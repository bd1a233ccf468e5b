//! Records of the journal as they travel on a `Logs` stream.
//!
//! Each is a header of 13 bytes, then its bytes: u32 length of what follows it (little-endian),
//! u8 channel (1 stdout, 2 stderr), u64 time (little-endian).

use crate::message::Channel;
use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Most bytes in one record.
pub const LOG_RECORD_MAX: usize = 64 * 1024;
/// Length of a record's header in bytes.
pub const LOG_HEADER: usize = 13;

/// One record of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Stdout or Stderr.
    pub channel: Channel,
    /// When it was read from the process, ns since 1970.
    pub at: u64,
    /// The bytes as written; not cut into lines. At most [`LOG_RECORD_MAX`].
    pub bytes: Bytes,
}

/// Not a stream of log records.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LogError {
    /// The length is out of its bounds.
    #[error("a log record of {0} bytes; at most {LOG_RECORD_MAX} are allowed")]
    Length(u32),
    /// The channel is none that logs have.
    #[error("a log record on channel {0}; only 1 (stdout) and 2 (stderr) are allowed")]
    Channel(u8),
}

impl LogRecord {
    /// Appends the record to `out`. Bytes over [`LOG_RECORD_MAX`] go into further records.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut rest = &self.bytes[..];
        loop {
            let (now, later) = rest.split_at(rest.len().min(LOG_RECORD_MAX));
            out.extend_from_slice(&header(self.channel, self.at, now.len()));
            out.extend_from_slice(now);
            rest = later;
            if rest.is_empty() {
                return;
            }
        }
    }
}

/// The header of a record with `len` bytes (at most [`LOG_RECORD_MAX`]), for writers that have
/// the bytes elsewhere.
pub fn header(channel: Channel, at: u64, len: usize) -> [u8; LOG_HEADER] {
    let mut header = [0; LOG_HEADER];
    header[..4].copy_from_slice(&((len + LOG_HEADER - 4) as u32).to_le_bytes());
    header[4] = match channel {
        Channel::Stdin => 0,
        Channel::Stdout => 1,
        Channel::Stderr => 2,
    };
    header[5..].copy_from_slice(&at.to_le_bytes());
    header
}

/// Cuts the bytes of a `Logs` stream into records.
#[derive(Debug, Default)]
pub struct LogDecoder {
    buffer: BytesMut,
}

impl LogDecoder {
    /// A decoder at the start of a stream.
    pub fn new() -> LogDecoder {
        LogDecoder::default()
    }

    /// Takes the next bytes of the stream. Call [`LogDecoder::next_record`] until it gives `None`
    /// after each, so that no more than one record is ever kept here.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole record, if there is one.
    pub fn next_record(&mut self) -> Result<Option<LogRecord>, LogError> {
        let Some((length, _)) = self.buffer.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length);
        let body = length as usize;
        if !(LOG_HEADER - 4..=LOG_RECORD_MAX + LOG_HEADER - 4).contains(&body) {
            return Err(LogError::Length(length));
        }
        if self.buffer.len() < 4 + body {
            self.buffer.reserve(4 + body - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(4);
        let mut body = self.buffer.split_to(body).freeze();
        let channel = match body.get_u8() {
            1 => Channel::Stdout,
            2 => Channel::Stderr,
            other => return Err(LogError::Channel(other)),
        };
        let at = body.get_u64_le();
        Ok(Some(LogRecord {
            channel,
            at,
            bytes: body,
        }))
    }

    /// Bytes of an unfinished record; not 0 at the end of a stream means that it was cut.
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = LogRecord> {
        (
            any::<bool>(),
            any::<u64>(),
            proptest::collection::vec(any::<u8>(), 0..300),
        )
            .prop_map(|(err, at, bytes)| LogRecord {
                channel: if err {
                    Channel::Stderr
                } else {
                    Channel::Stdout
                },
                at,
                bytes: bytes.into(),
            })
    }

    proptest! {
        #[test]
        fn records_come_back_however_the_stream_is_cut(
            records in proptest::collection::vec(record(), 0..20), cut in 1usize..50,
        ) {
            let mut stream = BytesMut::new();
            records.iter().for_each(|r| r.encode(&mut stream));
            let (mut decoder, mut back) = (LogDecoder::new(), Vec::new());
            for piece in stream.chunks(cut) {
                decoder.push(piece);
                while let Some(record) = decoder.next_record().unwrap() {
                    back.push(record);
                }
            }
            prop_assert_eq!(back, records);
            prop_assert_eq!(decoder.pending(), 0);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = LogDecoder::new();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_record() {}
        }
    }

    #[test]
    fn a_hostile_length_is_refused_before_it_is_allocated() {
        let mut decoder = LogDecoder::new();
        decoder.push(&u32::MAX.to_le_bytes());
        assert_eq!(decoder.next_record(), Err(LogError::Length(u32::MAX)));
    }

    #[test]
    fn more_than_a_record_holds_is_split() {
        let mut out = BytesMut::new();
        let bytes = Bytes::from(vec![7; LOG_RECORD_MAX + 1]);
        LogRecord {
            channel: Channel::Stdout,
            at: 1,
            bytes,
        }
        .encode(&mut out);
        let mut decoder = LogDecoder::new();
        decoder.push(&out);
        assert_eq!(
            decoder.next_record().unwrap().unwrap().bytes.len(),
            LOG_RECORD_MAX
        );
        assert_eq!(decoder.next_record().unwrap().unwrap().bytes.len(), 1);
        assert_eq!(decoder.next_record().unwrap(), None);
    }
}
