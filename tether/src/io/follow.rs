//! Reading a log while it is written: from memory as far as that reaches, else from the partition.

use crate::io::record::{Live, Recorder};
use bytes::Bytes;
use journal::{Cursor, Found, JournalError, Pass, Query, Reader, Stream};
use std::rc::Rc;

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
    cursor: Cursor,
}

impl Follower {
    /// Begins a query.
    ///
    /// # Errors
    /// Those of the journal.
    pub fn new(recorder: Rc<Recorder>, query: &Query) -> Result<Follower, JournalError> {
        let mut reader = recorder.reader()?;
        let cursor = reader.query(query)?;
        Ok(Follower {
            recorder,
            reader,
            cursor,
        })
    }

    /// What is next. Records that the ring has lost meanwhile are passed over.
    ///
    /// # Errors
    /// Those of the journal.
    pub fn read(&mut self) -> Result<Next, JournalError> {
        loop {
            let Some(record) = self.recorder.recent(self.cursor.position()) else {
                if self.cursor.position() >= self.recorder.end() {
                    // Without a look at the disk, where nothing can be.
                    return Ok(Next::End);
                }
                return Ok(match self.reader.next(&mut self.cursor)? {
                    Found::Output { stream, at, bytes } => Next::Output {
                        stream,
                        at,
                        bytes: bytes.into(),
                    },
                    Found::Lost(_) => continue,
                    Found::End => Next::End,
                    Found::Over => Next::Over,
                });
            };
            let (stream, at) = (record.stream, record.at);
            match self
                .cursor
                .pass(stream, at, record.bytes.len(), record.next)
            {
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
