//! Queries as `docker logs` makes them.

use crate::format::{RECORD_HEADER, SEGMENT};
use crate::reader::{RawStep, Reader};
use crate::{Found, JournalError, Position, Query, ReadAt, Stream};
use std::ops::{ControlFlow, Range};

/// Where a query stands.
#[derive(Debug, Clone)]
pub struct Cursor {
    query: Query,
    at: Position,
    /// For stdout and stderr: nothing before this record, and of it nothing before this byte.
    cut: [(Position, usize); 2],
    over: bool,
}

impl Cursor {
    /// Where the query reads next.
    pub fn position(&self) -> Position {
        self.at
    }

    /// Passes an output record by, whose `len` bytes end at `next`, as if the query had read it:
    /// for a caller who has the record at [`Cursor::position`] already. Returns what of it the
    /// query gives.
    pub fn pass(&mut self, stream: Stream, at: u64, len: usize, next: Position) -> Pass {
        self.at = next;
        if !asked(&self.query, stream) {
            return Pass::Nothing;
        }
        if self.query.until > 0 && at > self.query.until {
            self.over = true;
            return Pass::Over;
        }
        if at < self.query.since {
            return Pass::Nothing;
        }
        // The place before `next`, since a position may be normalised over a segment's end.
        let place = Position(next.0.saturating_sub((RECORD_HEADER + len) as u64));
        let (cut, skip) = self.cut[stream as usize];
        let from = match place.cmp(&cut) {
            std::cmp::Ordering::Less => len,
            std::cmp::Ordering::Equal => skip.min(len),
            std::cmp::Ordering::Greater => 0,
        };
        if from < len {
            Pass::From(from)
        } else {
            Pass::Nothing
        }
    }
}

/// What a query gives of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Its bytes from this one on.
    From(usize),
    /// Nothing of it.
    Nothing,
    /// Nothing of it, nor of any later one.
    Over,
}

fn asked(query: &Query, stream: Stream) -> bool {
    match stream {
        Stream::Stdout => query.stdout,
        Stream::Stderr => query.stderr,
    }
}

/// A query whose begin is being looked for: see [`Reader::begin`].
#[derive(Debug)]
pub struct Search {
    query: Query,
    start: Position,
    /// Where there is a `tail`: what is to be looked through for it.
    tail: Option<Backwards>,
}

/// Segments that are read from the last to the first.
#[derive(Debug)]
struct Backwards {
    left: Range<u64>,
    /// The first record of all, and behind the last one, when this began.
    first: Position,
    end: Position,
    tail: Tail,
}

impl<S: ReadAt> Reader<S> {
    /// Begins a query: finds where to start without reading all where it can. `tail` counts the
    /// lines of the wanted streams that are not after `until`; `since` then drops what is older.
    /// Reads the whole journal where these lines are far apart or few; [`Reader::begin`] is for
    /// callers who cannot wait for that.
    pub fn query(&mut self, query: &Query) -> Result<Cursor, JournalError> {
        let mut search = self.begin(query)?;
        loop {
            if let Some(cursor) = self.seek(&mut search)? {
                return Ok(cursor);
            }
        }
    }

    /// Begins a query in steps: [`Reader::seek`] is then called until it gives the cursor.
    pub fn begin(&mut self, query: &Query) -> Result<Search, JournalError> {
        let start = if query.since > 0 {
            self.segment_since(query.since)?
                .map(|header| header.first())
        } else {
            None
        };
        let start = match start {
            Some(start) => start,
            None => self.first()?,
        };
        let tail = match query.tail {
            Some(lines) => Some(self.backwards(lines)?),
            None => None,
        };
        Ok(Search {
            query: query.clone(),
            start,
            tail,
        })
    }

    /// Looks for the query's begin in one more segment; `None` if it is not found yet.
    pub fn seek(&mut self, search: &mut Search) -> Result<Option<Cursor>, JournalError> {
        let Search { query, start, tail } = search;
        let mut cursor = Cursor {
            query: query.clone(),
            at: *start,
            cut: [(*start, 0); 2],
            over: false,
        };
        if let Some(backwards) = tail {
            let Some(cut) = self.tail(query, backwards)? else {
                return Ok(None);
            };
            cursor.cut = cut;
            let [(stdout, _), (stderr, _)] = cut;
            cursor.at = cursor.at.max(match (query.stdout, query.stderr) {
                (true, false) => stdout,
                (false, true) => stderr,
                _ => stdout.min(stderr),
            });
        }
        Ok(Some(cursor))
    }

    /// The next output of a query: `Output` records only, filtered, and cut at the front where
    /// `tail` begins inside a record. Passes over any amount of journal that the query does not ask
    /// for; [`Reader::try_next`] is for callers who cannot wait for that.
    pub fn next(&mut self, cursor: &mut Cursor) -> Result<Found, JournalError> {
        loop {
            if let Some(found) = self.try_next(cursor)? {
                return Ok(found);
            }
        }
    }

