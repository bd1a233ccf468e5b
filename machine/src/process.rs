//! Starting a part so that it outlives `vch`, knowing it again later, and ending it.

use crate::Error;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long a part may take until it serves.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How much of a log an error shows, in bytes.
const LOG_TAIL: u64 = 2048;

/// A running process, known by its ID and its start time (an ID alone may have been given to another process since).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process ID.
    pub pid: u32,
    /// Start time in clock ticks since the machine's boot (/proc/PID/stat, field 22).
    pub started: u64,
}

impl Process {
    /// The process that has this ID now.
    pub fn of(pid: u32) -> Option<Process> {
        let (_, started) = stat(pid)?;
        Some(Process { pid, started })
    }

    /// Whether it still runs. A zombie does not.
    pub fn alive(&self) -> bool {
        stat(self.pid)
            .is_some_and(|(state, started)| started == self.started && !matches!(state, 'Z' | 'X'))
    }

    /// Waits until it has ended. Blocks.
    pub fn wait(&self) {
        let fd = Pid::from_raw(self.pid.cast_signed())
            .and_then(|p| pidfd_open(p, PidfdFlags::empty()).ok());
        let Some(fd) = fd.filter(|_| self.alive()) else {
            return;
        };
        // A pidfd becomes readable when the process ends; a signal may end the wait early.
        while poll(&mut [PollFd::new(&fd, PollFlags::IN)], None).is_err() {}
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&self, signal: Signal) {
        let fd = Pid::from_raw(self.pid.cast_signed())
            .and_then(|p| pidfd_open(p, PidfdFlags::empty()).ok());
        if let Some(fd) = fd.filter(|_| self.alive()) {
            // An error means that it has ended in between.
            let _ = pidfd_send_signal(&fd, signal);
        }
    }

    /// Sends SIGTERM and waits for the end; after `patience`, SIGKILL.
    ///
    /// # Errors
    /// [`Error::Stop`] when it had to be killed.
    pub fn stop(&self, name: &'static str, patience: Duration) -> Result<(), Error> {
        // The descriptor is taken before the identity is checked, so that what is signalled is what was checked.
        let Some(fd) = Pid::from_raw(self.pid.cast_signed())
            .and_then(|p| pidfd_open(p, PidfdFlags::empty()).ok())
        else {
            return Ok(());
        };
        if !self.alive() {
            return Ok(());
        }
        let ended = |within: Duration| {
            let limit = Timespec {
                tv_sec: within.as_secs().cast_signed(),
                tv_nsec: 0,
            };
            let mut fds = [PollFd::new(&fd, PollFlags::IN)];
            matches!(poll(&mut fds, Some(&limit)), Ok(n) if n > 0)
        };
        // An error means that it has ended in between.
        let _ = pidfd_send_signal(&fd, Signal::TERM);
        if ended(patience) {
            return Ok(());
        }
        let _ = pidfd_send_signal(&fd, Signal::KILL);
        ended(Duration::from_secs(10));
        Err(Error::Stop {
            name,
            pid: self.pid,
            seconds: patience.as_secs(),
        })
    }
}

/// State (field 3) and start time (field 22) out of /proc/PID/stat.
fn stat(pid: u32) -> Option<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name (field 2) is in parentheses and may hold anything, so count from the last one.
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Starts a part in a process group of its own, with its errors in `log`, and waits for its line `ready: …`.
/// Returns the process and what follows `ready: `.
///
/// # Errors
/// [`Error::Start`] with the end of the log, when it ended or was silent for two minutes.
pub fn start(
    name: &'static str,
    program: &Path,
    args: &[String],
    log: &Path,
) -> Result<(Process, String), Error> {
    let (reader, writer) = io::pipe().map_err(Error::file("make a pipe for", log))?;
    let files = (Stdio::null(), Some(Stdio::from(writer)));
    start_and_wait(name, program, args, log, files, move || {
        let mut lines = BufReader::new(reader).lines().map_while(Result::ok);
        lines.find_map(|line| line.strip_prefix("ready: ").map(str::to_owned))
    })
}

/// Starts a program that nobody here wrote as [`start`] does, and waits until it writes a byte into its standard input,
/// which is a pipe for that. What it prints goes into the log.
///
/// # Errors
/// As [`start`].
pub fn start_with_pipe(
    name: &'static str,
    program: &Path,
    args: &[String],
    log: &Path,
) -> Result<Process, Error> {
    let (mut reader, writer) = io::pipe().map_err(Error::file("make a pipe for", log))?;
    let files = (Stdio::from(writer), None);
    let started = start_and_wait(name, program, args, log, files, move || {
        reader.read_exact(&mut [0]).ok()
    });
    started.map(|(process, ())| process)
}

