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
            Next::More => {
                tokio::select! {
                    () = tokio::task::yield_now() => {}
                    gone = sender.closed() => return Err(gone.to_string()),
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::partition::Partition;
    use link::{KeyStore, Options, StreamEvent, accept, dial};
    use std::cell::Cell;
    use wire::handshake::{Credentials, KeyState, NewSession};
    use wire::keys::{Identity, Key};
    use wire::log::LogDecoder;
    use wire::message::StreamId;

    const IDENTITY: Identity = Identity {
        container: [7; 32],
        boot: 1,
    };

    struct Keys;

    impl KeyStore for Keys {
        async fn lookup(&self, _: Identity) -> Result<Option<KeyState>, String> {
            Ok(Some(KeyState::Fresh(Key::new([9; 32]))))
        }

        async fn store(&self, _: NewSession) -> Result<bool, String> {
            Ok(true)
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn others_have_their_turn_while_the_log_is_searched() {
        tokio::task::LocalSet::new().run_until(search()).await;
    }

    async fn search() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(32 << 20).unwrap();
        let partition = Partition::open(file.path(), 0).unwrap();
        let recorder = Recorder::open(partition, 1).unwrap();
        recorder.start(crate::io::now(), 1).unwrap();
        let segments = 64;
        for n in 0..segments * 4 {
            recorder.room().await;
            if n % 40 == 0 {
                let line = Bytes::from(format!("line {}\n", n / 40));
                recorder.output(Stream::Stderr, &line).unwrap();
            }
            recorder
                .output(Stream::Stdout, &vec![b'x'; 64_000].into())
                .unwrap();
        }
        let end = journal::Exit {
            code: 0,
            oom: false,
            at: crate::io::now(),
            reason: String::new(),
        };
        recorder.exit(&end).unwrap();

        let (guest, host) = tokio::io::duplex(64 * 1024);
        let mut credentials = Credentials::new(IDENTITY, Key::new([9; 32]));
        let (guest, host) = tokio::join!(
            dial(guest, &mut credentials, Options::default()),
            accept(host, &Keys, None, Options::default())
        );
        let (guest, (_, host)) = (guest.unwrap(), host.unwrap());
        let turns = Rc::new(Cell::new(0));
        let others = tokio::task::spawn_local({
            let turns = Rc::clone(&turns);
            async move {
                loop {
                    turns.set(turns.get() + 1);
                    tokio::task::yield_now().await;
                }
            }
        });
        let all = LogRange {
            stdout: false,
            stderr: true,
            since: 0,
            until: 0,
            tail: None,
            follow: false,
        };
        let tail = |lines| LogRange {
            tail: Some(lines),
            ..all
        };
        let mut id = 0;
        for (range, lines, least) in [
            (all, 0..7, segments),
            (tail(u64::MAX), 0..7, 2 * segments),
            (tail(7), 0..7, 2 * segments),
            (tail(2), 5..7, segments / 4),
        ] {
            id += 1;
            let (_, mut received) = host.open(StreamId(id)).unwrap();
            let (sender, _) = guest.open(StreamId(id)).unwrap();
            let before = turns.get();
            send(Rc::clone(&recorder), range, sender).await.unwrap();
            let had = turns.get() - before;
            assert!(had >= least, "{range:?}: {had} turns");
            let mut records = LogDecoder::new();
            while let Some(event) = received.recv().await.unwrap() {
                if let StreamEvent::Data(_, bytes) = event {
                    records.push(&bytes);
                }
            }
            let mut text = String::new();
            while let Some(record) = records.next_record().unwrap() {
                assert_eq!(record.channel, Channel::Stderr);
                text += std::str::from_utf8(&record.bytes).unwrap();
            }
            let expected: String = lines.map(|n| format!("line {n}\n")).collect();
            assert_eq!(text, expected, "{range:?}");
        }
        others.abort();
    }
}
