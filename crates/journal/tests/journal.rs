//! The journal against crashes, overruns, queries and hostile partitions.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use journal::{
    Exit, Found, JournalError, OUTPUT_MAX, Position, Query, ReadAt, Reader, Record, Step, Stream,
    WriteAt, Writer,
};
use proptest::prelude::*;
use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const SECTOR: usize = 512;

/// A partition that knows what of it is durable.
#[derive(Debug)]
struct Disk {
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
struct State {
    durable: Vec<u8>,
    now: Vec<u8>,
    dirty: HashSet<usize>,
}

/// Bytes of a segment.
const SEGMENT: usize = 256 << 10;

impl Disk {
    fn new(size: usize) -> Arc<Disk> {
        Disk::of(vec![0; size])
    }

    fn of(bytes: Vec<u8>) -> Arc<Disk> {
        let state = State {
            durable: bytes.clone(),
            now: bytes,
            dirty: HashSet::new(),
        };
        Arc::new(Disk {
            state: Mutex::new(state),
        })
    }

    /// The partition after a power failure: of the sectors that were not synced, `keep` says
    /// which are there.
    fn crash(&self, mut keep: impl FnMut(usize) -> bool) -> Arc<Disk> {
        let state = self.state.lock().unwrap();
        let mut bytes = state.durable.clone();
        let mut dirty: Vec<usize> = state.dirty.iter().copied().collect();
        dirty.sort_unstable();
        for sector in dirty {
            if keep(sector) {
                let range = sector * SECTOR..(sector + 1) * SECTOR;
                bytes[range.clone()].copy_from_slice(&state.now[range]);
            }
        }
        Disk::of(bytes)
    }
}

impl ReadAt for Disk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock().unwrap();
        let from = offset as usize;
        let found = state
            .now
            .get(from..from + buf.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(found);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().now.len() as u64)
    }
}

impl WriteAt for Disk {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let from = offset as usize;
        state.now[from..from + data.len()].copy_from_slice(data);
        state
            .dirty
            .extend(from / SECTOR..(from + data.len()).div_ceil(SECTOR));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        for sector in std::mem::take(&mut state.dirty) {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            let State { durable, now, .. } = &mut *state;
            durable[range.clone()].copy_from_slice(&now[range]);
        }
        Ok(())
    }
}

fn bytes_of(at: u64, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (at as usize * 31 + i * 7 + i / 256) as u8)
        .collect()
}

/// All output that is there, joined by its time (which numbers the appends), and what was lost.
fn read_all(disk: &Arc<Disk>) -> (Vec<(u64, Vec<u8>)>, u64) {
    let mut reader = Reader::open(disk.clone()).unwrap();
    let mut at = Position(0);
    let (mut found, mut lost): (Vec<(u64, Vec<u8>)>, u64) = (Vec::new(), 0);
    loop {
        match reader.read(at).unwrap() {
            Step::Record(
                Record::Output {
                    at: time, bytes, ..
                },
                next,
            ) => {
                assert!(next > at);
                match found.last_mut() {
                    Some((last, whole)) if *last == time => whole.extend_from_slice(&bytes),
                    _ => found.push((time, bytes)),
                }
                at = next;
            }
            Step::Record(_, next) => at = next,
            Step::Lost { bytes, next } => {
                assert!(found.is_empty() && bytes > 0);
                lost += bytes;
                at = next;
            }
            Step::End(_) => return (found, lost),
        }
    }
}

