//! Counters for Prometheus, and gauges of what is asked for when they are read. `docs/registry-metrics.md` lists them.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// What requests are told apart by: few values each.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    status: u16,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    names: Registry,
    requests: Family<RequestLabels, Counter>,
    seconds: Histogram,
    /// Requests whose answer's head is not sent yet.
    pub in_flight: Gauge,
    /// Blobs removed by garbage collections.
    pub collected_blobs: Counter,
    /// Bytes freed by them.
    pub collected_bytes: Counter,
    /// When the last one ended, seconds since 1970; 0: none since the start.
    pub collected_at: Gauge,
    /// Bytes freed by the last one.
    pub collected_last: Gauge,
    now: Now,
}

/// What is looked at when the metrics are read.
#[derive(Debug, Default)]
struct Now {
    hashing: Gauge,
    hashing_waiting: Gauge,
    uploads: Gauge,
    audit_rows: Gauge,
    metadata_waiting: Gauge,
    metadata_commits: Gauge,
}

/// Values of this moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moment {
    /// Passwords that are hashed.
    pub hashing: u64,
    /// Those that wait for that.
    pub hashing_waiting: u64,
    /// Uploads that were begun and not ended.
    pub uploads: u64,
    /// Entries of the audit log.
    pub audit_rows: u64,
    /// Changes that wait for the metadata's writer.
    pub metadata_waiting: u64,
    /// Transactions of the metadata that were committed.
    pub metadata_commits: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut names = Registry::with_prefix("registry");
        let metrics = Metrics {
            requests: Family::default(),
            seconds: Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0]),
            in_flight: Gauge::default(),
            collected_blobs: Counter::default(),
            collected_bytes: Counter::default(),
            collected_at: Gauge::default(),
            collected_last: Gauge::default(),
            now: Now::default(),
            names: Registry::default(),
        };
        names.register("requests", "Requests answered", metrics.requests.clone());
        names.register(
            "request_seconds",
            "From a request's head to the head of its answer",
            metrics.seconds.clone(),
        );
        names.register(
            "requests_in_flight",
            "Requests not answered yet",
            metrics.in_flight.clone(),
        );
        names.register(
            "gc_blobs",
            "Blobs removed as garbage",
            metrics.collected_blobs.clone(),
        );
        names.register(
            "gc_bytes",
            "Bytes freed as garbage",
            metrics.collected_bytes.clone(),
        );
        let gauges = [
            (
                "gc_last_run_timestamp_seconds",
                "When the last garbage collection ended, seconds since 1970; 0: none since the start",
                &metrics.collected_at,
            ),
            (
                "gc_last_bytes",
                "Bytes freed by the last garbage collection since the start",
                &metrics.collected_last,
            ),
            (
                "hashing",
                "Passwords that are hashed now",
                &metrics.now.hashing,
            ),
            (
                "hashing_waiting",
                "Passwords that wait to be hashed",
                &metrics.now.hashing_waiting,
            ),
            (
                "uploads_open",
                "Uploads that were begun and not ended",
                &metrics.now.uploads,
            ),
            (
                "audit_rows",
                "Entries of the audit log",
                &metrics.now.audit_rows,
            ),
            (
                "metadata_waiting",
                "Changes that wait for the metadata's writer",
                &metrics.now.metadata_waiting,
            ),
            (
                "metadata_commits",
                "Transactions of the metadata since the start",
                &metrics.now.metadata_commits,
            ),
        ];
        for (name, help, gauge) in gauges {
            names.register(name, help, gauge.clone());
        }
        Metrics { names, ..metrics }
    }
}

impl Metrics {
    /// Counts a request that was answered.
    pub fn answered(&self, method: &http::Method, status: http::StatusCode, took: Duration) {
        let method = match method.as_str() {
            "GET" => "GET",
            "HEAD" => "HEAD",
            "POST" => "POST",
            "PUT" => "PUT",
            "PATCH" => "PATCH",
            "DELETE" => "DELETE",
            _ => "other",
        };
        self.requests
            .get_or_create(&RequestLabels {
                method,
                status: status.as_u16(),
            })
            .inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// In Prometheus' text format.
    #[must_use]
    pub fn text(&self, moment: &Moment) -> String {
        let set = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.now.hashing, moment.hashing);
        set(&self.now.hashing_waiting, moment.hashing_waiting);
        set(&self.now.uploads, moment.uploads);
        set(&self.now.audit_rows, moment.audit_rows);
        set(&self.now.metadata_waiting, moment.metadata_waiting);
        set(&self.now.metadata_commits, moment.metadata_commits);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut text, &self.names);
        text
    }
}
