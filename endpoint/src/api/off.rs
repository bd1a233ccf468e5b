//! What a Docker host has that this one has switched off: swarm, plugins, checkpoints. Each call is answered as dockerd
//! answers it while they are off, since clients ask for them and expect these words.

use super::{ok, query::Query};
use crate::{
    app::App,
    errors::{Error, Kind, Result},
};
use axum::{
    Router,
    extract::Path,
    response::Response,
    routing::{any, get, post},
};
use serde_json::json;
use std::sync::Arc;

/// Filters of the list.
const PLUGIN_FILTERS: &[&str] = &["enabled", "capability"];

/// What dockerd says to every call that needs a swarm.
pub const NO_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";

/// The calls of what is off.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .merge(swarm())
        .merge(plugins())
        .route("/containers/{id}/checkpoints", any(checkpoints))
        .route("/containers/{id}/checkpoints/{name}", any(checkpoints))
        .route("/session", any(async || Error::not_yet("BuildKit")))
}

/// 503 in Docker's words.
fn no_manager() -> Error {
    Error::unavailable(NO_MANAGER)
}

/// 501: the swarm stays off.
fn no_swarm() -> Error {
    Error::new(
        Kind::NotImplemented,
        "docker swarm is not supported by Mooring: vSphere is the cluster",
    )
}

fn swarm() -> Router<Arc<App>> {
    let off = async || no_manager();
    let mut router = Router::new()
        .route("/swarm", get(off))
        .route("/swarm/init", post(async || no_swarm()))
        .route("/swarm/join", post(async || no_swarm()))
        .route("/swarm/leave", post(leave))
        .route("/swarm/unlock", post(off))
        .route("/swarm/unlockkey", get(off))
        .route("/swarm/update", post(off));
    for path in ["/services", "/nodes", "/tasks", "/secrets", "/configs"] {
        router = router
            .route(path, get(off))
            .route(&format!("{path}/{{*rest}}"), any(off));
    }
    router
}

async fn leave() -> Error {
    Error::unavailable("This node is not part of a swarm")
}

fn plugins() -> Router<Arc<App>> {
    Router::new()
        .route("/plugins", get(list))
        .route("/plugins/privileges", get(install))
        .route("/plugins/pull", post(install))
        .route("/plugins/create", post(install))
        .route("/plugins/{name}", any(no_plugin))
        .route("/plugins/{name}/json", get(no_plugin))
        .route("/plugins/{name}/enable", post(no_plugin))
        .route("/plugins/{name}/disable", post(no_plugin))
        .route("/plugins/{name}/set", post(no_plugin))
        .route("/plugins/{name}/push", post(no_tag))
        .route("/plugins/{name}/upgrade", post(no_tag))
}

async fn list(query: Query) -> Result<Response> {
    query.filters()?.allow(PLUGIN_FILTERS)?;
    Ok(ok(json!([])))
}

async fn install() -> Error {
    Error::new(
        Kind::NotImplemented,
        "docker plugin is not supported by Mooring: volumes and networks are vSphere's",
    )
}

async fn no_plugin(Path(name): Path<String>) -> Error {
    Error::not_found(format!("plugin \"{name}\" not found"))
}

/// Of these calls dockerd reads the name as a reference.
async fn no_tag(Path(name): Path<String>) -> Error {
    let tag = if name.contains(':') { "" } else { ":latest" };
    Error::not_found(format!("plugin \"{name}{tag}\" not found"))
}

async fn checkpoints() -> Error {
    Error::new(
        Kind::NotImplemented,
        "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it.",
    )
}
