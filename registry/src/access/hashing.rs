//! Turns at hashing passwords: each takes 19 MiB and tens of milliseconds of a core, and anybody can ask for one.
//!
//! A turn ends when its hash is done, not when whoever asked for it has gone: else clients that hang up could have any
//! number of them at once.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Passwords hashed at once; who comes later waits.
const AT_ONCE: usize = 4;
/// Most who have a turn or wait for one; who comes then is sent away.
const WAITING: usize = 512;
/// Most of these from one source.
const WAITING_OF_SOURCE: usize = 64;

/// What is hashed, and who waits for it.
#[derive(Debug, Clone)]
pub struct Hashing {
    places: Arc<Semaphore>,
    load: Arc<Mutex<Load>>,
}

/// How much is hashed.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// Now.
    pub hashing: usize,
    /// Most at once so far.
    pub most_hashing: usize,
    /// Turns that were asked for and are not over.
    pub waiting: usize,
    /// Most of these so far.
    pub most_waiting: usize,
    sources: HashMap<Box<str>, usize>,
}

/// Too many wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy;

/// A place in the queue; given back when it is dropped.
#[derive(Debug)]
struct Place {
    load: Arc<Mutex<Load>>,
    source: Box<str>,
}

/// The right to hash one password.
#[derive(Debug)]
pub(super) struct Turn {
    // Given back in this order: who gets the permit finds the place free.
    place: Place,
    _permit: Option<OwnedSemaphorePermit>,
}

fn lock(load: &Mutex<Load>) -> MutexGuard<'_, Load> {
    // A panic while it was held leaves the numbers whole.
    load.lock().unwrap_or_else(|e| e.into_inner())
}

/// What counts as one source: an address, and of IPv6 the network that one customer has.
pub(crate) fn network(source: &str) -> Box<str> {
    match source.parse::<Ipv6Addr>() {
        Ok(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(prefix).to_string().into()
        }
        Err(_) => source.into(),
    }
}

impl Hashing {
    pub(super) fn new() -> Self {
        Hashing {
            places: Arc::new(Semaphore::new(AT_ONCE)),
            load: Arc::default(),
        }
    }

    /// How much there is to do.
    #[must_use]
    pub fn load(&self) -> Load {
        lock(&self.load).clone()
    }

    /// Waits for a turn.
    pub(super) async fn turn(&self, source: &str) -> Result<Turn, Busy> {
        let place = self.place(source)?;
        // It is never closed.
        let permit = self.places.clone().acquire_owned().await.ok();
        Ok(Turn {
            place,
            _permit: permit,
        })
    }

    fn place(&self, source: &str) -> Result<Place, Busy> {
        let source = network(source);
        let mut load = lock(&self.load);
        let own = load.sources.get(&source).copied().unwrap_or(0);
        if load.waiting >= WAITING || own >= WAITING_OF_SOURCE {
            return Err(Busy);
        }
        load.waiting += 1;
        load.most_waiting = load.most_waiting.max(load.waiting);
        load.sources.insert(source.clone(), own + 1);
        drop(load);
        Ok(Place {
            load: self.load.clone(),
            source,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut load = lock(&self.load);
        load.waiting -= 1;
        if let Some(own) = load.sources.get_mut(&self.source) {
            *own -= 1;
            if *own == 0 {
                load.sources.remove(&self.source);
            }
        }
    }
}

impl Turn {
    /// Takes the turn, on a blocking thread; it ends with `work`, whether somebody waits for that or not. `None`: it
    /// panicked.
    pub(super) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        /// Counts, even when the work panics.
        struct Running(Turn);
        impl Drop for Running {
            fn drop(&mut self) {
                lock(&self.0.place.load).hashing -= 1;
            }
        }
        let done = tokio::task::spawn_blocking(move || {
            let mut load = lock(&self.place.load);
            load.hashing += 1;
            load.most_hashing = load.most_hashing.max(load.hashing);
            drop(load);
            let running = Running(self);
            let done = work();
            drop(running);
            done
        });
        done.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_turn_is_over_when_its_hash_is_done_and_not_when_its_client_has_gone() {
        let hashing = Hashing::new();
        let (release, released) = channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let (begin, mut begun) = tokio::sync::mpsc::unbounded_channel();
        let mut clients = Vec::new();
        for _ in 0..AT_ONCE + 2 {
            let (hashing, released, begin) = (hashing.clone(), released.clone(), begin.clone());
            clients.push(tokio::spawn(async move {
                let turn = hashing.turn("a").await.unwrap();
                turn.run(move || {
                    begin.send(()).unwrap();
                    let _ = released.lock().unwrap().recv();
                })
                .await
            }));
        }
        for _ in 0..AT_ONCE {
            begun.recv().await.unwrap();
        }
        assert_eq!(hashing.load().hashing, AT_ONCE);
        // All hang up. Those that wait leave the queue, those that are hashed stay in it.
        for client in &clients {
            client.abort();
        }
        for client in clients {
            assert!(client.await.unwrap_err().is_cancelled());
        }
        let load = hashing.load();
        assert_eq!((load.hashing, load.waiting), (AT_ONCE, AT_ONCE));
        let next = tokio::time::timeout(Duration::from_millis(20), hashing.turn("b"));
        assert!(next.await.is_err(), "there is no place yet");
        for _ in 0..AT_ONCE {
            release.send(()).unwrap();
        }
        let mut turns = Vec::new();
        for _ in 0..AT_ONCE {
            turns.push(hashing.turn("b").await.unwrap());
        }
        assert_eq!(turns.remove(0).run(|| 7).await, Some(7));
        drop(turns);
        let load = hashing.load();
        assert_eq!((load.most_hashing, load.sources.len()), (AT_ONCE, 0));
    }

    #[tokio::test]
    async fn one_source_does_not_take_all_places_and_all_together_have_their_bound() {
        let hashing = Hashing::new();
        let mut places: Vec<Place> = (0..WAITING_OF_SOURCE)
            .map(|_| hashing.place("2001:db8::1").unwrap())
            .collect();
        assert_eq!(hashing.place("2001:db8::2").unwrap_err(), Busy);
        for n in 0..WAITING - WAITING_OF_SOURCE {
            places.push(hashing.place(&format!("10.0.{}.1", n / 8)).unwrap());
        }
        assert_eq!(hashing.place("10.1.0.1").unwrap_err(), Busy);
        assert_eq!(hashing.load().most_waiting, WAITING);
        places.clear();
        assert_eq!(hashing.load().waiting, 0);
        assert!(hashing.place("2001:db8::2").is_ok());
    }
}
