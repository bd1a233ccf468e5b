//! The environment of a process: what was asked for, and what Docker adds.

/// PATH where neither image nor request has one.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The value of `name` in a list of `NAME=value`; the last one counts.
#[must_use]
pub fn value<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().rev().find_map(|entry| {
        entry
            .split_once('=')
            .filter(|(n, _)| *n == name)
            .map(|(_, v)| v)
    })
}

/// The whole environment in Docker's order: PATH, HOSTNAME and (with a terminal) TERM first, theirs or `env`'s; then `env` with the last of each name, HOME at the end where it is missing or empty.
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
        out.push(format!("{name}={}", value(env, name).unwrap_or(default)));
    }
    for (i, entry) in env.iter().enumerate() {
        let name = entry.split_once('=').map_or(entry.as_str(), |(n, _)| n);
        let again = env[i + 1..]
            .iter()
            .any(|later| later.split_once('=').map_or(later.as_str(), |(n, _)| n) == name);
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
}
