//! Capabilities: Linux's names, less those that would open the VM itself.

use super::fields::Fields;
use super::refused;
use crate::errors::{Error, Result};

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

/// The capabilities of `CapAdd` or `CapDrop`, as `CAP_…` or `ALL`.
pub(super) fn capabilities(fields: &Fields<'_>, field: &str) -> Result<Vec<String>> {
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
