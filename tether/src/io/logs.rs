//! `docker logs`: records of the journal on a stream of their own.

use crate::io::record::Recorder;
use bytes::BytesMut;
use journal::{Found, Query, Stream};
use link::{SendError, StreamSender};
use std::rc::Rc;
use wire::log::{LOG_HEADER, LogRecord};
use wire::message::{Channel, LogRange};

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
        match reader.next(&mut cursor).map_err(broken)? {
            Found::Output { stream, at, bytes } => {
                let channel = if stream == Stream::Stderr {
                    Channel::Stderr
                } else {
                    Channel::Stdout
                };
                let mut record = BytesMut::with_capacity(bytes.len() + LOG_HEADER);
                LogRecord {
                    channel,
                    at,
                    bytes: bytes.into(),
                }
                .encode(&mut record);
                sender
                    .send(Channel::Stdout, record.freeze())
                    .await
                    .map_err(|e: SendError| e.to_string())?;
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
