//! The resources of `docker update`.

use super::{fields::Fields, is_default, limits, refused, resources, table};
use crate::errors::Result;
use serde_json::{Map, Value};
use wire::limits::CpuTime;

/// What `docker update` asks for; `None`: as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory of the VM in MiB.
    pub memory_mib: Option<u32>,
    /// CPUs of the VM.
    pub cpus: Option<u32>,
    /// What of their time there is, where that is not all.
    pub cpu: Option<CpuTime>,
    /// Processes and threads at once; 0: without limit.
    pub pids: Option<u64>,
}

/// What can be changed.
const CHANGED: [&str; 9] = [
    "Memory",
    "MemorySwap",
    "MemorySwappiness",
    "NanoCpus",
    "CpuCount",
    "CpuPeriod",
    "CpuQuota",
    "PidsLimit",
    "RestartPolicy",
];

/// Checks a body of `containers/{id}/update`.
///
/// # Errors
/// 400 for a wrong value, 501 for an option that is not supported and not at its default.
pub fn check_update(body: &Map<String, Value>) -> Result<Resources> {
    for (name, value) in body {
        let taken = CHANGED.contains(&name.as_str());
        if !taken && !is_default(value) {
            let known = match table::TAKEN.contains(&name.as_str()) {
                true => "it is as it was created: make a new container",
                false => "no such option is known",
            };
            let (option, advice) = table::refusal(name).unwrap_or((name, known));
            return Err(refused(option, advice));
        }
    }
    let fields = Fields(body);
    let cpus = resources::cpus(&fields)?;
    Ok(Resources {
        memory_mib: resources::memory(&fields)?,
        cpus: cpus.map(|cpus| cpus.count),
        cpu: cpus.and_then(|cpus| cpus.time),
        // 0 is the client's way to say nothing, -1 takes the limit away.
        pids: fields
            .number("PidsLimit")?
            .filter(|limit| *limit != 0)
            .map(limits::pids),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(body: Value) -> Result<Resources> {
        check_update(body.as_object().unwrap())
    }

    #[test]
    fn an_update_names_what_changes_and_refuses_what_cannot() {
        let nothing = json!({"Memory": 0, "NanoCpus": 0, "CpuShares": 0, "PidsLimit": 0, "RestartPolicy": {}});
        assert_eq!(check(nothing).unwrap(), Resources::default());
        let all = json!({"Memory": 128 << 20, "NanoCpus": 2_000_000_000i64, "PidsLimit": -1});
        let want = Resources {
            memory_mib: Some(128),
            cpus: Some(2),
            cpu: None,
            pids: Some(0),
        };
        assert_eq!(check(all).unwrap(), want);
        for (body, words) in [
            (json!({"CpuShares": 5}), "--cpu-shares is not supported"),
            (json!({"Memory": 5}), "at least 64m"),
            (json!({"NanoCpus": 5}), "0.01 CPUs"),
            (json!({"Surprise": 5}), "no such option"),
            (
                json!({"Ulimits": [{"Name": "nofile"}]}),
                "as it was created",
            ),
        ] {
            let error = check(body).unwrap_err();
            assert!(error.message.contains(words), "{}", error.message);
        }
    }
}
