//! Which options of `containers/create` there are, field by field.
//!
//! Docker's description of the API has about a hundred; each is either taken, or refused by name
//! unless it has its default. Nothing is ignored.

mod capabilities;
mod fields;
mod limits;
mod logging;
mod modes;
mod network;
mod resources;
mod restart;
mod security;
mod table;
mod tmpfs;
mod update;

pub use logging::Log;
pub use network::HOST_GATEWAY;
pub use resources::MEMORY_MIN_MIB;
pub use restart::restart_policy;
pub use update::{Resources, check_update};

use crate::errors::{Error, Kind, Result};
use crate::networks::publish::{self, PortRequest};
use capabilities::capabilities;
use fields::Fields;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wire::{
    limits::{Limits, Tmpfs},
    restart::RestartPolicy,
};

/// What the checked options mean for the VM and the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Memory in MiB; `None`: the endpoint's default.
    pub memory_mib: Option<u32>,
    /// Memory in MiB that it has at least where none is given.
    pub reserved_mib: u32,
    /// CPUs of the VM; `None`: the endpoint's default. What of their time there is is in the limits.
    pub cpus: Option<u32>,
    /// Published ports.
    #[serde(default)]
    pub ports: Vec<PortRequest>,
    /// Every exposed port is published, too.
    #[serde(default)]
    pub publish_all: bool,
    /// Name servers.
    pub dns: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// Resolver options.
    pub dns_options: Vec<String>,
    /// Lines of /etc/hosts: address or [`HOST_GATEWAY`], name.
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
    /// When the process is started again.
    pub restart: RestartPolicy,
    /// Its log.
    pub log: Log,
    /// What bounds its processes.
    pub limits: Limits,
    /// The seccomp program of a profile that is not the default one, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<String>,
    /// File systems in memory.
    pub tmpfs: Vec<Tmpfs>,
}

impl Options {
    /// The seccomp program of its processes, for the guest.
    pub fn seccomp_text(&self) -> String {
        self.seccomp.clone().unwrap_or_else(|| {
            let held = seccomp::held(&self.cap_add, &self.cap_drop);
            // The default profile compiles, as its tests show; a guest runs nothing without a program.
            seccomp::builtin(&held).map_or_else(|_| String::new(), |p| seccomp::to_text(&p))
        })
    }
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

/// Checks the fields of `ContainerConfig` itself.
///
/// # Errors
/// 501 for one that is not supported and not at its default.
pub fn check_config(config: &Map<String, Value>) -> Result<()> {
    for (name, value) in config {
        if !table::CONFIG_TAKEN.contains(&name.as_str()) && !is_default(value) {
            return Err(refused(name, "no such option is known"));
        }
    }
    if let Some(health) = config.get("Healthcheck").and_then(Value::as_object) {
        check_health(health)?;
    }
    Ok(())
}

/// dockerd's checks of a health check, in its words.
fn check_health(health: &Map<String, Value>) -> Result<()> {
    const SHORTEST: i64 = 1_000_000;
    for field in ["Interval", "Timeout", "StartPeriod", "StartInterval"] {
        let time = health.get(field).and_then(Value::as_i64).unwrap_or(0);
        if time != 0 && time < SHORTEST {
            return Err(Error::bad(format!(
                "{field} in Healthcheck cannot be less than 1ms"
            )));
        }
    }
    if health
        .get("Retries")
        .and_then(Value::as_i64)
        .is_some_and(|n| n < 0)
    {
        return Err(Error::bad("Retries in Healthcheck cannot be negative"));
    }
    Ok(())
}

/// Checks every field of a `HostConfig`.
///
/// # Errors
/// 400 for a wrong value, 501 for an option that is not supported and not at its default.
pub fn check_host(host: &Map<String, Value>) -> Result<Options> {
    for (name, value) in host {
        if let Some((option, advice)) = table::refusal(name) {
            if !is_default(value) {
                return Err(refused(option, advice));
            }
        } else if !table::TAKEN.contains(&name.as_str()) && !is_default(value) {
            return Err(refused(name, "no such option is known"));
        }
    }
    modes::check(host)?;
    let fields = Fields(host);
    let (cap_add, cap_drop) = (
        capabilities(&fields, "CapAdd")?,
        capabilities(&fields, "CapDrop")?,
    );
    let security = security::read(&fields, &seccomp::held(&cap_add, &cap_drop))?;
    let cpus = resources::cpus(&fields)?;
    Ok(Options {
        memory_mib: resources::memory(&fields)?,
        reserved_mib: resources::reservation(&fields)?,
        cpus: cpus.map(|cpus| cpus.count),
        ports: publish::read(fields.find("PortBindings"))?,
        publish_all: fields.flag("PublishAllPorts")?,
        dns: network::name_servers(&fields)?,
        dns_search: fields.list("DnsSearch")?,
        dns_options: fields.list("DnsOptions")?,
        extra_hosts: network::extra_hosts(&fields)?,
        groups: fields.list("GroupAdd")?,
        cap_add,
        cap_drop,
        read_only: fields.flag("ReadonlyRootfs")?,
        shm_size: resources::shm_size(&fields)?,
        init: fields.flag("Init")?,
        auto_remove: fields.flag("AutoRemove")?,
        console_size: console_size(&fields)?,
        restart: host
            .get("RestartPolicy")
            .map_or(Ok(RestartPolicy::No), restart_policy)?,
        log: logging::read(host)?,
        limits: Limits {
            no_new_privileges: security.no_new_privileges,
            cpu: cpus.and_then(|cpus| cpus.time),
            ..limits::limits(&fields)?
        },
        seccomp: security.seccomp,
        tmpfs: tmpfs::mounts(&fields)?,
    })
}

fn console_size(fields: &Fields<'_>) -> Result<Option<(u16, u16)>> {
    let Some(value) = fields.find("ConsoleSize") else {
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

#[cfg(test)]
mod tests;
