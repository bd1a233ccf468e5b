//! `docker logs`: records of the journal on a stream of their own.

use crate::io::follow::{Follower, Next};
use crate::io::record::Recorder;
use bytes::{Bytes, BytesMut};
use journal::{Query, Stream};
use link::StreamSender;
use std::rc::Rc;
use wire::log::{LOG_HEADER, LogRecord};
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
    let query = Query {
        stdout: range.stdout,
        stderr: range.stderr,
        since: range.since,
        until: range.until,
        tail: range.tail,
    };
    let mut follower = Follower::new(recorder.clone(), &query).map_err(broken)?;
    loop {
        // Marked before reading: what is written meanwhile wakes this again.
        written.borrow_and_update();
        let over = recorder.is_over();
        match follower.read().map_err(broken)? {
            Next::Output { stream, at, bytes } => {
                send_record(&mut sender, stream, at, bytes).await?;
            }
            Next::End if range.follow && !over => {
                tokio::select! {
                    changed = written.changed() => if changed.is_err() { break },
                    gone = sender.closed() => return Err(gone.to_string()),
                }
            }
            Next::End | Next::Over => break,
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
    let pieces = if bytes.len() < COPY {
        let mut out = BytesMut::with_capacity(LOG_HEADER + bytes.len());
        LogRecord { channel, at, bytes }.encode(&mut out);
        [out.freeze(), Bytes::new()]
    } else {
        let header = wire::log::header(channel, at, bytes.len());
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
