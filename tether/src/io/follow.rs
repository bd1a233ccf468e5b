//! Reading a log while it is written: from memory as far as that reaches, else from the partition.

use crate::io::record::{Live, Recorder};
use bytes::Bytes;
use journal::{Cursor, Found, JournalError, Pass, Position, Query, Reader, Search, Stream};
use std::rc::Rc;

/// Bytes of the log after which others come first.
const STRIDE: u64 = 256 * 1024;

/// What a follower finds next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Output of the container.
    Output {
        /// Which stream.
        stream: Stream,
        /// ns since 1970.
        at: u64,
        /// What of the record the query gives; at most [`journal::OUTPUT_MAX`] bytes.
        bytes: Bytes,
    },
    /// Nothing in the part of the log that was looked through: there is more of it. Others on the event loop come first.
    More,
    /// Nothing more, yet.
    End,
    /// Nothing more, ever: the query's time is over.
    Over,
}

/// A query's place in the log.
#[derive(Debug)]
pub struct Follower {
    recorder: Rc<Recorder>,
    reader: Reader<Live>,
    place: Place,
    /// Where others came first the last time.
    rested: Position,
}

#[derive(Debug)]
enum Place {
    /// Where it begins is not found yet.
    Search(Search),
    At(Cursor),
}

impl Follower {
    /// Begins a query. Where it starts is found by [`Follower::read`], which may have to read the whole ring for it.
    ///
    /// # Errors
    /// Those of the journal.
    pub fn new(recorder: Rc<Recorder>, query: &Query) -> Result<Follower, JournalError> {
        let mut reader = recorder.reader()?;
        let place = Place::Search(reader.begin(query)?);
        Ok(Follower {
            recorder,
            reader,
            place,
            rested: Position(0),
        })
    }

    /// What is next. Reads about [`STRIDE`] of the partition at most before it gives [`Next::More`], however much of it
    /// the query passes over. Records that the ring has lost meanwhile are passed over, too.
    ///
    /// # Errors
    /// Those of the journal.
    pub fn read(&mut self) -> Result<Next, JournalError> {
        let cursor = match &mut self.place {
            Place::At(cursor) => cursor,
            Place::Search(search) => {
                if let Some(cursor) = self.reader.seek(search)? {
                    self.place = Place::At(cursor);
                }
                return Ok(Next::More);
            }
        };
        if cursor.position().0.saturating_sub(self.rested.0) >= STRIDE {
            self.rested = cursor.position();
            return Ok(Next::More);
        }
        loop {
            let Some(record) = self.recorder.recent(cursor.position()) else {
                if cursor.position() >= self.recorder.end() {
                    // Without a look at the disk, where nothing can be.
                    return Ok(Next::End);
                }
                return Ok(match self.reader.try_next(cursor)? {
                    Some(Found::Output { stream, at, bytes }) => Next::Output {
                        stream,
                        at,
                        bytes: bytes.into(),
                    },
                    None | Some(Found::Lost(_)) => Next::More,
                    Some(Found::End) => Next::End,
                    Some(Found::Over) => Next::Over,
                });
            };
            let (stream, at) = (record.stream, record.at);
            match cursor.pass(stream, at, record.bytes.len(), record.next) {
                Pass::From(from) => {
                    let bytes = record.bytes.slice(from..);
                    return Ok(Next::Output { stream, at, bytes });
                }
                Pass::Nothing => {}
                Pass::Over => return Ok(Next::Over),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::partition::Partition;
    use std::fs::File;

    /// The same query of what is on the disk.
    fn stored(disk: &File, query: &Query) -> Vec<Next> {
        let mut reader = Reader::open(disk).unwrap();
        let mut cursor = reader.query(query).unwrap();
        let mut all = Vec::new();
        loop {
            match reader.next(&mut cursor).unwrap() {
                Found::Output { stream, at, bytes } => all.push(Next::Output {
                    stream,
                    at,
                    bytes: bytes.into(),
                }),
                Found::Lost(_) => {}
                Found::End | Found::Over => return all,
            }
        }
    }

    fn followed(recorder: &Rc<Recorder>, query: &Query) -> Vec<Next> {
        let mut follower = Follower::new(recorder.clone(), query).unwrap();
        let mut all = Vec::new();
        loop {
            match follower.read().unwrap() {
                Next::End | Next::Over => return all,
                Next::More => {}
                output => all.push(output),
            }
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_memory_has_is_what_the_partition_has() {
        let local = tokio::task::LocalSet::new();
        local.run_until(compare()).await;
    }

    async fn compare() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 << 20).unwrap();
        let partition = Partition::open(file.path(), 0).unwrap();
        let recorder = Recorder::open(partition.clone(), 1).unwrap();
        recorder.start(crate::io::now(), 1).unwrap();
        // Over segments' ends and the most that a record holds; more than memory keeps, less than the ring.
        for i in 0..60usize {
            let bytes = vec![b"ab\ncd"[i % 5]; 1 + i * 7_919 % 80_000];
            let stream = [Stream::Stdout, Stream::Stderr][i % 3 / 2];
            recorder.output(stream, &bytes.into()).unwrap();
        }
        let all = Query {
            stdout: true,
            stderr: true,
            ..Query::default()
        };
        // Before it is on the disk.
        let early = followed(&recorder, &all);
        recorder.sync().unwrap();
        partition.settle().unwrap();
        let whole = stored(file.as_file(), &all);
        assert!(early == whole);
        let Some(Next::Output { at: middle, .. }) = whole.get(whole.len() - 8).cloned() else {
            panic!("no output");
        };
        let queries = [
            all.clone(),
            Query {
                stderr: false,
                ..all.clone()
            },
            Query {
                since: middle,
                ..all.clone()
            },
            Query {
                until: middle,
                ..all.clone()
            },
            Query {
                tail: Some(100),
                ..all.clone()
            },
        ];
        for query in queries {
            let followed = followed(&recorder, &query);
            assert!(followed.len() >= 3, "{query:?}");
            assert!(followed == stored(file.as_file(), &query), "{query:?}");
        }
        // Neither is all of it in memory, nor none.
        let mut reader = recorder.reader().unwrap();
        let mut cursor = reader.query(&all).unwrap();
        let mut kept = 0;
        while let Found::Output { .. } = {
            kept += usize::from(recorder.recent(cursor.position()).is_some());
            reader.next(&mut cursor).unwrap()
        } {}
        assert!(kept > 5 && kept < whole.len(), "{kept} of {}", whole.len());
    }
}
