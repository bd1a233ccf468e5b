//! One output of a process (stdout, stderr or a PTY): read, recorded, and passed to whoever is attached.

use crate::io::fd::AsyncFile;
use crate::io::record::Recorder;
use crate::io::stream::Outlet;
use bytes::Bytes;
use std::cell::{Cell, RefCell};
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

/// Reads one output until its end, or, once `exited` is true, until nothing more is in it: what a
/// grandchild may write later is not waited for.
pub async fn pump(
    from: AsyncFile,
    channel: Channel,
    recorder: Option<Rc<Recorder>>,
    outlets: Rc<Outlets>,
    mut exited: watch::Receiver<bool>,
) {
    let mut buf = vec![0u8; CHUNK];
    loop {
        let done = *exited.borrow();
        if let Some(recorder) = recorder.as_ref().filter(|_| !done) {
            // What cannot be recorded in time is left with its writer.
            tokio::select! {
                () = recorder.room() => {}
                _ = exited.wait_for(|exited| *exited) => continue,
            }
        }
        let got = if done {
            from.read_now(&mut buf).ok().flatten().unwrap_or(0)
        } else {
            tokio::select! {
                biased;
                got = from.read_chunk(&mut buf) => got.unwrap_or(0),
                _ = exited.wait_for(|exited| *exited) => continue,
            }
        };
        if got == 0 {
            break;
        }
        let bytes = Bytes::copy_from_slice(&buf[..got]);
        if let Some(recorder) = &recorder {
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
        // Once the process has ended what is left is small: it is taken whole, so that the exit
        // does not wait for a paused reader.
        tokio::select! {
            () = outlets.wait() => {}
            _ = exited.wait_for(|exited| *exited) => {}
        }
    }
    outlets.end(channel);
}
