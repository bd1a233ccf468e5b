//! Ctrl-C and SIGTERM.

use crate::Error;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals, from when this was made on: one that came while nobody waited is not lost.
#[derive(Debug)]
pub(crate) struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    /// Handles the signals, which no longer end this process by themselves.
    ///
    /// # Errors
    /// Where the system does not let it.
    pub(crate) fn new() -> Result<Self, Error> {
        let handler = |kind| signal(kind).map_err(Error::file("handle signals of", "this process"));
        Ok(Interrupt {
            interrupt: handler(SignalKind::interrupt())?,
            terminate: handler(SignalKind::terminate())?,
        })
    }

    /// Waits for one of them. Nothing is lost where this is given up.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Whether one has come. The runtime notes a signal only when it has nothing else to do.
    pub(crate) async fn has_come(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(1), self.asked())
            .await
            .is_ok()
    }
}
