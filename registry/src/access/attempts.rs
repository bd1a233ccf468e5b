//! Counts sign-ins that failed, and slows those down that guess. It knows no clock: times go in.
//!
//! After some failures with a name from one source, and after many with it from everywhere, only now and then an attempt
//! is let through: whoever guesses gets no further than with a lock, and nobody is kept out for ever by others. Names that
//! nobody has are counted as others are, so that this does not tell whether there is such a user.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Failures with a name from one source that slow it down there.
pub(super) const FAILURES: u32 = 10;
/// How far apart attempts are then.
pub(super) const PACE: Duration = Duration::from_secs(30);
/// Failures with a name from everywhere that slow it down everywhere.
const FAILURES_OF_NAME: u32 = 100;
/// How far apart attempts are then.
const PACE_OF_NAME: Duration = Duration::from_secs(3);
/// Failures further apart than this are not counted together.
pub(super) const WINDOW: Duration = Duration::from_secs(15 * 60);
/// Most names, and names from one source, remembered. When there are more, those that failed longest ago are forgotten.
const MOST: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Failed {
    count: u32,
    /// When one failed last.
    last: Instant,
    /// When one was let through last.
    tried: Instant,
}

impl Failed {
    /// How long it is until the next attempt.
    fn wait(&self, most: u32, pace: Duration, now: Instant) -> Option<Duration> {
        let slow = self.count >= most && now.duration_since(self.last) <= WINDOW;
        let next = self.tried + pace;
        (slow && now < next).then(|| next - now)
    }
}

/// Failures by something.
#[derive(Debug)]
struct Failures<K>(HashMap<K, Failed>);

impl<K: Hash + Eq> Failures<K> {
    /// One more; how many there are.
    fn add(&mut self, key: K, now: Instant) -> u32 {
        if !self.0.contains_key(&key) {
            self.make_room(now);
        }
        let failed = self.0.entry(key).or_insert(Failed {
            count: 0,
            last: now,
            tried: now,
        });
        let over = now.duration_since(failed.last) > WINDOW;
        failed.count = if over {
            1
        } else {
            failed.count.saturating_add(1)
        };
        failed.last = now;
        failed.count
    }

    fn make_room(&mut self, now: Instant) {
        if self.0.len() < MOST {
            return;
        }
        self.0.retain(|_, f| now.duration_since(f.last) <= WINDOW);
        if self.0.len() >= MOST {
            let mut times: Vec<Instant> = self.0.values().map(|f| f.last).collect();
            times.sort_unstable();
            let half = times[times.len() / 2];
            self.0.retain(|_, f| f.last > half);
        }
    }
}

/// Names that failed lately.
#[derive(Debug)]
pub(super) struct Attempts {
    /// By name and source.
    here: Failures<(Box<str>, Box<str>)>,
    /// By name.
    everywhere: Failures<Box<str>>,
}

impl Default for Attempts {
    fn default() -> Self {
        Attempts {
            here: Failures(HashMap::new()),
            everywhere: Failures(HashMap::new()),
        }
    }
}

impl Attempts {
    /// Lets an attempt through, or says how long it is until one is.
    pub(super) fn admit(&mut self, name: &str, source: &str, now: Instant) -> Result<(), Duration> {
        let here = self.here.0.get_mut(&(name.into(), source.into()));
        let everywhere = self.everywhere.0.get_mut(name);
        let waits = [
            here.as_ref().and_then(|f| f.wait(FAILURES, PACE, now)),
            everywhere
                .as_ref()
                .and_then(|f| f.wait(FAILURES_OF_NAME, PACE_OF_NAME, now)),
        ];
        if let Some(wait) = waits.into_iter().flatten().max() {
            return Err(wait);
        }
        for failed in [here, everywhere].into_iter().flatten() {
            failed.tried = now;
        }
        Ok(())
    }

    /// An attempt that was let through failed. Whether this one slowed the name down.
    pub(super) fn failed(&mut self, name: &str, source: &str, now: Instant) -> bool {
        let here = self.here.add((name.into(), source.into()), now);
        let everywhere = self.everywhere.add(name.into(), now);
        here == FAILURES || everywhere == FAILURES_OF_NAME
    }

    /// A sign-in went well: what failed there before were slips. Elsewhere somebody may still be guessing.
    pub(super) fn succeeded(&mut self, name: &str, source: &str) {
        self.here.0.remove(&(name.into(), source.into()));
    }

    /// An administrator has the failures with a name forgotten.
    pub(super) fn forget(&mut self, name: &str) {
        self.here.0.retain(|(n, _), _| **n != *name);
        self.everywhere.0.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn ten_failures_slow_a_name_down_at_their_source_and_success_forgets_them() {
        let mut attempts = Attempts::default();
        let begin = Instant::now();
        for _ in 1..FAILURES {
            assert!(!attempts.failed("a", "x", begin));
            assert_eq!(attempts.admit("a", "x", begin), Ok(()));
        }
        attempts.succeeded("a", "x");
        for n in 1..=FAILURES {
            assert_eq!(attempts.failed("a", "x", begin), n == FAILURES);
        }
        assert_eq!(attempts.admit("a", "x", begin), Err(PACE));
        // Another name, and whoever comes from elsewhere, are not concerned.
        assert_eq!(attempts.admit("b", "x", begin), Ok(()));
        assert_eq!(attempts.admit("a", "y", begin), Ok(()));
        // One is let through, and no second one.
        assert_eq!(attempts.admit("a", "x", begin + PACE), Ok(()));
        let left = attempts.admit("a", "x", begin + PACE + SECOND);
        assert_eq!(left, Err(PACE - SECOND));
        attempts.forget("a");
        assert_eq!(attempts.admit("a", "x", begin + PACE + SECOND), Ok(()));
    }

    #[test]
    fn who_guesses_from_everywhere_keeps_nobody_out_for_longer_than_seconds() {
        let mut attempts = Attempts::default();
        let mut now = Instant::now();
        // An hour of wrong passwords, as many as are let through, each from a source of its own.
        let end = now + Duration::from_secs(3600);
        let (mut n, mut let_through) = (0, 0);
        while now < end {
            n += 1;
            let source = n.to_string();
            if attempts.admit("a", &source, now).is_ok() {
                let_through += 1;
                attempts.failed("a", &source, now);
            }
            now += Duration::from_millis(100);
        }
        assert!(let_through <= FAILURES_OF_NAME + 1201, "{let_through}");
        let wait = attempts.admit("a", "own", now).err().unwrap_or_default();
        assert!(wait <= PACE_OF_NAME);
        assert_eq!(attempts.admit("a", "own", now + wait), Ok(()));
    }

    #[test]
    fn failures_far_apart_do_not_slow_down() {
        let mut attempts = Attempts::default();
        let begin = Instant::now();
        for n in 0..3 * FAILURES {
            attempts.failed("a", "x", begin + (WINDOW + SECOND) * n);
        }
        let end = begin + (WINDOW + SECOND) * (3 * FAILURES - 1);
        assert_eq!(attempts.admit("a", "x", end), Ok(()));
    }

    #[test]
    fn a_flood_of_names_is_bounded() {
        let mut attempts = Attempts::default();
        let begin = Instant::now();
        for n in 0..3 * MOST as u32 {
            attempts.failed(&n.to_string(), "x", begin + Duration::from_micros(n.into()));
        }
        assert!(attempts.here.0.len() <= MOST && attempts.everywhere.0.len() <= MOST);
        let last = (3 * MOST - 1).to_string();
        assert!(attempts.everywhere.0.contains_key(last.as_str()));
    }
}
