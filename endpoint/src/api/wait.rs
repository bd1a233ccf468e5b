//! `POST /containers/{id}/wait`.

use super::Target;
use crate::{
    containers::{
        Container,
        state::{Phase, Status},
    },
    errors::{Error, Result},
};
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use futures_util::stream;
use serde_json::json;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    NotRunning,
    NextExit,
    Removed,
}

/// Answers its head at once, and its body when it is over: the client starts the container in
/// between.
pub(super) async fn wait(at: Target) -> Result<Response> {
    let condition = match at.query.text("condition") {
        "" | "not-running" => Condition::NotRunning,
        "next-exit" => Condition::NextExit,
        "removed" => Condition::Removed,
        other => return Err(Error::bad(format!("invalid condition: \"{other}\""))),
    };
    let container = at.container;
    let before = container.status();
    let body = async move {
        let status = end(&container, condition, &before).await;
        // A start that failed is told by `start`; here it is the exit code alone, as with Docker.
        let answer = json!({ "StatusCode": status.record.exit_code });
        Ok::<_, std::convert::Infallible>(format!("{answer}\n"))
    };
    let mut response = Response::new(Body::from_stream(stream::once(body)));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

async fn end(container: &Container, condition: Condition, before: &Status) -> Status {
    let over = |status: &Status| match condition {
        _ if status.gone => true,
        // The end of a run counts, also where another one follows.
        Condition::NotRunning => {
            status.exits > before.exits
                || !(status.live() || status.revive || status.phase == Phase::Starting)
        }
        Condition::NextExit => {
            status.exits > before.exits || status.start_failures > before.start_failures
        }
        Condition::Removed => false,
    };
    let status = container.until(None, over).await;
    status.unwrap_or_else(|| container.status())
}
