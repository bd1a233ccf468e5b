//! One output of a process (stdout, stderr or a PTY): read, recorded, and passed to whoever is attached.

use crate::io::fd::AsyncFile;
use crate::io::record::Recorder;
use crate::io::stream::Outlet;
use crate::sys::fs::readable_bytes;
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::os::fd::AsFd;
use std::rc::Rc;
use tokio::sync::watch;
use wire::message::Channel;

/// Bytes read at once; a pipe holds as many by default.
const CHUNK: usize = 64 * 1024;

/// The outlets of a session.
#[derive(Debug, Default)]
pub struct Outlets {
    list: RefCell<Vec<Rc<Outlet>>>,
    /// Channels that are complete: stdout, stderr.
    over: [Cell<bool>; 2],
    kept: RefCell<Vec<u8>>,
    /// Bytes to keep.
    keep: Cell<usize>,
}

impl Outlets {
    /// Attaches one: it gets what is read from now on.
    pub fn attach(&self, outlet: Rc<Outlet>) {
        let mut list = self.list.borrow_mut();
        list.retain(|o| !o.is_closed());
        for (over, channel) in self.over.iter().zip([Channel::Stdout, Channel::Stderr]) {
            if over.get() {
                outlet.end(channel);
            }
        }
        list.push(outlet);
    }

    /// Drops all, at once: the link is gone.
    pub fn clear(&self) {
        self.list.borrow_mut().clear();
    }

    /// Keeps the first `most` bytes of all channels.
    pub fn keep(&self, most: usize) {
        self.keep.set(most);
    }

    /// What was kept; `...` stands for what was more.
    #[must_use]
    pub fn kept(&self) -> String {
        let kept = self.kept.borrow();
        match kept.get(..self.keep.get()) {
            Some(first) if kept.len() > first.len() => {
                String::from_utf8_lossy(first).into_owned() + "..."
            }
            _ => String::from_utf8_lossy(&kept).into_owned(),
        }
    }

    fn push(&self, channel: Channel, bytes: &Bytes) {
        if self.keep.get() > 0 {
            // One more tells that there was more.
            let mut kept = self.kept.borrow_mut();
            let room = (self.keep.get() + 1).saturating_sub(kept.len());
            kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        self.list
            .borrow()
            .iter()
            .for_each(|o| o.push(channel, bytes));
    }

    /// There is no such channel: it is complete from the start.
    pub fn never(&self, channel: Channel) {
        self.end(channel);
    }

    fn end(&self, channel: Channel) {
        self.over[usize::from(channel == Channel::Stderr)].set(true);
        self.list.borrow().iter().for_each(|o| o.end(channel));
    }

    async fn wait(&self) {
        let list: Vec<Rc<Outlet>> = self.list.borrow().clone();
        for outlet in list {
            outlet.wait().await;
        }
    }
}

/// Reads one output until its end, or until `exited` is true; then takes what is in it at that
/// moment: what a grandchild writes later is not waited for.
pub async fn pump(
    mut from: AsyncFile,
    channel: Channel,
    recorder: Option<Rc<Recorder>>,
    outlets: Rc<Outlets>,
    mut exited: watch::Receiver<bool>,
) {
    let mut buf = vec![0u8; CHUNK];
    loop {
        let got = tokio::select! {
            // A writer that never stops must not hide the exit.
            biased;
            _ = exited.wait_for(|exited| *exited) => break,
            got = next(&mut from, &mut buf, recorder.as_deref()) => got,
        };
        if got == 0 {
            break;
        }
        take(&buf[..got], channel, recorder.as_deref(), &outlets);
        tokio::select! {
            () = outlets.wait() => {}
            _ = exited.wait_for(|exited| *exited) => break,
        }
        // Nothing above waits where writers are quicker than this and nobody holds them back.
        tokio::task::coop::consume_budget().await;
    }
    // What is left is small, and taken whole, so that the exit does not wait for a paused reader.
    let mut left = held(&from);
    while left > 0 {
        let most = left.min(CHUNK);
        let Ok(Some(got @ 1..)) = from.read_now(&mut buf[..most]) else {
            break;
        };
        left -= got;
        take(&buf[..got], channel, recorder.as_deref(), &outlets);
        tokio::task::coop::consume_budget().await;
    }
    outlets.end(channel);
}

/// What comes next; 0 at the end. Cancel-safe.
async fn next(from: &mut AsyncFile, buf: &mut [u8], recorder: Option<&Recorder>) -> usize {
    if let Some(recorder) = recorder {
        // What cannot be recorded in time is left with its writer.
        recorder.room().await;
    }
    from.read_output(buf).await.unwrap_or(0)
}

/// Records output and passes it on.
fn take(bytes: &[u8], channel: Channel, recorder: Option<&Recorder>, outlets: &Outlets) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Some(recorder) = recorder {
        let stream = if channel == Channel::Stderr {
            journal::Stream::Stderr
        } else {
            journal::Stream::Stdout
        };
        if let Err(error) = recorder.output(stream, &bytes) {
            crate::console(&format!("output is lost to the journal: {error}"));
        }
    }
    outlets.push(channel, &bytes);
}

