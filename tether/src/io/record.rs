//! The journal in the tether's hands: appended on the event loop, on the disk at most 100 ms later. Where the disk does
//! not keep up, nothing more is taken to be appended.

use crate::console;
use crate::io::partition::{Partition, overlay};
use crate::io::recent::{Recent, RecentRecord};
use bytes::Bytes;
use journal::{Exit, JournalError, Position, ReadAt, Reader, Stream, Writer};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// How long what was appended waits for its sync. The promise is 100 ms, the sync itself included.
const SYNC_DELAY: Duration = Duration::from_millis(50);
/// How long something may not be durable before nothing more is taken: a VM that is killed then loses what came within
/// this time, however slow its disk is.
const LATE: Duration = Duration::from_millis(80);

/// The container's journal.
#[derive(Debug)]
pub struct Recorder {
    writer: RefCell<Writer<Rc<Partition>>>,
    /// What was appended last, for followers: they need not read it back.
    recent: RefCell<Recent>,
    partition: Rc<Partition>,
    /// Set while something is appended but not yet asked to be synced.
    dirty: Cell<bool>,
    /// Since when there was something that the sync makes durable that was asked for last.
    syncing: Cell<Option<Instant>>,
    wake: Notify,
    /// Counts what is appended, for followers; closed by nothing: see `over`.
    written: watch::Sender<u64>,
    /// The last record is written.
    over: Cell<bool>,
}

impl Recorder {
    /// Opens the journal in this run of the VM and starts what keeps it synced. Must be called within a `LocalSet`.
    ///
    /// # Errors
    /// Those of the journal.
    pub fn open(partition: Rc<Partition>, run: u64) -> Result<Rc<Recorder>, JournalError> {
        let recorder = Rc::new(Recorder {
            writer: RefCell::new(Writer::open(Rc::clone(&partition), run)?),
            recent: RefCell::default(),
            partition,
            dirty: Cell::new(false),
            syncing: Cell::new(None),
            wake: Notify::new(),
            written: watch::Sender::new(0),
            over: Cell::new(false),
        });
        tokio::task::spawn_local(keep_synced(Rc::clone(&recorder)));
        Ok(recorder)
    }

    /// The run in which the journal was opened before.
    #[must_use]
    pub fn previous_run(&self) -> Option<u64> {
        self.writer.borrow().previous_run()
    }

    /// Waits until the journal is on the disk as it was opened.
    ///
    /// # Errors
    /// If it could not be written.
    pub async fn opened(&self) -> Result<(), JournalError> {
        self.synced().await;
        self.partition.settle().map_err(writing)
    }

    /// Waits until more output may be appended. Without that, appending blocks where the disk does not keep up.
    pub async fn room(&self) {
        loop {
            let progress = self.partition.progress();
            if self.partition.has_room() && !self.is_late() {
                return;
            }
            progress.await;
        }
    }

    /// Whether something has waited for the disk for so long that nothing may be added.
    fn is_late(&self) -> bool {
        let syncing = self.syncing.get().filter(|_| self.partition.is_syncing());
        let oldest = syncing.or_else(|| self.writer.borrow().dirty_since());
        oldest.is_some_and(|since| since.elapsed() >= LATE)
    }

    /// Waits until no sync is under way.
    async fn synced(&self) {
        loop {
            let progress = self.partition.progress();
            if !self.partition.is_syncing() {
                return;
            }
            progress.await;
        }
    }

    fn append(
        &self,
        write: impl FnOnce(&mut Writer<Rc<Partition>>) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        write(&mut self.writer.borrow_mut())?;
        if !self.dirty.replace(true) {
            self.wake.notify_one();
        }
        self.written.send_modify(|n| *n += 1);
        Ok(())
    }

    /// Appends output that was just read.
    ///
    /// # Errors
    /// Those of the journal.
    pub fn output(&self, stream: Stream, bytes: &Bytes) -> Result<(), JournalError> {
        let at = super::now();
        let mut recent = self.recent.borrow_mut();
        let mut rest = bytes.clone();
        self.append(|writer| {
            while !rest.is_empty() {
                let after = writer.end();
                let count = writer.output_record(stream, at, &rest)?;
                recent.push(RecentRecord {
                    after,
                    next: writer.end(),
                    stream,
                    at,
                    bytes: rest.split_to(count),
                });
            }
            Ok(())
        })
    }

