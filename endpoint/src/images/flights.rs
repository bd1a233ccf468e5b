//! Layers on their way from a registry. Pulls that want the same layer of the same registry share one conversion; a
//! layer that has come stays a while, so that a pull that was interrupted goes on where it was.

use super::convert::Converted;
use super::progress::Progress;
use crate::errors::{Error, Result};
use layers::Digest;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// How long a layer that no image has taken stays in the spool.
const KEPT: Duration = Duration::from_secs(600);
/// Bytes of the spool that such layers may take.
const KEPT_MAX: u64 = 8 << 30;

/// Which layer, of where: a registry that sends nothing holds up only those who ask it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Chain ID up to the layer.
    pub chain_id: Digest,
    /// The blob.
    pub digest: Digest,
    /// The registry.
    pub domain: String,
}

/// All layers on their way.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    flying: BTreeMap<Key, Weak<Flight>>,
    landed: BTreeMap<Key, Converted>,
}

/// One layer on its way. With the last who waits for it, it is given up.
#[derive(Debug)]
pub(super) struct Flight {
    outcome: Outcome,
    listeners: Arc<Mutex<Vec<Progress>>>,
    tasks: Vec<tokio::task::AbortHandle>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The end of a flight, which does not keep it going.
#[derive(Debug, Clone)]
pub(super) struct Outcome(watch::Receiver<Option<Result<Converted>>>);

/// How a layer was got hold of.
pub(super) enum Boarded {
    /// Somebody else has it fetched.
    Joined(Arc<Flight>),
    /// It has come already.
    Landed(Converted),
    /// It must be fetched.
    Wanted,
}

fn lock<T>(place: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flights {
    /// Whether a layer is on its way; its progress is told to `progress` from now on.
    pub fn board(&self, key: &Key, progress: &Progress) -> Boarded {
        let mut table = lock(&self.0);
        if let Some(landed) = table.landed.get(key) {
            return Boarded::Landed(landed.clone());
        }
        match table.flying.get(key).and_then(Weak::upgrade) {
            Some(flight) => {
                lock(&flight.listeners).push(progress.clone());
                Boarded::Joined(flight)
            }
            None => {
                table.flying.remove(key);
                Boarded::Wanted
            }
        }
    }

    /// Has a layer fetched by `work`, which tells its progress where it is told to.
    pub fn start<F>(
        self: &Arc<Self>,
        key: Key,
        progress: &Progress,
        work: impl FnOnce(Progress) -> F,
    ) -> Arc<Flight>
    where
        F: Future<Output = Result<Converted>> + Send + 'static,
    {
        let listeners = Arc::new(Mutex::new(vec![progress.clone()]));
        let (own, mut lines) = Progress::new();
        let all = listeners.clone();
        let telling = tokio::spawn(async move {
            while let Some(line) = lines.recv().await {
                lock(&all).retain(|listener| listener.forward(line.clone()));
            }
        });
        let (send, outcome) = watch::channel(None);
        let told = telling.abort_handle();
        let work = work(own);
        let (flights, place) = (self.clone(), key.clone());
        let working = tokio::spawn(async move {
            let result = work.await;
            // All of its progress comes before its end.
            let _ended_anyway = telling.await;
            match &result {
                Ok(converted) => flights.land(&place, converted),
                Err(_) => drop(lock(&flights.0).flying.remove(&place)),
            }
            // Nobody may wait any more.
            let _ = send.send(Some(result));
        });
        let flight = Arc::new(Flight {
            outcome: Outcome(outcome),
            listeners,
            tasks: vec![told, working.abort_handle()],
        });
        lock(&self.0).flying.insert(key, Arc::downgrade(&flight));
        flight
    }

    fn land(self: &Arc<Self>, key: &Key, converted: &Converted) {
        let mut table = lock(&self.0);
        table.flying.remove(key);
        table.landed.insert(key.clone(), converted.clone());
        let stored = |table: &Table| table.landed.values().map(|c| c.image.stored()).sum::<u64>();
        // Those that are being waited for are held by their flights.
        while stored(&table) > KEPT_MAX && table.landed.pop_first().is_some() {}
        let (flights, key) = (Arc::downgrade(self), key.clone());
        tokio::spawn(async move {
            tokio::time::sleep(KEPT).await;
            if let Some(flights) = flights.upgrade() {
                lock(&flights.0).landed.remove(&key);
            }
        });
    }

    /// Forgets layers that an image has taken.
    pub fn taken(&self, keys: &[Key]) {
        let mut table = lock(&self.0);
        for key in keys {
            table.landed.remove(key);
        }
    }
}

impl Flight {
    /// Its end.
    pub fn outcome(&self) -> Outcome {
        self.outcome.clone()
    }
}

impl Outcome {
    /// The layer, once it has come.
    ///
    /// # Errors
    /// Those of its fetching.
    pub async fn wait(self) -> Result<Converted> {
        let mut outcome = self.0;
        let seen = outcome.wait_for(Option::is_some).await;
        match seen.as_deref() {
            Ok(Some(result)) => result.clone(),
            _ => Err(Error::internal("the fetching of a layer ended")),
        }
    }
}
