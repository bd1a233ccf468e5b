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

/// Why a capability that Linux has is given to no container, not even by name.
fn danger(name: &str) -> Option<&'static str> {
    match name {
        "MKNOD" | "SYS_MODULE" | "SYS_RAWIO" => {
            Some("it would open the VM's own disks and ports to the container")
        }
        // perf_event_open(2) samples registers and stacks of every process of the VM, the tether's too; tracing programs
        // of bpf(2), which ask for it, read the kernel's memory.
        "PERFMON" => Some(
            "it would show the memory of the VM's kernel and of its tether, with the keys of the link",
        ),
        _ => None,
    }
}

/// The capabilities of `CapAdd` or `CapDrop`, as `CAP_…` or `ALL`.
pub(super) fn capabilities(fields: &Fields<'_>, field: &str) -> Result<Vec<String>> {
    let all = fields
        .list(field)?
        .into_iter()
        .map(|given| {
            let upper = given.to_ascii_uppercase();
            let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
            match name {
                "ALL" if field == "CapDrop" => return Ok("ALL".to_owned()),
                "ALL" => return Err(refused("--cap-add ALL", "name the capabilities")),
                _ => {}
            }
            match danger(name).filter(|_| field == "CapAdd") {
                Some(why) => Err(refused(&format!("--cap-add {name}"), why)),
                None if CAPABILITIES.contains(&name) => Ok(format!("CAP_{name}")),
                None => Err(Error::bad(format!(
                    "invalid {field}: unknown capability: \"{given}\""
                ))),
            }
        })
        .collect::<Result<Vec<String>>>()?;
    // SYS_ADMIN is PERFMON, too (linux/capability.h, `perfmon_capable`). The tether refuses it the calls, bpf(2) with them.
    let with = |name: &str| all.iter().any(|given| given == name);
    if field == "CapAdd" && with("CAP_BPF") && with("CAP_SYS_ADMIN") {
        return Err(refused(
            "--cap-add BPF with --cap-add SYS_ADMIN",
            "both together would show the memory of the VM's kernel and of its tether; leave one of them out",
        ));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::Kind;
    use serde_json::json;

    fn of(field: &str, names: &[&str]) -> Result<Vec<String>> {
        let host = json!({ field: names });
        capabilities(&Fields(host.as_object().unwrap()), field)
    }

    #[test]
    fn names_are_taken_with_and_without_their_prefix() {
        let given = ["sys_ptrace", "CAP_SYS_ADMIN", "Bpf"];
        for names in [&given[..2], &given[2..]] {
            let taken = of("CapAdd", names).unwrap();
            assert!(
                taken.iter().all(|name| name.starts_with("CAP_")),
                "{taken:?}"
            );
            assert_eq!(taken.len(), names.len());
        }
        assert_eq!(of("CapDrop", &["all"]).unwrap(), ["ALL"]);
        assert_eq!(
            of("CapDrop", &["MKNOD", "PERFMON"]).unwrap(),
            ["CAP_MKNOD", "CAP_PERFMON"]
        );
        assert_eq!(of("CapAdd", &["FLY"]).unwrap_err().kind, Kind::BadParameter);
    }

    #[test]
    fn what_would_open_the_vm_is_refused_by_its_name() {
        for name in ["MKNOD", "SYS_MODULE", "SYS_RAWIO", "PERFMON"] {
            for given in [name.to_owned(), format!("cap_{}", name.to_lowercase())] {
                let error = of("CapAdd", &["CHOWN", &given]).unwrap_err();
                assert_eq!(error.kind, Kind::NotImplemented);
                let words = format!("--cap-add {name} is not supported");
                assert!(error.message.starts_with(&words), "{}", error.message);
            }
        }
        let error = of("CapAdd", &["SYS_ADMIN", "CAP_BPF"]).unwrap_err();
        assert_eq!(error.kind, Kind::NotImplemented);
        assert!(error.message.contains("BPF"), "{}", error.message);
        assert!(error.message.contains("SYS_ADMIN"), "{}", error.message);
    }
}