    /// The record at a position, if it is one of the last that were written.
    #[must_use]
    pub fn recent(&self, at: Position) -> Option<RecentRecord> {
        self.recent.borrow().at(at)
    }

    /// Appends the start record.
    ///
    /// # Errors
    /// Those of the journal.
    pub fn start(&self, at: u64, boot: u64) -> Result<(), JournalError> {
        self.over.set(false);
        self.append(|w| w.start(at, boot))
    }

    /// Appends the exit record, the last one, and returns once all is durable.
    ///
    /// # Errors
    /// Those of the journal.
    pub fn exit(&self, exit: &Exit) -> Result<(), JournalError> {
        let result = {
            let mut writer = self.writer.borrow_mut();
            writer.exit(exit).and_then(|()| writer.sync())
        };
        let result = result.and_then(|()| self.partition.settle().map_err(writing));
        self.over.set(true);
        self.written.send_modify(|n| *n += 1);
        result
    }

    /// Whether the exit record is written: followers end here.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Changes with everything that is appended.
    #[must_use]
    pub fn written(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// Where the next record will be.
    #[must_use]
    pub fn end(&self) -> Position {
        self.writer.borrow().end()
    }

    /// A reader of what was appended so far.
    ///
    /// # Errors
    /// Those of the journal.
    pub fn reader(self: &Rc<Self>) -> Result<Reader<Live>, JournalError> {
        Reader::open(Live(Rc::clone(self)))
    }

    /// Asks for a sync; [`Recorder::room`] knows of it.
    ///
    /// # Errors
    /// Those of the journal; also those of what was asked for before.
    pub fn sync(&self) -> Result<(), JournalError> {
        let mut writer = self.writer.borrow_mut();
        self.syncing.set(writer.dirty_since());
        writer.sync()
    }
}

/// The journal with what of it is not on the disk yet.
#[derive(Debug)]
pub struct Live(Rc<Recorder>);

impl ReadAt for Live {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.partition.read_at(offset, buf)?;
        let writer = self.0.writer.borrow();
        let (at, bytes) = writer.unwritten();
        overlay(buf, offset, bytes, at);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        self.0.partition.size()
    }
}

fn writing(source: io::Error) -> JournalError {
    JournalError::Io {
        what: "writing",
        source,
    }
}

