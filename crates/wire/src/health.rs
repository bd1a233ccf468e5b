//! Health checks: what is run, and what their results make of a container, by dockerd's rules
//! (moby, `daemon/health.go`).

use serde::{Deserialize, Serialize};

/// Results that are kept.
pub const LOG_MAX: usize = 5;
/// Bytes of output that are kept of one check.
pub const OUTPUT_MAX: usize = 4096;

/// What is run, and when. Times in ns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// Program and arguments.
    pub args: Vec<String>,
    /// From the end of one check to the next.
    pub interval: u64,
    /// How long a check may take.
    pub timeout: u64,
    /// So long after the start a failure does not count, as long as none has succeeded.
    pub start_period: u64,
    /// In place of `interval` in that time.
    pub start_interval: u64,
    /// So many failures in a row make it unhealthy.
    pub retries: u32,
}

/// What is known of a container's health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthStatus {
    /// Nothing yet.
    #[default]
    Starting,
    /// The last check succeeded, or too few failed since.
    Healthy,
    /// Enough checks failed in a row.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }
}

/// The result of one check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// When it began, ns since 1970.
    pub start: u64,
    /// When it ended.
    pub end: u64,
    /// Exit code; -1: it could not be run, or took too long.
    pub code: i32,
    /// What it wrote, cut at [`OUTPUT_MAX`] bytes, or why it could not be run.
    pub output: String,
}

/// A container's health.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is known.
    pub status: HealthStatus,
    /// Failures in a row.
    pub streak: u32,
    /// The last results, oldest first.
    pub log: Vec<Probe>,
}

impl Health {
    /// The container starts (again). What is in the log stays.
    pub fn restart(&mut self) {
        self.status = HealthStatus::Starting;
        self.streak = 0;
    }

    /// Takes a result of a container that was started at `started`.
    pub fn judge(&mut self, check: &HealthCheck, started: u64, probe: Probe) {
        if probe.code == 0 {
            self.streak = 0;
            self.status = HealthStatus::Healthy;
        } else if self.status != HealthStatus::Starting
            || probe.start.saturating_sub(started) >= check.start_period
        {
            self.streak = self.streak.saturating_add(1);
            if self.streak >= check.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self.keep(probe);
    }

    /// Puts a result into the log, bounded.
    pub fn keep(&mut self, probe: Probe) {
        while self.log.len() >= LOG_MAX {
            self.log.remove(0);
        }
        self.log.push(probe);
    }

    /// ns until the next check of a container that was started so many ns ago.
    #[must_use]
    pub fn pause(&self, check: &HealthCheck, running: u64) -> u64 {
        if self.status == HealthStatus::Starting && running < check.start_period {
            check.start_interval
        } else {
            check.interval
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECK: HealthCheck = HealthCheck {
        args: Vec::new(),
        interval: 30,
        timeout: 30,
        start_period: 100,
        start_interval: 5,
        retries: 3,
    };

    fn probe(start: u64, code: i32) -> Probe {
        Probe {
            start,
            code,
            ..Probe::default()
        }
    }

    #[test]
    fn failures_count_after_the_grace_and_a_success_forgets_them() {
        use HealthStatus::{Healthy, Starting, Unhealthy};
        let mut health = Health::default();
        for (at, code, status, streak) in [
            (1_010, 1, Starting, 0),
            (1_099, 1, Starting, 0),
            (1_100, 1, Starting, 1),
            (1_130, -1, Starting, 2),
            (1_160, 2, Unhealthy, 3),
            (1_190, 0, Healthy, 0),
            (1_220, 1, Healthy, 1),
        ] {
            health.judge(&CHECK, 1_000, probe(at, code));
            assert_eq!((health.status, health.streak), (status, streak), "{at}");
        }
        assert_eq!(health.log.len(), LOG_MAX);
        assert_eq!(health.log[4].start, 1_220);
        // One that was healthy in its grace fails as any other.
        let mut early = Health::default();
        early.judge(&CHECK, 1_000, probe(1_001, 0));
        early.judge(&CHECK, 1_000, probe(1_002, 1));
        assert_eq!((early.status, early.streak), (Healthy, 1));
    }

    #[test]
    fn checks_are_denser_in_the_grace_until_one_succeeds() {
        let mut health = Health::default();
        assert_eq!(health.pause(&CHECK, 99), 5);
        assert_eq!(health.pause(&CHECK, 100), 30);
        health.judge(&CHECK, 0, probe(0, 0));
        assert_eq!(health.pause(&CHECK, 1), 30);
    }
}
