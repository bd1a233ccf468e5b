//! What clients read of a container: `inspect`.

use super::{
    Target,
    endpoint_settings::{EndpointSettings, endpoints},
    networks, ok,
    version::ApiVersion,
};
use crate::{
    app::App,
    containers::{
        Container,
        places::ports,
        spec::{SHM_SIZE, Spec},
        state::{Changes, Status},
    },
    errors::Result,
    networks::{publish::describe, record::BRIDGE},
    timestamps::rfc3339,
    volumes::record::DRIVER,
};
use axum::response::Response;
use serde_json::{Map, Value, json};
use wire::{
    health::Probe,
    masks::{MASKED, READ_ONLY},
    restart::RestartPolicy,
};

/// `GET /containers/{id}/json`.
pub(super) async fn inspect(at: Target, version: ApiVersion) -> Result<Response> {
    let size = match at.query.flag("size") {
        true => Some(sizes(&at.app, &at.container).await),
        false => None,
    };
    Ok(ok(details(&at.app, &at.container, size, version)))
}

/// What a container takes on the datastore, in bytes.
pub(super) struct Sizes {
    /// Its own disk: what it wrote, with what its file system and its log take.
    pub(super) own: u64,
    /// Its own disk and its image's layers, unpacked.
    pub(super) all: u64,
}

/// Asks for the sizes of a container; 0 for a disk that is not there any more.
pub(super) async fn sizes(app: &App, container: &Container) -> Sizes {
    let own = app.vsphere.leaf_size(container.id()).await;
    let own = own.unwrap_or_else(|error| {
        tracing::debug!(id = container.id(), %error, "size");
        0
    });
    let image = app.images.resolve(&container.spec.image);
    Sizes {
        own,
        all: own + image.map_or(0, |image| image.size),
    }
}

fn details(app: &App, container: &Container, size: Option<Sizes>, version: ApiVersion) -> Value {
    let spec = &container.spec;
    let status = container.status();
    let args = spec.config.args();
    let execs = app.containers.execs().of(container.id());
    let mut out = json!({
        "Id": spec.id,
        "Created": rfc3339(spec.created),
        "Path": args.first(),
        "Args": args.get(1..).unwrap_or(&[]),
        "State": state(&status),
        "Image": spec.image,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": "",
        "Name": format!("/{}", status.name),
        "RestartCount": status.record.restarts,
        "Driver": "vmdk",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": if execs.is_empty() { Value::Null } else { json!(execs) },
        "HostConfig": host_config(spec, &status.changes, version),
        "GraphDriver": { "Name": "vmdk", "Data": { "Seal": spec.disk.seal } },
        "Mounts": mounts(app, spec),
        "Config": spec.config,
        "NetworkSettings": network_settings(container, &status, version),
    });
    if out["Config"]["Volumes"] == json!({}) {
        out["Config"]["Volumes"] = Value::Null;
    }
    if let Some(size) = size {
        out["SizeRw"] = json!(size.own);
        out["SizeRootFs"] = json!(size.all);
    }
    out
}

/// What is mounted, as inspect and ps have it: volumes, paths of the machine, and of the tmpfs those of `--mount`, not those of `--tmpfs`.
pub(super) fn mounts(app: &App, spec: &Spec) -> Vec<Value> {
    let named = spec.host.get("Mounts").and_then(Value::as_array);
    let in_memory = named.into_iter().flatten().filter(|m| m["Type"] == "tmpfs");
    let in_memory = in_memory.map(|mount| {
        json!({
            "Type": "tmpfs",
            "Source": "",
            "Destination": mount["Target"],
            "Mode": "",
            "RW": mount["ReadOnly"] != true,
            "Propagation": "",
        })
    });
    let volumes = spec.mounts.iter().map(|mount| {
        json!({
            "Type": "volume",
            "Name": mount.volume,
            "Source": app.containers.volumes().place(&mount.volume, mount.nfs.as_ref()),
            "Destination": mount.target,
            "Driver": DRIVER,
            "Mode": mount.mode,
            "RW": !mount.read_only,
            "Propagation": "",
        })
    });
    let shares = spec.shares.iter().map(|share| {
        json!({
            "Type": "bind",
            "Source": share.source,
            "Destination": share.target,
            "Mode": share.mode,
            "RW": !share.read_only,
            "Propagation": "rprivate",
        })
    });
    volumes.chain(shares).chain(in_memory).collect()
}

fn state(status: &Status) -> Value {
    let record = &status.record;
    let mut out = json!({
        "Status": status.word(),
        "Running": status.live() || status.revive,
        "Paused": status.paused,
        "Restarting": status.restarting(),
        "OOMKilled": if status.running() { status.oom } else { record.oom },
        "Dead": false,
        "Pid": status.pid,
        "ExitCode": if status.running() { 0 } else { record.exit_code },
        "Error": if status.running() { "" } else { &record.error },
        "StartedAt": rfc3339(record.started),
        "FinishedAt": rfc3339(record.finished),
    });
    if let Some(health) = &status.health {
        let log: Vec<Value> = health.log.iter().map(probe).collect();
        out["Health"] = json!({
            "Status": health.status.word(),
            "FailingStreak": health.streak,
            "Log": log,
        });
    }
    out
}

