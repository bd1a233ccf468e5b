//! `docker commit --change` and `docker import --change`: instructions of a Dockerfile that change a configuration.

mod words;

use super::{
    config::{Config, Healthcheck},
    signals,
};
use crate::{
    errors::{Error, Result},
    timestamps,
    volumes::mounts::clean,
};
use serde_json::json;
use words::{expand, split};

/// Changes at most, and bytes of one.
const CHANGES_MAX: usize = 256;
const CHANGE_MAX: usize = 64 << 10;
/// Ports that all changes together expose at most, each as often as it is named.
const PORTS_MAX: usize = 3 * 65_536;

/// Applies instructions, in their order.
///
/// # Errors
/// 400 for one that there is not, or that is wrong; nothing counts then.
pub fn apply(config: &mut Config, changes: &[String]) -> Result<()> {
    let mut seen = Seen::default();
    let (count, longest) = (
        changes.len(),
        changes.iter().map(String::len).max().unwrap_or_default(),
    );
    if count > CHANGES_MAX || longest > CHANGE_MAX {
        return Err(Error::bad(format!(
            "{count} changes, the longest of {longest} bytes: {CHANGES_MAX} changes of {CHANGE_MAX} bytes are possible"
        )));
    }
    for line in changes.iter().flat_map(|change| change.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        one(config, name, rest.trim(), &mut seen)?;
    }
    Ok(())
}

/// What the instructions before have done.
#[derive(Debug, Default)]
struct Seen {
    command: bool,
    ports: usize,
}

fn one(config: &mut Config, name: &str, rest: &str, seen: &mut Seen) -> Result<()> {
    let upper = name.to_ascii_uppercase();
    let needs = |count: &str| Error::bad(format!("{upper} requires {count}"));
    let some = || match rest.is_empty() {
        true => Err(needs("at least one argument")),
        false => Ok(()),
    };
    let env = config.env.clone();
    let words = |text: &str| -> Result<Vec<String>> {
        split(text).iter().map(|word| expand(word, &env)).collect()
    };
    let exactly_one = || {
        let mut list = words(rest)?;
        match (list.pop(), list.is_empty()) {
            (Some(word), true) => Ok(word),
            _ => Err(needs("exactly one argument")),
        }
    };
    match upper.as_str() {
        "CMD" => {
            config.cmd = Some(command(config, rest));
            seen.command = true;
        }
        "ENTRYPOINT" => {
            config.entrypoint = match rest {
                "" | "[]" => None,
                _ => Some(command(config, rest)),
            };
            if !seen.command {
                config.cmd = None;
            }
        }
        "ENV" => {
            some()?;
            for (key, value) in pairs(&upper, rest, &env)? {
                config
                    .env
                    .retain(|e| e.split('=').next() != Some(key.as_str()));
                config.env.push(format!("{key}={value}"));
            }
        }
        "LABEL" => {
            some()?;
            config.labels.extend(pairs(&upper, rest, &env)?);
        }
        "EXPOSE" => {
            some()?;
            for word in words(rest)? {
                let ports = ports(&word)?;
                seen.ports += ports.len();
                if seen.ports > PORTS_MAX {
                    return Err(Error::bad(format!(
                        "the changes expose more than {PORTS_MAX} ports"
                    )));
                }
                for port in ports {
                    config.exposed_ports.insert(port, json!({}));
                }
            }
        }
        "USER" => config.user = exactly_one()?,
        "WORKDIR" => {
            if rest.is_empty() {
                return Err(needs("exactly one argument"));
            }
            let path = expand(rest, &env)?;
            let whole = format!("{}/{path}", config.working_dir);
            config.working_dir = clean(if path.starts_with('/') { &path } else { &whole });
        }
        "VOLUME" => {
            some()?;
            let list = match array(rest) {
                Some(list) => list,
                None => words(rest)?,
            };
            for path in list {
                if path.trim().is_empty() {
                    return Err(Error::bad("VOLUME specified can not be an empty string"));
                }
                config
                    .volumes
                    .get_or_insert_default()
                    .insert(path, json!({}));
            }
        }
        "ONBUILD" => {
            some()?;
            let trigger = rest.split_whitespace().next().unwrap_or_default();
            match trigger.to_ascii_uppercase().as_str() {
                "ONBUILD" => {
                    return Err(Error::bad(
                        "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
                    ));
                }
                word @ ("FROM" | "MAINTAINER") => {
                    return Err(Error::bad(format!(
                        "{word} isn't allowed as an ONBUILD trigger"
                    )));
                }
                _ => config
                    .on_build
                    .get_or_insert_default()
                    .push(rest.to_owned()),
            }
        }
        "STOPSIGNAL" => {
            let signal = exactly_one()?;
            signals::parse(&signal)?;
            config.stop_signal = Some(signal);
        }
        "HEALTHCHECK" => config.healthcheck = Some(health(rest)?),
        _ => {
            return Err(Error::bad(format!(
                "{} is not a valid change command",
                name.to_ascii_lowercase()
            )));
        }
    }
    Ok(())
}