/// Starts a part with these files as standard input and output (`None`: the log), and waits until `ready` tells that it
/// is, on a thread; `None` from there: it never will be.
fn start_and_wait<T: Send + 'static>(
    name: &'static str,
    program: &Path,
    args: &[String],
    log: &Path,
    (stdin, stdout): (Stdio, Option<Stdio>),
    ready: impl FnOnce() -> Option<T> + Send + 'static,
) -> Result<(Process, T), Error> {
    let out = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .map_err(Error::file("open", log))?;
    let from = out.metadata().map_err(Error::file("read", log))?.len();
    let fail = |reason: String| Error::Start {
        name,
        reason,
        log: tail(log, from),
    };
    let to_log = out.try_clone().map_err(Error::file("open", log))?;
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(stdin)
        .stdout(stdout.unwrap_or_else(|| to_log.into()))
        .stderr(out)
        // Ctrl-C at the terminal is for vch alone, which then ends the parts in their order.
        .process_group(0);
    let spawned = command.spawn();
    // It holds our copy of the pipe's end.
    drop(command);
    let mut child = spawned.map_err(|e| fail(format!("{}: {e}", program.display())))?;
    let process = Process::of(child.id()).ok_or_else(|| fail("it ended at once".into()))?;

    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        if let Some(line) = ready() {
            let _ = send.send(line);
        }
    });
    match receive.recv_timeout(READY_WITHIN) {
        Ok(line) => {
            // Reaps it when it ends while this vch lives; later its parent is init.
            std::thread::spawn(move || child.wait());
            Ok((process, line))
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let status = child
                .wait()
                .map_or_else(|e| e.to_string(), |s| s.to_string());
            Err(fail(format!("it ended with {status}")))
        }
        Err(mpsc::RecvTimeoutError::Timeout) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(fail(format!(
                "it was not ready within {} s",
                READY_WITHIN.as_secs()
            )))
        }
    }
}

/// Ends the processes with these among their arguments: those that a `vch` that was killed had no time to note.
///
/// # Errors
/// [`Error::Stop`] where one had to be killed. All are ended.
pub fn stop_those_with(
    wanted: &[impl AsRef<str>],
    name: &'static str,
    patience: Duration,
) -> Result<(), Error> {
    let wanted: Vec<&str> = wanted.iter().map(AsRef::as_ref).collect();
    with_arguments(&wanted)
        .iter()
        .map(|process| process.stop(name, patience))
        .fold(Ok(()), Result::and)
}

/// The processes that have all of these among their arguments, word for word.
pub fn with_arguments(wanted: &[&str]) -> Vec<Process> {
    let has_them = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        wanted.iter().all(|want| words.contains(&want.as_bytes()))
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(has_them)
        .filter_map(Process::of)
        .collect()
}

/// The end of what was written to a log since `from`, as indented lines.
fn tail(log: &Path, from: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = fs::File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(len.saturating_sub(LOG_TAIL))))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) if !text.trim().is_empty() => {
            let lines: Vec<_> = text.trim().lines().map(|l| format!("\n    {l}")).collect();
            format!("\n  last lines of {}:{}", log.display(), lines.concat())
        }
        _ => String::new(),
    }
}

/// The path of a program of Mooring.
///
/// # Errors
/// [`Error::NoProgram`].
pub fn program(folder: &Path, name: &'static str) -> Result<PathBuf, Error> {
    let path = folder.join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(Error::NoProgram {
            name,
            folder: folder.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_another_start_time_is_not() {
        let me = Process::of(std::process::id()).unwrap();
        assert!(me.alive());
        assert!(
            !Process {
                started: me.started + 1,
                ..me
            }
            .alive()
        );
    }

    #[test]
    fn a_part_that_ends_before_it_is_ready_is_an_error_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let args = [
            "-c".to_owned(),
            "echo no such datastore >&2; exit 3".to_owned(),
        ];
        let error = start(
            "hostsim",
            Path::new("/bin/sh"),
            &args,
            &dir.path().join("log"),
        )
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("exit status: 3") && error.contains("no such datastore"),
            "{error}"
        );
    }

    #[test]
    fn a_part_is_ready_with_its_line_and_ends_when_told() {
        let dir = tempfile::tempdir().unwrap();
        let args = [
            "-c".to_owned(),
            "echo noise; echo ready: here; exec sleep 600".to_owned(),
        ];
        let (process, line) = start(
            "hostsim",
            Path::new("/bin/sh"),
            &args,
            &dir.path().join("log"),
        )
        .unwrap();
        assert_eq!(line, "here");
        assert!(process.alive());
        process.stop("hostsim", Duration::from_secs(60)).unwrap();
        assert!(!process.alive());
    }

    #[test]
    fn a_part_that_ignores_sigterm_is_killed_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let args = [
            "-c".to_owned(),
            "trap '' TERM; echo ready: x; while :; do sleep 600; done".to_owned(),
        ];
        let (process, _) = start(
            "endpoint",
            Path::new("/bin/sh"),
            &args,
            &dir.path().join("log"),
        )
        .unwrap();
        let error = process
            .stop("endpoint", Duration::from_secs(1))
            .unwrap_err();
        assert!(
            error.to_string().starts_with("endpoint (process "),
            "{error}"
        );
        assert!(!process.alive());
    }
}
