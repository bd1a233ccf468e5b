//! `POST /containers/{id}/update`.

use super::{JsonBody, Target, ok};
use crate::{
    containers::options,
    errors::{Error, Result},
};
use axum::response::Response;
use serde_json::{Map, Value, json};
use wire::restart::RestartPolicy;

/// Changes what may be changed of a container.
pub(super) async fn update(
    at: Target,
    JsonBody(body): JsonBody<Map<String, Value>>,
) -> Result<Response> {
    let named = |policy: &&Value| policy["Name"].as_str().is_some_and(|name| !name.is_empty());
    let wanted = options::check_update(&body)?;
    // What it has already changes nothing.
    let memory = wanted
        .memory_mib
        .filter(|m| *m != at.container.memory_mib());
    let has = (at.container.cpus(), at.container.cpu());
    let cpus = wanted.cpus.filter(|n| (*n, wanted.cpu) != has);
    let restart = body
        .get("RestartPolicy")
        .filter(named)
        .map(options::restart_policy)
        .transpose()?;
    if at.container.spec.options.auto_remove
        && restart.is_some_and(|policy| policy != RestartPolicy::No)
    {
        return Err(Error::bad(
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
        ));
    }
    at.app
        .containers
        .change(&at.container, |changes| {
            changes.restart = restart.or(changes.restart);
            changes.pids = wanted.pids.or(changes.pids);
            changes.memory_mib = memory.or(changes.memory_mib);
            if cpus.is_some() {
                (changes.cpus, changes.cpu) = (cpus, wanted.cpu);
            }
        })
        .await?;
    Ok(ok(json!({ "Warnings": null })))
}
