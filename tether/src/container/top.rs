//! `docker top`: the container's processes out of the tether's /proc.

use super::cgroup::Cgroup;
use super::users;
use crate::io::fd::AsyncFile;
use crate::reaper::Reaper;
use crate::sys::process;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use wire::message::{MESSAGE_MAX, ProcessRow, TableRow, decode, encode};

/// Rows at most: a fork bomb must not fill the link.
const ROWS_MAX: usize = 10_000;
/// Bytes of all rows at most, encoded: an answer is one message, of at most [`MESSAGE_MAX`](wire::message::MESSAGE_MAX).
const BYTES_MAX: usize = 400 * 1024;
/// USER_HZ, and bytes of a page: x86-64 has no others.
const TICKS: u64 = 100;
const PAGE: u64 = 4096;
/// Bytes of a command line at most.
const COMMAND_MAX: usize = 4096;
/// Bytes of a user's name at most (limits.h: LOGIN_NAME_MAX); one with a longer name is shown by number.
const NAME_MAX: usize = 256;

/// How long reading them may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Lists the processes of the container's cgroup, as many as fit into an answer. Those that end meanwhile are left out.
///
/// # Errors
/// As [`table`].
pub async fn list(
    cgroup: &Cgroup,
    container_pid: i32,
    reaper: &Reaper,
) -> Result<Vec<ProcessRow>, String> {
    let rows = table(cgroup, container_pid, reaper).await?;
    Ok(rows.into_iter().map(|row| row.row).collect())
}

/// As [`list`], with all that `ps` may show. A child reads them: how many there are, and how long a look at one or at
/// the container's users takes (they may be on a server that is gone), is up to the container.
///
/// # Errors
/// Those of reading the cgroup; that it takes too long.
pub async fn table(
    cgroup: &Cgroup,
    container_pid: i32,
    reaper: &Reaper,
) -> Result<Vec<TableRow>, String> {
    let (from_child, output) = pipe2(OFlag::O_CLOEXEC).map_err(|e| e.to_string())?;
    let from_child = AsyncFile::new(from_child).map_err(|e| e.to_string())?;
    let child = process::spawn(0, None, move || {
        // What others wait for the end of is not held by this child.
        process::close_all_but(&[output.as_raw_fd()]);
        let table = cgroup.processes().map(|pids| rows(&pids, container_pid));
        let told = encode(&table.map_err(|e| e.to_string()));
        let told = told.is_ok_and(|bytes| File::from(output).write_all(&bytes).is_ok());
        i32::from(!told)
    })
    .map_err(|e| e.to_string())?;
    // It is reaped in any case; what it has told is what counts.
    drop(reaper.watch(child.pid));
    let mut bytes = Vec::new();
    let most = MESSAGE_MAX as u64 + 1;
    let told = timeout(DEADLINE, from_child.take(most).read_to_end(&mut bytes)).await;
    // One that has ended is none the worse for it.
    let _ = process::signal(child.pidfd.as_fd(), libc::SIGKILL);
    match told {
        Ok(Ok(_)) => decode(&bytes)
            .unwrap_or_else(|e| Err(format!("the child that reads them has told: {e}"))),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!(
            "reading them takes longer than {} s (are the container's users on a server that is gone?)",
            DEADLINE.as_secs()
        )),
    }
}

fn rows(pids: &[i32], container_pid: i32) -> Vec<TableRow> {
    let passwd = passwd_of(container_pid);
    let names = users::names(&passwd);
    let boot = boot_time();
    let uptime: f64 = fs::read_to_string("/proc/uptime")
        .ok()
        .and_then(|t| t.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0);
    let inner: std::collections::HashMap<i32, u32> = pids
        .iter()
        .filter_map(|pid| Some((*pid, inner_pid(*pid)?)))
        .collect();
    let row = |pid: &i32| -> Option<TableRow> {
        let stat = read_lossy(&format!("/proc/{pid}/stat"))?;
        let comm = stat.get(stat.find('(')? + 1..stat.rfind(')')?)?;
        let fields: Vec<&str> = stat
            .get(stat.rfind(')')? + 2..)?
            .split_whitespace()
            .collect();
        // Counted from the field behind the name (proc(5): field 3).
        let signed = |i: usize| {
            fields
                .get(i)
                .and_then(|f| f.parse::<i64>().ok())
                .unwrap_or(0)
        };
        let number = |i: usize| signed(i).unsigned_abs();
        let (parent, tty, used, started) = (
            signed(1) as i32,
            number(4),
            number(11) + number(12),
            number(19),
        );
        let uid = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
        let uid = status_uid(*pid).unwrap_or(uid);
        let mut command = command_line(*pid).unwrap_or_default();
        if command.is_empty() {
            command = format!("[{comm}]");
        }
        let alive = (uptime - started as f64 / TICKS as f64).max(0.01);
        Some(TableRow {
            row: ProcessRow {
                user: names
                    .get(&uid)
                    .filter(|name| name.len() <= NAME_MAX)
                    .map_or_else(|| uid.to_string(), ToString::to_string),
                pid: *inner.get(pid)?,
                ppid: inner.get(&parent).copied().unwrap_or(0),
                cpu_permille: ((used as f64 / TICKS as f64) / alive * 1000.0) as u32,
                started: boot + started * (1_000_000_000 / TICKS),
                // Major 136 to 143 are PTYs (devices.txt); the minor is split around bit 20.
                tty: if (136..144).contains(&(tty >> 8 & 0xfff)) {
                    format!("pts/{}", tty & 0xff | tty >> 12 & 0xfff00)
                } else {
                    "?".into()
                },
                cpu_time: used * (1_000_000_000 / TICKS),
                command,
            },
            uid,
            state: fields.first()?.chars().next()?,
            nice: signed(16) as i32,
            threads: number(17) as u32,
            vsz: number(20),
            rss: number(21) * PAGE,
            comm: comm.to_owned(),
        })
    };
    let mut room = BYTES_MAX;
    let fits = |row: &TableRow| {
        let left = encode(row)
            .ok()
            .and_then(|bytes| room.checked_sub(bytes.len()));
        room = left.unwrap_or(0);
        left.is_some()
    };
    let shown = pids.iter().take(ROWS_MAX).filter_map(row);
    shown.take_while(fits).collect()
}

