//! A container's row of `GET /containers/json` (`docker ps`) and of `system/df`.

use super::{
    endpoint_settings::{EndpointSettings, endpoints},
    inspect::{Sizes, mounts},
    networks,
    version::API_VERSION,
};
use crate::{
    app::App,
    containers::{Container, filters::status_text, places::ports, state::Status},
    networks::publish::port,
};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, net::IpAddr};

/// Docker's `ContainerSummary` (Engine API 1.50). It is written as it stands, without a tree of values in between: a list
/// has thousands.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Row<'a> {
    id: &'a str,
    names: [String; 1],
    image: &'a str,
    #[serde(rename = "ImageID")]
    image_id: &'a str,
    command: String,
    created: u64,
    ports: Vec<Port>,
    labels: &'a BTreeMap<String, String>,
    state: &'static str,
    status: String,
    host_config: HostConfig,
    network_settings: NetworkSettings<'a>,
    mounts: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_rw: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_root_fs: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    network_mode: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings<'a> {
    networks: BTreeMap<&'a str, EndpointSettings<'a>>,
}

/// A port that is published, or only exposed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    private_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_port: Option<u16>,
    r#type: &'static str,
}

impl<'a> Row<'a> {
    /// The row of a container as it is.
    pub(super) fn new(
        app: &App,
        container: &'a Container,
        status: &'a Status,
        size: Option<Sizes>,
    ) -> Self {
        let spec = &container.spec;
        // The name that it was created with, as long as it means this image.
        let means_it = app
            .images
            .resolve(&spec.config.image)
            .is_some_and(|image| image.id == spec.image);
        Self {
            id: &spec.id,
            names: [format!("/{}", status.name)],
            image: if means_it {
                &spec.config.image
            } else {
                &spec.image
            },
            image_id: &spec.image,
            command: command(&spec.config.args()),
            created: spec.created / 1_000_000_000,
            ports: ports_of(container, status),
            labels: &spec.config.labels,
            state: status.word(),
            status: status_text(status),
            host_config: HostConfig {
                network_mode: networks::mode(&spec.host, &spec.networks),
            },
            // A list has no aliases.
            network_settings: NetworkSettings {
                networks: endpoints(container, status, API_VERSION),
            },
            mounts: mounts(app, spec),
            size_rw: size.as_ref().map(|size| size.own),
            size_root_fs: size.map(|size| size.all),
        }
    }
}

/// Ports that are published, and those that are only exposed.
fn ports_of(container: &Container, status: &Status) -> Vec<Port> {
    if !status.running() {
        return Vec::new();
    }
    let published = ports(container, status);
    let mut rows: Vec<Port> = published
        .iter()
        .map(|binding| Port {
            ip: Some(binding.host),
            private_port: binding.port,
            public_port: Some(binding.host_port),
            r#type: binding.protocol.word(),
        })
        .collect();
    for exposed in container.spec.config.exposed_ports.keys() {
        let Ok((number, protocol)) = port(exposed) else {
            continue;
        };
        let is_published = published
            .iter()
            .any(|b| (b.port, b.protocol) == (number, protocol));
        if !is_published {
            rows.push(Port {
                ip: None,
                private_port: number,
                public_port: None,
                r#type: protocol.word(),
            });
        }
    }
    rows
}

/// The command as Docker shows it: arguments with blanks are quoted.
fn command(args: &[String]) -> String {
    args.iter()
        .map(|arg| {
            if arg.contains(' ') {
                format!("'{arg}'")
            } else {
                arg.clone()
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}
