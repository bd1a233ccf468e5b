//! `GET /containers/{id}/stats`.

use super::Target;
use crate::{
    containers::Container,
    errors::{Error, Result},
    timestamps::rfc3339,
};
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Map, Value, json};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::time::{Interval, MissedTickBehavior, interval};
use wire::message::{Reply, Stats, ToGuest};

/// Between two samples, as dockerd has it.
const EVERY: Duration = Duration::from_secs(1);
const MIB: u64 = 1024 * 1024;

/// Samples, one a second, or one alone: of two where the client is to see a rate.
pub(super) async fn stats(at: Target) -> Result<Response> {
    let streamed = at.query.find("stream").is_none() || at.query.flag("stream");
    let one_shot = at.query.flag("one-shot");
    if streamed && one_shot {
        return Err(Error::bad("cannot have stream=true and one-shot=true"));
    }
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut feed = Feed {
        container: at.container,
        ticks,
        before: None,
    };
    if !streamed {
        if !one_shot && feed.container.status().running() {
            feed.before = feed.sample().await?;
        }
        let value = feed.next().await?;
        return Ok(super::ok(value));
    }
    let body = stream::unfold(feed, async |mut feed| {
        if feed.container.status().gone {
            return None;
        }
        // A link that is away comes back; until then there is nothing to tell.
        let value = feed.next().await.unwrap_or_else(|_| feed.empty());
        Some((Ok::<_, Infallible>(Bytes::from(format!("{value}\n"))), feed))
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

struct Feed {
    container: Arc<Container>,
    ticks: Interval,
    before: Option<Stats>,
}

impl Feed {
    /// The next sample, in Docker's form.
    async fn next(&mut self) -> Result<Value> {
        let now = self.sample().await?;
        let value = match &now {
            Some(now) => self.rendered(now),
            None => self.empty(),
        };
        self.before = now;
        Ok(value)
    }

    /// What the guest says at the next second; `None` of one that does not run.
    async fn sample(&mut self) -> Result<Option<Stats>> {
        self.ticks.tick().await;
        if !self.container.status().running() {
            return Ok(None);
        }
        let session = self.container.session().await?;
        match session
            .request(|request| ToGuest::Stats { request })
            .await?
        {
            Reply::Stats(stats) => Ok(Some(stats)),
            Reply::Error(message) => Err(Error::internal(message)),
            other => Err(Error::internal(format!(
                "unexpected answer of the guest: {other:?}"
            ))),
        }
    }

    /// Of a container that does not run: its names and no figure.
    fn empty(&self) -> Value {
        json!({
            "name": format!("/{}", self.container.status().name),
            "id": self.container.id(),
            "read": rfc3339(0),
            "preread": rfc3339(0),
            "pids_stats": {},
            "blkio_stats": blkio(&[]),
            "num_procs": 0,
            "storage_stats": {},
            "cpu_stats": cpu(None),
            "precpu_stats": cpu(None),
            "memory_stats": {},
        })
    }

    fn rendered(&self, now: &Stats) -> Value {
        let mut out = self.empty();
        out["read"] = json!(rfc3339(now.at));
        out["preread"] = json!(rfc3339(self.before.as_ref().map_or(0, |b| b.at)));
        out["pids_stats"] = json!({ "current": now.pids });
        if now.pids_limit > 0 {
            out["pids_stats"]["limit"] = json!(now.pids_limit);
        }
        let io: Vec<(u32, u32, &str, u64)> = now
            .io
            .iter()
            .flat_map(|io| {
                [
                    (io.major, io.minor, "read", io.read),
                    (io.major, io.minor, "write", io.written),
                ]
            })
            .collect();
        out["blkio_stats"] = blkio(&io);
        out["cpu_stats"] = cpu(Some(now));
        out["precpu_stats"] = cpu(self.before.as_ref());
        let figures: Map<String, Value> = now
            .memory_stat
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        out["memory_stats"] = json!({
            "usage": now.memory,
            "stats": figures,
            "limit": u64::from(self.container.memory_mib()) * MIB,
        });
        let networks: Map<String, Value> = now
            .networks
            .iter()
            .map(|network| {
                let (
                    [rx, rx_packets, rx_errors, rx_dropped],
                    [tx, tx_packets, tx_errors, tx_dropped],
                ) = (network.received, network.sent);
                let value = json!({
                    "rx_bytes": rx, "rx_packets": rx_packets, "rx_errors": rx_errors,
                    "rx_dropped": rx_dropped, "tx_bytes": tx, "tx_packets": tx_packets,
                    "tx_errors": tx_errors, "tx_dropped": tx_dropped,
                });
                (network.name.clone(), value)
            })
            .collect();
        if !networks.is_empty() {
            out["networks"] = Value::Object(networks);
        }
        out
    }
}

fn cpu(stats: Option<&Stats>) -> Value {
    let zero = Stats::default();
    let of = stats.unwrap_or(&zero);
    let mut out = json!({
        "cpu_usage": {
            "total_usage": of.cpu,
            "usage_in_kernelmode": of.cpu_kernel,
            "usage_in_usermode": of.cpu_user,
        },
        "throttling_data": {
            "periods": of.periods,
            "throttled_periods": of.throttled,
            "throttled_time": of.throttled_for,
        },
    });
    if stats.is_some() {
        out["system_cpu_usage"] = json!(of.system);
        out["online_cpus"] = json!(of.cpus);
    }
    out
}

fn blkio(bytes: &[(u32, u32, &str, u64)]) -> Value {
    let list: Vec<Value> = bytes
        .iter()
        .map(|(major, minor, op, value)| {
            json!({ "major": major, "minor": minor, "op": op, "value": value })
        })
        .collect();
    json!({
        "io_service_bytes_recursive": if list.is_empty() { Value::Null } else { json!(list) },
        "io_serviced_recursive": null,
        "io_queue_recursive": null,
        "io_service_time_recursive": null,
        "io_wait_time_recursive": null,
        "io_merged_recursive": null,
        "io_time_recursive": null,
        "sectors_recursive": null,
    })
}