fn probe(probe: &Probe) -> Value {
    json!({
        "Start": rfc3339(probe.start),
        "End": rfc3339(probe.end),
        "ExitCode": probe.code,
        "Output": probe.output,
    })
}

/// The client's `HostConfig` over dockerd's defaults.
fn host_config(spec: &Spec, changes: &Changes, version: ApiVersion) -> Value {
    let defaults = json!({
        "Binds": null, "ContainerIDFile": "", "LogConfig": { "Type": "json-file", "Config": {} },
        "NetworkMode": "bridge", "PortBindings": {},
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 }, "AutoRemove": false,
        "VolumeDriver": "", "VolumesFrom": null, "ConsoleSize": [0, 0], "CapAdd": null,
        "CapDrop": null, "CgroupnsMode": "private", "Dns": [], "DnsOptions": [], "DnsSearch": [],
        "ExtraHosts": null, "GroupAdd": null, "IpcMode": "private", "Cgroup": "", "Links": null,
        "OomScoreAdj": 0, "PidMode": "", "Privileged": false, "PublishAllPorts": false,
        "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "", "UsernsMode": "",
        "ShmSize": SHM_SIZE, "Runtime": "mooring", "Isolation": "", "CpuShares": 0, "Memory": 0,
        "NanoCpus": 0, "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": [], "BlkioDeviceWriteBps": [], "BlkioDeviceReadIOps": [],
        "BlkioDeviceWriteIOps": [], "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": [],
        "DeviceCgroupRules": null, "DeviceRequests": null, "MemoryReservation": 0,
        "MemorySwap": 0, "MemorySwappiness": null, "OomKillDisable": false, "PidsLimit": null,
        "Ulimits": [], "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0, "MaskedPaths": MASKED, "ReadonlyPaths": READ_ONLY,
    });
    let Value::Object(mut out) = defaults else {
        return Value::Null;
    };
    for (field, value) in &spec.host {
        // The client's way to say that it asks for none.
        let swappiness = field == "MemorySwappiness" && value.as_i64() == Some(-1);
        let unset = swappiness
            || value.is_null()
            || value.as_str() == Some("")
            || value.as_f64() == Some(0.0);
        let keep = matches!(field.as_str(), "LogConfig" | "RestartPolicy") && is_empty(value);
        if !unset && !keep {
            out.insert(field.clone(), value.clone());
        }
    }
    if let Some(options) = spec.host.get("LogConfig").map(|log| &log["Config"])
        && options.is_object()
    {
        out["LogConfig"]["Config"] = options.clone();
    }
    if version < ApiVersion(1, 42) {
        // Limits that later versions do not have any more.
        for field in ["KernelMemory", "KernelMemoryTCP"] {
            out.insert(field.to_owned(), json!(0));
        }
    }
    out.insert(
        "NetworkMode".to_owned(),
        json!(networks::mode(&spec.host, &spec.networks)),
    );
    if let Some(memory) = changes.memory_mib {
        out.insert("Memory".to_owned(), json!(u64::from(memory) * 1024 * 1024));
    }
    if let Some(cpus) = changes.cpus {
        let billionths = match changes.cpu {
            Some(time) => u64::from(time.quota) * 1_000_000_000 / u64::from(time.period.max(1)),
            None => u64::from(cpus) * 1_000_000_000,
        };
        out.insert("NanoCpus".to_owned(), json!(billionths));
    }
    if let Some(pids) = changes.pids {
        out.insert("PidsLimit".to_owned(), json!(pids));
    }
    if let Some(policy) = changes.restart {
        out.insert("RestartPolicy".to_owned(), policy_object(policy));
    }
    Value::Object(out)
}

fn policy_object(policy: RestartPolicy) -> Value {
    let (name, most) = match policy {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
        RestartPolicy::OnFailure { most } => ("on-failure", most),
    };
    json!({ "Name": name, "MaximumRetryCount": most })
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_none_or(|map: &Map<String, Value>| {
        map.get("Type")
            .or_else(|| map.get("Name"))
            .and_then(Value::as_str)
            .is_none_or(str::is_empty)
    })
}

fn network_settings(container: &Container, status: &Status, version: ApiVersion) -> Value {
    let running = status.running();
    let endpoints = endpoints(container, status, version);
    // The default network's place is shown twice, as ever.
    let none = EndpointSettings::default();
    let bridge = endpoints.get(BRIDGE).unwrap_or(&none);
    let ports = if running {
        describe(
            &ports(container, status),
            container.spec.config.exposed_ports.keys(),
        )
    } else {
        Map::new()
    };
    json!({
        "Bridge": "",
        "SandboxID": if running { container.id() } else { "" },
        "SandboxKey": "",
        "Ports": ports,
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": bridge.endpoint_id,
        "Gateway": bridge.gateway,
        "GlobalIPv6Address": bridge.global_ipv6_address,
        "GlobalIPv6PrefixLen": bridge.global_ipv6_prefix_len,
        "IPAddress": bridge.ip_address,
        "IPPrefixLen": bridge.ip_prefix_len,
        "IPv6Gateway": bridge.ipv6_gateway,
        "MacAddress": bridge.mac_address,
        "Networks": endpoints,
    })
}
