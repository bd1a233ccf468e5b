//! `--ulimit`, `--sysctl`, `--oom-score-adj`, `--pids-limit`.

use super::fields::Fields;
use crate::errors::{Error, Result};
use crate::texts;
use serde_json::Value;
use wire::limits::{Limits, Ulimit};

/// Docker's names (go-units, `ulimit.go`) and Linux's numbers (asm-generic/resource.h).
const RESOURCES: [(&str, u32); 15] = [
    ("core", 4),
    ("cpu", 0),
    ("data", 2),
    ("fsize", 1),
    ("locks", 10),
    ("memlock", 8),
    ("msgqueue", 12),
    ("nice", 13),
    ("nofile", 7),
    ("nproc", 6),
    ("rss", 5),
    ("rtprio", 14),
    ("rttime", 15),
    ("sigpending", 11),
    ("stack", 3),
];

/// Kernel settings that are of a container alone under Docker (docker/cli, `opts.ValidateSysctl`).
const SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Sysctls at most.
const SYSCTLS_MAX: usize = 1024;

pub(super) fn limits(fields: &Fields<'_>) -> Result<Limits> {
    Ok(Limits {
        ulimits: ulimits(fields)?,
        sysctls: sysctls(fields)?,
        no_new_privileges: false,
        cpu: None,
        oom_score_adj: oom_score_adj(fields)?,
        pids: pids(fields.number("PidsLimit")?.unwrap_or(0)),
    })
}

/// `PidsLimit` as a limit: 0 and -1 are none.
pub(super) fn pids(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(0)
}

fn ulimits(fields: &Fields<'_>) -> Result<Vec<Ulimit>> {
    let wrong = || Error::bad("invalid HostConfig: Ulimits must be a list of {Name, Soft, Hard}");
    let Some(list) = fields.find("Ulimits") else {
        return Ok(Vec::new());
    };
    let mut out: Vec<Ulimit> = Vec::new();
    for one in list.as_array().ok_or_else(wrong)? {
        let name = one["Name"].as_str().ok_or_else(wrong)?;
        let number = |field: &str| match &one[field] {
            Value::Null => Ok(0),
            value => value.as_i64().ok_or_else(wrong),
        };
        let (soft, hard) = (number("Soft")?, number("Hard")?);
        let (_, resource) = *RESOURCES
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| Error::bad(format!("invalid ulimit type: {name}")))?;
        // -1 is without limit; other negative numbers are none.
        let limit = |n: i64| match n {
            -1 => Ok(u64::MAX),
            n => u64::try_from(n)
                .map_err(|_| Error::bad(format!("invalid ulimit {name}: {n} is no limit"))),
        };
        let (low, high) = (limit(soft)?, limit(hard)?);
        if low > high {
            return Err(Error::bad(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            )));
        }
        out.retain(|known| known.resource != resource);
        out.push(Ulimit {
            resource,
            soft: low,
            hard: high,
        });
    }
    Ok(out)
}

fn sysctls(fields: &Fields<'_>) -> Result<Vec<(String, String)>> {
    let wrong = || Error::bad("invalid HostConfig: Sysctls must be an object of strings");
    let Some(all) = fields.find("Sysctls") else {
        return Ok(Vec::new());
    };
    let all = texts::by_name(all).ok_or_else(wrong)?;
    if all.len() > SYSCTLS_MAX {
        return Err(Error::bad(format!(
            "{} sysctls are too many: at most {SYSCTLS_MAX}",
            all.len()
        )));
    }
    all.into_iter()
        .map(|(name, value)| {
            let of_its_own = SYSCTLS.contains(&name.as_str())
                || name.starts_with("net.")
                || name.starts_with("fs.mqueue.");
            // The name becomes a path below /proc/sys, its dots folders.
            let plain = name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'));
            if !of_its_own || !plain {
                return Err(Error::bad(format!("sysctl '{name}' is not allowed")));
            }
            Ok((name, value))
        })
        .collect()
}

fn oom_score_adj(fields: &Fields<'_>) -> Result<i32> {
    let score = fields.number("OomScoreAdj")?.unwrap_or(0);
    i32::try_from(score)
        .ok()
        .filter(|score| (-1000..=1000).contains(score))
        .ok_or_else(|| {
            Error::bad(format!(
                "Invalid value {score}, range for oom score adj is [-1000, 1000]"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<Limits> {
        limits(&Fields(value.as_object().unwrap()))
    }

    #[test]
    fn limits_are_read_as_docker_reads_them() {
        let limits = read(json!({
            "Ulimits": [{"Name": "nofile", "Soft": 10, "Hard": 20}, {"Name": "core", "Soft": -1, "Hard": -1},
                        {"Name": "nofile", "Soft": 11, "Hard": 20}],
            "Sysctls": {"net.ipv4.ip_forward": "1", "kernel.shmmax": "5", "fs.mqueue.msg_max": "7"},
            "OomScoreAdj": -500, "PidsLimit": 50,
        }))
        .unwrap();
        let found: Vec<_> = limits
            .ulimits
            .iter()
            .map(|u| (u.resource, u.soft, u.hard))
            .collect();
        assert_eq!(found, [(4, u64::MAX, u64::MAX), (7, 11, 20)]);
        assert_eq!(limits.sysctls.len(), 3);
        assert_eq!((limits.oom_score_adj, limits.pids), (-500, 50));
        assert_eq!(read(json!({"PidsLimit": -1})).unwrap(), Limits::default());
    }

    #[test]
    fn what_is_wrong_or_not_the_container_s_own_is_refused() {
        for (value, words) in [
            (
                json!({"Ulimits": [{"Name": "files", "Soft": 1, "Hard": 1}]}),
                "invalid ulimit type: files",
            ),
            (
                json!({"Ulimits": [{"Name": "nofile", "Soft": 2, "Hard": 1}]}),
                "2 > 1",
            ),
            (
                json!({"Ulimits": [{"Name": "nofile", "Soft": -1, "Hard": 1}]}),
                "-1 > 1",
            ),
            (
                json!({"Ulimits": [{"Name": "nofile", "Soft": -2, "Hard": 1}]}),
                "-2 is no limit",
            ),
            (
                json!({"Sysctls": {"kernel.core_pattern": "|/x"}}),
                "sysctl 'kernel.core_pattern' is not allowed",
            ),
            (json!({"Sysctls": {"vm.swappiness": "1"}}), "is not allowed"),
            (json!({"Sysctls": {"net.a\u{0}": "1"}}), "is not allowed"),
            (
                json!({"OomScoreAdj": 1001}),
                "range for oom score adj is [-1000, 1000]",
            ),
        ] {
            let error = read(value).unwrap_err();
            assert!(error.message.contains(words), "{}", error.message);
        }
    }
}
