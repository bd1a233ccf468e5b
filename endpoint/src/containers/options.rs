//! Which options of `containers/create` there are, field by field.
//!
//! Docker's description of the API has about a hundred; each is either taken, or refused by name
//! unless it has its default. Nothing is ignored.

use crate::errors::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::net::{IpAddr, Ipv4Addr};

/// The smallest VM that boots with a container in it, in MiB.
pub const MEMORY_MIN_MIB: u64 = 64;
const MIB: u64 = 1024 * 1024;

/// What the checked options mean for the VM and the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Memory in MiB; `None`: the endpoint's default.
    pub memory_mib: Option<u32>,
    /// Whole CPUs; `None`: the endpoint's default.
    pub cpus: Option<u32>,
    /// No network.
    pub no_network: bool,
    /// A MAC address that was asked for.
    pub mac: Option<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// Resolver options.
    pub dns_options: Vec<String>,
    /// Lines of /etc/hosts: address, name.
    pub extra_hosts: Vec<(String, String)>,
    /// Additional groups.
    pub groups: Vec<String>,
    /// `CAP_…` names.
    pub cap_add: Vec<String>,
    /// `CAP_…` names, or `ALL`.
    pub cap_drop: Vec<String>,
    /// Read-only root.
    pub read_only: bool,
    /// Bytes of /dev/shm; 0: Docker's default.
    pub shm_size: u64,
    /// An init in the container.
    pub init: bool,
    /// Remove at exit.
    pub auto_remove: bool,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
}

/// JSON's or Go's zero value: what a client sends that was not asked for anything.
fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_default),
        Value::Bool(true) => false,
    }
}

fn refused(option: &str, what_to_do: &str) -> Error {
    Error::new(
        Kind::NotImplemented,
        format!("{option} is not supported by Mooring yet: {what_to_do}"),
    )
}

/// Fields that are refused unless they have their default: field, the client's option, advice.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "CpuShares",
        "--cpu-shares",
        "use --cpus for whole CPUs of the VM",
    ),
    (
        "CgroupParent",
        "--cgroup-parent",
        "each container is a VM with cgroups of its own",
    ),
    ("BlkioWeight", "--blkio-weight", "leave it out"),
    ("BlkioWeightDevice", "--blkio-weight-device", "leave it out"),
    ("BlkioDeviceReadBps", "--device-read-bps", "leave it out"),
    ("BlkioDeviceWriteBps", "--device-write-bps", "leave it out"),
    ("BlkioDeviceReadIOps", "--device-read-iops", "leave it out"),
    (
        "BlkioDeviceWriteIOps",
        "--device-write-iops",
        "leave it out",
    ),
    ("CpuRealtimePeriod", "--cpu-rt-period", "leave it out"),
    ("CpuRealtimeRuntime", "--cpu-rt-runtime", "leave it out"),
    (
        "CpusetCpus",
        "--cpuset-cpus",
        "use --cpus: the VM has only the CPUs it was given",
    ),
    ("CpusetMems", "--cpuset-mems", "leave it out"),
    (
        "Devices",
        "--device",
        "a container VM has no device of the host",
    ),
    (
        "DeviceCgroupRules",
        "--device-cgroup-rule",
        "a container VM has no device of the host",
    ),
    (
        "DeviceRequests",
        "--gpus",
        "a container VM has no device of the host",
    ),
    ("KernelMemory", "--kernel-memory", "use --memory"),
    ("KernelMemoryTCP", "KernelMemoryTCP", "use --memory"),
    ("MemoryReservation", "--memory-reservation", "use --memory"),
    ("OomKillDisable", "--oom-kill-disable", "leave it out"),
    ("OomScoreAdj", "--oom-score-adj", "leave it out"),
    (
        "Ulimits",
        "--ulimit",
        "set the limit in the container's command",
    ),
    ("CpuPercent", "CpuPercent", "it is for Windows"),
    ("IOMaximumIOps", "IOMaximumIOps", "it is for Windows"),
    (
        "IOMaximumBandwidth",
        "IOMaximumBandwidth",
        "it is for Windows",
    ),
    (
        "Binds",
        "--volume",
        "volumes come with a later version; copy files into the image",
    ),
    (
        "Mounts",
        "--mount",
        "volumes come with a later version; copy files into the image",
    ),
    (
        "VolumesFrom",
        "--volumes-from",
        "volumes come with a later version",
    ),
    (
        "VolumeDriver",
        "--volume-driver",
        "volumes come with a later version",
    ),
    ("Tmpfs", "--tmpfs", "it comes with volumes"),
    (
        "PortBindings",
        "--publish",
        "published ports come with networks; use the container's address",
    ),
    (
        "PublishAllPorts",
        "--publish-all",
        "published ports come with networks; use the container's address",
    ),
    (
        "Links",
        "--link",
        "links come with networks; use the container's address",
    ),
    (
        "PidMode",
        "--pid",
        "the container's processes are in a VM of their own",
    ),
    ("UTSMode", "--uts", "the container's host name is its VM's"),
    (
        "UsernsMode",
        "--userns",
        "the container's users are its VM's",
    ),
    (
        "Cgroup",
        "Cgroup",
        "each container is a VM with cgroups of its own",
    ),
    (
        "Privileged",
        "--privileged",
        "what it opens is not settled; use --cap-add for single capabilities",
    ),
    (
        "SecurityOpt",
        "--security-opt",
        "the default profile applies",
    ),
    (
        "StorageOpt",
        "--storage-opt",
        "the disk has the size of the image store",
    ),
    ("Sysctls", "--sysctl", "leave it out"),
];

