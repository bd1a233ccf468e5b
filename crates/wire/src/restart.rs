//! Restart policies: when a container's process is started again after its end, and after how long.
//!
//! The tether follows them while its VM runs, the endpoint where the VM itself has ended; both by
//! the rules of dockerd (moby, package `restartmanager`).

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The first pause before a restart.
const FIRST: Duration = Duration::from_millis(100);
/// The longest one.
const LONGEST: Duration = Duration::from_secs(60);
/// A process that ran for so long begins again with the first pause.
const RAN_WELL: Duration = Duration::from_secs(10);

/// When a process that has ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// Always; after `docker stop`, when the endpoint starts.
    Always,
    /// As `Always`, but never after `docker stop`.
    UnlessStopped,
    /// Where its exit code is not 0.
    OnFailure {
        /// So many times in a row; 0: without end.
        most: u32,
    },
}

impl RestartPolicy {
    /// Whether a process that ended by itself with `code` is started again, after `restarts` of
    /// them. One that was stopped on purpose is not, whatever the policy: that is the caller's.
    #[must_use]
    pub fn wants(self, code: i32, restarts: u32) -> bool {
        match self {
            RestartPolicy::No => false,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
            RestartPolicy::OnFailure { most } => code != 0 && (most == 0 || restarts < most),
        }
    }

    /// Whether a container that stands still is started when the endpoint starts; `stopped`: a
    /// client has stopped it.
    #[must_use]
    pub fn wants_at_start(self, stopped: bool) -> bool {
        match self {
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped => !stopped,
            RestartPolicy::No | RestartPolicy::OnFailure { .. } => false,
        }
    }
}

/// The pause before the next restart: doubled each time, from the start after a good run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff(Duration);

impl Backoff {
    /// The pause after a run of this length.
    pub fn after(&mut self, ran: Duration) -> Duration {
        self.0 = if ran >= RAN_WELL || self.0.is_zero() {
            FIRST
        } else {
            LONGEST.min(self.0 * 2)
        };
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_wants_what_docker_s_does() {
        use RestartPolicy::{Always, No, OnFailure, UnlessStopped};
        for (policy, code, restarts, again) in [
            (No, 1, 0, false),
            (Always, 0, 9, true),
            (UnlessStopped, 3, 9, true),
            (OnFailure { most: 0 }, 1, 99, true),
            (OnFailure { most: 0 }, 0, 0, false),
            (OnFailure { most: 2 }, 137, 1, true),
            (OnFailure { most: 2 }, 137, 2, false),
        ] {
            assert_eq!(policy.wants(code, restarts), again, "{policy:?} {code}");
        }
        assert!(Always.wants_at_start(true) && UnlessStopped.wants_at_start(false));
        assert!(!UnlessStopped.wants_at_start(true));
        assert!(!OnFailure { most: 0 }.wants_at_start(false) && !No.wants_at_start(false));
    }

    #[test]
    fn the_pause_doubles_up_to_a_minute_and_begins_again_after_a_good_run() {
        let mut backoff = Backoff::default();
        let short = Duration::from_millis(5);
        let pauses: Vec<u128> = (0..12).map(|_| backoff.after(short).as_millis()).collect();
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[9..], [51_200, 60_000, 60_000]);
        assert_eq!(backoff.after(RAN_WELL), FIRST);
        assert_eq!(backoff.after(short), FIRST * 2);
    }
}
