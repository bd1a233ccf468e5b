//! Networks: list, inspect, create, remove, prune, connect, disconnect.

use super::{JsonBody, ok, pattern::Pattern, query::Query};
use crate::{
    app::App,
    containers::{
        names::SHORT_ID,
        state::{Phase, Status},
    },
    errors::{Error, Kind, Result},
    networks::{
        Network,
        attachment::{Attachment, Wanted},
        record::{BRIDGE, NONE, builtin_id},
        request::NetworkRequest,
    },
    timestamps,
};
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// The calls under `/networks`.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{id}", get(inspect))
        .route("/networks/{id}", delete(remove))
        .route("/networks/{id}/connect", post(connect))
        .route("/networks/{id}/disconnect", post(disconnect))
}

/// A network, or the absence of one, which Docker calls a network too.
enum Found {
    Some(Arc<Network>),
    None,
}

fn find(app: &App, text: &str) -> Result<Found> {
    if text == NONE || text.len() >= 3 && builtin_id(NONE).starts_with(text) {
        return Ok(Found::None);
    }
    app.containers.networks().find(text).map(Found::Some)
}

fn find_some(app: &App, text: &str) -> Result<Arc<Network>> {
    match find(app, text)? {
        Found::Some(network) => Ok(network),
        Found::None => Err(Error::new(
            Kind::Forbidden,
            "container cannot be connected to network none: it would have none then",
        )),
    }
}

/// What a place looks like from its network.
fn member(status: &Status, place: &Attachment) -> Value {
    let net = |ipv6: bool| place.place(ipv6).map_or_else(String::new, |p| p.net());
    json!({
        "Name": status.name,
        "EndpointID": place.endpoint,
        "MacAddress": place.mac,
        "IPv4Address": net(false),
        "IPv6Address": net(true),
    })
}

fn describe_none(app: &App) -> Value {
    json!({
        "Name": NONE, "Id": builtin_id(NONE), "Created": timestamps::rfc3339(app.started),
        "Scope": "local", "Driver": "null", "EnableIPv4": true, "EnableIPv6": false,
        "IPAM": { "Driver": "default", "Options": null, "Config": [] },
        "Internal": false, "Attachable": false, "Ingress": false,
        "ConfigFrom": { "Network": "" }, "ConfigOnly": false,
        "Containers": {}, "Options": {}, "Labels": {},
    })
}

fn describe(app: &App, network: &Network, with_members: bool) -> Value {
    let record = &network.record;
    let mut members = Map::new();
    if with_members {
        for (container, status, place) in app.containers.members(network) {
            if status.running() {
                members.insert(container.id().to_owned(), member(&status, &place));
            }
        }
    }
    let pools: Vec<Value> = record
        .pools
        .iter()
        .map(|pool| {
            let mut entry = Map::new();
            entry.insert("Subnet".to_owned(), json!(pool.subnet.to_string()));
            if let Some(range) = &pool.range {
                entry.insert("IPRange".to_owned(), json!(range.to_string()));
            }
            entry.insert("Gateway".to_owned(), json!(pool.gateway.to_string()));
            if !pool.auxiliary.is_empty() && !record.builtin() {
                entry.insert("AuxiliaryAddresses".to_owned(), json!(pool.auxiliary));
            }
            Value::Object(entry)
        })
        .collect();
    json!({
        "Name": record.name,
        "Id": record.id,
        "Created": timestamps::rfc3339(record.created),
        "Scope": "local",
        "Driver": record.driver(),
        "EnableIPv4": true,
        "EnableIPv6": record.ipv6,
        "IPAM": { "Driver": "default", "Options": if record.builtin() { Value::Null } else { json!({}) }, "Config": pools },
        "Internal": record.internal,
        "Attachable": record.attachable,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": members,
        "Options": record.options,
        "Labels": record.labels,
    })
}

