//! `GET /containers/{id}/logs`: from the tether while the VM is on, else from the disk.

use super::{
    Target, framing::Framing, half_closed::Finite, hijack::Connection, version::ApiVersion,
};
use crate::{
    app::App,
    containers::{Container, Containers},
    errors::{Error, Kind, Result},
    timestamps,
};
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use journal::{Found, Stream as Written};
use std::{collections::HashMap, io, sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt, sync::mpsc};
use wire::{
    log::LogDecoder,
    message::{Channel, LogRange, Reply, ToGuest},
};

/// Pieces that wait for a slow client.
const QUEUE: usize = 16;
/// A VM whose link is away gets this long to dial, for a client that does not follow.
const LINK_LIMIT: Duration = Duration::from_secs(60);

/// What of a log is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    range: LogRange,
    stamps: bool,
    /// `--details`: what the log driver was told to keep of the container, before each line; nothing here.
    details: bool,
    framing: Framing,
}

pub(super) async fn logs(at: Target, version: ApiVersion) -> Result<Response> {
    let (container, query) = (at.container, at.query);
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(Error::bad(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    if container.spec.options.log.none {
        return Err(Error::new(
            Kind::NotImplemented,
            "configured logging driver does not support reading",
        ));
    }
    let now = timestamps::now();
    let tty = container.spec.config.tty;
    let wanted = Wanted {
        range: LogRange {
            stdout,
            stderr,
            since: timestamps::parse(query.text("since"), now)?,
            until: timestamps::parse(query.text("until"), now)?,
            // Docker takes what is no number for `all`.
            tail: query.text("tail").parse().ok(),
            follow: query.flag("follow"),
        },
        stamps: query.flag("timestamps"),
        details: query.flag("details"),
        framing: Framing::of(tty),
    };
    let follow = wanted.range.follow;
    let receiver = produce(at.app.containers.clone(), container, wanted);
    let body = stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let mut response = Response::new(Body::from_stream(body));
    let kind = if version >= ApiVersion(1, 42) && !tty {
        "application/vnd.docker.multiplexed-stream"
    } else {
        "application/vnd.docker.raw-stream"
    };
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if !follow {
        response.extensions_mut().insert(Finite);
    }
    Ok(response)
}

/// Writes what is in the log so far to an attached client.
pub(super) async fn replay(
    app: &Arc<App>,
    container: &Arc<Container>,
    stdout: bool,
    stderr: bool,
    connection: &mut Connection,
) -> io::Result<()> {
    let range = LogRange {
        stdout,
        stderr,
        since: 0,
        until: 0,
        tail: None,
        follow: false,
    };
    let framing = Framing::of(container.spec.config.tty);
    let mut receiver = produce(
        app.containers.clone(),
        container.clone(),
        Wanted {
            range,
            stamps: false,
            details: false,
            framing,
        },
    );
    while let Some(piece) = receiver.recv().await {
        connection.write_all(&piece?).await?;
    }
    connection.flush().await
}

fn produce(
    containers: Arc<Containers>,
    container: Arc<Container>,
    wanted: Wanted,
) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let mut output = Output {
        sender: sender.clone(),
        wanted,
        mid_line: HashMap::new(),
        last: (0, 0),
        skip: (0, 0),
        delivered: false,
        asked: timestamps::now(),
    };
    tokio::spawn(async move {
        if let Err(End::Failed(error)) = output.run(&containers, &container).await {
            tracing::warn!(id = container.id(), %error, "logs");
            let _client_is_gone = sender.send(Err(io::Error::other(error.message))).await;
        }
    });
    receiver
}

/// Why a log ends before its end.
enum End {
    /// The client is gone.
    Client,
    /// The link is gone; it may come back.
    Link,
    /// It cannot be read.
    Failed(Error),
}

struct Output {
    sender: mpsc::Sender<io::Result<Bytes>>,
    wanted: Wanted,
    /// Channels whose last delivered byte was no end of line.
    mid_line: HashMap<bool, bool>,
    /// Time of the last record that was delivered, and how many of that time were.
    last: (u64, u64),
    /// After a break: so many records of this time were delivered before.
    skip: (u64, u64),
    delivered: bool,
    /// When the log was asked for.
    asked: u64,
}

impl Output {
    async fn run(
        &mut self,
        containers: &Arc<Containers>,
        container: &Arc<Container>,
    ) -> Result<(), End> {
        loop {
            let status = container.status();
            if status.gone {
                return Ok(());
            }
            if let Some(session) = status.session {
                match self.live(&session).await {
                    Err(End::Link) => self.resume(),
                    other => return other,
                }
                let lost = Arc::downgrade(&session);
                drop(session);
                self.wait(container, |status| {
                    status
                        .session
                        .as_ref()
                        .is_none_or(|now| !std::ptr::eq(Arc::as_ptr(now), lost.as_ptr()))
                })
                .await?;
            } else if status.on {
                self.wait(container, |status| status.session.is_some() || !status.on)
                    .await?;
            } else {
                return self.stored(containers, container).await;
            }
        }
    }

    async fn wait(
        &self,
        container: &Container,
        test: impl FnMut(&crate::containers::state::Status) -> bool,
    ) -> Result<(), End> {
        let mut test = test;
        let limit = (!self.wanted.range.follow).then_some(LINK_LIMIT);
        tokio::select! {
            found = container.until(limit, |status| status.gone || test(status)) => found.map(drop).ok_or_else(|| {
                End::Failed(Error::unavailable("the link to the container's VM is away; repeat the command"))
            }),
            () = self.sender.closed() => Err(End::Client),
        }
    }

    /// Goes on behind what was delivered.
    fn resume(&mut self) {
        if self.delivered {
            self.wanted.range.since = self.last.0;
            self.wanted.range.tail = None;
            self.skip = self.last;
        } else if self.wanted.range.tail == Some(0) {
            // None of what was there; but all that came since.
            self.wanted.range.since = self.wanted.range.since.max(self.asked);
            self.wanted.range.tail = None;
        }
    }

    async fn live(&mut self, session: &crate::link::Session) -> Result<(), End> {
        let (stream, both) = session.open().map_err(|_| End::Link)?;
        let range = self.wanted.range;
        match session
            .request(|request| ToGuest::Logs {
                request,
                stream,
                range,
            })
            .await
        {
            Ok(Reply::Done) => {}
            Ok(Reply::Error(message)) => return Err(End::Failed(Error::internal(message))),
            Ok(other) => {
                return Err(End::Failed(Error::internal(format!(
                    "unexpected answer of the guest: {other:?}"
                ))));
            }
            Err(_) => return Err(End::Link),
        }
        let mut receiver = both.receiver;
        let mut decoder = LogDecoder::new();
        loop {
            let event = tokio::select! {
                event = receiver.recv() => event,
                () = self.sender.closed() => return Err(End::Client),
            };
            match event {
                Ok(Some(link::StreamEvent::Data(_, bytes))) => {
                    decoder.push(&bytes);
                    while let Some(record) = decoder.next_record().map_err(|e| {
                        End::Failed(Error::internal(format!("the guest's log: {e}")))
                    })? {
                        let piece = self.piece(record.channel, record.at, &record.bytes);
                        self.send(piece).await?;
                    }
                }
                Ok(Some(link::StreamEvent::End { .. }) | None) => return Ok(()),
                Err(_) => return Err(End::Link),
            }
        }
    }

    async fn stored(
        &mut self,
        containers: &Arc<Containers>,
        container: &Arc<Container>,
    ) -> Result<(), End> {
        let (records, mut receiver) = mpsc::channel(QUEUE);
        let range = self.wanted.range;
        let (containers, container) = (containers.clone(), container.clone());
        let reading = tokio::task::spawn_blocking(move || {
            read_stored(&containers, &container, range, &records)
        });
        while let Some((channel, at, bytes)) = receiver.recv().await {
            let piece = self.piece(channel, at, &bytes);
            self.send(piece).await?;
        }
        match reading.await {
            Ok(result) => result.map_err(End::Failed),
            Err(error) => Err(End::Failed(Error::internal(format!(
                "reading a journal: {error}"
            )))),
        }
    }

    /// A record as it goes to the client; `None` for one that was delivered before a break.
    fn piece(&mut self, channel: Channel, at: u64, bytes: &[u8]) -> Option<Bytes> {
        if self.skip.1 > 0 && at == self.skip.0 {
            self.skip.1 -= 1;
            return None;
        }
        self.delivered = true;
        self.last = if self.last.0 == at {
            (at, self.last.1 + 1)
        } else {
            (at, 1)
        };
        if !self.wanted.stamps && !self.wanted.details {
            return Some(self.wanted.framing.frame(channel, bytes));
        }
        let mid_line = self.mid_line.entry(channel == Channel::Stderr).or_default();
        let mut out = BytesMut::with_capacity(bytes.len() + 64);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !*mid_line {
                if self.wanted.stamps {
                    out.extend_from_slice(timestamps::log_stamp(at).as_bytes());
                    out.extend_from_slice(b" ");
                }
                if self.wanted.details {
                    out.extend_from_slice(b" ");
                }
            }
            out.extend_from_slice(line);
            *mid_line = line.last() != Some(&b'\n');
        }
        Some(self.wanted.framing.frame(channel, &out))
    }

    async fn send(&self, piece: Option<Bytes>) -> Result<(), End> {
        match piece {
            Some(piece) => self.sender.send(Ok(piece)).await.map_err(|_| End::Client),
            None => Ok(()),
        }
    }
}

