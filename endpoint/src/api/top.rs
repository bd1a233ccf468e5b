//! `GET /containers/{id}/top`: what `ps` would print. There is none: the guest gives the figures,
//! and the usual options of ps(1) (procps) are understood here.

use super::{Target, ok};
use crate::{
    errors::{Error, Result},
    timestamps,
};
use axum::response::Response;
use serde_json::json;
use wire::message::{Reply, TableRow, ToGuest};

/// A column: its title and what it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    title: String,
    shows: Shows,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    User,
    Uid,
    Pid,
    Ppid,
    /// Whole percent.
    Cpu,
    /// Percent with a decimal.
    CpuShare,
    MemoryShare,
    Vsz,
    Rss,
    Tty,
    State,
    /// Hour and minute.
    Start,
    /// `00:00:00`.
    Time,
    /// `0:00`.
    ShortTime,
    /// Seconds since the start.
    Seconds,
    Nice,
    Threads,
    Comm,
    Command,
}

/// Names of `-o`, their titles: ps(1), "STANDARD FORMAT SPECIFIERS".
const NAMES: &[(&[&str], &str, Shows)] = &[
    (&["user", "euser", "uname"], "USER", Shows::User),
    (&["uid", "euid"], "UID", Shows::Uid),
    (&["pid", "tgid"], "PID", Shows::Pid),
    (&["ppid"], "PPID", Shows::Ppid),
    (&["c"], "C", Shows::Cpu),
    (&["pcpu", "%cpu"], "%CPU", Shows::CpuShare),
    (&["pmem", "%mem"], "%MEM", Shows::MemoryShare),
    (&["vsz", "vsize"], "VSZ", Shows::Vsz),
    (&["rss", "rssize", "rsz"], "RSS", Shows::Rss),
    (&["tty", "tt", "tname"], "TTY", Shows::Tty),
    (&["stat"], "STAT", Shows::State),
    (&["s", "state"], "S", Shows::State),
    (&["start"], "STARTED", Shows::Start),
    (&["stime", "start_time"], "STIME", Shows::Start),
    (&["time", "cputime"], "TIME", Shows::Time),
    (&["etimes"], "ELAPSED", Shows::Seconds),
    (&["ni", "nice"], "NI", Shows::Nice),
    (&["nlwp", "thcount"], "NLWP", Shows::Threads),
    (&["comm", "ucmd", "ucomm"], "COMMAND", Shows::Comm),
    (&["args", "command"], "COMMAND", Shows::Command),
    (&["cmd"], "CMD", Shows::Command),
];

const FULL: &[(&str, Shows)] = &[
    ("UID", Shows::User),
    ("PID", Shows::Pid),
    ("PPID", Shows::Ppid),
    ("C", Shows::Cpu),
    ("STIME", Shows::Start),
    ("TTY", Shows::Tty),
    ("TIME", Shows::Time),
    ("CMD", Shows::Command),
];
const USER: &[(&str, Shows)] = &[
    ("USER", Shows::User),
    ("PID", Shows::Pid),
    ("%CPU", Shows::CpuShare),
    ("%MEM", Shows::MemoryShare),
    ("VSZ", Shows::Vsz),
    ("RSS", Shows::Rss),
    ("TTY", Shows::Tty),
    ("STAT", Shows::State),
    ("START", Shows::Start),
    ("TIME", Shows::ShortTime),
    ("COMMAND", Shows::Command),
];
const PLAIN: &[(&str, Shows)] = &[
    ("PID", Shows::Pid),
    ("TTY", Shows::Tty),
    ("TIME", Shows::Time),
    ("CMD", Shows::Comm),
];
const BSD: &[(&str, Shows)] = &[
    ("PID", Shows::Pid),
    ("TTY", Shows::Tty),
    ("STAT", Shows::State),
    ("TIME", Shows::ShortTime),
    ("COMMAND", Shows::Command),
];

fn columns(fixed: &[(&str, Shows)]) -> Vec<Column> {
    fixed
        .iter()
        .map(|(title, shows)| Column {
            title: (*title).to_owned(),
            shows: *shows,
        })
        .collect()
}

/// The columns that ps's arguments ask for.
fn asked(arguments: &str) -> Result<Vec<Column>> {
    let unknown = |what: &str| {
        Error::bad(format!(
            "ps: unsupported option {what:?}: use -e, -f, aux, or -o with names of columns"
        ))
    };
    let mut own: Vec<Column> = Vec::new();
    let (mut full, mut user, mut bsd) = (false, false, false);
    let mut words = arguments.split_whitespace();
    while let Some(word) = words.next() {
        if let Some(list) = word.strip_prefix("--format=") {
            own.extend(formats(list)?);
            continue;
        }
        if word == "--format" {
            own.extend(formats(words.next().unwrap_or(""))?);
            continue;
        }
        let unix = word.starts_with('-');
        let letters = word.trim_start_matches('-');
        if letters.is_empty() || word.starts_with("--") {
            return Err(unknown(word));
        }
        for (at, letter) in letters.char_indices() {
            match letter {
                'o' => {
                    // The rest of the word, or the next one.
                    let rest = &letters[at + 1..];
                    let list = match rest {
                        "" => words.next().unwrap_or(""),
                        rest => rest,
                    };
                    own.extend(formats(list)?);
                    break;
                }
                'f' if unix => full = true,
                'u' => user = true,
                'x' | 'a' if !unix => bsd = true,
                // All processes are shown in any case; wide they are, too.
                'e' | 'A' | 'a' | 'x' | 'w' | 'f' => {}
                _ => return Err(unknown(word)),
            }
        }
    }
    let columns = match (own.is_empty(), full, user, bsd) {
        (false, ..) => own,
        (true, true, ..) => columns(FULL),
        (true, _, true, _) => columns(USER),
        (true, _, _, true) => columns(BSD),
        _ => columns(PLAIN),
    };
    if !columns.iter().any(|column| column.shows == Shows::Pid) {
        return Err(Error::bad("Couldn't find PID field in ps output"));
    }
    Ok(columns)
}

