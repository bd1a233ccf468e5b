//! The environment of a process: what was asked for, and what Docker adds.

/// PATH where neither image nor request has one.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The value of `name` in a list of `NAME=value`; the last one counts. None where that one has no `=`.
#[must_use]
pub fn value<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    last(env, name)?.split_once('=').map(|(_, value)| value)
}

fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

/// The last entry of a name.
fn last<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    let mut entries = env.iter().rev().map(String::as_str);
    entries.find(|entry| name_of(entry) == name)
}

/// The whole environment in Docker's order: PATH, HOSTNAME and (with a terminal) TERM first, theirs or `env`'s; then `env` with the last of each name, HOME at the end where it is missing or empty.
/// A name without `=` (`docker run -e NAME`, where the client has no such variable) is one that the process must not have.
#[must_use]
pub fn complete(env: &[String], hostname: &str, tty: bool, home: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let first = [
        ("PATH", DEFAULT_PATH),
        ("HOSTNAME", hostname),
        ("TERM", "xterm"),
    ];
    let first = &first[..if tty { 3 } else { 2 }];
    for (name, default) in first {
        match last(env, name) {
            None => out.push(format!("{name}={default}")),
            Some(entry) if entry.contains('=') => out.push(entry.to_owned()),
            Some(_) => {}
        }
    }
    for (i, entry) in env.iter().enumerate().filter(|(_, e)| e.contains('=')) {
        let name = name_of(entry);
        let again = env[i + 1..].iter().any(|later| name_of(later) == name);
        let again = again || first.iter().any(|(own, _)| *own == name);
        let empty_home = name == "HOME" && value(env, "HOME").is_some_and(str::is_empty);
        if !again && !empty_home {
            out.push(entry.clone());
        }
    }
    if value(env, "HOME").is_none_or(str::is_empty) {
        out.push(format!("HOME={home}"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_added_and_the_last_counts() {
        let env: Vec<String> = ["A=1", "PATH=/x", "A=2"]
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            complete(&env, "box", true, "/root"),
            ["PATH=/x", "HOSTNAME=box", "TERM=xterm", "A=2", "HOME=/root"]
        );
        assert_eq!(value(&env, "A"), Some("2"));
        let env = vec!["HOME=/h".to_string()];
        assert_eq!(
            complete(&env, "box", false, "/"),
            [&format!("PATH={DEFAULT_PATH}"), "HOSTNAME=box", "HOME=/h"]
        );
    }
    #[test]
    fn a_name_without_a_value_is_one_that_the_process_must_not_have() {
        let all = |env: &[&str]| {
            let env: Vec<String> = env.iter().map(ToString::to_string).collect();
            complete(&env, "box", true, "/root")
        };
        let path = format!("PATH={DEFAULT_PATH}");
        let rest = ["HOSTNAME=box", "TERM=xterm", "HOME=/root"];
        assert_eq!(all(&["PATH=/x", "PATH", "A=1", "A", "B"]), rest);
        assert_eq!(
            all(&["HOSTNAME", "TERM", "A", "A=1", "HOME=/h", "HOME"]),
            [path.as_str(), "A=1", "HOME=/root"]
        );
    }
}