/// Panics unless `found` is an exact, gapless part of what was appended (lengths by number) that
/// begins at its begin (or where the ring has overrun it) and holds the first `synced` appends.
/// Returns how much of the last append is there. `overrun`: so many boots came after these that the segment which each
/// begins may have taken all of them.
fn check_prefix(
    found: &[(u64, Vec<u8>)],
    lost: u64,
    lengths: &[usize],
    synced: usize,
    overrun: bool,
) -> (usize, usize) {
    if found.is_empty() {
        assert!(synced == 0 || overrun && lost > 0, "everything is gone");
        return (0, 0);
    }
    if lost == 0 {
        assert_eq!(found[0].0, 0, "the begin is missing without an overrun");
    }
    let last = found.len() - 1;
    for (n, (at, bytes)) in found.iter().enumerate() {
        assert_eq!(*at, found[0].0 + n as u64, "a gap");
        let whole = bytes_of(*at, lengths[*at as usize]);
        match n {
            _ if n == 0 && lost > 0 => assert!(n == last || whole.ends_with(bytes)),
            _ if n == last => assert!(whole.starts_with(bytes)),
            _ => assert!(*bytes == whole, "append {at} is not whole"),
        }
    }
    let reached = found[last].0 as usize;
    let complete = found[last].1.len() == lengths[reached] || (last == 0 && lost > 0);
    assert!(
        reached + usize::from(complete) >= synced,
        "synced {synced}, found up to {reached}"
    );
    (reached, found[last].1.len())
}

#[derive(Debug, Clone)]
enum Op {
    Output(usize),
    Flush,
    Sync,
    Reopen,
    /// Power failure; the seed says which sectors made it.
    Crash(u64, u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1usize..600).prop_map(Op::Output),
        4 => (1usize..200_000).prop_map(Op::Output),
        2 => Just(Op::Flush),
        1 => Just(Op::Sync),
        1 => Just(Op::Reopen),
        2 => (any::<u64>(), prop_oneof![Just(0u8), Just(255), any::<u8>()])
            .prop_map(|(seed, share)| Op::Crash(seed, share)),
    ]
}

/// `limit`: a sync at the latest after so many bytes.
fn run(ops: &[Op], size: usize, limit: usize) {
    let mut disk = Disk::new(size);
    let mut writer = Writer::open(disk.clone(), 1).unwrap();
    let (mut lengths, mut synced, mut unsynced) = (Vec::<usize>::new(), 0, 0);
    // Which boot made each append. A segment for each boot since then overruns it, but for the one that it may end in.
    let (mut boots, mut boot_of) = (0, Vec::<usize>::new());
    let overrun = |boots: usize, boot_of: &[usize]| {
        boot_of
            .last()
            .is_some_and(|made| boots - made >= size / SEGMENT - 2)
    };
    for op in ops {
        match op {
            Op::Output(len) => {
                let at = lengths.len() as u64;
                boot_of.push(boots);
                writer
                    .output(Stream::Stdout, at, &bytes_of(at, *len))
                    .unwrap();
                lengths.push(*len);
                unsynced += len;
                if unsynced > limit {
                    writer.sync().unwrap();
                    (synced, unsynced) = (lengths.len(), 0);
                    continue;
                }
                assert!(writer.dirty_since().is_some());
            }
            Op::Flush => {
                writer.flush().unwrap();
                let (found, lost) = read_all(&disk);
                check_prefix(
                    &found,
                    lost,
                    &lengths,
                    lengths.len(),
                    overrun(boots, &boot_of),
                );
            }
            Op::Sync => {
                writer.sync().unwrap();
                assert!(writer.dirty_since().is_none());
                synced = lengths.len();
            }
            Op::Reopen => {
                writer.sync().unwrap();
                synced = lengths.len();
                writer = Writer::open(disk.clone(), 1).unwrap();
                boots += 1;
            }
            Op::Crash(seed, share) => {
                boots += 1;
                let mut random = *seed;
                disk = disk.crash(|_| {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (random >> 40) as u8 <= *share && *share > 0
                });
                let before = read_all(&disk);
                writer = Writer::open(disk.clone(), 1).unwrap();
                let after = read_all(&disk);
                // An overrun between the two is the new segment's.
                if before.1 == after.1 {
                    assert_eq!(before.0, after.0);
                }
                let (found, lost) = after;
                let (reached, len) = check_prefix(
                    &found,
                    lost,
                    &lengths,
                    synced,
                    overrun(boots, &boot_of[..synced]),
                );
                lengths.truncate(if found.is_empty() { 0 } else { reached + 1 });
                boot_of.truncate(lengths.len());
                if let Some(last) = lengths.last_mut()
                    && !(found.len() == 1 && lost > 0)
                {
                    *last = len;
                }
                synced = lengths.len();
            }
        }
    }
    writer.sync().unwrap();
    let (found, lost) = read_all(&disk);
    check_prefix(
        &found,
        lost,
        &lengths,
        lengths.len(),
        overrun(boots, &boot_of),
    );
}