/// Bytes after which everything that an output holds now was read: a bound, for one into which
/// somebody still writes.
fn held(from: &AsyncFile) -> usize {
    if from.is_terminal() {
        // FIONREAD knows of the line discipline's 4 KiB only. Before it there are buffers of some
        // 16 KiB (drivers/tty/pty.c, `tty_buffer_set_limit`).
        return CHUNK;
    }
    readable_bytes(from.as_fd()).unwrap_or(CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::fd::tests::{beside, terminal};
    use crate::sys::tty::pty_peer;
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::unistd::pipe2;
    use std::io::Write as _;
    use std::os::fd::OwnedFd;
    use std::thread;

    /// Bytes that are kept: well over what a process can have left in any output here.
    const MOST: usize = 16 << 20;

    /// A pump of a descriptor, and its `exited`.
    struct Pump {
        outlets: Rc<Outlets>,
        exited: watch::Sender<bool>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Pump {
        fn new(from: OwnedFd, exited: bool) -> Pump {
            let outlets = Rc::new(Outlets::default());
            outlets.keep(MOST);
            let exited = watch::Sender::new(exited);
            let from = AsyncFile::new(from).unwrap();
            let task = tokio::task::spawn_local(pump(
                from,
                Channel::Stdout,
                None,
                Rc::clone(&outlets),
                exited.subscribe(),
            ));
            Pump {
                outlets,
                exited,
                task,
            }
        }

        async fn until(&self, bytes: usize) {
            while self.outlets.kept.borrow().len() < bytes {
                assert!(!self.task.is_finished(), "it ended: {}", self.len());
                tokio::task::yield_now().await;
            }
        }

        fn len(&self) -> usize {
            self.outlets.kept.borrow().len()
        }

        async fn ended(self) -> Vec<u8> {
            self.task.await.unwrap();
            self.outlets.kept.borrow().clone()
        }
    }

    /// Writes until nothing more goes in, so many bytes at once. Returns what went in.
    fn fill(fd: &OwnedFd, step: usize) -> Vec<u8> {
        let before = fcntl(fd, FcntlArg::F_GETFL).unwrap();
        let flags = OFlag::from_bits_retain(before);
        fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
        let mut all = Vec::new();
        loop {
            let from = all.len();
            let bytes: Vec<u8> = (from..from + step).map(|i| b'a' + (i % 23) as u8).collect();
            match nix::unistd::write(fd, &bytes) {
                Ok(count) => all.extend_from_slice(&bytes[..count]),
                Err(nix::Error::EAGAIN) => break,
                Err(error) => panic!("{error}"),
            }
        }
        fcntl(fd, FcntlArg::F_SETFL(flags)).unwrap();
        all
    }

    #[test]
    fn a_terminal_that_is_closed_for_a_moment_is_not_at_its_end() {
        beside(async || {
            let master = terminal();
            let slave = pty_peer(master.as_fd()).unwrap();
            nix::unistd::write(&slave, b"one.").unwrap();
            drop(slave);
            let pump = Pump::new(master.try_clone().unwrap(), false);
            // By then it has found that nobody has the terminal open.
            pump.until(4).await;
            for round in 1..=3 {
                assert!(!pump.task.is_finished());
                let slave = pty_peer(master.as_fd()).unwrap();
                // More than fits in where nobody reads.
                let writer = thread::spawn(move || {
                    let mut slave = std::fs::File::from(slave);
                    slave.write_all(&[b'x'; 100_000]).unwrap();
                    slave
                });
                pump.until(4 + round * 100_000).await;
                drop(writer.join().unwrap());
            }
            let slave = pty_peer(master.as_fd()).unwrap();
            nix::unistd::write(&slave, b".last").unwrap();
            pump.exited.send_replace(true);
            let all = pump.ended().await;
            assert_eq!(all.len(), 300_009);
            assert!(all.ends_with(b"xx.last"));
        });
    }

    #[test]
    fn a_terminal_that_nobody_opens_again_ends_with_its_process() {
        beside(async || {
            let master = terminal();
            let slave = pty_peer(master.as_fd()).unwrap();
            nix::unistd::write(&slave, b"one").unwrap();
            drop(slave);
            let pump = Pump::new(master, false);
            pump.until(3).await;
            pump.exited.send_replace(true);
            assert_eq!(pump.ended().await, b"one");
        });
    }

    #[test]
    fn all_that_a_process_wrote_before_its_end_is_taken_once() {
        beside(async || {
            for step in [1, 100, 4096] {
                let (from, to) = pipe2(OFlag::O_CLOEXEC).unwrap();
                fcntl(&from, FcntlArg::F_SETPIPE_SZ(1 << 20)).unwrap();
                let filled = fill(&to, step);
                assert!(filled.len() >= 4096);
                // Somebody else has it open still.
                assert!(Pump::new(from, true).ended().await == filled, "{step}");
                drop(to);
                for closed in [false, true] {
                    let master = terminal();
                    let slave = pty_peer(master.as_fd()).unwrap();
                    let filled = fill(&slave, step);
                    assert!(filled.len() > 8192, "{}", filled.len());
                    let slave = Some(slave).filter(|_| !closed);
                    let taken = Pump::new(master, true).ended().await;
                    assert!(taken == filled, "{step} {closed} {}", taken.len());
                    drop(slave);
                }
            }
        });
    }

    #[test]
    fn an_output_that_never_runs_dry_keeps_neither_others_nor_the_end_from_their_turn() {
        beside(async || {
            // Always readable, as what a process fills that is quicker than the tether.
            let open = || OwnedFd::from(std::fs::File::open("/dev/random").unwrap());
            let pump = Pump::new(open(), false);
            pump.until(MOST).await;
            pump.exited.send_replace(true);
            pump.ended().await;

            let taken = Pump::new(open(), true).ended().await.len();
            assert!((1..=CHUNK).contains(&taken), "{taken}");
        });
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_others_write_after_the_end_is_not_counted() {
        let (from, to) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let from = AsyncFile::new(from).unwrap();
        nix::unistd::write(&to, b"12345").unwrap();
        assert_eq!(held(&from), 5);
    }
}