/// `pid,comm=NAME`: a title of one's own holds for the rest of the word.
fn formats(list: &str) -> Result<Vec<Column>> {
    let mut out = Vec::new();
    let mut rest = list;
    while !rest.is_empty() {
        let (word, after) = match rest.split_once(',') {
            Some((word, after)) if !word.contains('=') => (word, after),
            _ => (rest, ""),
        };
        rest = after;
        let (name, title) = match word.split_once('=') {
            Some((name, title)) => (name, Some(title)),
            None => (word, None),
        };
        let (_, usual, shows) = NAMES
            .iter()
            .find(|(names, ..)| names.contains(&name))
            .ok_or_else(|| {
                Error::bad(format!(
                    "ps: error: unknown user-defined format specifier \"{name}\""
                ))
            })?;
        out.push(Column {
            title: title.unwrap_or(usual).to_owned(),
            shows: *shows,
        });
    }
    Ok(out)
}

fn cell(row: &TableRow, shows: Shows, memory: u64) -> String {
    let process = &row.row;
    let seconds = process.cpu_time / 1_000_000_000;
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match shows {
        Shows::User => process.user.clone(),
        Shows::Uid => row.uid.to_string(),
        Shows::Pid => process.pid.to_string(),
        Shows::Ppid => process.ppid.to_string(),
        Shows::Cpu => (process.cpu_permille / 10).to_string(),
        Shows::CpuShare => format!(
            "{}.{}",
            process.cpu_permille / 10,
            process.cpu_permille % 10
        ),
        Shows::MemoryShare => {
            let permille = row.rss.saturating_mul(1000) / memory.max(1);
            format!("{}.{}", permille / 10, permille % 10)
        }
        Shows::Vsz => (row.vsz / 1024).to_string(),
        Shows::Rss => (row.rss / 1024).to_string(),
        Shows::Tty => process.tty.clone(),
        Shows::State => row.state.to_string(),
        Shows::Start => timestamps::log_stamp(process.started)
            .get(11..16)
            .unwrap_or("")
            .to_owned(),
        Shows::Time => format!("{hours:02}:{minutes:02}:{rest:02}"),
        Shows::ShortTime => format!("{}:{rest:02}", seconds / 60),
        Shows::Seconds => {
            let running = timestamps::now().saturating_sub(process.started);
            (running / 1_000_000_000).to_string()
        }
        Shows::Nice => row.nice.to_string(),
        Shows::Threads => row.threads.to_string(),
        Shows::Comm => row.comm.clone(),
        Shows::Command => process.command.clone(),
    }
}

/// The processes of a container.
pub(super) async fn top(at: Target) -> Result<Response> {
    let arguments = match at.query.text("ps_args") {
        "" => "-ef",
        other => other,
    };
    let columns = asked(arguments)?;
    let session = at.container.session().await?;
    let rows = match session
        .request(|request| ToGuest::Table { request })
        .await?
    {
        Reply::Table(rows) => rows,
        Reply::Error(message) => return Err(Error::internal(message)),
        other => {
            return Err(Error::internal(format!(
                "unexpected answer of the guest: {other:?}"
            )));
        }
    };
    at.app.containers.tell(&at.container, "top", &[]);
    let memory = u64::from(at.container.memory_mib()) * 1024 * 1024;
    let titles: Vec<&str> = columns.iter().map(|column| column.title.as_str()).collect();
    let processes: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let cells = columns.iter().map(|column| cell(row, column.shows, memory));
            cells.collect()
        })
        .collect();
    Ok(ok(json!({ "Titles": titles, "Processes": processes })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(arguments: &str) -> String {
        match asked(arguments) {
            Ok(columns) => columns
                .iter()
                .map(|column| column.title.as_str())
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.message,
        }
    }

    #[test]
    fn the_usual_arguments_of_ps_are_understood() {
        for (arguments, want) in [
            ("-ef", "UID PID PPID C STIME TTY TIME CMD"),
            (
                "aux",
                "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND",
            ),
            (
                "-aux",
                "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND",
            ),
            ("ax", "PID TTY STAT TIME COMMAND"),
            ("-e", "PID TTY TIME CMD"),
            ("-o pid,comm", "PID COMMAND"),
            ("-eo pid,args=What", "PID What"),
            ("-e -opid -o user", "PID USER"),
            ("--format=pid,rss", "PID RSS"),
        ] {
            assert_eq!(titles(arguments), want, "{arguments}");
        }
        assert_eq!(titles("-o comm"), "Couldn't find PID field in ps output");
        assert!(titles("-o pid,nonsense").contains("unknown user-defined format specifier"));
        assert!(titles("--forest").contains("--forest"));
        assert!(titles("-Z").contains("-Z"));
    }
}
