//! Counts sign-ins that failed, and locks a name for a while after too many. It knows no clock: times go in.
//!
//! Names that nobody has are counted as others are, so that a lock does not tell whether there is such a user.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Failures that lock a name.
pub(super) const FAILURES: u32 = 10;
/// Failures further apart than this are not counted together.
pub(super) const WINDOW: Duration = Duration::from_secs(15 * 60);
/// How long a name stays locked.
pub(super) const LOCKED: Duration = Duration::from_secs(5 * 60);
/// Most names remembered. When there are more, those that failed longest ago are forgotten.
const NAMES: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Failed {
    count: u32,
    last: Instant,
}

/// Names that failed lately.
#[derive(Debug, Default)]
pub(super) struct Attempts(HashMap<Box<str>, Failed>);

impl Attempts {
    /// How long a name is locked for; `None`: it is not.
    pub(super) fn locked(&self, name: &str, now: Instant) -> Option<Duration> {
        let failed = self.0.get(name).filter(|f| f.count >= FAILURES)?;
        let over = failed.last + LOCKED;
        (now < over).then(|| over - now)
    }

    /// A sign-in failed. Those that are refused because of a lock do not count: the lock ends at its time. Whether this
    /// one locked the name.
    pub(super) fn failed(&mut self, name: &str, now: Instant) -> bool {
        if !self.0.contains_key(name) {
            self.make_room(now);
        }
        let failed = self.0.entry(name.into()).or_insert(Failed {
            count: 0,
            last: now,
        });
        let over = failed.count >= FAILURES || now.duration_since(failed.last) > WINDOW;
        failed.count = if over { 1 } else { failed.count + 1 };
        failed.last = now;
        failed.count == FAILURES
    }

    /// A sign-in went well, or an administrator unlocks.
    pub(super) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    fn make_room(&mut self, now: Instant) {
        if self.0.len() < NAMES {
            return;
        }
        self.0.retain(|_, f| now.duration_since(f.last) <= WINDOW);
        if self.0.len() >= NAMES {
            let mut times: Vec<Instant> = self.0.values().map(|f| f.last).collect();
            times.sort_unstable();
            let half = times[times.len() / 2];
            self.0.retain(|_, f| f.last > half);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_lock_a_name_for_its_time_and_success_forgets_them() {
        let mut attempts = Attempts::default();
        let begin = Instant::now();
        for n in 1..FAILURES {
            assert!(!attempts.failed("a", begin));
            assert_eq!(attempts.locked("a", begin), None, "{n}");
        }
        attempts.forget("a");
        for n in 1..=FAILURES {
            assert_eq!(attempts.failed("a", begin), n == FAILURES);
        }
        assert_eq!(attempts.locked("a", begin), Some(LOCKED));
        assert_eq!(attempts.locked("b", begin), None);
        assert_eq!(attempts.locked("a", begin + LOCKED), None);
        // One more failure after that is the first one again.
        attempts.failed("a", begin + LOCKED);
        assert_eq!(attempts.locked("a", begin + LOCKED), None);
    }

    #[test]
    fn failures_far_apart_do_not_lock() {
        let mut attempts = Attempts::default();
        let begin = Instant::now();
        for n in 0..3 * FAILURES {
            attempts.failed("a", begin + (WINDOW + Duration::from_secs(1)) * n);
        }
        let end = begin + (WINDOW + Duration::from_secs(1)) * 3 * FAILURES;
        assert_eq!(attempts.locked("a", end), None);
    }

    #[test]
    fn a_flood_of_names_is_bounded() {
        let mut attempts = Attempts::default();
        let begin = Instant::now();
        for n in 0..3 * NAMES as u32 {
            attempts.failed(&n.to_string(), begin + Duration::from_micros(n.into()));
        }
        assert!(attempts.0.len() <= NAMES);
        assert!(
            attempts
                .0
                .contains_key((3 * NAMES - 1).to_string().as_str())
        );
    }
}
