//! Fields with a small set of values.

use super::fields::Fields;
use super::refused;
use crate::errors::Result;
use serde_json::{Map, Value};

/// Refuses every value but the one that a container VM has anyway.
pub(super) fn check(host: &Map<String, Value>) -> Result<()> {
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
    for field in ["MaskedPaths", "ReadonlyPaths"] {
        // Null is the default; an empty list would unmask everything.
        if host.get(field).is_some_and(|v| !v.is_null()) {
            return Err(refused(
                &format!("--security-opt systempaths ({field})"),
                "the default paths are masked",
            ));
        }
    }
    Ok(())
}
