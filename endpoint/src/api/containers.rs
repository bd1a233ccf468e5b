//! Containers: create, list, start, stop and the like. Attach, logs, wait, inspect and exec have
//! files of their own.

use super::{
    JsonBody, Target, archive, attach, inspect, logs, ok, query::Query, row::Row, stats, top,
    update, version::ApiVersion, wait,
};
use crate::{
    app::App,
    containers::{create::CreateRequest, filters::Selection, state::Phase},
    errors::{Error, Result},
};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{any, delete, get, post},
};
use serde_json::{Value, json};
use std::sync::Arc;
use wire::message::SessionId;

/// Bytes of a body of `start` that are looked at: more than there may be.
const START_BODY_MAX: usize = 64;

/// The calls under `/containers`.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/containers/json", get(list))
        .route("/containers/create", post(create))
        .route("/containers/prune", post(prune))
        .route("/containers/{id}", delete(remove))
        .route("/containers/{id}/json", get(inspect::inspect))
        .route("/containers/{id}/start", post(start))
        .route("/containers/{id}/stop", post(stop))
        .route("/containers/{id}/restart", post(restart))
        .route("/containers/{id}/kill", post(kill))
        .route("/containers/{id}/rename", post(rename))
        .route("/containers/{id}/wait", post(wait::wait))
        .route("/containers/{id}/attach", post(attach::attach))
        .route("/containers/{id}/resize", post(resize))
        .route("/containers/{id}/logs", get(logs::logs))
        .route("/containers/{id}/top", get(top::top))
        .route("/containers/{id}/stats", get(stats::stats))
        .route("/containers/{id}/pause", post(pause))
        .route("/containers/{id}/unpause", post(unpause))
        .route("/containers/{id}/update", post(update::update))
        .route(
            "/containers/{id}/archive",
            get(archive::get).put(archive::put).head(archive::head),
        )
        .route("/containers/{id}/changes", get(archive::changes))
        .route("/containers/{id}/export", get(archive::export))
        .route("/containers/{id}/{other}", any(not_yet))
        .route("/containers/{id}/attach/ws", any(attach_ws))
}

async fn create(
    State(app): State<Arc<App>>,
    query: Query,
    version: ApiVersion,
    JsonBody(mut body): JsonBody<Value>,
) -> Result<Response> {
    if version < ApiVersion(1, 25)
        && let Some(host) = body.get_mut("HostConfig").and_then(Value::as_object_mut)
    {
        // Such a client removes the container by itself (moby, `postContainersCreate`).
        host.remove("AutoRemove");
    }
    let request = CreateRequest::read(&body, query.find("name"))?;
    let reference = request.config.image.clone();
    // The image stays until the container is there.
    let claim = app.images.claim(&reference)?;
    let platform = query.text("platform");
    if !platform.is_empty() {
        check_platform(platform, &claim.image().config, &reference)?;
    }
    let containers = app.containers.clone();
    // Whole, even if the client goes: what it holds meanwhile would stay held.
    let created = tokio::spawn(async move { containers.create(request, claim.image()).await })
        .await
        .map_err(|e| Error::internal(format!("the request's task ended: {e}")))??;
    let answer = json!({ "Id": created.container.id(), "Warnings": created.warnings });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

fn check_platform(platform: &str, config: &Value, reference: &str) -> Result<()> {
    let have = |field: &str| config[field].as_str().unwrap_or("").to_owned();
    let (os, architecture) = (have("os"), have("architecture"));
    let mut wanted = platform.split('/');
    let fits = match (wanted.next(), wanted.next()) {
        (Some(want), None) => want == os || want == architecture,
        (Some(want_os), Some(want_arch)) => {
            let want_arch = match want_arch {
                "x86_64" | "x86-64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            };
            want_os == os && want_arch == architecture
        }
        _ => false,
    };
    if fits {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "image with reference {reference} was found but its platform ({os}/{architecture}) does not match the specified platform ({platform})"
    )))
}

async fn list(State(app): State<Arc<App>>, query: Query) -> Result<Response> {
    let limit = query.number("limit")?;
    let selection = Selection::new(
        query.filters()?,
        query.flag("all"),
        limit,
        &app.containers,
        &app.images,
    )?;
    let selected = selection.apply(&app.containers);
    let mut rows = Vec::with_capacity(selected.len());
    for (container, status) in &selected {
        let size = match query.flag("size") {
            true => Some(inspect::sizes(&app, container).await),
            false => None,
        };
        rows.push(Row::new(&app, container, status, size));
    }
    Ok(Json(rows).into_response())
}