/// Text of /proc. A name in it is the process's own, and may be cut within a character: that must not hide the process.
fn read_lossy(path: &str) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The beginning of a process's command line: as a whole it may have megabytes.
fn command_line(pid: i32) -> io::Result<String> {
    let mut bytes = Vec::new();
    let file = File::open(format!("/proc/{pid}/cmdline"))?;
    file.take(COMMAND_MAX as u64).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.trim_end_matches('\0').replace('\0', " "))
}

/// The container's /etc/passwd, looked up inside its root.
fn passwd_of(container_pid: i32) -> String {
    use crate::sys::fs::{IN_ROOT, NO_MAGICLINKS, openat2};
    let open = || -> io::Result<String> {
        let root = fs::File::open(format!("/proc/{container_pid}/root"))?;
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = fs::File::from(openat2(
            Some(root.as_fd()),
            c"etc/passwd",
            flags,
            IN_ROOT | NO_MAGICLINKS,
        )?);
        if !file.metadata()?.is_file() {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        file.take(4 << 20).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    open().unwrap_or_default()
}

fn status_line(pid: i32, key: &str) -> Option<String> {
    let status = read_lossy(&format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|l| l.strip_prefix(key))
        .map(ToString::to_string)
}

fn status_uid(pid: i32) -> Option<u32> {
    status_line(pid, "Uid:")?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// A process's ID in the innermost pid namespace, the container's.
#[must_use]
pub fn inner_pid(pid: i32) -> Option<u32> {
    status_line(pid, "NSpid:")?
        .split_whitespace()
        .last()?
        .parse()
        .ok()
}

/// ns since 1970 at which the kernel started.
fn boot_time() -> u64 {
    fs::read_to_string("/proc/stat")
        .ok()
        .and_then(|stat| {
            stat.lines()
                .find_map(|l| l.strip_prefix("btime "))?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .unwrap_or(0)
        * 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, id};
    use wire::message::{Reply, ToHost};

    fn own() -> i32 {
        id() as i32
    }

    #[test]
    fn a_name_that_is_cut_within_a_character_must_not_hide_its_process() {
        let shown = std::thread::spawn(|| {
            // /proc has threads by their numbers, too.
            fs::write("/proc/thread-self/comm", b"caf\xc3").unwrap();
            rows(&[nix::unistd::gettid().as_raw()], own())
        });
        let shown = shown.join().unwrap();
        let names: Vec<&str> = shown.iter().map(|row| row.comm.as_str()).collect();
        assert_eq!(names, ["caf\u{fffd}"]);
        assert!(shown[0].row.pid > 0 && shown[0].threads > 0);
    }

    #[test]
    fn a_long_list_ends_where_an_answer_is_full() {
        let mut child = Command::new("sleep")
            .args(["1000"; 800])
            .spawn()
            .expect("sleep");
        let pids = vec![child.id() as i32; 200];
        let shown = rows(&pids, own());
        // They are the test's own.
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(shown[0].row.command.starts_with("sleep 1000 1000"));
        assert!(shown[0].row.command.len() > 3900);
        assert!((50..200).contains(&shown.len()), "{}", shown.len());
        let reply = Reply::Table(shown);
        let answer = encode(&ToHost::Answer { request: 1, reply });
        assert!(answer.is_ok_and(|bytes| bytes.len() < MESSAGE_MAX));
    }
}
