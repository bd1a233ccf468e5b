//! One attached stream: what goes out waits here for the endpoint's credit.

use bytes::Bytes;
use link::StreamSender;
use std::cell::Cell;
use std::rc::Rc;
use tokio::sync::{Notify, mpsc, watch};
use wire::message::Channel;

/// Bytes that wait in the tether for a stream before its writer is held back.
const QUEUE: usize = 256 * 1024;

enum Item {
    Data(Channel, Bytes),
    End(Channel, u64),
}

/// The tether's place to put output for one attached stream.
#[derive(Debug)]
pub struct Outlet {
    queue: mpsc::UnboundedSender<Item>,
    queued: Cell<usize>,
    /// The peer is gone.
    closed: Cell<bool>,
    changed: Notify,
    /// Channels that were not asked for are not sent.
    wanted: [bool; 2],
}

impl Outlet {
    /// Takes a stream's sending half. The outlet ends when it is dropped and its queue is sent, when
    /// the peer drops the stream, or when the link ends; then `done` is told. Once `cut` is true, what
    /// the peer has not taken is given up: each channel ends with the count of what is left.
    /// Must be called within a `LocalSet`.
    #[must_use]
    pub fn new(
        sender: StreamSender,
        stdout: bool,
        stderr: bool,
        cut: watch::Receiver<bool>,
        done: impl FnOnce() + 'static,
    ) -> Rc<Outlet> {
        let (queue, waiting) = mpsc::unbounded_channel();
        let outlet = Rc::new(Outlet {
            queue,
            queued: Cell::new(0),
            closed: Cell::new(false),
            changed: Notify::new(),
            wanted: [stdout, stderr],
        });
        let weak = Rc::downgrade(&outlet);
        tokio::task::spawn_local(async move {
            forward(sender, waiting, cut, |n| {
                if let Some(outlet) = weak.upgrade() {
                    outlet.queued.set(outlet.queued.get().saturating_sub(n));
                    outlet.changed.notify_waiters();
                }
            })
            .await;
            if let Some(outlet) = weak.upgrade() {
                outlet.closed.set(true);
                outlet.changed.notify_waiters();
            }
            done();
        });
        outlet
    }

    /// Whether the peer is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Waits for room for what was pushed before: this is what holds a writer back. Ends at once
    /// where the peer is gone.
    pub async fn wait(&self) {
        loop {
            let changed = self.changed.notified();
            if self.queued.get() <= QUEUE || self.closed.get() {
                return;
            }
            changed.await;
        }
    }

    /// Queues bytes, without waiting.
    pub fn push(&self, channel: Channel, bytes: &Bytes) {
        let wanted = match channel {
            Channel::Stdout => self.wanted[0],
            Channel::Stderr => self.wanted[1],
            Channel::Stdin => false,
        };
        if wanted && !self.is_closed() {
            self.queued.set(self.queued.get() + bytes.len());
            let _ = self.queue.send(Item::Data(channel, bytes.clone()));
        }
    }

    /// Tells that a channel is complete.
    pub fn end(&self, channel: Channel) {
        let _ = self.queue.send(Item::End(channel, 0));
    }
}

async fn forward(
    mut sender: StreamSender,
    mut waiting: mpsc::UnboundedReceiver<Item>,
    mut cut: watch::Receiver<bool>,
    freed: impl Fn(usize),
) {
    let left = [Cell::new(0u64), Cell::new(0u64)];
    let index = |channel: Channel| usize::from(channel == Channel::Stderr);
    loop {
        let item = tokio::select! {
            item = waiting.recv() => item,
            _ = sender.closed() => return,
        };
        match item {
            None => return,
            Some(Item::End(channel, more)) => {
                if sender
                    .end(channel, left[index(channel)].get() + more)
                    .is_err()
                {
                    return;
                }
            }
            Some(Item::Data(channel, mut bytes)) => {
                let whole = bytes.len();
                while !bytes.is_empty() && !*cut.borrow() {
                    match sender.try_send(channel, bytes.clone()) {
                        Err(_) => return,
                        Ok(0) => {
                            tokio::select! {
                                ready = sender.ready() => if ready.is_err() { return },
                                _ = cut.wait_for(|cut| *cut) => {}
                            }
                        }
                        Ok(n) => drop(bytes.split_to(n)),
                    }
                }
                left[index(channel)].set(left[index(channel)].get() + bytes.len() as u64);
                freed(whole);
            }
        }
    }
}
