//! How much of a name server one asker has: a guest that floods it must not keep its neighbours from theirs.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Room for so many at once, and for so many of one asker.
#[derive(Debug, Clone)]
pub(super) struct Room {
    taken: Arc<Mutex<Taken>>,
    all: usize,
    each: usize,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<IpAddr, usize>,
}

/// A place in it; given back when this goes out of scope.
#[derive(Debug)]
pub(super) struct Place {
    room: Room,
    asker: IpAddr,
}

impl Room {
    pub(super) fn new(all: usize, each: usize) -> Self {
        Self {
            taken: Arc::default(),
            all,
            each,
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for an asker; `None`: it has its share, or all are taken.
    pub(super) fn enter(&self, asker: IpAddr) -> Option<Place> {
        let mut taken = self.taken();
        let own = taken.by.get(&asker).copied().unwrap_or(0);
        if taken.all >= self.all || own >= self.each {
            return None;
        }
        taken.all += 1;
        taken.by.insert(asker, own + 1);
        Some(Place {
            room: self.clone(),
            asker,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken();
        taken.all -= 1;
        if let Some(own) = taken.by.get_mut(&self.asker) {
            *own -= 1;
            if *own == 0 {
                taken.by.remove(&self.asker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_asker_does_not_take_the_others_room() {
        let room = Room::new(5, 3);
        let asker = |last: u8| IpAddr::from([10, 0, 0, last]);
        let mut held: Vec<Place> = (0..3).filter_map(|_| room.enter(asker(1))).collect();
        assert!(room.enter(asker(1)).is_none(), "it has its share");
        held.extend((0..2).filter_map(|_| room.enter(asker(2))));
        assert_eq!(held.len(), 5);
        assert!(room.enter(asker(3)).is_none(), "all are taken");
        held.remove(0);
        assert!(room.enter(asker(1)).is_some());
        drop(held);
        assert!(room.taken().by.is_empty() && room.taken().all == 0);
    }
}
