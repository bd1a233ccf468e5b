//! Changes to a configuration as `docker import --change` takes them: Dockerfile's instructions, one each (Docker's
//! `dockerfile` package, "validCommitCommands").

use crate::errors::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The most changes, and the most bytes of one.
const CHANGES_MAX: usize = 256;
const CHANGE_MAX: usize = 64 << 10;
/// The most ports that all changes together may expose, each as often as it is named.
const PORTS_MAX: usize = 3 * 65_536;

fn bad(line: &str, why: &str) -> Error {
    let line: String = line.chars().take(100).collect();
    Error::bad(format!("invalid change {line:?}: {why}"))
}

/// Applies changes to a configuration's `config`, in their order.
///
/// # Errors
/// 400 that names the first one that is none.
pub(crate) fn apply<'a>(
    config: &mut Map<String, Value>,
    changes: impl Iterator<Item = &'a str>,
) -> Result<()> {
    let lines = changes.flat_map(str::lines).map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut ports = 0;
    for (number, line) in lines.enumerate() {
        if number == CHANGES_MAX || line.len() > CHANGE_MAX {
            return Err(bad(line, "there are too many changes, or it is too long"));
        }
        change(config, line, &mut ports)?;
    }
    Ok(())
}

/// Makes one change; `exposed` counts ports.
fn change(config: &mut Map<String, Value>, line: &str, exposed: &mut usize) -> Result<()> {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let name = name.to_ascii_uppercase();
    if rest.is_empty() {
        return Err(bad(line, &format!("{name} requires an argument")));
    }
    match name.as_str() {
        "CMD" => drop(config.insert("Cmd".into(), command(rest))),
        "ENTRYPOINT" => {
            config.insert("Entrypoint".into(), command(rest));
            // As in a Dockerfile: what the arguments were for is gone.
            config.remove("Cmd");
        }
        "ENV" => {
            for (key, value) in pairs(line, rest)? {
                let list = config.entry("Env").or_insert_with(|| json!([]));
                if let Value::Array(list) = list {
                    let start = format!("{key}=");
                    list.retain(|e| !e.as_str().is_some_and(|e| e.starts_with(&start)));
                    list.push(format!("{key}={value}").into());
                }
            }
        }
        "LABEL" => {
            for (key, value) in pairs(line, rest)? {
                entry(config, "Labels").insert(key, value.into());
            }
        }
        "EXPOSE" => {
            for word in words(line, rest)? {
                let (ports, protocol) = word.split_once('/').unwrap_or((&word, "tcp"));
                if !matches!(protocol, "tcp" | "udp" | "sctp") {
                    return Err(bad(line, &format!("{protocol:?} is no protocol")));
                }
                let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
                let port = |text: &str| {
                    text.parse::<u16>()
                        .ok()
                        .filter(|p| *p > 0)
                        .ok_or_else(|| bad(line, &format!("{text:?} is no port")))
                };
                let ports = port(first)?..=port(last)?;
                *exposed += ports.len();
                if *exposed > PORTS_MAX {
                    return Err(bad(line, "the changes expose too many ports"));
                }
                for port in ports {
                    entry(config, "ExposedPorts").insert(format!("{port}/{protocol}"), json!({}));
                }
            }
        }
        "VOLUME" => {
            let volumes = match list(rest) {
                Some(list) => list,
                None => words(line, rest)?,
            };
            for volume in volumes {
                if volume.trim().is_empty() {
                    return Err(bad(line, "VOLUME specified can not be an empty string"));
                }
                entry(config, "Volumes").insert(volume, json!({}));
            }
        }
        "USER" | "STOPSIGNAL" => {
            let word = one(line, rest)?;
            let field = if name == "USER" { "User" } else { "StopSignal" };
            config.insert(field.into(), word.into());
        }
        "WORKDIR" => {
            let word = one(line, rest)?;
            let before = config
                .get("WorkingDir")
                .and_then(Value::as_str)
                .unwrap_or("/");
            config.insert("WorkingDir".into(), folder(before, &word).into());
        }
        "ONBUILD" => {
            let list = config.entry("OnBuild").or_insert_with(|| json!([]));
            if let Value::Array(list) = list {
                list.push(rest.into());
            }
        }
        "HEALTHCHECK" => drop(config.insert("Healthcheck".into(), health(line, rest)?)),
        // Docker's words.
        other => {
            let name: String = other.to_ascii_lowercase().chars().take(100).collect();
            return Err(Error::bad(format!("{name} is not a valid change command")));
        }
    }
    Ok(())
}

/// An object within the configuration.
fn entry<'a>(config: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let value = config.entry(name).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        // It was made one just now.
        _ => unreachable!(),
    }
}

/// `["a", "b"]`; anything else is a shell's line.
fn list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[')
        .then(|| serde_json::from_str(text).ok())?
}

fn command(text: &str) -> Value {
    match list(text) {
        Some(list) => json!(list),
        None => json!(["/bin/sh", "-c", text]),
    }
}

/// Words with quotes and backslashes, as a Dockerfile has them.
fn words(line: &str, text: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(q), c) if c == q => quote = None,
            (None | Some('"'), '\\') => {
                let next = chars
                    .next()
                    .ok_or_else(|| bad(line, "it ends with a backslash"))?;
                word.get_or_insert_default().push(next);
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(bad(line, "a quotation mark is not closed"));
    }
    words.extend(word);
    Ok(words)
}

