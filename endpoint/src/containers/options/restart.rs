//! `--restart`.

use crate::errors::{Error, Result};
use serde_json::Value;
use wire::restart::RestartPolicy;

/// The policy of a `RestartPolicy` object: Docker's checks in Docker's words.
///
/// # Errors
/// 400 for an unknown policy or a count that does not go with it.
pub fn restart_policy(value: &Value) -> Result<RestartPolicy> {
    let wrong = |text: String| Error::bad(format!("invalid restart policy: {text}"));
    let name = match &value["Name"] {
        Value::Null => "",
        Value::String(name) => name.as_str(),
        _ => return Err(wrong("the name must be a string".to_owned())),
    };
    let most = match &value["MaximumRetryCount"] {
        Value::Null => 0,
        count => count
            .as_i64()
            .ok_or_else(|| wrong("maximum retry count must be a whole number".to_owned()))?,
    };
    let policy = match name {
        "" | "no" => RestartPolicy::No,
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        "on-failure" => {
            let most = u32::try_from(most)
                .map_err(|_| wrong("maximum retry count cannot be negative".to_owned()))?;
            return Ok(RestartPolicy::OnFailure { most });
        }
        other => {
            return Err(wrong(format!(
                "unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    };
    match most {
        0 => Ok(policy),
        _ if most < 0 => Err(wrong(
            "maximum retry count can only be used with 'on-failure' and cannot be negative"
                .to_owned(),
        )),
        _ => Err(wrong(
            "maximum retry count can only be used with 'on-failure'".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_policy_is_read_as_docker_reads_it() {
        for (value, want) in [
            (json!({}), RestartPolicy::No),
            (
                json!({"Name": "", "MaximumRetryCount": 0}),
                RestartPolicy::No,
            ),
            (json!({"Name": "always"}), RestartPolicy::Always),
            (
                json!({"Name": "unless-stopped"}),
                RestartPolicy::UnlessStopped,
            ),
            (
                json!({"Name": "on-failure", "MaximumRetryCount": 3}),
                RestartPolicy::OnFailure { most: 3 },
            ),
        ] {
            assert_eq!(restart_policy(&value).unwrap(), want, "{value}");
        }
        for (value, words) in [
            (json!({"Name": "sometimes"}), "unknown policy 'sometimes'"),
            (
                json!({"Name": "always", "MaximumRetryCount": 3}),
                "can only be used with 'on-failure'",
            ),
            (
                json!({"Name": "on-failure", "MaximumRetryCount": -1}),
                "cannot be negative",
            ),
        ] {
            let error = restart_policy(&value).unwrap_err();
            assert!(error.message.contains(words), "{}", error.message);
        }
    }
}
