//! Counters for Prometheus.

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
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut text, &self.names);
        text
    }
}
