//! Reaps every child of the tether at once, and tells those who wait for one.

use crate::sys::process::{Ended, reap};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Who waits for which child.
#[derive(Debug, Default)]
pub struct Reaper {
    waiting: RefCell<HashMap<i32, oneshot::Sender<Ended>>>,
}

impl Reaper {
    /// Starts reaping. Must be called within a `LocalSet`.
    ///
    /// # Errors
    /// If SIGCHLD cannot be handled.
    pub fn start() -> io::Result<Rc<Reaper>> {
        let reaper = Rc::new(Reaper::default());
        let mut children = signal(SignalKind::child())?;
        let this = Rc::clone(&reaper);
        tokio::task::spawn_local(async move {
            while children.recv().await.is_some() {
                while let Ok(Some((pid, ended))) = reap(false) {
                    if let Some(waiting) = this.waiting.borrow_mut().remove(&pid) {
                        // Nobody may be interested any more.
                        let _ = waiting.send(ended);
                    }
                }
            }
        });
        Ok(reaper)
    }

    /// How this child ends. To be called before the event loop runs again after its clone.
    #[must_use]
    pub fn watch(&self, pid: i32) -> oneshot::Receiver<Ended> {
        let (tell, told) = oneshot::channel();
        self.waiting.borrow_mut().insert(pid, tell);
        told
    }
}