/// Fields whose value needs a look, or that mean something to the client alone.
const TAKEN: &[&str] = &[
    "Memory",
    "MemorySwap",
    "MemorySwappiness",
    "NanoCpus",
    "CpuCount",
    "CpuPeriod",
    "CpuQuota",
    "PidsLimit",
    "Init",
    "ContainerIDFile",
    "LogConfig",
    "NetworkMode",
    "RestartPolicy",
    "AutoRemove",
    "ConsoleSize",
    "Annotations",
    "CapAdd",
    "CapDrop",
    "CgroupnsMode",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "IpcMode",
    "ReadonlyRootfs",
    "ShmSize",
    "Runtime",
    "Isolation",
    "MaskedPaths",
    "ReadonlyPaths",
];

/// Fields of `ContainerConfig` that are taken (see [`crate::containers::config::Config`]).
const CONFIG_TAKEN: &[&str] = &[
    "Hostname",
    "Domainname",
    "User",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "ExposedPorts",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    "Env",
    "Cmd",
    "ArgsEscaped",
    "Image",
    "WorkingDir",
    "Entrypoint",
    "NetworkDisabled",
    "MacAddress",
    "OnBuild",
    "Labels",
    "StopSignal",
    "StopTimeout",
    "Shell",
    "HostConfig",
    "NetworkingConfig",
    "Healthcheck",
    "Volumes",
];

/// Checks the fields of `ContainerConfig` itself.
///
/// # Errors
/// 501 for one that is not supported and not at its default.
pub fn check_config(config: &Map<String, Value>) -> Result<()> {
    for (name, value) in config {
        if !CONFIG_TAKEN.contains(&name.as_str()) && !is_default(value) {
            return Err(refused(name, "no such option is known"));
        }
    }
    if config
        .get("Volumes")
        .and_then(Value::as_object)
        .is_some_and(|volumes| !volumes.is_empty())
    {
        return Err(refused("--volume", "volumes come with a later version"));
    }
    let health = config.get("Healthcheck").filter(|h| !is_default(h));
    let none = |h: &Value| {
        h["Test"]
            .as_array()
            .is_some_and(|t| t.first() == Some(&Value::from("NONE")))
    };
    if health.is_some_and(|h| !none(h)) {
        return Err(refused(
            "--health-cmd",
            "health checks come with a later version",
        ));
    }
    Ok(())
}

/// Checks every field of a `HostConfig`.
///
/// # Errors
/// 400 for a wrong value, 501 for an option that is not supported and not at its default.
pub fn check_host(host: &Map<String, Value>) -> Result<Options> {
    for (name, value) in host {
        if let Some((_, option, advice)) = REFUSED.iter().find(|(field, ..)| field == name) {
            if !is_default(value) {
                return Err(refused(option, advice));
            }
        } else if !TAKEN.contains(&name.as_str()) && !is_default(value) {
            return Err(refused(name, "no such option is known"));
        }
    }
    modes(host)?;
    let fields = Fields(host);
    Ok(Options {
        memory_mib: memory(&fields)?,
        cpus: cpus(&fields)?,
        no_network: network_mode(&fields)?,
        mac: None,
        dns: addresses(&fields)?,
        dns_search: fields.list("DnsSearch")?,
        dns_options: fields.list("DnsOptions")?,
        extra_hosts: extra_hosts(&fields)?,
        groups: fields.list("GroupAdd")?,
        cap_add: capabilities(&fields, "CapAdd")?,
        cap_drop: capabilities(&fields, "CapDrop")?,
        read_only: fields.flag("ReadonlyRootfs")?,
        shm_size: shm_size(&fields)?,
        init: fields.flag("Init")?,
        auto_remove: fields.flag("AutoRemove")?,
        console_size: console_size(&fields)?,
    })
}

