//! A container's configuration: what the client gave, joined with the image's, as Docker does.

use crate::errors::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use wire::health::HealthCheck;

/// Docker Engine API, `ContainerConfig`; also the `config` of an image. A `null` is a default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Host name; empty in a request: the short ID.
    pub hostname: String,
    /// Domain name.
    pub domainname: String,
    /// `user`, `uid`, `user:group`, …
    pub user: String,
    /// The client attaches stdin.
    pub attach_stdin: bool,
    /// The client attaches stdout.
    pub attach_stdout: bool,
    /// The client attaches stderr.
    pub attach_stderr: bool,
    /// `80/tcp` and the like; for show until ports are published.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// Allocate a terminal.
    pub tty: bool,
    /// Keep stdin open.
    pub open_stdin: bool,
    /// Close stdin when the first client that attached it goes.
    pub stdin_once: bool,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Command, or arguments of the entrypoint. A text counts as a list of one.
    #[serde(deserialize_with = "strings")]
    pub cmd: Option<Vec<String>>,
    /// As Docker: `Test`, `Interval`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Name of the image as the client gave it.
    pub image: String,
    /// Mount points of anonymous volumes.
    pub volumes: Option<BTreeMap<String, Value>>,
    /// Working directory.
    pub working_dir: String,
    /// Entrypoint. A text counts as a list of one.
    #[serde(deserialize_with = "strings")]
    pub entrypoint: Option<Vec<String>>,
    /// No network at all.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub network_disabled: bool,
    /// MAC address (API before 1.44).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
    /// Triggers of a build.
    pub on_build: Option<Vec<String>>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the process to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Seconds from the stop signal to SIGKILL; -1 for no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Shell of a build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// Docker Engine API, `HealthConfig`; times in ns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", text]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Of one check.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Grace after the start.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two checks in that grace.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// What is there: to Go, null in a field is as good as no field. docker-py sends health checks full of them. In a map
/// the name counts, and null is what Go reads it as: the empty text, the empty object.
fn present(fields: &Map<String, Value>) -> Map<String, Value> {
    let set = fields.iter().filter(|(_, value)| !value.is_null());
    set.map(|(name, value)| {
        let value = match (name.as_str(), value) {
            ("Labels", Value::Object(map)) => Value::Object(filled(map, &Value::from(""))),
            ("Volumes" | "ExposedPorts", Value::Object(map)) => {
                Value::Object(filled(map, &Value::Object(Map::new())))
            }
            (_, Value::Object(inner)) => Value::Object(present(inner)),
            (_, other) => other.clone(),
        };
        (name.clone(), value)
    })
    .collect()
}

/// A map with this value in place of null.
fn filled(map: &Map<String, Value>, empty: &Value) -> Map<String, Value> {
    let value = |value: &Value| if value.is_null() { empty } else { value }.clone();
    map.iter().map(|(k, v)| (k.clone(), value(v))).collect()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// A list of texts, or a single one.
fn strings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(
        Option::<Either>::deserialize(deserializer)?.map(|either| match either {
            Either::One(text) => vec![text],
            Either::Many(list) => list,
        }),
    )
}

impl Config {
    /// Reads one out of a request's body or an image's `config`; names of other fields are the
    /// caller's business.
    ///
    /// # Errors
    /// 400 where a field has the wrong type.
    pub fn read(fields: &Map<String, Value>) -> Result<Self> {
        serde_json::from_value(Value::Object(present(fields)))
            .map_err(|error| Error::bad(format!("invalid container configuration: {error}")))
    }

