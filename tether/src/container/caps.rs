//! Capabilities: names, Docker's default set less MKNOD, and what a request makes of it.

/// Names by bit number (linux/capability.h), without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Docker's default set less MKNOD: a node of the disk is all that the isolation rests on.
const DEFAULT: [&str; 13] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Number of capabilities that this table knows.
pub const COUNT: u8 = NAMES.len() as u8;

fn bit(name: &str) -> Option<u64> {
    NAMES.iter().position(|n| *n == name).map(|n| 1 << n)
}

fn bits(names: &[&str]) -> u64 {
    names.iter().filter_map(|name| bit(name)).sum()
}

/// What gets past a packet filter: the right to change it, and packet sockets, which are before it.
pub fn network() -> u64 {
    bits(&["NET_ADMIN", "NET_RAW"])
}

/// What gets device nodes: by mounting a devtmpfs, or by making them.
pub fn nodes() -> u64 {
    bits(&["SYS_ADMIN", "MKNOD"])
}

/// What sees, or replaces, the kernel's memory by calls that [`super::seccomp::kept_out`] refuses. `SYS_ADMIN` is
/// `PERFMON` and `BPF`, too (linux/capability.h).
pub fn kernel() -> u64 {
    bits(&["SYS_ADMIN", "MKNOD", "PERFMON", "SYS_BOOT"])
}

/// What looks into a process that has more rights, and more in its memory, than who looks.
pub fn tracing() -> u64 {
    bits(&["SYS_PTRACE"])
}

/// The bit set for Docker's defaults with `add` and `drop`, given as `CAP_…` or without the prefix,
/// in any case; `ALL` is all.
///
/// # Errors
/// Names the capability that does not exist.
pub fn resolve(add: &[String], drop: &[String]) -> Result<u64, String> {
    let one = |name: &String| -> Result<u64, String> {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if short == "ALL" {
            return Ok((1 << COUNT) - 1);
        }
        bit(short).ok_or_else(|| {
            format!("unknown capability {name:?}: expected a name like CAP_NET_ADMIN, or ALL")
        })
    };
    let all = |list: &[String]| {
        list.iter()
            .map(one)
            .try_fold(0, |set, bits| bits.map(|b| set | b))
    };
    let default = DEFAULT
        .iter()
        .filter_map(|name| bit(name))
        .fold(0, |set, b| set | b);
    let (add, drop) = (all(add)?, all(drop)?);
    // As Docker: a name that is added although ALL is dropped stays.
    let full = (1 << COUNT) - 1;
    Ok(if drop == full && add != full {
        add
    } else {
        (default | add) & !drop
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_default_is_dockers_less_mknod() {
        // Docker: 00000000a80425fb; MKNOD is bit 27.
        assert_eq!(resolve(&[], &[]), Ok(0xa804_25fb & !(1 << 27)));
    }

    #[test]
    fn what_opens_the_vm_is_in_none_of_the_defaults() {
        let default = resolve(&[], &[]).unwrap();
        assert_eq!(default & (nodes() | kernel() | tracing()), 0);
        // Bits 21, 27; 38, 22; 19 (linux/capability.h).
        assert_eq!(nodes(), 1 << 21 | 1 << 27);
        assert_eq!(kernel(), 1 << 21 | 1 << 27 | 1 << 38 | 1 << 22);
        assert_eq!(tracing(), 1 << 19);
    }

    #[test]
    fn added_and_dropped() {
        assert_eq!(
            resolve(&strings(&["CAP_NET_ADMIN"]), &strings(&["ALL"])),
            Ok(1 << 12)
        );
        assert_eq!(resolve(&[], &strings(&["cap_chown"])), Ok(0xa004_25fa));
        assert!(
            resolve(&strings(&["CAP_FLY"]), &[])
                .unwrap_err()
                .contains("CAP_FLY")
        );
    }
}