/// Fields with a small set of values.
fn modes(host: &Map<String, Value>) -> Result<()> {
    let fields = Fields(host);
    for (field, option, allowed) in [
        ("IpcMode", "--ipc", &["", "private"][..]),
        ("CgroupnsMode", "--cgroupns", &["", "private"]),
        ("Isolation", "--isolation", &["", "default"]),
        ("Runtime", "--runtime", &["", "mooring"]),
    ] {
        let value = fields.text(field)?;
        if !allowed.contains(&value) {
            return Err(refused(
                &format!("{option} {value}"),
                "each container is a VM of its own; leave it out",
            ));
        }
    }
    if let Some(restart) = host.get("RestartPolicy").filter(|r| !is_default(r)) {
        let name = restart["Name"].as_str().unwrap_or("");
        match name {
            "" | "no" => {}
            "always" | "unless-stopped" | "on-failure" => {
                return Err(refused(
                    &format!("--restart {name}"),
                    "it comes with restart policies; use --restart no",
                ));
            }
            other => {
                return Err(Error::bad(format!(
                    "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
                )));
            }
        }
    }
    if let Some(log) = host.get("LogConfig") {
        let kind = log["Type"].as_str().unwrap_or("");
        if !matches!(kind, "" | "json-file") {
            return Err(refused(
                &format!("--log-driver {kind}"),
                "the container's log is its journal; leave it out",
            ));
        }
        if log.get("Config").is_some_and(|c| !is_default(c)) {
            return Err(refused(
                "--log-opt",
                "the container's log is its journal; leave it out",
            ));
        }
    }
    for field in ["MaskedPaths", "ReadonlyPaths"] {
        // Null is the default; an empty list would unmask everything.
        if host.get(field).is_some_and(|v| !v.is_null()) {
            return Err(refused(
                &format!("--security-opt systempaths ({field})"),
                "the default paths are masked",
            ));
        }
    }
    if let Some(limit) = fields.number("PidsLimit")?
        && limit > 0
    {
        return Err(refused("--pids-limit", "leave it out"));
    }
    Ok(())
}

fn memory(fields: &Fields<'_>) -> Result<Option<u32>> {
    let memory = fields.number("Memory")?.unwrap_or(0);
    let swap = fields.number("MemorySwap")?.unwrap_or(0);
    if swap != 0 && swap != memory {
        return Err(refused(
            "--memory-swap",
            "a container VM has no swap; leave it out or give it the value of --memory",
        ));
    }
    if let Some(swappiness) = fields.number("MemorySwappiness")?
        && !matches!(swappiness, -1 | 0)
    {
        return Err(refused(
            "--memory-swappiness",
            "a container VM has no swap; leave it out",
        ));
    }
    let memory = u64::try_from(memory)
        .map_err(|_| Error::bad(format!("--memory {memory}: it must not be negative")))?;
    if memory == 0 {
        return Ok(None);
    }
    if memory < MEMORY_MIN_MIB * MIB {
        return Err(Error::bad(format!(
            "--memory {memory}: a container VM needs at least {MEMORY_MIN_MIB}m"
        )));
    }
    // vSphere wants a multiple of 4 MiB.
    let mib = memory.div_ceil(4 * MIB) * 4;
    u32::try_from(mib)
        .map(Some)
        .map_err(|_| Error::bad(format!("--memory {memory}: more than a VM can have")))
}