fn one(line: &str, text: &str) -> Result<String> {
    let mut words = words(line, text)?;
    match (words.pop(), words.is_empty()) {
        (Some(word), true) if !word.is_empty() => Ok(word),
        _ => Err(bad(line, "it takes exactly one argument")),
    }
}

/// `a=b c="d e"`, or the old `a the rest`.
fn pairs(line: &str, text: &str) -> Result<Vec<(String, String)>> {
    let all = words(line, text)?;
    if !all.first().is_some_and(|first| first.contains('=')) {
        let (key, value) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| bad(line, "write NAME=VALUE"))?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(bad(line, "write NAME=VALUE")),
    };
    all.into_iter().map(pair).collect()
}

/// A folder as seen from another one.
fn folder(from: &str, to: &str) -> String {
    let whole = if to.starts_with('/') {
        to.to_owned()
    } else {
        format!("{from}/{to}")
    };
    let mut parts = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `[--interval=…] CMD …`, or `NONE`.
fn health(line: &str, text: &str) -> Result<Value> {
    let mut options: BTreeMap<&str, Value> = BTreeMap::new();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option
            .split_once(char::is_whitespace)
            .ok_or_else(|| bad(line, "CMD is missing"))?;
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| bad(line, "write --OPTION=VALUE"))?;
        let field = match name {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => "Retries",
            _ => return Err(bad(line, &format!("--{name} is not known"))),
        };
        let wrong = || bad(line, &format!("--{name}={value} is not what it takes"));
        let value = if name == "retries" {
            json!(value.parse::<u32>().map_err(|_| wrong())?)
        } else {
            json!(crate::timestamps::duration(value).ok_or_else(wrong)?)
        };
        options.insert(field, value);
        rest = after.trim();
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let test = match (kind.to_ascii_uppercase().as_str(), command.trim()) {
        ("NONE", "") => json!(["NONE"]),
        ("CMD", "") => return Err(bad(line, "a command is missing after CMD")),
        ("CMD", command) => match list(command) {
            Some(list) => json!([vec!["CMD".to_owned()], list].concat()),
            None => json!(["CMD-SHELL", command]),
        },
        _ => return Err(bad(line, "write NONE, or CMD and a command")),
    };
    options.insert("Test", test);
    Ok(json!(options))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn applied(changes: &[&str]) -> Result<Value> {
        let mut config = Map::new();
        apply(&mut config, changes.iter().copied())?;
        Ok(Value::Object(config))
    }

    #[test]
    fn all_instructions_change_what_they_should() {
        let is = applied(&[
            "CMD [\"a\", \"b c\"]",
            "env A=1 B=\"2 3\"\nENV A=4",
            "ENV OLD the rest",
            "EXPOSE 80 53/udp 7000-7002",
            "LABEL x=y 'with space'=\"q\\\"\"",
            "VOLUME /a /b",
            "VOLUME [\"/c\"]",
            "USER me:us",
            "WORKDIR /x",
            "WORKDIR ../y/./z",
            "STOPSIGNAL SIGQUIT",
            "ONBUILD RUN x",
            "HEALTHCHECK --interval=5s --retries=3 CMD true",
        ])
        .unwrap();
        assert_eq!(
            is,
            json!({
                "Cmd": ["a", "b c"],
                "Env": ["B=2 3", "A=4", "OLD=the rest"],
                "ExposedPorts": {
                    "80/tcp": {}, "53/udp": {}, "7000/tcp": {}, "7001/tcp": {}, "7002/tcp": {},
                },
                "Labels": { "x": "y", "with space": "q\"" },
                "Volumes": { "/a": {}, "/b": {}, "/c": {} },
                "User": "me:us",
                "WorkingDir": "/y/z",
                "StopSignal": "SIGQUIT",
                "OnBuild": ["RUN x"],
                "Healthcheck": {
                    "Interval": 5_000_000_000_u64, "Retries": 3, "Test": ["CMD-SHELL", "true"],
                },
            })
        );
        let is = applied(&["CMD x", "ENTRYPOINT run it"]).unwrap();
        assert_eq!(is, json!({ "Entrypoint": ["/bin/sh", "-c", "run it"] }));
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for bad in [
            "RUN x",
            "FROM x",
            "CMD",
            "ENV x",
            "ENV a=\"b",
            "EXPOSE 0",
            "EXPOSE 80/icmp",
            "EXPOSE 99999",
            "USER a b",
            "HEALTHCHECK --interval=x CMD y",
            "HEALTHCHECK CMD",
            "HEALTHCHECK x",
            "VOLUME [\" \"]",
        ] {
            assert!(applied(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_counted_before_they_are_exposed() {
        assert!(applied(&["EXPOSE 1-65535"]).is_ok());
        let many = format!("EXPOSE {}", "1-65535 ".repeat(4));
        assert!(applied(&[&many]).is_err());
        assert!(applied(&["EXPOSE 1-65535"; 4]).is_err());
    }

    proptest! {
        #[test]
        fn any_line_is_taken_or_refused(line in "(ENV|LABEL|EXPOSE|VOLUME|HEALTHCHECK|CMD|WORKDIR)? ?\\PC{0,40}") {
            let _ = applied(&[&line]);
        }
    }
}
