//! One request at a time works on an upload. A newer one ends the one that still waits for bytes: the connection of a client
//! that comes back is usually no more, without the server having noticed.

use crate::metadata::now;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Notify, OwnedMutexGuard};

/// Where an upload's requests meet.
#[derive(Debug)]
pub(super) struct Slot {
    gate: Arc<tokio::sync::Mutex<()>>,
    /// Told to the request whose turn it is when another one wants it.
    pub(super) wanted: Notify,
    active: AtomicI64,
}

impl Default for Slot {
    fn default() -> Self {
        Slot {
            gate: Arc::default(),
            wanted: Notify::new(),
            active: AtomicI64::new(now()),
        }
    }
}

impl Slot {
    /// Notes that bytes came.
    pub(super) fn touch(&self) {
        self.active.store(now(), Ordering::Relaxed);
    }
}

/// The uploads that are worked on.
#[derive(Debug, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<String, Arc<Slot>>>>);

/// The right to work on an upload, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    id: String,
    slot: Arc<Slot>,
    all: Arc<Mutex<HashMap<String, Arc<Slot>>>>,
    _held: OwnedMutexGuard<()>,
}

impl Turn {
    pub(super) fn slot(&self) -> &Slot {
        &self.slot
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = lock(&self.all);
        // Ours and the map's: nobody waits.
        if Arc::strong_count(&self.slot) == 2 {
            all.remove(&self.id);
        }
    }
}

fn lock(all: &Mutex<HashMap<String, Arc<Slot>>>) -> MutexGuard<'_, HashMap<String, Arc<Slot>>> {
    // A panic while it was held leaves the map whole.
    all.lock().unwrap_or_else(|e| e.into_inner())
}

impl Turns {
    /// Waits for the turn, and asks whoever has it to end.
    pub(super) async fn take(&self, id: &str) -> Turn {
        let slot = lock(&self.0).entry(id.to_owned()).or_default().clone();
        let held = match slot.gate.clone().try_lock_owned() {
            Ok(held) => held,
            Err(_) => {
                slot.wanted.notify_one();
                let held = slot.gate.clone().lock_owned().await;
                // The other one may have ended by itself: what it was told must not end this request.
                let unread = slot.wanted.notified();
                tokio::pin!(unread);
                unread.as_mut().enable();
                held
            }
        };
        Turn {
            id: id.to_owned(),
            slot,
            all: self.0.clone(),
            _held: held,
        }
    }

    /// Whether a request has the turn.
    pub(super) fn taken(&self, id: &str) -> bool {
        lock(&self.0)
            .get(id)
            .is_some_and(|slot| slot.gate.try_lock().is_err())
    }

    /// When bytes came last for an upload that is worked on, milliseconds since 1970.
    pub(super) fn active(&self, id: &str) -> Option<i64> {
        lock(&self.0)
            .get(id)
            .map(|slot| slot.active.load(Ordering::Relaxed))
    }
}