fn cpus(fields: &Fields<'_>) -> Result<Option<u32>> {
    let whole = |billionths: i64, option: &str| {
        if billionths < 0 || billionths % 1_000_000_000 != 0 {
            return Err(Error::bad(format!(
                "{option}: a container VM has whole CPUs; use a whole number"
            )));
        }
        u32::try_from(billionths / 1_000_000_000)
            .map_err(|_| Error::bad(format!("{option}: more than a VM can have")))
    };
    let nano = whole(fields.number("NanoCpus")?.unwrap_or(0), "--cpus")?;
    let count = fields.number("CpuCount")?.unwrap_or(0);
    let count = u32::try_from(count)
        .map_err(|_| Error::bad(format!("CpuCount {count}: more than a VM can have")))?;
    let period = match fields.number("CpuPeriod")?.unwrap_or(0) {
        0 => 100_000,
        period => period,
    };
    let quota = fields.number("CpuQuota")?.unwrap_or(0).max(0);
    let quota = if period <= 0 || quota % period != 0 {
        return Err(Error::bad(
            "--cpu-quota: a container VM has whole CPUs; use --cpus",
        ));
    } else {
        u32::try_from(quota / period)
            .map_err(|_| Error::bad("--cpu-quota: more than a VM can have"))?
    };
    let mut given = [nano, count, quota].into_iter().filter(|n| *n > 0);
    match (given.next(), given.next()) {
        (Some(_), Some(_)) => Err(Error::bad(
            "Conflicting options: --cpus, --cpu-quota and CpuCount cannot be used together",
        )),
        (one, _) => Ok(one),
    }
}

/// Whether it is `none`.
fn network_mode(fields: &Fields<'_>) -> Result<bool> {
    match fields.text("NetworkMode")? {
        "" | "default" | "bridge" => Ok(false),
        "none" => Ok(true),
        "host" => Err(refused(
            "--network host",
            "a container VM has a network stack of its own; use bridge or none",
        )),
        other if other.starts_with("container:") => Err(refused(
            &format!("--network {other}"),
            "containers do not share a VM; use bridge or none",
        )),
        other => Err(Error::not_found(format!("network {other} not found"))),
    }
}

fn addresses(fields: &Fields<'_>) -> Result<Vec<String>> {
    let list = fields.list("Dns")?;
    for address in &list {
        if address.parse::<IpAddr>().is_err() {
            return Err(Error::bad(format!(
                "invalid IP address in --dns: {address}"
            )));
        }
    }
    Ok(list)
}

fn extra_hosts(fields: &Fields<'_>) -> Result<Vec<(String, String)>> {
    fields
        .list("ExtraHosts")?
        .into_iter()
        .map(|entry| {
            let (name, address) = entry
                .split_once([':', '='])
                .ok_or_else(|| Error::bad(format!("bad format for add-host: {entry:?}")))?;
            if address == "host-gateway" {
                return Err(refused(
                    "--add-host …:host-gateway",
                    "give the address itself",
                ));
            }
            let bare = address.trim_start_matches('[').trim_end_matches(']');
            if name.is_empty() || bare.parse::<IpAddr>().is_err() {
                return Err(Error::bad(format!(
                    "invalid IP address in add-host: {address:?}"
                )));
            }
            Ok((bare.to_owned(), name.to_owned()))
        })
        .collect()
}