/// Syncs [`SYNC_DELAY`] after the first thing that was appended since the last time.
async fn keep_synced(recorder: Rc<Recorder>) {
    loop {
        recorder.wake.notified().await;
        tokio::time::sleep(SYNC_DELAY).await;
        recorder.dirty.set(false);
        if let Err(error) = recorder.sync() {
            console(&format!("output may be lost to the journal: {error}"));
            // Nothing was asked for, and nobody may append before that.
            recorder.dirty.set(true);
            recorder.wake.notify_one();
        }
        recorder.synced().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::partition::Sink;
    use journal::Record;
    use nix::errno::Errno;
    use std::fs::File;
    use std::sync::{Arc, Condvar, Mutex};

    /// A disk that does nothing while it is shut.
    #[derive(Clone)]
    struct Gate {
        open: Arc<(Mutex<bool>, Condvar)>,
        disk: Arc<File>,
        fails: Option<Errno>,
    }

    impl Gate {
        fn new(file: &tempfile::NamedTempFile) -> Gate {
            file.as_file().set_len(16 << 20).unwrap();
            Gate {
                open: Arc::default(),
                disk: Arc::new(file.reopen().unwrap()),
                fails: None,
            }
        }

        fn set(&self, open: bool) {
            *self.open.0.lock().unwrap() = open;
            self.open.1.notify_all();
        }

        fn pass(&self) {
            let shut = self.open.0.lock().unwrap();
            drop(self.open.1.wait_while(shut, |open| !*open).unwrap());
        }
    }

    impl Sink for Gate {
        fn write_all(&self, data: &[u8], offset: u64) -> Result<(), Errno> {
            self.pass();
            match self.fails {
                Some(errno) => Err(errno),
                None => self.disk.write_all(data, offset),
            }
        }

        fn sync(&self) -> Result<(), Errno> {
            self.pass();
            self.disk.sync_all().unwrap();
            Ok(())
        }
    }

    async fn with_recorder<F: Future<Output = ()>>(
        change: impl FnOnce(Gate) -> Gate,
        test: impl FnOnce(Rc<Recorder>, Gate, File) -> F,
    ) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let gate = change(Gate::new(&file));
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let disk = file.reopen().unwrap();
                let partition = Partition::over(disk, 0, gate.clone()).unwrap();
                let recorder = Recorder::open(partition, 1).unwrap();
                test(recorder, gate.clone(), file.reopen().unwrap()).await;
            })
            .await;
        // The thread ends with the partition.
        gate.set(true);
    }

    fn outputs<S: ReadAt>(mut reader: Reader<S>) -> Vec<Bytes> {
        let mut at = reader.first().unwrap();
        let mut all = Vec::new();
        loop {
            match reader.read(at).unwrap() {
                journal::Step::Record(record, next) => {
                    if let Record::Output { bytes, .. } = record {
                        all.push(bytes.into());
                    }
                    at = next;
                }
                journal::Step::Lost { .. } => panic!("lost"),
                journal::Step::End(_) => return all,
            }
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nothing_more_is_taken_while_the_disk_is_late() {
        with_recorder(
            |gate| gate,
            |recorder, gate, disk| async move {
                gate.set(true);
                recorder.opened().await.unwrap();
                recorder.room().await;
                gate.set(false);
                let before = Instant::now();
                let line = Bytes::from_static(b"a line\n");
                recorder.output(Stream::Stdout, &line).unwrap();
                // A sync is asked for, and does not end.
                let mut taken = 0;
                while tokio::time::timeout(2 * LATE, recorder.room())
                    .await
                    .is_ok()
                {
                    recorder.output(Stream::Stdout, &line).unwrap();
                    taken += 1;
                    // Time itself is what makes a disk late; without a pause the buffers would be full before.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                assert!(before.elapsed() >= LATE, "held back too early");
                assert!(outputs(Reader::open(&disk).unwrap()).is_empty());
                gate.set(true);
                // What came after the sync was asked for is synced by the next one.
                recorder.room().await;
                recorder
                    .exit(&Exit {
                        code: 0,
                        oom: false,
                        at: 1,
                        reason: String::new(),
                    })
                    .unwrap();
                assert_eq!(outputs(Reader::open(&disk).unwrap()).len(), taken + 1);
            },
        )
        .await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_not_on_the_disk_yet_is_read_from_memory() {
        with_recorder(
            |gate| gate,
            |recorder, gate, disk| async move {
                gate.set(true);
                recorder.opened().await.unwrap();
                gate.set(false);
                // Far more than is kept for followers; the last segment is in no write yet.
                let mut lines: Vec<Bytes> = Vec::new();
                for n in 0..9_000 {
                    let line = Bytes::from(format!("line {n}\n").repeat(1 + n % 5));
                    recorder.output(Stream::Stdout, &line).unwrap();
                    lines.push(line);
                }
                let first = recorder.reader().unwrap().first().unwrap();
                assert!(recorder.recent(first).is_none());
                assert!(outputs(recorder.reader().unwrap()) == lines);
                assert!(outputs(Reader::open(&disk).unwrap()).is_empty());
                gate.set(true);
                recorder.sync().unwrap();
                recorder.partition.settle().unwrap();
                assert!(outputs(recorder.reader().unwrap()) == lines);
                assert!(outputs(Reader::open(&disk).unwrap()) == lines);
            },
        )
        .await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_disk_that_fails_is_told_at_the_exit_at_the_latest() {
        with_recorder(
            |mut gate| {
                gate.fails = Some(Errno::ENOSPC);
                gate.set(true);
                gate
            },
            |recorder, _, _| async move {
                let error = recorder.opened().await.unwrap_err().to_string();
                assert!(error.contains("No space left"), "{error}");
                // A container that writes is not held for ever.
                for _ in 0..3 {
                    let line = Bytes::from_static(b"a line\n");
                    let _ = recorder.output(Stream::Stdout, &line);
                    // Time itself is what makes the failed sync late.
                    tokio::time::sleep(LATE).await;
                    let room = tokio::time::timeout(Duration::from_secs(60), recorder.room());
                    room.await.unwrap();
                }
                // Told once; what fails next is told again.
                let exit = Exit {
                    code: 0,
                    oom: false,
                    at: 1,
                    reason: String::new(),
                };
                let error = recorder.exit(&exit).unwrap_err().to_string();
                assert!(error.contains("No space left"), "{error}");
            },
        )
        .await;
    }
}
