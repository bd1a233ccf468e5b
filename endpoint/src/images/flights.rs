//! Layers on their way from a registry. Pulls that want the same layer of the same registry share one conversion; a
//! layer that has come stays a while, so that a pull that was interrupted goes on where it was.

use super::convert::Converted;
use super::progress::Progress;
use crate::errors::{Error, Result};
use layers::Digest;
use layers::convert::Folders;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;

/// How long a layer that no image has taken stays in the spool.
const KEPT: Duration = Duration::from_secs(600);
/// Bytes of the spool that such layers may take.
const KEPT_MAX: u64 = 8 << 30;
/// Bytes of memory that their lists of folders may take.
const FOLDERS_MAX: u64 = 256 << 20;

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
    /// Flights have numbers, so that the end of one is not taken for the end of a later one with its key.
    last: u64,
    flying: BTreeMap<Key, (u64, Weak<Flight>)>,
    landed: BTreeMap<Key, (u64, Converted)>,
}

impl Table {
    /// Whether what has landed takes more than it may.
    fn is_too_much(&self) -> bool {
        let landed = || self.landed.values().map(|(_, converted)| converted);
        landed().map(|c| c.image.stored()).sum::<u64>() > KEPT_MAX
            || Folders::memory(landed().map(|c| &c.folders)) > FOLDERS_MAX
    }
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
#[derive(Debug)]
pub(super) enum Boarded {
    /// Somebody else has it fetched.
    Joined(Arc<Flight>),
    /// It is being fetched from now on.
    Started(Arc<Flight>),
    /// It has come already.
    Landed(Converted),
    /// An image that was finished just now has it.
    Placed,
}

fn lock<T>(place: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flights {
    /// Gets hold of a layer; its progress is told to `progress` from now on. Where it neither has come nor is on its
    /// way, and `placed` does not say that an image has it, `work` fetches it, and tells its progress where it is told
    /// to. All of that is one step: of any number who ask, one has it fetched.
    pub fn board<F>(
        self: &Arc<Self>,
        key: &Key,
        progress: &Progress,
        placed: impl FnOnce() -> bool,
        work: impl FnOnce(Progress) -> F,
    ) -> Boarded
    where
        F: Future<Output = Result<Converted>> + Send + 'static,
    {
        let mut table = lock(&self.0);
        if let Some((_, landed)) = table.landed.get(key) {
            return Boarded::Landed(landed.clone());
        }
        if let Some(flight) = table.flying.get(key).and_then(|(_, f)| f.upgrade()) {
            lock(&flight.listeners).push(progress.clone());
            return Boarded::Joined(flight);
        }
        // Those whose layer was taken by an image come here only after that image was written down.
        if placed() {
            return Boarded::Placed;
        }
        table.last += 1;
        let flight = self.start(table.last, key, progress, work);
        let entry = (table.last, Arc::downgrade(&flight));
        // Those that were given up have no other occasion to go.
        table.flying.retain(|_, (_, f)| f.strong_count() > 0);
        table.flying.insert(key.clone(), entry);
        Boarded::Started(flight)
    }

    fn start<F>(
        self: &Arc<Self>,
        number: u64,
        key: &Key,
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
        let (flights, key) = (self.clone(), key.clone());
        let working = tokio::spawn(async move {
            let result = work.await;
            // All of its progress comes before its end.
            let _ended_anyway = telling.await;
            flights.ended(number, &key, &result);
            // Nobody may wait any more.
            let _ = send.send(Some(result));
        });
        Arc::new(Flight {
            outcome: Outcome(outcome),
            listeners,
            tasks: vec![told, working.abort_handle()],
        })
    }

    /// A flight has come to its end.
    fn ended(self: &Arc<Self>, number: u64, key: &Key, result: &Result<Converted>) {
        let mut table = lock(&self.0);
        if table.flying.get(key).is_some_and(|(n, _)| *n == number) {
            table.flying.remove(key);
        }
        let Ok(converted) = result else {
            return;
        };
        table
            .landed
            .insert(key.clone(), (number, converted.clone()));
        // Those that are being waited for are held by their flights.
        while table.is_too_much() && table.landed.pop_first().is_some() {}
        let (flights, key) = (Arc::downgrade(self), key.clone());
        tokio::spawn(async move {
            tokio::time::sleep(KEPT).await;
            if let Some(flights) = flights.upgrade() {
                flights.expired(number, &key);
            }
        });
    }

    /// The time of a layer that landed is over; that of a later one with its key is not.
    fn expired(&self, number: u64, key: &Key) {
        let mut table = lock(&self.0);
        if table.landed.get(key).is_some_and(|(n, _)| *n == number) {
            table.landed.remove(key);
        }
    }

    /// Forgets layers that an image has taken, once it was written down.
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

#[cfg(test)]
mod tests {
    use super::*;
    use layers::spool::{ImageWriter, Spool};
    use std::future::pending;

    fn key(layer: &str) -> Key {
        Key {
            chain_id: Digest::of(layer.as_bytes()),
            digest: Digest::of(layer.as_bytes()),
            domain: "registry.test".to_owned(),
        }
    }

    fn layer() -> Converted {
        Converted {
            digest: Digest::of(b"blob"),
            compressed: 4,
            image: ImageWriter::in_memory().finish(0).unwrap(),
            partition: 0,
            unpacked: 0,
            content: 0,
            recipe: Spool::new(std::env::temp_dir(), 0)
                .and_then(|spool| spool.blob())
                .unwrap()
                .finish(),
            hides_lower_layers: false,
            folders: Arc::default(),
        }
    }

    /// Boards with work that never ends.
    fn board(flights: &Arc<Flights>, key: &Key) -> Boarded {
        let progress = Progress::new().0;
        flights.board(key, &progress, || false, |_| pending())
    }

    #[tokio::test]
    async fn of_two_who_ask_one_has_it_fetched() {
        let flights = Arc::new(Flights::default());
        let Boarded::Started(first) = board(&flights, &key("a")) else {
            panic!("the first has it fetched");
        };
        let Boarded::Joined(second) = board(&flights, &key("a")) else {
            panic!("the second joins");
        };
        assert!(Arc::ptr_eq(&first, &second));
        assert!(matches!(board(&flights, &key("b")), Boarded::Started(_)));
    }

    #[tokio::test]
    async fn the_end_of_a_flight_that_was_given_up_does_not_end_the_next() {
        let flights = Arc::new(Flights::default());
        drop(board(&flights, &key("a")));
        let Boarded::Started(next) = board(&flights, &key("a")) else {
            panic!("nobody waits for the first any more");
        };
        // Its task was past the point where it can be stopped.
        flights.ended(1, &key("a"), &Err(Error::internal("given up")));
        let Boarded::Joined(third) = board(&flights, &key("a")) else {
            panic!("the next one flies on");
        };
        assert!(Arc::ptr_eq(&next, &third));
    }

    #[tokio::test]
    async fn a_timer_of_an_earlier_landing_does_not_end_a_later_one_s_time() {
        let flights = Arc::new(Flights::default());
        let is_there = || matches!(board(&flights, &key("a")), Boarded::Landed(_));
        flights.ended(1, &key("a"), &Ok(layer()));
        assert!(is_there());
        flights.taken(&[key("a")]);
        flights.ended(2, &key("a"), &Ok(layer()));
        flights.expired(1, &key("a"));
        assert!(is_there());
        flights.expired(2, &key("a"));
        assert!(!is_there());
    }

    #[tokio::test]
    async fn what_an_image_took_meanwhile_is_not_fetched_again() {
        let flights = Arc::new(Flights::default());
        let progress = Progress::new().0;
        flights.ended(1, &key("a"), &Ok(layer()));
        flights.taken(&[key("a")]);
        let boarded = flights.board(&key("a"), &progress, || true, |_| pending());
        assert!(matches!(boarded, Boarded::Placed));
    }

    #[tokio::test]
    async fn layers_that_landed_take_no_more_memory_than_they_may() {
        let flights = Arc::new(Flights::default());
        let landed = || lock(&flights.0).landed.len();
        // An attribute each, of a quarter of what there is for all.
        let large = |number: u8| {
            let length = FOLDERS_MAX as usize / 4;
            let mut listed = vec![0; 54];
            listed[0] = 4;
            listed.splice(4..4, *b"path");
            listed[54..].copy_from_slice(&1u32.to_le_bytes());
            for text in [vec![b'n'; 6], vec![number; length]] {
                listed.extend((text.len() as u32).to_le_bytes());
                listed.extend(text);
            }
            let packed = zstd::encode_all(&listed[..], 1).unwrap();
            let folders = Arc::new(Folders::decode(&packed).unwrap());
            Converted { folders, ..layer() }
        };
        // What is the same list counts once.
        let shared = large(0);
        for number in 0..20 {
            let key = key(&format!("shared-{number}"));
            flights.ended(number, &key, &Ok(shared.clone()));
        }
        assert_eq!(landed(), 20);
        flights.taken(
            &(0..20)
                .map(|n| key(&format!("shared-{n}")))
                .collect::<Vec<_>>(),
        );
        for number in 1..6 {
            flights.ended(number.into(), &key(&number.to_string()), &Ok(large(number)));
        }
        assert_eq!(landed(), 3);
    }
}