/// The names that Linux has, without `CAP_`.
const CAPABILITIES: &[&str] = &[
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

fn capabilities(fields: &Fields<'_>, field: &str) -> Result<Vec<String>> {
    fields
        .list(field)?
        .into_iter()
        .map(|given| {
            let upper = given.to_ascii_uppercase();
            let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
            match name {
                "ALL" if field == "CapDrop" => Ok("ALL".to_owned()),
                "ALL" => Err(refused("--cap-add ALL", "name the capabilities")),
                "MKNOD" | "SYS_MODULE" | "SYS_RAWIO" if field == "CapAdd" => Err(refused(
                    &format!("--cap-add {name}"),
                    "it would open the VM's own disks and ports to the container",
                )),
                name if CAPABILITIES.contains(&name) => Ok(format!("CAP_{name}")),
                _ => Err(Error::bad(format!(
                    "invalid {field}: unknown capability: \"{given}\""
                ))),
            }
        })
        .collect()
}

fn shm_size(fields: &Fields<'_>) -> Result<u64> {
    let size = fields.number("ShmSize")?.unwrap_or(0);
    u64::try_from(size).map_err(|_| Error::bad("SHM size can not be less than 0"))
}

fn console_size(fields: &Fields<'_>) -> Result<Option<(u16, u16)>> {
    let Some(value) = fields.0.get("ConsoleSize").filter(|v| !v.is_null()) else {
        return Ok(None);
    };
    size(value)
}

/// Rows and columns out of `[rows, columns]`; zeros are none.
///
/// # Errors
/// 400 for anything else.
pub fn size(value: &Value) -> Result<Option<(u16, u16)>> {
    let [rows, cols]: [u16; 2] = serde_json::from_value(value.clone())
        .map_err(|_| Error::bad("invalid ConsoleSize: expected [rows, columns]"))?;
    Ok((rows > 0 && cols > 0).then_some((rows, cols)))
}

/// Checks `NetworkingConfig`; the mode was checked with the `HostConfig`. Gives the MAC address
/// that was asked for.
///
/// # Errors
/// 400 for what Docker refuses on the default network too, 501 for what is not supported yet.
pub fn check_networking(networking: &Value, no_network: bool) -> Result<Option<String>> {
    let Some(endpoints) = networking.get("EndpointsConfig").filter(|e| !e.is_null()) else {
        return Ok(None);
    };
    let endpoints = endpoints
        .as_object()
        .ok_or_else(|| Error::bad("invalid NetworkingConfig: EndpointsConfig must be an object"))?;
    let mut mac = None;
    for (network, settings) in endpoints {
        let fits = match network.as_str() {
            "default" | "bridge" => !no_network,
            "none" => no_network,
            _ => return Err(Error::not_found(format!("network {network} not found"))),
        };
        if !fits {
            return Err(Error::bad(format!(
                "conflicting options: cannot attach both no network and network {network}"
            )));
        }
        let Some(settings) = settings.as_object() else {
            continue;
        };
        for (field, value) in settings.iter().filter(|(_, value)| !is_default(value)) {
            match field.as_str() {
                "MacAddress" => mac = Some(mac_address(value.as_str().unwrap_or(""))?),
                "IPAMConfig" => {
                    return Err(Error::bad(
                        "invalid config for network bridge: invalid endpoint settings: user specified IP address is supported on user defined networks only",
                    ));
                }
                "Aliases" => {
                    return Err(Error::bad(
                        "invalid config for network bridge: invalid endpoint settings: network-scoped alias is supported only for containers in user defined networks",
                    ));
                }
                "Links" => return Err(refused("--link", "links come with networks")),
                "DriverOpts" => return Err(refused("--network driver-opt", "leave it out")),
                "GwPriority" => return Err(refused("--network gw-priority", "leave it out")),
                // State that a client may hand back from an inspect: it is assigned anew.
                "NetworkID"
                | "EndpointID"
                | "Gateway"
                | "IPAddress"
                | "IPPrefixLen"
                | "IPv6Gateway"
                | "GlobalIPv6Address"
                | "GlobalIPv6PrefixLen"
                | "DNSNames" => {}
                other => return Err(refused(other, "no such option is known")),
            }
        }
    }
    Ok(mac)
}

/// Checks a MAC address: vSphere takes hand-made ones from 00:50:56:00:00:00 to
/// 00:50:56:3f:ff:ff only.
///
/// # Errors
/// 400 for any other.
pub fn mac_address(text: &str) -> Result<String> {
    let lower = text.to_ascii_lowercase().replace('-', ":");
    let bytes: Vec<u8> = lower
        .split(':')
        .filter(|part| part.len() == 2)
        .filter_map(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    match bytes.as_slice() {
        [0x00, 0x50, 0x56, 0..=0x3f, _, _] if lower.len() == 17 => Ok(lower),
        _ => Err(Error::bad(format!(
            "--mac-address {text}: vSphere takes 00:50:56:00:00:00 to 00:50:56:3f:ff:ff; choose one of these or leave it out"
        ))),
    }
}

/// The MAC address of a container without a chosen one: from its address, as Docker does, but in
/// vSphere's range. One /16 gives each address its own.
pub fn mac_of(address: Ipv4Addr) -> String {
    let [_, b, c, d] = address.octets();
    format!("00:50:56:{:02x}:{c:02x}:{d:02x}", b & 0x3f)
}

struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn wrong(field: &str, want: &str) -> Error {
        Error::bad(format!("invalid HostConfig: {field} must be {want}"))
    }

    fn find(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|v| !v.is_null())
    }

    fn text(&self, field: &str) -> Result<&str> {
        self.find(field).map_or(Ok(""), |v| {
            v.as_str().ok_or_else(|| Self::wrong(field, "a string"))
        })
    }

    fn flag(&self, field: &str) -> Result<bool> {
        self.find(field).map_or(Ok(false), |v| {
            v.as_bool().ok_or_else(|| Self::wrong(field, "a boolean"))
        })
    }

    fn number(&self, field: &str) -> Result<Option<i64>> {
        self.find(field)
            .map(|v| {
                v.as_i64()
                    .ok_or_else(|| Self::wrong(field, "a whole number"))
            })
            .transpose()
    }

    fn list(&self, field: &str) -> Result<Vec<String>> {
        self.find(field).map_or(Ok(Vec::new()), |v| {
            serde_json::from_value(v.clone()).map_err(|_| Self::wrong(field, "a list of strings"))
        })
    }
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