    /// Fills in what the client left to the image (as `merge` and `mergeAndVerifyConfig` of
    /// dockerd).
    ///
    /// # Errors
    /// 400 where there is no command in the end.
    pub fn merge(&mut self, image: &Config) -> Result<()> {
        if self.user.is_empty() {
            self.user.clone_from(&image.user);
        }
        for (port, value) in &image.exposed_ports {
            self.exposed_ports
                .entry(port.clone())
                .or_insert_with(|| value.clone());
        }
        let name = |entry: &str| entry.split('=').next().unwrap_or(entry).to_owned();
        for entry in &image.env {
            if !self.env.iter().any(|own| name(own) == name(entry)) {
                self.env.push(entry.clone());
            }
        }
        for (label, value) in &image.labels {
            self.labels
                .entry(label.clone())
                .or_insert_with(|| value.clone());
        }
        let empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        if empty(&self.entrypoint) {
            if empty(&self.cmd) {
                self.cmd.clone_from(&image.cmd);
            }
            if self.entrypoint.is_none() {
                self.entrypoint.clone_from(&image.entrypoint);
            }
        }
        self.merge_health(image);
        if self.working_dir.is_empty() {
            self.working_dir.clone_from(&image.working_dir);
        }
        if let Some(volumes) = &image.volumes {
            self.volumes.get_or_insert_default().extend(volumes.clone());
        }
        if self.stop_signal.as_deref().unwrap_or("").is_empty() {
            self.stop_signal.clone_from(&image.stop_signal);
        }
        if self.shell.is_none() {
            self.shell.clone_from(&image.shell);
        }
        if self.entrypoint.as_ref().is_some_and(|e| *e == [""]) {
            self.entrypoint = None;
        }
        if empty(&self.entrypoint) && empty(&self.cmd) {
            return Err(Error::bad("no command specified"));
        }
        Ok(())
    }

    fn merge_health(&mut self, image: &Config) {
        let Some(theirs) = &image.healthcheck else {
            return;
        };
        let Some(own) = &mut self.healthcheck else {
            self.healthcheck = Some(theirs.clone());
            return;
        };
        if own.test.is_empty() {
            own.test.clone_from(&theirs.test);
        }
        for (own, theirs) in [
            (&mut own.interval, theirs.interval),
            (&mut own.timeout, theirs.timeout),
            (&mut own.start_period, theirs.start_period),
            (&mut own.start_interval, theirs.start_interval),
            (&mut own.retries, theirs.retries),
        ] {
            if *own == 0 {
                *own = theirs;
            }
        }
    }

    /// Program and arguments.
    pub fn args(&self) -> Vec<String> {
        let part = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
        let mut args = part(&self.entrypoint);
        args.extend(part(&self.cmd));
        args
    }

