//! What happened: a bounded history and a live feed, for `docker events`.

use crate::timestamps;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::broadcast;

/// Events that are kept for `--since`; as many as dockerd keeps.
const HISTORY: usize = 256;
/// Events that a slow reader may lag behind before it loses some.
const LAG: usize = 4096;

/// One event (Docker Engine API, `EventMessage`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `container`, `image`, `network`, `volume`, `daemon`.
    pub kind: &'static str,
    /// `start`, `exec_create: true`, …
    pub action: String,
    /// ID of what it happened to (for images the reference).
    pub id: String,
    /// `name`, `image`, labels and what the action adds (`exitCode`, `signal`).
    pub attributes: BTreeMap<String, String>,
    /// When, in ns since 1970.
    pub at: u64,
}

impl Event {
    /// The event as it goes over the wire, with the deprecated fields that old clients read.
    pub fn to_json(&self) -> Value {
        let mut out = json!({
            "Type": self.kind,
            "Action": self.action,
            "Actor": { "ID": self.id, "Attributes": self.attributes },
            "scope": "local",
            "time": self.at / 1_000_000_000,
            "timeNano": self.at,
        });
        if self.kind == "container" || self.kind == "image" {
            out["status"] = json!(self.action);
            out["id"] = json!(self.id);
        }
        if self.kind == "container" {
            out["from"] = json!(self.attributes.get("image"));
        }
        out
    }
}

/// The history and the feed. Cloning gives another handle on the same ones.
#[derive(Debug, Clone)]
pub struct Events {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    history: Mutex<VecDeque<Arc<Event>>>,
    feed: broadcast::Sender<Arc<Event>>,
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// An empty history.
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                history: Mutex::new(VecDeque::with_capacity(HISTORY)),
                feed: broadcast::channel(LAG).0,
            }),
        }
    }

    /// Tells everyone who listens, and keeps it.
    pub fn emit(
        &self,
        kind: &'static str,
        action: impl Into<String>,
        id: impl Into<String>,
        attributes: BTreeMap<String, String>,
    ) {
        let event = Arc::new(Event {
            kind,
            action: action.into(),
            id: id.into(),
            attributes,
            at: timestamps::now(),
        });
        let mut history = self
            .inner
            .history
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(event.clone());
        // Under the lock, so that no event is both in a listener's history and in its feed.
        let _nobody_listens = self.inner.feed.send(event);
    }

    /// Tells that unused objects of a kind were removed, and how many bytes that freed.
    pub fn pruned(&self, kind: &'static str, reclaimed: u64) {
        let attributes = BTreeMap::from([("reclaimed".to_owned(), reclaimed.to_string())]);
        self.emit(kind, "prune", "", attributes);
    }

    /// The history, and everything that comes after it, each event once.
    pub fn subscribe(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let history = self
            .inner
            .history
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (
            history.iter().cloned().collect(),
            self.inner.feed.subscribe(),
        )
    }

    /// How many listen (`NEventsListener` of `docker info`).
    pub fn listeners(&self) -> usize {
        self.inner.feed.receiver_count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_bounded_and_joins_the_feed_without_gap_or_double() {
        let events = Events::new();
        for i in 0..HISTORY + 10 {
            events.emit("container", format!("a{i}"), "x", BTreeMap::new());
        }
        let (history, mut feed) = events.subscribe();
        assert_eq!(history.len(), HISTORY);
        assert_eq!(history[0].action, "a10");
        events.emit("container", "die", "x", BTreeMap::new());
        assert_eq!(feed.try_recv().unwrap().action, "die");
        assert!(feed.try_recv().is_err());
    }
}