async fn start(at: Target, body: Body) -> Result<StatusCode> {
    let sent = axum::body::to_bytes(body, START_BODY_MAX).await;
    let sent = sent.as_deref().map(<[u8]>::trim_ascii);
    if !matches!(sent, Ok(b"" | b"{}" | b"null")) {
        return Err(Error::bad(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    if !at.query.text("checkpoint").is_empty() {
        return Err(Error::bad(
            "checkpoint is only supported in experimental mode",
        ));
    }
    attach::detach_keys(at.query.text("detachKeys"))?;
    at.app.containers.start(&at.container).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Signal and seconds of a stop.
fn how_to_stop(query: &Query) -> Result<(Option<String>, Option<i64>)> {
    let signal = query.find("signal").filter(|s| !s.is_empty());
    Ok((signal.map(str::to_owned), query.number("t")?))
}

async fn stop(at: Target) -> Result<StatusCode> {
    let (signal, timeout) = how_to_stop(&at.query)?;
    let containers = &at.app.containers;
    containers
        .stop(&at.container, signal.as_deref(), timeout)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn restart(at: Target) -> Result<StatusCode> {
    let (signal, timeout) = how_to_stop(&at.query)?;
    let containers = &at.app.containers;
    containers
        .restart(&at.container, signal.as_deref(), timeout)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A container that is not there is told in more words here than elsewhere.
async fn kill(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    query: Query,
) -> Result<StatusCode> {
    let container = app.containers.find(&name).map_err(|error| {
        let message = format!("cannot kill container: {name}: {}", error.message);
        Error::new(error.kind, message)
    })?;
    app.containers
        .kill(&container, &name, query.text("signal"))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn rename(at: Target) -> Result<StatusCode> {
    let name = at.query.text("name");
    at.app.containers.rename(&at.container, name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(at: Target) -> Result<StatusCode> {
    if at.query.flag("link") {
        return Err(Error::not_yet("rm --link"));
    }
    let (force, volumes) = (at.query.flag("force"), at.query.flag("v"));
    let containers = &at.app.containers;
    containers.remove(&at.container, force, volumes).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn prune(State(app): State<Arc<App>>, query: Query) -> Result<Response> {
    let filters = query.filters()?;
    filters.allow(&["label", "label!", "until"])?;
    let prune = filters.prune()?;
    let (mut deleted, mut reclaimed) = (Vec::new(), 0);
    for container in app.containers.all() {
        let status = container.status();
        let labels = &container.spec.config.labels;
        let stopped = matches!(status.phase, Phase::Created | Phase::Exited);
        let stays = status.removing || status.revive;
        if !stopped || stays || !prune.takes(labels, container.spec.created) {
            continue;
        }
        let size = inspect::sizes(&app, &container).await.own;
        match app.containers.remove(&container, false, false).await {
            Ok(()) => {
                deleted.push(container.id().to_owned());
                reclaimed += size;
            }
            Err(error) => tracing::info!(id = container.id(), %error, "not pruned"),
        }
    }
    app.events.pruned("container", reclaimed);
    let deleted = if deleted.is_empty() {
        Value::Null
    } else {
        json!(deleted)
    };
    Ok(ok(
        json!({ "ContainersDeleted": deleted, "SpaceReclaimed": reclaimed }),
    ))
}

/// `h` and `w` of a resize.
///
/// # Errors
/// 400 where one is missing or out of range.
pub(super) fn size(query: &Query) -> Result<(u16, u16)> {
    let need = |name: &str| {
        query
            .number::<u16>(name)?
            .ok_or_else(|| Error::bad(format!("invalid resize: {name} is missing")))
    };
    Ok((need("h")?, need("w")?))
}

async fn resize(at: Target) -> Result<StatusCode> {
    let (rows, cols) = size(&at.query)?;
    at.container
        .session()
        .await?
        .resize(SessionId::CONTAINER, rows, cols)
        .await?;
    at.app.containers.tell(
        &at.container,
        "resize",
        &[("height", rows.to_string()), ("width", cols.to_string())],
    );
    Ok(StatusCode::OK)
}

async fn pause(at: Target) -> Result<StatusCode> {
    at.app.containers.pause(&at.container).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn unpause(at: Target) -> Result<StatusCode> {
    at.app.containers.unpause(&at.container).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn attach_ws() -> Error {
    Error::not_yet("attaching through a web socket")
}

async fn not_yet(
    State(app): State<Arc<App>>,
    Path((name, what)): Path<(String, String)>,
) -> Result<Response> {
    let command = match what.as_str() {
        "export" => what.as_str(),
        "archive" => "cp",
        "changes" => "diff",
        _ => return Err(Error::not_found("page not found")),
    };
    app.containers.find(&name)?;
    Err(Error::not_yet(&format!("docker {command}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_must_be_the_images() {
        let config = json!({"os": "linux", "architecture": "amd64"});
        for good in ["linux/amd64", "linux", "amd64", "linux/x86_64"] {
            assert!(check_platform(good, &config, "x").is_ok(), "{good}");
        }
        assert!(check_platform("linux/arm64", &config, "x").is_err());
    }
}
