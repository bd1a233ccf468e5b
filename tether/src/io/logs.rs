//! `docker logs`: records of the journal on a stream of their own.

use crate::io::record::Recorder;
use bytes::Bytes;
use journal::{Found, Pass, Query, Stream};
use link::StreamSender;
use std::rc::Rc;
use wire::message::{Channel, LogRange};

/// Bytes up to which a record is copied behind its header rather than sent as a frame of its own.
const COPY: usize = 4096;

/// Sends the range, following if asked until the exit record; the journal's writer never waits for it.
///
/// # Errors
/// Text for the console: the peer is gone, or the journal cannot be read.
pub async fn send(
    recorder: Rc<Recorder>,
    range: LogRange,
    mut sender: StreamSender,
) -> Result<(), String> {
    let broken = |e: journal::JournalError| e.to_string();
    let mut written = recorder.written();
    let mut reader = recorder.reader().map_err(broken)?;
    let query = Query {
        stdout: range.stdout,
        stderr: range.stderr,
        since: range.since,
        until: range.until,
        tail: range.tail,
    };
    let mut cursor = reader.query(&query).map_err(broken)?;
    loop {
        // Marked before reading: what is written meanwhile wakes this again.
        written.borrow_and_update();
        let over = recorder.is_over();
        let found = match recorder.recent(cursor.position()) {
            Some(record) => {
                let (stream, at) = (record.stream, record.at);
                match cursor.pass(stream, at, record.bytes.len(), record.next) {
                    Pass::From(from) => {
                        let bytes = record.bytes.slice(from..);
                        send_record(&mut sender, stream, at, bytes).await?;
                        continue;
                    }
                    Pass::Nothing => continue,
                    Pass::Over => Found::Over,
                }
            }
            None => reader.next(&mut cursor).map_err(broken)?,
        };
        match found {
            Found::Output { stream, at, bytes } => {
                send_record(&mut sender, stream, at, bytes.into()).await?;
            }
            Found::Lost(_) => {}
            Found::End if range.follow && !over => {
                tokio::select! {
                    changed = written.changed() => if changed.is_err() { break },
                    gone = sender.closed() => return Err(gone.to_string()),
                }
            }
            Found::End | Found::Over => break,
        }
    }
    sender.end(Channel::Stdout, 0).map_err(|e| e.to_string())
}

/// One record on its way; large ones are not copied.
async fn send_record(
    sender: &mut StreamSender,
    stream: Stream,
    at: u64,
    bytes: Bytes,
) -> Result<(), String> {
    const _: () = assert!(journal::OUTPUT_MAX <= wire::log::LOG_RECORD_MAX);
    let channel = match stream {
        Stream::Stdout => Channel::Stdout,
        Stream::Stderr => Channel::Stderr,
    };
    let header = wire::log::header(channel, at, bytes.len());
    let pieces = if bytes.len() < COPY {
        [[&header[..], &bytes].concat().into(), Bytes::new()]
    } else {
        [Bytes::copy_from_slice(&header), bytes]
    };
    for piece in pieces {
        sender
            .send(Channel::Stdout, piece)
            .await
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}
