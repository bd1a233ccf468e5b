//! The journal's partition: read at once, written by a thread of its own, in order and past the page cache.
//!
//! What is to be written waits in memory until the thread has it on the disk, and is read from there meanwhile. The
//! thread makes system calls only: a child may be cloned at any moment, and must find no lock of the allocator held.

use crate::io::fd::AsyncFile;
use journal::{ReadAt, WriteAt};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Writes that can wait at once. The journal's are at most a segment of 256 KiB.
const SLOTS: usize = 4;
/// A direct write is aligned to this, in memory and on the disk, and so is its length.
const ALIGN: usize = 4096;
/// Bytes of a job in the pipe.
const JOB: usize = 16;
/// In place of a slot: a sync.
const SYNC: u8 = u8::MAX;
/// Bytes of an answer: an error number, or 0.
const ANSWER: usize = 4;

/// What the thread writes to.
pub trait Sink: Send + 'static {
    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// Those of pwrite(2).
    fn write_all(&self, data: &[u8], offset: u64) -> Result<(), Errno>;

    /// Returns once everything written is durable.
    ///
    /// # Errors
    /// Those of fdatasync(2).
    fn sync(&self) -> Result<(), Errno>;
}

impl Sink for File {
    fn write_all(&self, mut data: &[u8], mut offset: u64) -> Result<(), Errno> {
        while !data.is_empty() {
            match nix::sys::uio::pwrite(self, data, offset.cast_signed()) {
                Ok(0) => return Err(Errno::EIO),
                Ok(n) => {
                    data = &data[n..];
                    offset += n as u64;
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Errno> {
        nix::unistd::fdatasync(self)
    }
}

/// Memory of one write.
#[derive(Debug, Default)]
struct Slot {
    memory: Vec<u8>,
    /// Where the aligned part of it begins.
    from: usize,
}

impl Slot {
    fn fill(&mut self, data: &[u8]) {
        if self.memory.len() < data.len() + ALIGN {
            self.memory = vec![0; data.len() + ALIGN];
            self.from = self.memory.as_ptr().align_offset(ALIGN);
        }
        self.memory[self.from..self.from + data.len()].copy_from_slice(data);
    }

    fn bytes(&self, len: usize) -> &[u8] {
        &self.memory[self.from..self.from + len]
    }
}

type Slots = Arc<[RwLock<Slot>; SLOTS]>;

/// What the thread was asked for.
#[derive(Debug, Clone, Copy)]
enum Job {
    Write { slot: u8, len: u32, offset: u64 },
    Sync,
}

impl Job {
    /// Offset, length, slot.
    fn encode(self) -> [u8; JOB] {
        let (slot, len, offset) = match self {
            Job::Write { slot, len, offset } => (slot, len, offset),
            Job::Sync => (SYNC, 0, 0),
        };
        (u128::from(offset) << 64 | u128::from(len) << 32 | u128::from(slot)).to_ne_bytes()
    }

    fn decode(bytes: &[u8; JOB]) -> Job {
        let job = u128::from_ne_bytes(*bytes);
        match job as u8 {
            SYNC => Job::Sync,
            slot => Job::Write {
                slot,
                len: (job >> 32) as u32,
                offset: (job >> 64) as u64,
            },
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Jobs that are not done, the oldest first.
    waiting: VecDeque<Job>,
    /// Why one failed, until somebody who writes or syncs was told.
    failed: Option<Errno>,
}

impl State {
    fn free(&self) -> Option<u8> {
        (0..SLOTS as u8).find(|free| {
            !self
                .waiting
                .iter()
                .any(|job| matches!(job, Job::Write { slot, .. } if slot == free))
        })
    }
}

/// A raw partition. A write is on its way when the call returns; a sync makes what was written before it durable before
/// anything that is written after it; [`Partition::settle`] waits for both.
#[derive(Debug)]
pub struct Partition {
    file: File,
    size: u64,
    slots: Slots,
    jobs: OwnedFd,
    done: AsyncFile,
    state: RefCell<State>,
    progress: Notify,
}

impl Partition {
    /// Opens a partition's device; no more than its first `most` bytes are used, where that is not 0. Must be called
    /// within a `LocalSet`.
    ///
    /// # Errors
    /// Those of open(2) and lseek(2), and of making the thread.
    pub fn open(path: &Path, most: u64) -> io::Result<Rc<Partition>> {
        let open = |flags: OFlag| {
            File::options()
                .write(true)
                .custom_flags(flags.bits())
                .open(path)
        };
        let sink = open(OFlag::O_DIRECT).or_else(|error| match error.raw_os_error() {
            // A file on a file system that always has a cache (tmpfs).
            Some(libc::EINVAL) => open(OFlag::empty()),
            _ => Err(error),
        })?;
        Partition::over(File::open(path)?, most, sink)
    }

    /// A partition that is read from `file` and written to `sink`, else as [`Partition::open`].
    ///
    /// # Errors
    /// Those of lseek(2), and of making the thread.
    pub fn over(mut file: File, most: u64, sink: impl Sink) -> io::Result<Rc<Partition>> {
        let size = file.seek(SeekFrom::End(0))?;
        let size = if most == 0 { size } else { size.min(most) };
        let (asked, jobs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (done, tell) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let slots = Slots::default();
        let of_thread = Arc::clone(&slots);
        std::thread::Builder::new()
            .name("journal".into())
            .stack_size(64 * 1024)
            .spawn(move || work(&asked, &tell, &of_thread, &sink))?;
        let partition = Rc::new(Partition {
            file,
            size,
            slots,
            jobs,
            done: AsyncFile::new(done)?,
            state: RefCell::default(),
            progress: Notify::new(),
        });
        tokio::task::spawn_local(collect(Rc::clone(&partition)));
        Ok(partition)
    }

    /// Told each time that something was written, synced, or that either failed.
    pub fn progress(&self) -> Notified<'_> {
        self.progress.notified()
    }

    /// Whether a write of at most a segment would find memory now. One that does not waits, and all of the tether with it.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.state.borrow().free().is_some()
    }

    /// Whether a sync was asked for that is not done.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        let state = self.state.borrow();
        state.waiting.iter().any(|job| matches!(job, Job::Sync))
    }

    /// Blocks until all is done that was asked for.
    ///
    /// # Errors
    /// What failed, of anything since an error was told.
    pub fn settle(&self) -> io::Result<()> {
        while !self.state.borrow().waiting.is_empty() {
            self.block()?;
        }
        self.failure()
    }

    fn failure(&self) -> io::Result<()> {
        match self.state.borrow_mut().failed.take() {
            Some(errno) => Err(errno.into()),
            None => Ok(()),
        }
    }

    fn ask(&self, job: Job) -> io::Result<()> {
        // So few fit into the slots that the pipe always has room.
        nix::unistd::write(&self.jobs, &job.encode())?;
        self.state.borrow_mut().waiting.push_back(job);
        Ok(())
    }

    /// Waits for an answer of the thread without letting anybody else run.
    fn block(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(self.done.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut answers = [0; 16 * ANSWER];
        match self.done.read_now(&mut answers)? {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the thread that writes has ended")),
            Some(n) => {
                self.take(&answers[..n]);
                Ok(())
            }
        }
    }

    fn take(&self, answers: &[u8]) {
        let mut state = self.state.borrow_mut();
        for answer in answers.as_chunks::<ANSWER>().0 {
            state.waiting.pop_front();
            let errno = i32::from_ne_bytes(*answer);
            if errno != 0 && state.failed.is_none() {
                state.failed = Some(Errno::from_raw(errno));
            }
        }
        drop(state);
        self.progress.notify_waiters();
    }
}

impl ReadAt for Partition {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let whole = offset..offset + buf.len() as u64;
        let state = self.state.borrow();
        let waits = state.waiting.iter().filter_map(|job| match *job {
            Job::Write { slot, len, offset } => Some((slot, offset..offset + u64::from(len))),
            Job::Sync => None,
        });
        if !waits
            .clone()
            .any(|(_, at)| at.start <= whole.start && whole.end <= at.end)
        {
            self.file.read_exact_at(buf, offset)?;
        }
        for (slot, at) in waits {
            let slot = self.slots[usize::from(slot)]
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            overlay(
                buf,
                offset,
                slot.bytes((at.end - at.start) as usize),
                at.start,
            );
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}

/// Copies what of `data`, which is to be at `at`, falls into `buf`, which was read from `offset` on.
pub fn overlay(buf: &mut [u8], offset: u64, data: &[u8], at: u64) {
    let from = offset.max(at);
    let to = (offset + buf.len() as u64).min(at + data.len() as u64);
    if from < to {
        // Within both, which are in memory.
        let into = (from - offset) as usize..(to - offset) as usize;
        buf[into].copy_from_slice(&data[(from - at) as usize..(to - at) as usize]);
    }
}

impl WriteAt for Partition {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.failure()?;
        let slot = loop {
            let free = self.state.borrow().free();
            match free {
                Some(slot) => break slot,
                None => self.block()?,
            }
        };
        self.slots[usize::from(slot)]
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .fill(data);
        let len = u32::try_from(data.len()).map_err(io::Error::other)?;
        self.ask(Job::Write { slot, len, offset })
    }

    fn sync(&self) -> io::Result<()> {
        self.failure()?;
        self.ask(Job::Sync)
    }
}

/// Takes the thread's answers as they come.
async fn collect(partition: Rc<Partition>) {
    let mut answers = [0; 16 * ANSWER];
    while let Ok(n) = partition.done.read_chunk(&mut answers).await {
        if n == 0 {
            return;
        }
        partition.take(&answers[..n]);
    }
}

/// The thread: does one job after the other until nobody can ask any more.
fn work(asked: &OwnedFd, tell: &OwnedFd, slots: &Slots, sink: &impl Sink) {
    let mut job = [0; JOB];
    loop {
        match nix::unistd::read(asked, &mut job) {
            Ok(JOB) => {}
            Err(Errno::EINTR) => continue,
            // So short a write is never torn (pipe(7), PIPE_BUF).
            _ => return,
        }
        let result = match Job::decode(&job) {
            Job::Sync => sink.sync(),
            Job::Write { slot, len, offset } => {
                let slot = slots[usize::from(slot)].read();
                let slot = slot.unwrap_or_else(PoisonError::into_inner);
                sink.write_all(slot.bytes(len as usize), offset)
            }
        };
        let answer = result.err().map_or(0, |errno| errno as i32);
        if nix::unistd::write(tell, &answer.to_ne_bytes()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_read_as_it_was_written() {
        for job in [
            Job::Sync,
            Job::Write {
                slot: 3,
                len: 256 * 1024,
                offset: u64::MAX - 5,
            },
        ] {
            let read = Job::decode(&job.encode());
            assert_eq!(format!("{read:?}"), format!("{job:?}"));
        }
    }

    #[test]
    fn what_waits_covers_what_was_read_and_no_more() {
        let cases: [(u64, &[u8], &[u8]); 6] = [
            (0, b"abc", b"......"),
            (8, b"abcd", b"cd...."),
            (12, b"ab", b"..ab.."),
            (14, b"abcd", b"....ab"),
            (16, b"ab", b"......"),
            (9, b"abcdefgh", b"bcdefg"),
        ];
        for (at, data, expected) in cases {
            let mut buf = *b"......";
            overlay(&mut buf, 10, data, at);
            assert_eq!(&buf, expected, "{at}");
        }
    }
}
