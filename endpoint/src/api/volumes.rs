//! Volumes: there are none yet, and what asks for one is told so.

use super::{ok, query::Query};
use crate::{
    app::App,
    errors::{Error, Result},
};
use axum::{
    Router,
    extract::Path,
    response::Response,
    routing::{delete, get, post},
};
use serde_json::json;
use std::sync::Arc;

/// The calls under `/volumes`.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/volumes", get(list))
        .route(
            "/volumes/create",
            post(async || Error::not_yet("docker volume create")),
        )
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(missing))
        .route("/volumes/{name}", delete(missing))
}

async fn list(query: Query) -> Result<Response> {
    query
        .filters()?
        .allow(&["dangling", "driver", "label", "name"])?;
    Ok(ok(json!({ "Volumes": [], "Warnings": null })))
}

async fn prune(query: Query) -> Result<Response> {
    query.filters()?.allow(&["all", "label", "label!"])?;
    Ok(ok(json!({ "VolumesDeleted": [], "SpaceReclaimed": 0 })))
}

async fn missing(Path(name): Path<String>) -> Error {
    Error::not_found(format!("get {name}: no such volume"))
}