    /// The health check that runs, with Docker's defaults (30 s, 30 s, 5 s, 3 times).
    pub fn health_check(&self) -> Option<HealthCheck> {
        let health = self.healthcheck.as_ref()?;
        let (kind, test) = health.test.split_first()?;
        let mut args = match kind.as_str() {
            "CMD" => Vec::new(),
            "CMD-SHELL" => match &self.shell {
                Some(shell) if !shell.is_empty() => shell.clone(),
                _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            },
            _ => return None,
        };
        args.extend(test.iter().cloned());
        if args.is_empty() {
            return None;
        }
        let or = |value: i64, default: u64| match u64::try_from(value) {
            Ok(value) if value > 0 => value,
            _ => default * 1_000_000_000,
        };
        Some(HealthCheck {
            args,
            interval: or(health.interval, 30),
            timeout: or(health.timeout, 30),
            start_period: or(health.start_period, 0),
            start_interval: or(health.start_interval, 5),
            retries: u32::try_from(health.retries)
                .ok()
                .filter(|n| *n > 0)
                .unwrap_or(3),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(value: Value) -> Config {
        Config::read(value.as_object().unwrap()).unwrap()
    }

    #[test]
    fn null_in_a_field_is_no_field_in_inner_objects_too() {
        let own = config(json!({
            "Cmd": null,
            "Healthcheck": { "Test": ["CMD", "true"], "Interval": 5, "Timeout": null, "Retries": null },
        }));
        let health = own.healthcheck.unwrap();
        assert_eq!((health.interval, health.timeout, health.retries), (5, 0, 0));
    }

    #[test]
    fn null_in_a_map_is_an_empty_entry() {
        let own = config(json!({
            "Volumes": {"/data": null}, "ExposedPorts": {"80/tcp": null}, "Labels": {"a": null},
        }));
        assert_eq!(own.volumes.unwrap()["/data"], json!({}));
        assert_eq!(own.exposed_ports["80/tcp"], json!({}));
        assert_eq!(own.labels["a"], "");
    }

    #[test]
    fn the_image_fills_in_what_the_client_left_out() {
        let image = config(json!({
            "User": "redis", "Env": ["PATH=/bin", "A=image"], "Cmd": ["serve"],
            "Entrypoint": "/entry", "WorkingDir": "/data", "Labels": {"l": "image", "m": "1"},
            "ExposedPorts": {"6379/tcp": {}}, "Volumes": {"/data": {}}, "StopSignal": "SIGINT",
            "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5},
        }));
        let mut own = config(json!({
            "Env": ["A=own", "B"], "Labels": {"l": "own"}, "Cmd": null, "Volumes": null,
            "Healthcheck": {"Interval": 7},
        }));
        own.merge(&image).unwrap();
        assert_eq!(own.env, ["A=own", "B", "PATH=/bin"]);
        assert_eq!(own.args(), ["/entry", "serve"]);
        assert_eq!(own.labels["l"], "own");
        assert_eq!(own.labels["m"], "1");
        assert_eq!(
            (own.user.as_str(), own.working_dir.as_str()),
            ("redis", "/data")
        );
        assert_eq!(own.stop_signal.as_deref(), Some("SIGINT"));
        assert!(own.volumes.as_ref().unwrap().contains_key("/data"));
        let health = own.healthcheck.as_ref().unwrap();
        assert_eq!((health.test.len(), health.interval), (2, 7));
    }

    #[test]
    fn entrypoint_and_command_follow_dockers_rules() {
        let image = config(json!({"Entrypoint": ["/e"], "Cmd": ["c"]}));
        for (given, want) in [
            (json!({}), vec!["/e", "c"]),
            (json!({"Cmd": ["x"]}), vec!["/e", "x"]),
            (json!({"Entrypoint": ["/o"]}), vec!["/o"]),
            (json!({"Entrypoint": ["/o"], "Cmd": ["x"]}), vec!["/o", "x"]),
            (json!({"Entrypoint": [""], "Cmd": ["x"]}), vec!["x"]),
            (json!({"Entrypoint": [], "Cmd": ["x"]}), vec!["x"]),
        ] {
            let mut own = config(given);
            own.merge(&image).unwrap();
            assert_eq!(own.args(), want);
        }
        let mut own = config(json!({"Entrypoint": [""]}));
        assert_eq!(
            own.merge(&image).unwrap_err().message,
            "no command specified"
        );
        assert!(config(json!({})).merge(&Config::default()).is_err());
    }

    #[test]
    fn a_health_check_has_docker_s_defaults_and_its_image_s_shell() {
        let check = |health: Value| {
            let value = json!({"Healthcheck": health, "Shell": ["/bin/ash", "-c"]});
            config(value).health_check()
        };
        let shell = check(json!({"Test": ["CMD-SHELL", "exit 1"], "Interval": 7})).unwrap();
        assert_eq!(shell.args, ["/bin/ash", "-c", "exit 1"]);
        assert_eq!((shell.interval, shell.timeout), (7, 30_000_000_000));
        assert_eq!((shell.retries, shell.start_period), (3, 0));
        let plain = check(json!({"Test": ["CMD", "x", "y"], "Retries": 1})).unwrap();
        assert_eq!((plain.args.len(), plain.retries), (2, 1));
        for none in [
            json!({}),
            json!({"Test": ["NONE"]}),
            json!({"Test": ["CMD"]}),
        ] {
            assert_eq!(check(none), None);
        }
    }

    #[test]
    fn a_wrong_type_is_named() {
        let fields = json!({"Env": "A=1"});
        let error = Config::read(fields.as_object().unwrap()).unwrap_err();
        assert!(error.message.contains("invalid container configuration"));
    }
}