async fn list(State(app): State<Arc<App>>, query: Query) -> Result<Response> {
    let filters = query.filters()?;
    filters.allow(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    for kind in filters.values("type").unwrap_or(&[]) {
        if !matches!(kind.as_str(), "builtin" | "custom") {
            return Err(Error::bad(format!("invalid filter 'type={kind}'")));
        }
    }
    let dangling = filters.flag("dangling")?;
    let none = BTreeMap::new();
    let (names, ids) = (Pattern::all(&filters, "name"), Pattern::all(&filters, "id"));
    let shown = |name: &str, id: &str, driver: &str, labels: &BTreeMap<String, String>, builtin| {
        Pattern::any(&names, &[name])
            && Pattern::any(&ids, &[id])
            && filters.any("driver", |want| want == driver)
            && filters.any("scope", |want| want == "local")
            && filters.any("type", |want| (want == "builtin") == builtin)
            && filters.labels("label", labels)
    };
    let mut rows = Vec::new();
    for network in app.containers.networks().all() {
        let record = &network.record;
        let unused = || active(&app, &network).is_empty();
        let builtin = record.permanent();
        if shown(
            &record.name,
            &record.id,
            record.driver(),
            &record.labels,
            builtin,
        ) && dangling.is_none_or(|want| want == (!builtin && unused()))
        {
            rows.push(describe(&app, &network, false));
        }
    }
    if shown(NONE, &builtin_id(NONE), "null", &none, true) && dangling != Some(true) {
        rows.push(describe_none(&app));
    }
    Ok(ok(Value::Array(rows)))
}

async fn inspect(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    query: Query,
) -> Result<Response> {
    if !matches!(query.text("scope"), "" | "local") {
        return Err(Error::not_found(format!("network {text} not found")));
    }
    Ok(ok(match find(&app, &text)? {
        Found::Some(network) => describe(&app, &network, true),
        Found::None => describe_none(&app),
    }))
}

async fn create(State(app): State<Arc<App>>, JsonBody(body): JsonBody<Value>) -> Result<Response> {
    let request = NetworkRequest::read(&body)?;
    let networks = app.containers.networks().clone();
    // Whole, even if the client goes.
    let network = tokio::spawn(async move { networks.create(request).await })
        .await
        .map_err(|e| Error::internal(format!("the request's task ended: {e}")))??;
    let answer = json!({ "Id": network.record.id, "Warning": "" });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// The running containers on a network, as Docker names them in an error.
fn active(app: &App, network: &Network) -> Vec<String> {
    let members = app.containers.members(network).into_iter();
    members
        .filter(|(_, status, _)| {
            matches!(
                status.phase,
                Phase::Running | Phase::Starting | Phase::Restarting
            )
        })
        .map(|(_, status, place)| {
            let id: String = place.endpoint.chars().take(SHORT_ID).collect();
            format!("name:\"{}\" id:\"{id}\"", status.name)
        })
        .collect()
}

/// Removes a network on which no running container is: whole, even if the client goes.
async fn remove_unused(app: &Arc<App>, network: &Arc<Network>) -> Result<()> {
    let (app, network) = (app.clone(), network.clone());
    tokio::spawn(async move {
        let networks = app.containers.networks();
        networks.remove(&network, || active(&app, &network)).await
    })
    .await
    .map_err(|e| Error::internal(format!("the request's task ended: {e}")))?
}

async fn remove(State(app): State<Arc<App>>, Path(text): Path<String>) -> Result<StatusCode> {
    let network = match find(&app, &text)? {
        Found::Some(network) => network,
        Found::None => {
            return Err(Error::new(
                Kind::Forbidden,
                format!("{NONE} is a pre-defined network and cannot be removed"),
            ));
        }
    };
    remove_unused(&app, &network).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn prune(State(app): State<Arc<App>>, query: Query) -> Result<Response> {
    let filters = query.filters()?;
    filters.allow(&["label", "label!", "until"])?;
    let prune = filters.prune()?;
    let mut deleted = Vec::new();
    for network in app.containers.networks().all() {
        let record = &network.record;
        // As Docker: one that a stopped container is on counts as used.
        let used = !app.containers.members(&network).is_empty();
        if record.permanent() || used || !prune.takes(&record.labels, record.created) {
            continue;
        }
        match remove_unused(&app, &network).await {
            Ok(()) => deleted.push(record.name.clone()),
            Err(error) => tracing::info!(network = record.name, %error, "not pruned"),
        }
    }
    app.events.pruned("network", 0);
    let deleted = if deleted.is_empty() {
        Value::Null
    } else {
        json!(deleted)
    };
    Ok(ok(json!({ "NetworksDeleted": deleted })))
}

fn container_of(body: &Value) -> Result<&str> {
    match body["Container"].as_str() {
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(Error::bad("invalid name or ID supplied: \"\"")),
    }
}

async fn connect(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    JsonBody(body): JsonBody<Value>,
) -> Result<StatusCode> {
    let network = find_some(&app, &text)?;
    let container = app.containers.find(container_of(&body)?)?;
    let wanted = Wanted::read(&body["EndpointConfig"])?;
    let containers = app.containers.clone();
    tokio::spawn(async move { containers.connect(&container, &network, wanted).await })
        .await
        .map_err(|e| Error::internal(format!("the request's task ended: {e}")))??;
    Ok(StatusCode::OK)
}

async fn disconnect(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    JsonBody(body): JsonBody<Value>,
) -> Result<StatusCode> {
    let network = find_some(&app, &text)?;
    let container = match app.containers.find(container_of(&body)?) {
        // Of a container that is gone, nothing is left on the network.
        Err(_) if body["Force"].as_bool() == Some(true) => return Ok(StatusCode::OK),
        found => found?,
    };
    let containers = app.containers.clone();
    tokio::spawn(async move { containers.disconnect(&container, &network).await })
        .await
        .map_err(|e| Error::internal(format!("the request's task ended: {e}")))??;
    Ok(StatusCode::OK)
}

/// The mode of a container's network as `HostConfig` shows it.
pub(super) fn mode(host: &Map<String, Value>, places: &[Attachment]) -> String {
    match host.get("NetworkMode").and_then(Value::as_str) {
        None | Some("" | "default") => if places.is_empty() { NONE } else { BRIDGE }.to_owned(),
        Some(mode) => mode.to_owned(),
    }
}
