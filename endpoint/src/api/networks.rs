//! Networks: the default ones, for now.

use super::{ok, query::Query};
use crate::{
    app::App,
    containers::addresses::{GATEWAY, SUBNET},
    errors::{Error, Result},
    timestamps,
};
use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::{delete, get, post},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, sync::Arc};

const NAMES: [&str; 2] = ["bridge", "none"];

/// The calls under `/networks`.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/networks", get(list))
        .route(
            "/networks/create",
            post(async || Error::not_yet("docker network create")),
        )
        .route(
            "/networks/prune",
            post(async || ok(json!({ "NetworksDeleted": null }))),
        )
        .route("/networks/{id}", get(inspect))
        .route("/networks/{id}", delete(remove))
        .route(
            "/networks/{id}/connect",
            post(async || Error::not_yet("docker network connect")),
        )
        .route(
            "/networks/{id}/disconnect",
            post(async || Error::not_yet("docker network disconnect")),
        )
}

/// The ID of a default network; the same on every host.
pub fn id_of(name: &str) -> String {
    hex::encode(Sha256::digest(format!("mooring network {name}")))
}

fn driver(name: &str) -> &'static str {
    if name == "none" { "null" } else { "bridge" }
}

fn describe(app: &App, name: &str, containers: bool) -> Value {
    let bridge = name == "bridge";
    let mut members = serde_json::Map::new();
    if containers && bridge {
        for container in app.containers.all() {
            let status = container.status();
            if let Some(network) = container.spec.network.as_ref().filter(|_| status.running()) {
                members.insert(
                    container.id().to_owned(),
                    json!({
                        "Name": status.name,
                        "EndpointID": network.endpoint,
                        "MacAddress": network.mac,
                        "IPv4Address": format!("{}/{}", network.address, network.prefix),
                        "IPv6Address": "",
                    }),
                );
            }
        }
    }
    let pools = if bridge {
        json!([{ "Subnet": SUBNET, "Gateway": GATEWAY.to_string() }])
    } else {
        json!([])
    };
    json!({
        "Name": name,
        "Id": id_of(name),
        "Created": timestamps::rfc3339(app.started),
        "Scope": "local",
        "Driver": driver(name),
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": { "Driver": "default", "Options": null, "Config": pools },
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": members,
        "Options": {},
        "Labels": {},
    })
}

async fn list(State(app): State<Arc<App>>, query: Query) -> Result<Response> {
    let filters = query.filters()?;
    filters.allow(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
    let dangling = filters.flag("dangling")?;
    let rows: Vec<Value> = NAMES
        .into_iter()
        .filter(|name| {
            filters.any("name", |want| name.contains(want.as_str()))
                && filters.any("id", |want| id_of(name).contains(want.as_str()))
                && filters.any("driver", |want| want == driver(name))
                && filters.any("scope", |want| want == "local")
                && filters.any("type", |want| want == "builtin")
                && filters.labels("label", &BTreeMap::new())
                && dangling != Some(true)
        })
        .map(|name| describe(&app, name, false))
        .collect();
    Ok(ok(Value::Array(rows)))
}

fn find(text: &str) -> Result<&'static str> {
    NAMES
        .into_iter()
        .find(|name| *name == text || text.len() >= 3 && id_of(name).starts_with(text))
        .ok_or_else(|| Error::not_found(format!("network {text} not found")))
}

async fn inspect(State(app): State<Arc<App>>, Path(text): Path<String>) -> Result<Response> {
    Ok(ok(describe(&app, find(&text)?, true)))
}

async fn remove(Path(text): Path<String>) -> Error {
    match find(&text) {
        Ok(name) => Error::new(
            crate::errors::Kind::Forbidden,
            format!("{name} is a pre-defined network and cannot be removed"),
        ),
        Err(error) => error,
    }
}