type Stored = (Channel, u64, Vec<u8>);

fn read_stored(
    containers: &Containers,
    container: &Container,
    range: LogRange,
    records: &mpsc::Sender<Stored>,
) -> Result<()> {
    if container.status().boot() == 0 {
        return Ok(());
    }
    let failed = |e: journal::JournalError| {
        Error::internal(format!("the journal of container {}: {e}", container.id()))
    };
    let mut reader = containers.open_journal(container)?;
    let query = journal::Query {
        stdout: range.stdout,
        stderr: range.stderr,
        since: range.since,
        until: range.until,
        tail: range.tail,
    };
    let mut cursor = reader.query(&query).map_err(failed)?;
    loop {
        match reader.next(&mut cursor).map_err(failed)? {
            Found::Output { stream, at, bytes } => {
                let channel = match stream {
                    Written::Stdout => Channel::Stdout,
                    Written::Stderr => Channel::Stderr,
                };
                if records.blocking_send((channel, at, bytes)).is_err() {
                    return Ok(());
                }
            }
            Found::Lost(bytes) => tracing::debug!(bytes, "overwritten in the journal"),
            Found::End | Found::Over => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(stamps: bool) -> Output {
        let range = LogRange {
            stdout: true,
            stderr: true,
            since: 0,
            until: 0,
            tail: None,
            follow: true,
        };
        Output {
            sender: mpsc::channel(1).0,
            wanted: Wanted {
                range,
                stamps,
                details: false,
                framing: Framing::Raw,
            },
            mid_line: HashMap::new(),
            last: (0, 0),
            skip: (0, 0),
            delivered: false,
            asked: 7,
        }
    }

    #[test]
    fn of_no_last_lines_what_came_since_is_left_after_a_break() {
        let mut out = output(false);
        out.wanted.range.tail = Some(0);
        out.resume();
        let range = &out.wanted.range;
        assert_eq!((range.since, range.tail), (7, None));
    }

    #[test]
    fn each_line_gets_one_time_stamp_however_it_was_cut() {
        let mut out = output(true);
        let stamp = "1970-01-01T00:00:00.000000001Z";
        let first = out.piece(Channel::Stdout, 1, b"a\nb").unwrap();
        assert_eq!(first, format!("{stamp} a\n{stamp} b"));
        assert_eq!(
            out.piece(Channel::Stderr, 1, b"e\n").unwrap(),
            format!("{stamp} e\n")
        );
        assert_eq!(out.piece(Channel::Stdout, 2, b"c\n").unwrap(), "c\n");
    }

    #[test]
    fn details_are_none_and_a_blank_before_each_line() {
        let mut out = output(false);
        out.wanted.details = true;
        let piece = out.piece(Channel::Stdout, 1, b"a\nb").unwrap();
        assert_eq!(piece, " a\n b");
        assert_eq!(out.piece(Channel::Stdout, 2, b"c\n").unwrap(), "c\n");
    }

    #[test]
    fn after_a_break_no_record_comes_twice_and_none_is_missed() {
        let mut out = output(false);
        for (at, text) in [(5, "a"), (7, "b"), (7, "c")] {
            assert!(out.piece(Channel::Stdout, at, text.as_bytes()).is_some());
        }
        out.resume();
        assert_eq!(out.wanted.range.since, 7);
        assert!(out.piece(Channel::Stdout, 7, b"b").is_none());
        assert!(out.piece(Channel::Stdout, 7, b"c").is_none());
        assert!(out.piece(Channel::Stdout, 7, b"d").is_some());
        assert!(out.piece(Channel::Stdout, 8, b"e").is_some());
    }
}