/// Each boot begins a segment, whatever it writes: in a ring of eleven, nine spare what was written before them, and
/// fourteen do not. Found by the property below.
#[test]
fn boots_that_write_nothing_take_a_segment_each() {
    for (boots, there) in [(9, true), (14, false)] {
        let mut ops = vec![Op::Output(1)];
        ops.resize(1 + boots, Op::Reopen);
        run(&ops, 3 << 20, 600_000);
        let disk = Disk::new(3 << 20);
        let mut writer = Writer::open(disk.clone(), 1).unwrap();
        writer.output(Stream::Stdout, 0, b"x").unwrap();
        for _ in 0..boots {
            writer.sync().unwrap();
            writer = Writer::open(disk.clone(), 1).unwrap();
        }
        assert_eq!(!read_all(&disk).0.is_empty(), there, "{boots}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn after_any_crash_the_journal_is_an_exact_prefix(ops in proptest::collection::vec(op(), 1..40)) {
        run(&ops, 16 << 20, usize::MAX);
    }

    #[test]
    fn a_small_ring_overruns_its_begin_and_nothing_else(ops in proptest::collection::vec(op(), 1..60)) {
        // What is not durable must be less than the ring, as it is with 1 GiB and 100 ms.
        run(&ops, 3 << 20, 600_000);
    }

    #[test]
    fn a_hostile_partition_never_panics_and_always_ends(
        writes in proptest::collection::vec((0usize..900_000, proptest::collection::vec(any::<u8>(), 1..90)), 1..40),
        lengths in proptest::collection::vec(1usize..60_000, 0..20),
    ) {
        let disk = Disk::new(1 << 20);
        let mut writer = Writer::open(disk.clone(), 1).unwrap();
        for (at, len) in lengths.iter().enumerate() {
            writer.output(Stream::Stderr, at as u64, &bytes_of(at as u64, *len)).unwrap();
        }
        writer.sync().unwrap();
        for (offset, bytes) in &writes {
            // Half of them where headers are.
            let offset = if offset % 2 == 0 { offset % 200 + 65_536 * (offset % 13) } else { *offset };
            disk.write_at(offset as u64, bytes).unwrap();
        }
        let _ = query(&disk, &Query { stdout: true, stderr: true, since: 3, tail: Some(5), ..Query::default() });
        let _ = Reader::open(disk.clone()).map(|mut reader| reader.exit().map(drop));
        let _ = Writer::open(disk, 1);
    }
}

type Output = Vec<(Stream, u64, Vec<u8>)>;

fn query(disk: &Arc<Disk>, query: &Query) -> Result<Output, JournalError> {
    let mut reader = Reader::open(disk.clone())?;
    let mut cursor = reader.query(query)?;
    let mut found = Vec::new();
    loop {
        match reader.next(&mut cursor)? {
            Found::Output { stream, at, bytes } => found.push((stream, at, bytes)),
            Found::Lost(_) => {}
            Found::End | Found::Over => return Ok(found),
        }
    }
}

/// What `tail` should give, from all of the output.
fn reference(all: &[(Stream, u64, Vec<u8>)], wanted: &Query) -> (Vec<u8>, Vec<u8>) {
    let keep = |stream| match stream {
        Stream::Stdout => wanted.stdout,
        Stream::Stderr => wanted.stderr,
    };
    // Lines with the number of their last byte, streams apart.
    let mut lines: Vec<(usize, Stream, Vec<u8>, u64)> = Vec::new();
    let mut open = [Vec::new(), Vec::new()];
    let (mut count, mut last) = (0, [0; 2]);
    for (stream, at, bytes) in all.iter().filter(|(stream, ..)| keep(*stream)) {
        for byte in bytes {
            count += 1;
            let line = &mut open[*stream as usize];
            line.push(*byte);
            last[*stream as usize] = count;
            if *byte == b'\n' {
                lines.push((count, *stream, std::mem::take(line), *at));
            }
        }
    }
    for stream in [Stream::Stdout, Stream::Stderr] {
        let line = std::mem::take(&mut open[stream as usize]);
        if !line.is_empty() {
            lines.push((last[stream as usize], stream, line, 0));
        }
    }
    lines.sort_by_key(|(end, ..)| *end);
    let skip = wanted
        .tail
        .map_or(0, |tail| lines.len().saturating_sub(tail as usize));
    let of = |wanted| {
        lines[skip..]
            .iter()
            .filter(|l| l.1 == wanted)
            .flat_map(|l| l.2.clone())
            .collect()
    };
    (of(Stream::Stdout), of(Stream::Stderr))
}

proptest! {
    #[test]
    fn the_last_lines_are_the_last_lines(
        outputs in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(prop_oneof![3 => Just(b'x'), 1 => Just(b'\n')], 1..12), any::<bool>()),
            0..40,
        ),
        tail in proptest::option::of(0u64..30),
        (stdout, stderr) in prop_oneof![Just((true, true)), Just((true, false)), Just((false, true))],
    ) {
        let disk = Disk::new(8 << 20);
        let mut writer = Writer::open(disk.clone(), 1).unwrap();
        let mut all = Vec::new();
        for (at, (err, text, filler)) in outputs.iter().enumerate() {
            let stream = if *err { Stream::Stderr } else { Stream::Stdout };
            // Long ones carry the lines over segments.
            let mut bytes = if *filler { vec![b'y'; 90_000] } else { Vec::new() };
            bytes.extend_from_slice(text);
            writer.output(stream, at as u64 + 1, &bytes).unwrap();
            all.push((stream, at as u64 + 1, bytes));
        }
        writer.sync().unwrap();
        let wanted = Query { stdout, stderr, tail, ..Query::default() };
        let found = query(&disk, &wanted).unwrap();
        let of = |wanted| found.iter().filter(|f| f.0 == wanted).flat_map(|f| f.2.clone()).collect::<Vec<u8>>();
        let (out, err) = reference(&all, &wanted);
        prop_assert!(of(Stream::Stdout) == out && of(Stream::Stderr) == err);
    }

    #[test]
    fn times_bound_what_is_found(
        times in proptest::collection::vec(1u64..50, 0..60), since in 0u64..50, until in 0u64..50,
    ) {
        let disk = Disk::new(16 << 20);
        let mut writer = Writer::open(disk.clone(), 1).unwrap();
        for at in &times {
            writer.output(Stream::Stdout, *at, &[b'z'; 60_000]).unwrap();
        }
        writer.sync().unwrap();
        let wanted = Query { stdout: true, since, until, ..Query::default() };
        let found: Vec<u64> = query(&disk, &wanted).unwrap().iter().map(|f| f.1).collect();
        let mut expected: Vec<u64> = times
            .iter()
            .copied()
            .take_while(|at| until == 0 || *at <= until)
            .filter(|at| *at >= since)
            .collect();
        // Output is cut at segment ends: the same time may come twice in a row.
        let mut found = found;
        found.dedup();
        expected.dedup();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn a_partition_of_zeros_is_an_empty_journal() {
    let disk = Disk::new(2 << 20);
    let mut reader = Reader::open(disk.clone()).unwrap();
    assert_eq!(reader.exit().unwrap(), None);
    assert!(matches!(reader.read(Position(0)).unwrap(), Step::End(_)));
    let all = Query {
        stdout: true,
        stderr: true,
        tail: Some(3),
        ..Query::default()
    };
    assert!(query(&disk, &all).unwrap().is_empty());
    // It becomes one under the reader.
    let mut writer = Writer::open(disk.clone(), 1).unwrap();
    writer.output(Stream::Stdout, 1, b"hello").unwrap();
    writer.flush().unwrap();
    assert!(matches!(
        reader.read(Position(0)).unwrap(),
        Step::Record(Record::Output { .. }, _)
    ));
}

#[test]
fn the_exit_record_is_the_last_one_and_a_new_start_voids_it() {
    let disk = Disk::new(2 << 20);
    let mut writer = Writer::open(disk.clone(), 1).unwrap();
    writer.start(5, 1).unwrap();
    writer.output(Stream::Stdout, 6, b"bye\n").unwrap();
    let exit = Exit {
        code: 137,
        oom: true,
        at: 7,
        reason: "r\u{e9}".repeat(3000),
    };
    writer.exit(&exit).unwrap();
    writer.sync().unwrap();
    let found = Reader::open(disk.clone()).unwrap().exit().unwrap().unwrap();
    assert_eq!((found.code, found.oom, found.at), (137, true, 7));
    assert!(exit.reason.starts_with(&found.reason) && found.reason.len() > 4000);
    // Opening alone changes nothing; a start does.
    let mut writer = Writer::open(disk.clone(), 1).unwrap();
    assert!(
        Reader::open(disk.clone())
            .unwrap()
            .exit()
            .unwrap()
            .is_some()
    );
    writer.start(9, 2).unwrap();
    writer.sync().unwrap();
    assert_eq!(Reader::open(disk.clone()).unwrap().exit().unwrap(), None);
}

#[test]
fn each_opening_is_told_the_run_of_the_one_before() {
    let disk = Disk::new(2 << 20);
    let mut writer = Writer::open(disk.clone(), 7).unwrap();
    assert_eq!(writer.previous_run(), None);
    // Over several segments, each of which tells it.
    for at in 0..10 {
        writer.output(Stream::Stdout, at, &[b'x'; 60_000]).unwrap();
    }
    writer.sync().unwrap();
    assert_eq!(
        Writer::open(disk.clone(), 9).unwrap().previous_run(),
        Some(7)
    );
    assert_eq!(Writer::open(disk, 9).unwrap().previous_run(), Some(9));
}

#[test]
fn a_follower_sees_each_flush_and_reads_no_further() {
    let disk = Disk::new(2 << 20);
    let mut writer = Writer::open(disk.clone(), 1).unwrap();
    let mut reader = Reader::open(disk.clone()).unwrap();
    reader.limit(writer.end());
    let all = Query {
        stdout: true,
        stderr: true,
        ..Query::default()
    };
    let mut cursor = reader.query(&all).unwrap();
    // Twice round the ring.
    for at in 0..60u64 {
        let bytes = bytes_of(at, OUTPUT_MAX);
        writer.output(Stream::Stderr, at, &bytes).unwrap();
        writer.flush().unwrap();
        reader.limit(writer.end());
        let mut got = Vec::new();
        loop {
            match reader.next(&mut cursor).unwrap() {
                Found::Output {
                    stream: Stream::Stderr,
                    at: time,
                    bytes,
                } if time == at => got.extend(bytes),
                Found::End => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(got == bytes, "flush {at}");
    }
}

#[test]
fn a_follower_that_was_overrun_is_told_how_much() {
    let disk = Disk::new(1 << 20);
    let mut writer = Writer::open(disk.clone(), 1).unwrap();
    let mut reader = Reader::open(disk.clone()).unwrap();
    let mut cursor = reader
        .query(&Query {
            stdout: true,
            ..Query::default()
        })
        .unwrap();
    for at in 0..40 {
        writer
            .output(Stream::Stdout, at, &bytes_of(at, OUTPUT_MAX))
            .unwrap();
    }
    writer.flush().unwrap();
    let Found::Lost(bytes) = reader.next(&mut cursor).unwrap() else {
        panic!()
    };
    assert!(bytes > 20 * OUTPUT_MAX as u64 && bytes < 40 * OUTPUT_MAX as u64);
    assert!(matches!(
        reader.next(&mut cursor).unwrap(),
        Found::Output { .. }
    ));
}

#[test]
fn a_file_is_a_partition() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4 << 20).unwrap();
    let mut writer = Writer::open(&file, 1).unwrap();
    writer.output(Stream::Stdout, 1, b"to disk").unwrap();
    writer.sync().unwrap();
    let mut reader = Reader::open(&file).unwrap();
    let at = reader.first().unwrap();
    assert!(
        matches!(reader.read(at).unwrap(), Step::Record(Record::Output { bytes, .. }, _) if bytes == b"to disk")
    );
}

#[test]
fn what_is_no_journal_is_refused() {
    let disk = Disk::of(vec![0x55; 2 << 20]);
    assert!(matches!(
        Reader::open(disk.clone()),
        Err(JournalError::NotAJournal(_))
    ));
    assert!(matches!(
        Writer::open(disk, 1),
        Err(JournalError::NotAJournal(_))
    ));
    assert!(matches!(
        Writer::open(Disk::new(1000), 1),
        Err(JournalError::TooSmall(1000))
    ));
}

/// A partition that counts what is read of it.
struct Counted(Arc<Disk>, AtomicU64);

impl ReadAt for Counted {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.0.read_at(offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
}

#[test]
fn no_step_of_a_query_reads_more_than_some_segments() {
    const SEGMENT: u64 = 256 * 1024;
    let disk = Disk::new(16 << 20);
    let mut writer = Writer::open(disk.clone(), 1).unwrap();
    writer.output(Stream::Stderr, 1, b"first\n").unwrap();
    for at in 2..200 {
        let bytes = bytes_of(at, 60_000);
        writer.output(Stream::Stdout, at, &bytes).unwrap();
        writer.sync().unwrap();
    }
    let partition = Counted(disk.clone(), AtomicU64::new(0));
    let mut reader = Reader::open(&partition).unwrap();
    let read = || partition.1.swap(0, Ordering::Relaxed);
    let err = Query {
        stderr: true,
        ..Query::default()
    };
    let queries = [
        err.clone(),
        Query {
            tail: Some(1),
            ..err.clone()
        },
        Query {
            tail: Some(u64::MAX),
            ..err
        },
        // Lines that are long past.
        Query {
            stdout: true,
            until: 5,
            tail: Some(1),
            ..Query::default()
        },
        Query {
            stdout: true,
            until: 5,
            tail: Some(u64::MAX),
            ..Query::default()
        },
    ];
    for wanted in queries {
        let (mut steps, mut found) = (0, Vec::new());
        let mut step = |what: &str| {
            let bytes = read();
            assert!(bytes < 4 * SEGMENT, "{wanted:?}: {what} reads {bytes}");
            steps += 1;
        };
        let mut search = reader.begin(&wanted).unwrap();
        step("begin");
        let mut cursor = loop {
            let cursor = reader.seek(&mut search).unwrap();
            step("seek");
            if let Some(cursor) = cursor {
                break cursor;
            }
        };
        loop {
            let next = reader.try_next(&mut cursor).unwrap();
            step("next");
            match next {
                None | Some(Found::Lost(_)) => {}
                Some(Found::Output { stream, at, bytes }) => found.push((stream, at, bytes)),
                Some(Found::End | Found::Over) => break,
            }
        }
        assert!(steps > 40, "{wanted:?}: {steps} steps");
        assert!(found == query(&disk, &wanted).unwrap(), "{wanted:?}");
        assert!(!found.is_empty(), "{wanted:?}");
    }
}
