//! Ping, version, info, disk usage.

use super::{
    inspect, ok,
    query::Query,
    row::Row,
    version::{API_VERSION, ApiVersion, MIN_API_VERSION},
};
use crate::{
    app::App,
    errors::{Error, Result},
    images::registry::{Insecure, Proxies, RegistrySettings},
    timestamps,
};
use axum::{
    Router,
    extract::State,
    http::{HeaderValue, Method, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use std::sync::Arc;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    "amd64"
};

/// The calls that are about the host as a whole.
pub fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/_ping", get(ping).head(ping))
        .route("/version", get(version))
        .route("/info", get(info))
        .route("/system/df", get(usage))
}

async fn ping(method: Method) -> Response {
    let body = if method == Method::HEAD { "" } else { "OK" };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    // No BuildKit: the client then builds the classic way, which is refused by name.
    headers.insert("Builder-Version", HeaderValue::from_static("1"));
    headers.insert("Swarm", HeaderValue::from_static("inactive"));
    response
}

async fn version(State(app): State<Arc<App>>) -> Response {
    let (host, _) = app.vsphere.about();
    ok(json!({
        "Platform": { "Name": "Mooring" },
        "Components": [{
            "Name": "Engine",
            "Version": VERSION,
            "Details": {
                "ApiVersion": API_VERSION.to_string(),
                "MinAPIVersion": MIN_API_VERSION.to_string(),
                "Arch": ARCHITECTURE,
                "Os": "linux",
                "Experimental": "false",
                "Hypervisor": host,
            },
        }],
        "Version": VERSION,
        "ApiVersion": API_VERSION.to_string(),
        "MinAPIVersion": MIN_API_VERSION.to_string(),
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": ARCHITECTURE,
        "KernelVersion": "",
        "BuildTime": "",
    }))
}

async fn info(State(app): State<Arc<App>>, version: ApiVersion) -> Result<Response> {
    let all = app.containers.all();
    let (mut running, mut paused) = (0usize, 0usize);
    for status in all
        .iter()
        .map(|c| c.status())
        .filter(|status| status.live())
    {
        *if status.paused {
            &mut paused
        } else {
            &mut running
        } += 1;
    }
    let (host, host_version) = app.vsphere.about();
    let setup = app.containers.setup();
    let (cpus, memory) = app.vsphere.hardware().await?;
    let proxies = app.images.registry().settings().proxies();
    let mut out = json!({
        "ID": app.settings.vch_id,
        "Containers": all.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": all.len() - running - paused,
        "Images": app.images.all().len(),
        "Driver": "vmdk",
        "DriverStatus": [
            ["Hypervisor", host],
            ["Datastore", app.vsphere.datastore()],
            ["Link", setup.link.place()],
            ["VM memory", format!("{} MiB", setup.memory_mib)],
            ["Volume stores", app.containers.volumes().store_names()],
        ],
        "Plugins": { "Volume": ["local"], "Network": ["bridge", "null"], "Authorization": null, "Log": ["json-file", "local"] },
        "MemoryLimit": true,
        "SwapLimit": false,
        "CpuCfsPeriod": false,
        "CpuCfsQuota": false,
        "CPUShares": false,
        "CPUSet": false,
        "PidsLimit": true,
        "OomKillDisable": false,
        "IPv4Forwarding": true,
        "Debug": false,
        "NFd": 0,
        "NGoroutines": 0,
        "SystemTime": timestamps::rfc3339(timestamps::now()),
        "LoggingDriver": "json-file",
        "CgroupDriver": "none",
        "CgroupVersion": "2",
        "NEventsListener": app.events.listeners(),
        "KernelVersion": "",
        "OperatingSystem": host,
        "OSVersion": host_version,
        "OSType": "linux",
        "Architecture": if ARCHITECTURE == "amd64" { "x86_64" } else { "aarch64" },
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": registries(app.images.registry().settings()),
        "NCPU": cpus,
        "MemTotal": memory,
        "GenericResources": null,
        "DockerRootDir": format!("[{}] mooring/{}", app.vsphere.datastore(), app.settings.vch_id),
        "HttpProxy": Proxies::shown(proxies.http.as_ref()),
        "HttpsProxy": Proxies::shown(proxies.https.as_ref()),
        "NoProxy": proxies.none_for,
        "Name": app.name(),
        "Labels": [],
        "ExperimentalBuild": false,
        "ServerVersion": VERSION,
        "Runtimes": { "mooring": { "path": "" } },
        "DefaultRuntime": "mooring",
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false,
            "Error": "", "RemoteManagers": null,
        },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": { "ID": "" },
        "RuncCommit": { "ID": "" },
        "InitCommit": { "ID": "" },
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "Warnings": null,
        "BridgeNfIptables": false,
        "BridgeNfIp6tables": false,
    });
    if version < ApiVersion(1, 42) {
        out["KernelMemory"] = json!(false);
        out["KernelMemoryTCP"] = json!(false);
    }
    Ok(ok(out))
}

