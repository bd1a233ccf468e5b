//! `GET /events`.

use super::query::{Filters, Query};
use crate::{
    app::App,
    errors::{Error, Result},
    events::Event,
    timestamps,
};
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::Response,
    routing::get,
};
use bytes::Bytes;
use futures_util::stream;
use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::broadcast;

const KNOWN: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// Kinds of objects that are also filters by name or ID, but for images, which are found by reference.
const KINDS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "network",
    "node",
    "plugin",
    "secret",
    "service",
    "volume",
];

/// The call `/events`.
pub fn router() -> Router<Arc<App>> {
    Router::new().route("/events", get(events))
}

struct Feed {
    past: VecDeque<Arc<Event>>,
    live: broadcast::Receiver<Arc<Event>>,
    filters: Filters,
    since: u64,
    until: u64,
}

impl Feed {
    /// The next event that is wanted; `None` once `until` is reached.
    async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            let event = match self.past.pop_front() {
                Some(event) => event,
                None => self.live().await?,
            };
            if self.until != 0 && event.at > self.until {
                return None;
            }
            if event.at >= self.since && matches(&self.filters, &event) {
                return Some(event);
            }
        }
    }

    async fn live(&mut self) -> Option<Arc<Event>> {
        let left = self.until.saturating_sub(timestamps::now());
        let deadline = async {
            match self.until {
                0 => std::future::pending().await,
                _ => tokio::time::sleep(Duration::from_nanos(left)).await,
            }
        };
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                event = self.live.recv() => match event {
                    Ok(event) => return Some(event),
                    Err(broadcast::error::RecvError::Lagged(lost)) => {
                        tracing::warn!(lost, "a reader of events is too slow");
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                () = &mut deadline => return None,
            }
        }
    }
}

async fn events(State(app): State<Arc<App>>, query: Query) -> Result<Response> {
    let filters = query.filters()?;
    filters.allow(KNOWN)?;
    let now = timestamps::now();
    let since = timestamps::parse(query.text("since"), now)?;
    let until = timestamps::parse(query.text("until"), now)?;
    if since != 0 && until != 0 && since > until {
        return Err(Error::bad(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            query.text("since"),
            query.text("until")
        )));
    }
    let (past, live) = app.events.subscribe();
    // Without `since` the past is of no interest, unless all that is wanted is past.
    let past = if since != 0 || until != 0 && until <= now {
        past
    } else {
        Vec::new()
    };
    let feed = Feed {
        past: past.into(),
        live,
        filters,
        since,
        until,
    };
    let body = stream::unfold(feed, async |mut feed| {
        let event = feed.next().await?;
        let line = format!("{}\n", event.to_json());
        Some((Ok::<_, Infallible>(Bytes::from(line)), feed))
    });
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

fn matches(filters: &Filters, event: &Event) -> bool {
    let named = |filter: &str, kind: &str| {
        filters.values(filter).is_none_or(|values| {
            event.kind == kind
                && values.iter().any(|want| {
                    *want == event.id
                        || event.attributes.get("name") == Some(want)
                        || want.len() >= 3 && event.id.starts_with(want.as_str())
                })
        })
    };
    let image = |want: &String| {
        let own = if event.kind == "image" {
            [Some(&event.id), event.attributes.get("name")]
        } else {
            [event.attributes.get("image"), None]
        };
        own.into_iter().flatten().any(|own| {
            crate::images::familiar(own) == crate::images::familiar(want)
                || own.split(':').next() == Some(want)
        })
    };
    filters.any("type", |want| want == event.kind)
        && filters.any("event", |want| {
            *want == event.action || event.action.split(':').next() == Some(want)
        })
        && filters.any("scope", |want| want == "local")
        // Of some kinds there are never any here: such a filter leaves nothing.
        && KINDS.iter().all(|kind| named(kind, kind))
        && filters.any("image", image)
        && filters.labels("label", &event.attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn filters_choose_as_docker_does() {
        let event = Event {
            kind: "container",
            action: "exec_create: ls -l".into(),
            id: "abcdef".into(),
            attributes: BTreeMap::from([
                ("name".to_owned(), "web".to_owned()),
                ("image".to_owned(), "busybox".to_owned()),
                ("tier".to_owned(), "front".to_owned()),
            ]),
            at: 1,
        };
        for (filter, want) in [
            (r#"{}"#, true),
            (r#"{"type":["container"],"event":["exec_create"]}"#, true),
            (r#"{"event":["start","die"]}"#, false),
            (r#"{"container":["web"]}"#, true),
            (r#"{"container":["abcd"]}"#, true),
            (r#"{"container":["db"]}"#, false),
            (r#"{"image":["busybox:latest"]}"#, true),
            (r#"{"label":["tier=front"]}"#, true),
            (r#"{"label":["tier=back"]}"#, false),
            (r#"{"network":["x"]}"#, false),
            (r#"{"service":["web"]}"#, false),
        ] {
            assert_eq!(
                matches(&Filters::parse(filter).unwrap(), &event),
                want,
                "{filter}"
            );
        }
    }
}