    /// As [`Reader::next`]; `None` after a segment's worth of journal in which there is nothing for
    /// the query: to be called again.
    pub fn try_next(&mut self, cursor: &mut Cursor) -> Result<Option<Found>, JournalError> {
        if cursor.over {
            return Ok(Some(Found::Over));
        }
        let began = cursor.at;
        while cursor.at.0.saturating_sub(began.0) < SEGMENT {
            let here = cursor.at;
            match self.raw(here)? {
                RawStep::End(position) => {
                    cursor.at = position;
                    return Ok(Some(Found::End));
                }
                RawStep::Lost { bytes, next } => {
                    cursor.at = next;
                    return Ok(Some(Found::Lost(bytes)));
                }
                RawStep::Record { raw, payload, next } => {
                    cursor.at = next;
                    let Some(stream) = raw.stream() else {
                        continue;
                    };
                    match cursor.pass(stream, raw.at, payload.len(), next) {
                        Pass::Nothing => {}
                        Pass::Over => return Ok(Some(Found::Over)),
                        Pass::From(from) => {
                            return Ok(Some(Found::Output {
                                stream,
                                at: raw.at,
                                bytes: payload[from..].to_vec(),
                            }));
                        }
                    }
                }
            }
        }
        Ok(None)
    }

    /// What is to be looked through for the last `lines` lines. Lines are in the order of their
    /// ends; what has no newline at its end is a line too.
    fn backwards(&mut self, lines: u64) -> Result<Backwards, JournalError> {
        let mut backwards = Backwards {
            left: 0..0,
            first: Position(0),
            end: Position(0),
            tail: Tail {
                left: lines,
                cut: [None; 2],
                seen: [false; 2],
            },
        };
        let Some(end) = self.end()? else {
            return Ok(backwards);
        };
        let Some(first) = self.first_segment()? else {
            return Ok(backwards);
        };
        backwards.end = end.position;
        if lines == 0 {
            backwards.first = end.position;
        } else {
            backwards.first = first.first();
            backwards.left = first.number..end.header.number + 1;
        }
        Ok(backwards)
    }

    /// Looks through one segment. Returns where the lines begin, for stdout and stderr, once that is
    /// known.
    fn tail(
        &mut self,
        query: &Query,
        backwards: &mut Backwards,
    ) -> Result<Option<[(Position, usize); 2]>, JournalError> {
        let Some(number) = backwards.left.next_back() else {
            return Ok(Some(backwards.tail.done(backwards.first)));
        };
        // The ends of lines in this segment, in order: cheaper to keep than the bytes.
        let mut records: Vec<(Position, Stream, Vec<u32>, usize)> = Vec::new();
        self.visit(number, backwards.end, &mut |place, raw, payload| {
            let Some(stream) = raw.stream().filter(|s| asked(query, *s)) else {
                return;
            };
            if query.until > 0 && raw.at > query.until {
                return;
            }
            let ends = payload
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte == b'\n');
            let ends = ends.map(|(at, _)| at as u32 + 1).collect();
            records.push((place, stream, ends, payload.len()));
        })?;
        let tail = &mut backwards.tail;
        for (place, stream, ends, len) in records.iter().rev() {
            if tail.record(*place, *stream as usize, ends, *len).is_break() {
                return Ok(Some(tail.done(backwards.first)));
            }
        }
        Ok(None)
    }
}

/// Counts lines backwards.
#[derive(Debug)]
struct Tail {
    left: u64,
    cut: [Option<(Position, usize)>; 2],
    seen: [bool; 2],
}

impl Tail {
    /// Takes the next older record; breaks once all that is wanted was found.
    fn record(
        &mut self,
        place: Position,
        stream: usize,
        ends: &[u32],
        len: usize,
    ) -> ControlFlow<()> {
        if self.cut[stream].is_some() {
            return ControlFlow::Continue(());
        }
        if !std::mem::replace(&mut self.seen[stream], true)
            && ends.last().map(|end| *end as usize) != Some(len)
        {
            // The stream's last line has no newline (yet).
            if self.left == 0 {
                self.cut[stream] = Some((place, len));
                return self.finished(place);
            }
            self.left -= 1;
        }
        for end in ends.iter().rev() {
            if self.left == 0 {
                self.cut[stream] = Some((place, *end as usize));
                break;
            }
            self.left -= 1;
        }
        self.finished(place)
    }

    /// Once no line is left to be had, a stream of which nothing was seen has none at all.
    fn finished(&mut self, place: Position) -> ControlFlow<()> {
        if self.left == 0 {
            for (cut, seen) in self.cut.iter_mut().zip(self.seen) {
                if !seen && cut.is_none() {
                    // Nothing of this stream is at or behind this record.
                    *cut = Some((Position(place.0 + 1), 0));
                }
            }
        }
        match self.cut {
            [Some(_), Some(_)] => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    fn done(&self, first: Position) -> [(Position, usize); 2] {
        self.cut.map(|cut| cut.unwrap_or((first, 0)))
    }
}
