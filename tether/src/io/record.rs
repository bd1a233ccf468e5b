//! The journal in the tether's hands: appended on the event loop, made durable by a thread that
//! makes system calls only, at most 100 ms after a write.

use crate::io::fd::AsyncFile;
use crate::io::recent::{Recent, RecentRecord};
use crate::sys::fs::eventfd;
use bytes::Bytes;
use journal::{Exit, JournalError, Position, ReadAt, Reader, Stream, WriteAt, Writer};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How long written output waits for its sync. The promise is 100 ms, the sync itself included.
const SYNC_DELAY: Duration = Duration::from_millis(50);

/// A raw partition.
#[derive(Debug)]
pub struct Partition {
    file: File,
    size: u64,
}

impl Partition {
    /// Opens a partition's device for reading and writing.
    ///
    /// # Errors
    /// Those of open(2) and lseek(2).
    pub fn open(path: &Path, most: u64) -> io::Result<Partition> {
        let mut file = File::options().read(true).write(true).open(path)?;
        let size = io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
        let size = if most == 0 { size } else { size.min(most) };
        Ok(Partition { file, size })
    }

    fn again(&self) -> io::Result<Partition> {
        Ok(Partition {
            file: self.file.try_clone()?,
            size: self.size,
        })
    }
}

impl ReadAt for Partition {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}

impl WriteAt for Partition {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The container's journal.
#[derive(Debug)]
pub struct Recorder {
    writer: RefCell<Writer<Partition>>,
    /// What was written last, for followers: they need not read it back.
    recent: RefCell<Recent>,
    partition: Partition,
    /// Set while something is written but not yet asked to be synced.
    dirty: Cell<bool>,
    wake: Notify,
    /// Counts writes, for followers; closed by nothing: see `over`.
    written: watch::Sender<u64>,
    /// The last record is written.
    over: Cell<bool>,
}

impl Recorder {
    /// Opens the journal and starts what keeps it synced. Must be called within a `LocalSet`.
    ///
    /// # Errors
    /// Those of the journal, and of making the thread.
    pub fn open(partition: Partition) -> Result<Rc<Recorder>, JournalError> {
        let io = |what: &'static str| move |source: io::Error| JournalError::Io { what, source };
        let again = partition
            .again()
            .map_err(io("opening the partition again"))?;
        let synced = partition
            .again()
            .map_err(io("opening the partition again"))?;
        let recorder = Rc::new(Recorder {
            writer: RefCell::new(Writer::open(partition)?),
            recent: RefCell::default(),
            partition: again,
            dirty: Cell::new(false),
            wake: Notify::new(),
            written: watch::Sender::new(0),
            over: Cell::new(false),
        });
        tokio::task::spawn_local(keep_synced(Rc::clone(&recorder), synced));
        Ok(recorder)
    }

    fn append(
        &self,
        write: impl FnOnce(&mut Writer<Partition>) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let mut writer = self.writer.borrow_mut();
        write(&mut writer)?;
        writer.flush()?;
        drop(writer);
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
        self.over.set(true);
        self.written.send_modify(|n| *n += 1);
        result
    }

    /// Whether the exit record is written: followers end here.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Changes with every write.
    #[must_use]
    pub fn written(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// A reader of what is written so far.
    ///
    /// # Errors
    /// Those of the journal.
    pub fn reader(&self) -> Result<Reader<Partition>, JournalError> {
        let again = self.partition.again().map_err(|source| JournalError::Io {
            what: "opening the partition again",
            source,
        })?;
        Reader::open(again)
    }
}

/// Asks the thread for a sync, [`SYNC_DELAY`] after the first write since the last one.
async fn keep_synced(recorder: Rc<Recorder>, partition: Partition) {
    let thread = || -> io::Result<(OwnedFd, AsyncFile)> {
        let (ask, done) = (eventfd(false)?, eventfd(true)?);
        let (asked, tell) = (ask.try_clone()?, done.try_clone()?);
        std::thread::Builder::new()
            .name("journal-sync".into())
            .stack_size(64 * 1024)
            .spawn(move || {
                // System calls only: a child may be cloned at any moment, and must find no lock held.
                let mut count = [0u8; 8];
                while nix::unistd::read(&asked, &mut count).is_ok() {
                    // An error shows at the next write or at the exit record's own sync.
                    let _ = nix::unistd::fdatasync(&partition.file);
                    let _ = nix::unistd::write(&tell, &1u64.to_ne_bytes());
                }
            })?;
        Ok((ask, AsyncFile::new(done)?))
    };
    let thread = thread();
    loop {
        recorder.wake.notified().await;
        tokio::time::sleep(SYNC_DELAY).await;
        recorder.dirty.set(false);
        // An eventfd's counter takes far more than one request: the write does not wait.
        match &thread {
            Ok((ask, done)) if nix::unistd::write(ask, &1u64.to_ne_bytes()).is_ok() => {
                let mut count = [0u8; 8];
                let _ = done.read_chunk(&mut count).await;
            }
            // Without the thread the event loop syncs by itself.
            _ => drop(recorder.partition.sync()),
        }
    }
}