/// A list in JSON, of texts only.
fn array(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// A list in JSON, or a line for the shell.
fn command(config: &Config, rest: &str) -> Vec<String> {
    array(rest).unwrap_or_else(|| {
        let shell = config.shell.clone().filter(|shell| !shell.is_empty());
        let mut list = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
        list.push(rest.to_owned());
        list
    })
}

/// `NAME=value …`, or `NAME the rest`.
fn pairs(name: &str, rest: &str, env: &[String]) -> Result<Vec<(String, String)>> {
    let list = split(rest);
    let first = list.first().map(String::as_str).unwrap_or_default();
    if !first.contains('=') {
        let Some((key, value)) = rest.split_once(char::is_whitespace) else {
            return Err(Error::bad(format!("{name} must have two arguments")));
        };
        return Ok(vec![(expand(key, env)?, expand(value.trim(), env)?)]);
    }
    let pairs = list.iter().map(|word| {
        let Some((key, value)) = word.split_once('=') else {
            return Err(Error::bad(format!(
                "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
            )));
        };
        let key = expand(key, env)?;
        if key.is_empty() {
            return Err(Error::bad(format!("{name} names can not be blank")));
        }
        Ok((key, expand(value, env)?))
    });
    pairs.collect()
}

/// `80`, `80/udp`, `80-90/tcp`, as `80/tcp` and so on.
fn ports(word: &str) -> Result<Vec<String>> {
    let wrong = || Error::bad(format!("invalid containerPort: {word}"));
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let (from, to): (u16, u16) = match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) if from > 0 && from <= to => (from, to),
        _ => return Err(wrong()),
    };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    Ok((from..=to)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

fn health(rest: &str) -> Result<Healthcheck> {
    let mut check = Healthcheck::default();
    let mut rest = rest;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, behind) = option
            .split_once(char::is_whitespace)
            .unwrap_or((option, ""));
        rest = behind.trim_start();
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        let time = || {
            duration(value).ok_or_else(|| {
                Error::bad(format!(
                    "HEALTHCHECK --{key}={value}: it is no time such as 30s or 1m30s"
                ))
            })
        };
        match key {
            "interval" => check.interval = time()?,
            "timeout" => check.timeout = time()?,
            "start-period" => check.start_period = time()?,
            "start-interval" => check.start_interval = time()?,
            "retries" => {
                let count = value.parse().ok().filter(|n| *n >= 1);
                check.retries = count.ok_or_else(|| {
                    Error::bad(format!("--retries must be at least 1 (not {value})"))
                })?;
            }
            _ => return Err(Error::bad(format!("unknown flag: {key}"))),
        }
    }
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    check.test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if rest.trim().is_empty() => vec!["NONE".to_owned()],
        "NONE" => return Err(Error::bad("HEALTHCHECK NONE takes no arguments")),
        "CMD" if rest.trim().is_empty() => {
            return Err(Error::bad("missing command after HEALTHCHECK CMD"));
        }
        "CMD" => match array(rest.trim()) {
            Some(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
            None => vec!["CMD-SHELL".to_owned(), rest.trim().to_owned()],
        },
        _ => {
            return Err(Error::bad(format!(
                "unknown type {kind:?} in HEALTHCHECK (try CMD)"
            )));
        }
    };
    Ok(check)
}

