//! Volumes: list, inspect, create, remove, prune.

use super::{JsonBody, ok, pattern::Pattern, query::Query, version::ApiVersion};
use crate::{
    app::App,
    errors::{Error, Kind, Result},
    timestamps,
    volumes::{
        Volumes,
        record::{DRIVER, VolumeRecord},
        request::VolumeRequest,
    },
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// The calls under `/volumes`.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect))
        .route("/volumes/{name}", delete(remove))
        .route(
            "/volumes/{name}",
            put(async || Error::not_yet("docker volume update")),
        )
}

/// Docker shows what was not given as null.
fn or_null(texts: &BTreeMap<String, String>) -> Value {
    match texts.is_empty() {
        true => Value::Null,
        false => json!(texts),
    }
}

/// A volume as Docker shows it.
pub(super) fn describe(volumes: &Volumes, record: &VolumeRecord) -> Value {
    let nfs = record.nfs();
    let status = match nfs {
        None => json!({ "Capacity": record.capacity }),
        Some(_) => Value::Null,
    };
    json!({
        "Name": record.name,
        "Driver": DRIVER,
        "Mountpoint": volumes.place(&record.name, nfs.as_ref()),
        "CreatedAt": timestamps::rfc3339(record.created),
        "Status": status,
        "Labels": or_null(&record.labels),
        "Scope": "local",
        "Options": or_null(&record.options),
    })
}

async fn list(State(app): State<Arc<App>>, query: Query) -> Result<Response> {
    let filters = query.filters()?;
    filters.allow(&["dangling", "driver", "label", "name"])?;
    let dangling = filters.flag("dangling")?;
    let names = Pattern::all(&filters, "name");
    let volumes = app.containers.volumes();
    let rows: Vec<Value> = volumes
        .all()
        .into_iter()
        .filter(|(record, users)| {
            Pattern::any(&names, &[&record.name])
                && filters.any("driver", |want| want == DRIVER)
                && filters.labels("label", &record.labels)
                && dangling.is_none_or(|want| want == users.is_empty())
        })
        .map(|(record, _)| describe(volumes, &record))
        .collect();
    Ok(ok(json!({ "Volumes": rows, "Warnings": null })))
}

async fn create(State(app): State<Arc<App>>, JsonBody(body): JsonBody<Value>) -> Result<Response> {
    let request = VolumeRequest::read(&body)?;
    let volumes = app.containers.volumes().clone();
    let made = volumes.clone();
    // Whole, even if the client goes.
    let record = tokio::spawn(async move { made.create(request).await })
        .await
        .map_err(|e| Error::internal(format!("the request's task ended: {e}")))??;
    Ok((StatusCode::CREATED, Json(describe(&volumes, &record))).into_response())
}

async fn inspect(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response> {
    let volumes = app.containers.volumes();
    let record = volumes.find(&name)?;
    let mut shown = describe(volumes, &record);
    if record.nfs().is_none()
        && let Some(why) = volumes.lost(&name).await
    {
        shown["Status"]["Error"] = why.into();
    }
    Ok(ok(shown))
}

async fn remove(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    query: Query,
) -> Result<StatusCode> {
    let volumes = app.containers.volumes().clone();
    let removed = tokio::spawn(async move { volumes.remove(&name).await })
        .await
        .map_err(|e| Error::internal(format!("the request's task ended: {e}")))?;
    match removed {
        Err(error) if error.kind == Kind::NotFound && query.flag("force") => {}
        other => other?,
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn prune(State(app): State<Arc<App>>, version: ApiVersion, query: Query) -> Result<Response> {
    let filters = query.filters()?;
    // Before version 1.42 there were none that a prune left: it took those with a name, too.
    let before = version < ApiVersion(1, 42);
    filters.allow(if before {
        &["label", "label!"]
    } else {
        &["all", "label", "label!"]
    })?;
    let all = before || filters.flag("all")?.unwrap_or(false);
    let prune = filters.prune()?;
    let volumes = app.containers.volumes();
    let (mut deleted, mut reclaimed) = (Vec::new(), 0);
    for (record, users) in volumes.all() {
        let unused = users.is_empty() && (all || record.anonymous());
        if !unused || !prune.takes(&record.labels, record.created) {
            continue;
        }
        let size = volumes.size(&record.name).await.unwrap_or(0);
        match volumes.remove(&record.name).await {
            Ok(()) => {
                deleted.push(record.name.clone());
                reclaimed += size;
            }
            Err(error) => tracing::info!(volume = record.name, %error, "not pruned"),
        }
    }
    app.events.pruned("volume", reclaimed);
    Ok(ok(
        json!({ "VolumesDeleted": deleted, "SpaceReclaimed": reclaimed }),
    ))
}