/// What `docker info` shows of registries.
fn registries(settings: &RegistrySettings) -> Value {
    let mut subnets = vec!["::1/128".to_owned(), "127.0.0.0/8".to_owned()];
    let mirrors: Vec<String> = settings
        .registry_mirror
        .iter()
        .map(|m| format!("{m}/"))
        .collect();
    let mut indexes = json!({
        "docker.io": { "Name": "docker.io", "Mirrors": mirrors, "Secure": true, "Official": true },
    });
    for insecure in &settings.insecure_registry {
        match insecure {
            Insecure::Subnet(subnet) => subnets.push(subnet.to_string()),
            Insecure::Host(host) => {
                indexes[host] = json!({
                    "Name": host, "Mirrors": [], "Secure": false, "Official": false,
                });
            }
        }
    }
    json!({
        "AllowNondistributableArtifactsCIDRs": null,
        "AllowNondistributableArtifactsHostnames": null,
        "InsecureRegistryCIDRs": subnets,
        "IndexConfigs": indexes,
        "Mirrors": if mirrors.is_empty() { Value::Null } else { json!(mirrors) },
    })
}

/// `GET /system/df`; with `type` only of these kinds of objects.
async fn usage(State(app): State<Arc<App>>, version: ApiVersion, query: Query) -> Result<Response> {
    const KINDS: &[&str] = &["container", "image", "volume", "build-cache"];
    let wanted: Vec<&str> = query.all("type").collect();
    if let Some(wrong) = wanted.iter().find(|kind| !KINDS.contains(*kind)) {
        return Err(Error::bad(format!("unknown object type: {wrong}")));
    }
    let wants = |kind: &str| wanted.is_empty() || wanted.contains(&kind);

    let containers = app.containers.all();
    let images: Vec<Value> = app
        .images
        .all()
        .iter()
        .map(|image| {
            let mut row = super::images::summary(&app, image);
            // Each image counts as its own here.
            row["SharedSize"] = json!(0);
            row
        })
        .collect();
    let mut rows = Vec::new();
    for container in containers.iter().filter(|_| wants("container")) {
        let size = inspect::sizes(&app, container).await;
        let status = container.status();
        rows.push(json!(Row::new(&app, container, &status, Some(size))));
    }
    let mut volumes = Vec::new();
    let all = app.containers.volumes().all().into_iter();
    for (record, users) in all.filter(|_| wants("volume")) {
        let mut row = super::volumes::describe(app.containers.volumes(), &record);
        // What an NFS server has is not asked for: Docker's word for that is -1.
        let size = match record.nfs() {
            Some(_) => -1,
            None => {
                let size = app.containers.volumes().size(&record.name).await;
                size.map_or(0, u64::cast_signed)
            }
        };
        row["UsageData"] = json!({ "Size": size, "RefCount": users.len() });
        volumes.push(row);
    }
    let mut out = serde_json::Map::new();
    if wants("image") {
        let size = app.images.all().iter().map(|image| image.size).sum::<u64>();
        out.insert("LayersSize".to_owned(), json!(size));
        out.insert("Images".to_owned(), json!(images));
    }
    if wants("container") {
        out.insert("Containers".to_owned(), json!(rows));
    }
    if wants("volume") {
        out.insert("Volumes".to_owned(), json!(volumes));
    }
    if wants("build-cache") {
        out.insert("BuildCache".to_owned(), json!([]));
        if version < ApiVersion(1, 42) {
            out.insert("BuilderSize".to_owned(), json!(0));
        }
    }
    Ok(ok(Value::Object(out)))
}