/// A time as Go writes it, `1m30s` or `500ms`, in ns; at least a millisecond, or 0.
fn duration(text: &str) -> Option<i64> {
    let time = if text == "0" {
        0
    } else {
        timestamps::duration(text)?
    };
    i64::try_from(time)
        .ok()
        .filter(|t| *t == 0 || *t >= 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn changed(before: Value, changes: &[&str]) -> Result<Value> {
        let mut config = Config::read(before.as_object().unwrap()).unwrap();
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        apply(&mut config, &changes)?;
        Ok(serde_json::to_value(config).unwrap())
    }

    #[test]
    fn each_instruction_changes_its_field() {
        let made = changed(
            json!({"Env": ["PATH=/bin", "A=1"], "Cmd": ["old"], "WorkingDir": "/srv"}),
            &[
                "ENTRYPOINT [\"/e\", \"x\"]",
                "CMD echo $A",
                "ENV A=2 B=\"b c\"",
                "ENV OLD a form",
                "LABEL k=v l=$A",
                "EXPOSE 80 53/udp 90-91",
                "USER nobody:$A",
                "WORKDIR a/../b",
                "VOLUME [\"/d\"]",
                "VOLUME /e /f",
                "ONBUILD RUN x",
                "STOPSIGNAL SIGINT",
                "HEALTHCHECK --interval=1m30s --retries=2 CMD curl localhost",
            ],
        )
        .unwrap();
        for (field, want) in [
            ("Entrypoint", json!(["/e", "x"])),
            ("Cmd", json!(["/bin/sh", "-c", "echo $A"])),
            ("Env", json!(["PATH=/bin", "A=2", "B=b c", "OLD=a form"])),
            ("Labels", json!({"k": "v", "l": "2"})),
            ("User", json!("nobody:2")),
            ("WorkingDir", json!("/srv/b")),
            ("Volumes", json!({"/d": {}, "/e": {}, "/f": {}})),
            ("OnBuild", json!(["RUN x"])),
            ("StopSignal", json!("SIGINT")),
        ] {
            assert_eq!(made[field], want, "{field}");
        }
        let ports: Vec<&String> = made["ExposedPorts"].as_object().unwrap().keys().collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "90/tcp", "91/tcp"]);
        assert_eq!(
            made["Healthcheck"]["Test"],
            json!(["CMD-SHELL", "curl localhost"])
        );
        assert_eq!(made["Healthcheck"]["Interval"], json!(90_000_000_000u64));
    }

    #[test]
    fn an_entrypoint_takes_the_command_before_it_away() {
        let made = changed(json!({"Cmd": ["old"]}), &["ENTRYPOINT /e"]).unwrap();
        assert_eq!(made["Cmd"], Value::Null);
        assert_eq!(made["Entrypoint"], json!(["/bin/sh", "-c", "/e"]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (change, words) in [
            ("RUN x", "run is not a valid change command"),
            ("ENV", "ENV requires at least one argument"),
            ("ENV A", "ENV must have two arguments"),
            ("ENV A=1 B", "can't find = in \"B\""),
            ("USER a b", "USER requires exactly one argument"),
            ("EXPOSE x", "invalid containerPort: x"),
            ("EXPOSE 9-1", "invalid containerPort: 9-1"),
            ("STOPSIGNAL nothing", "nothing"),
            ("ONBUILD ONBUILD x", "Chaining ONBUILD"),
            ("HEALTHCHECK --interval=x CMD a", "--interval=x"),
            ("HEALTHCHECK CMD", "missing command after HEALTHCHECK CMD"),
            ("HEALTHCHECK X", "unknown type \"X\""),
        ] {
            let error = changed(json!({}), &[change]).unwrap_err();
            assert!(error.message.contains(words), "{change}: {}", error.message);
        }
    }

    #[test]
    fn ports_are_counted_before_they_are_exposed() {
        assert!(changed(json!({}), &["EXPOSE 1-65535"]).is_ok());
        let many = format!("EXPOSE {}", "1-65535 ".repeat(4));
        assert!(changed(json!({}), &[&many]).is_err());
        assert!(changed(json!({}), &["EXPOSE 1-65535"; 4]).is_err());
    }

    #[test]
    fn times_are_go_s() {
        assert_eq!(duration("1m30s"), Some(90_000_000_000));
        assert_eq!(duration("500ms"), Some(500_000_000));
        assert_eq!(duration("1.5h"), Some(5_400_000_000_000));
        assert_eq!(duration("0"), Some(0));
        for wrong in ["", "5", "s", "1d", "1ns", "-1s"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
