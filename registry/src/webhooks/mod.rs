//! Tells others what happens in a project: a `POST` of JSON, signed. What is not answered with 2xx in its time is tried
//! again, later each time, and given up in the end. Redirects are not followed, and nothing is read of an answer but its
//! status. Only cloud administrators say where to: such a request comes from inside.

use crate::audit::Source;
use crate::metadata::{self, Delivery, ProjectId, Write, now};
use crate::names::RepositoryName;
use crate::registry::Registry;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hmac::{Hmac, KeyInit, Mac};
use http::Uri;
use reqwest_tls::redirect::Policy;
use reqwest_tls::{Client, header::CONTENT_TYPE};
use serde_json::json;
use sha2::Sha256;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Deliveries under way at once, each to another webhook.
const AT_ONCE: usize = 8;
/// How long a clock that was set may keep a delivery back; and what an error of the metadata puts an attempt off.
const LOOK: Duration = Duration::from_secs(60);
/// Most milliseconds between two attempts.
const LONGEST: i64 = 3_600_000;
/// Longest address.
const MAX_URL: usize = 2000;

/// What happened to an artifact.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// It was pushed.
    Push {
        /// The manifest's digest.
        digest: &'a str,
        /// With this tag.
        tag: Option<&'a str>,
    },
    /// A tag or a manifest was removed.
    Delete {
        /// The tag or the digest.
        reference: &'a str,
    },
}

/// Queues an event; a part of the change that it is about.
///
/// # Errors
/// When the metadata cannot be written.
pub fn queue(
    db: &Write<'_>,
    project: ProjectId,
    repository: &RepositoryName,
    by: &str,
    event: Event<'_>,
) -> metadata::Result<()> {
    let (name, artifact) = match event {
        Event::Push { digest, tag } => ("push", json!({"digest": digest, "tag": tag})),
        Event::Delete { reference } => ("delete", json!({"reference": reference})),
    };
    db.queue_event(project, || {
        let body = json!({
            "event": name,
            "time": now(),
            "by": by,
            "project": repository.project(),
            "repository": repository.as_str(),
            "artifact": artifact,
        });
        body.to_string()
    })
}

/// Whether something can be told there: `http://` or `https://`, a host, no name and password.
#[must_use]
pub fn is_target(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else {
        return false;
    };
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let host = uri.host().is_some_and(|host| !host.is_empty());
    let plain = uri.authority().is_some_and(|a| !a.as_str().contains('@'));
    url.len() <= MAX_URL && scheme && host && plain
}

/// The signature of a body: `sha256=` and the HMAC in hexadecimal.
#[must_use]
pub fn signature(secret: &str, body: &str) -> String {
    // Any length of key is good for HMAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return String::new();
    };
    mac.update(body.as_bytes());
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// Delivers until the task is dropped.
pub(crate) async fn deliver(registry: Arc<Registry>) {
    let seconds = Duration::from_secs(registry.settings.webhooks.timeout_seconds.max(1).into());
    let client = Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .timeout(seconds)
        .user_agent("mooring-registry")
        .build();
    let client = match client {
        Ok(client) => client,
        Err(e) => {
            tracing::error!("no webhook can be told anything: {e}");
            return;
        }
    };
    let mut under_way = FuturesUnordered::new();
    let mut busy: HashSet<i64> = HashSet::new();
    loop {
        let most = u32::try_from(AT_ONCE + busy.len()).unwrap_or(u32::MAX);
        let due = registry
            .metadata
            .read_long::<_, metadata::Error>(move |db| {
                let at = now();
                let next = db.next_delivery(at)?.map(|next| next - at);
                Ok((db.due_deliveries(at, most)?, next))
            });
        let (due, next) = due.await.unwrap_or_else(|e| {
            tracing::error!("webhooks: {e}");
            (Vec::new(), None)
        });
        // What is due and not begun here waits for one of those under way.
        let next = next.and_then(|next| u64::try_from(next).ok());
        let next = next.map_or(LOOK, |next| Duration::from_millis(next).min(LOOK));
        for delivery in due {
            // One at a time to each, so that it gets them in order.
            if busy.len() < AT_ONCE && busy.insert(delivery.webhook) {
                under_way.push(attempt_and_tell(&client, &registry, delivery));
            }
        }
        tokio::select! {
            Some(webhook) = under_way.next() => { busy.remove(&webhook); }
            () = registry.queued.notified() => {}
            () = tokio::time::sleep(next) => {}
        }
    }
}

/// To which webhook it was.
async fn attempt_and_tell(client: &Client, registry: &Registry, delivery: Delivery) -> i64 {
    if let Err(e) = attempt(client, registry, &delivery).await {
        tracing::error!("webhook {}: {e}", delivery.webhook);
        // What came of it could not be kept, so it is made again: not at once.
        tokio::time::sleep(LOOK).await;
    }
    delivery.webhook
}

async fn attempt(
    client: &Client,
    registry: &Registry,
    delivery: &Delivery,
) -> metadata::Result<()> {
    let answer = client
        .post(&delivery.url)
        .header(CONTENT_TYPE, "application/json")
        .header("x-mooring-delivery", delivery.id)
        .header(
            "x-mooring-signature",
            signature(&delivery.secret, &delivery.body),
        )
        .body(delivery.body.clone())
        .send()
        .await;
    let failure = match answer {
        Ok(answer) if answer.status().is_success() => None,
        Ok(answer) => Some(format!("it answered {}", answer.status())),
        // Without its address, which may hold a secret in its path.
        Err(e) => Some(e.without_url().to_string()),
    };
    let id = delivery.id;
    let Some(failure) = failure else {
        return registry.metadata.write(move |db| db.end_delivery(id)).await;
    };
    let settings = &registry.settings.webhooks;
    if delivery.attempts + 1 >= settings.attempts.max(1) {
        let (webhook, operation) = (delivery.webhook.to_string(), "webhook.give-up");
        let source = Source("system".into());
        registry
            .audit
            .note("system", &source, operation, Some(&webhook), Some(failure));
        return registry.metadata.write(move |db| db.end_delivery(id)).await;
    }
    let wait = pause(settings.retry_seconds, delivery.attempts);
    tracing::info!(
        "webhook {} is tried again in {wait} ms: {failure}",
        delivery.webhook
    );
    registry
        .metadata
        .write(move |db| db.delay_delivery(id, now() + wait))
        .await
}

/// Milliseconds until the next attempt: twice as many each time.
fn pause(seconds: u32, attempts: u32) -> i64 {
    let first = i64::from(seconds) * 1000;
    first.saturating_mul(1 << attempts.min(20)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_at_an_hour() {
        assert_eq!(pause(10, 0), 10_000);
        assert_eq!(pause(10, 3), 80_000);
        assert_eq!(pause(10, u32::MAX), LONGEST);
        assert_eq!(pause(u32::MAX, 40), LONGEST);
    }

    #[test]
    fn only_addresses_that_can_be_told_something_are_targets() {
        for (url, good) in [
            ("https://example.org/hook?x=1", true),
            ("http://127.0.0.1:80", true),
            ("ftp://example.org", false),
            ("/path", false),
            ("example.org", false),
            ("https://name:password@example.org/", false),
            ("https://", false),
        ] {
            assert_eq!(is_target(url), good, "{url}");
        }
        assert!(!is_target(&format!("https://h/{}", "x".repeat(MAX_URL))));
    }

    #[test]
    fn the_signature_is_hmac_sha256() {
        // RFC 4231, test case 2.
        let wanted = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let found = signature("Jefe", "what do ya want for nothing?");
        assert_eq!(found, format!("sha256={wanted}"));
    }
}
