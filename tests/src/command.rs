//! Running a command with a deadline, and judging what came out.

use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long one command may take before the test fails. Generous: the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// The command, for messages.
    pub what: String,
    /// Exit code; 128 + signal where a signal ended it.
    pub code: i32,
    /// All of standard output.
    pub stdout: Vec<u8>,
    /// All of standard error.
    pub stderr: Vec<u8>,
}

impl Outcome {
    /// Standard output as text, without white space at its ends.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// Standard error as text, without white space at its ends.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim().to_owned()
    }

    /// Itself, if the exit code was 0.
    ///
    /// # Errors
    /// Otherwise, with both streams' ends.
    pub fn ok(self) -> Result<Self> {
        self.exits(0)
    }

    /// Itself, if the exit code was this one.
    ///
    /// # Errors
    /// Otherwise, with both streams' ends.
    pub fn exits(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == code,
            "`{}` exited with {} instead of {code}\n--- stdout\n{}\n--- stderr\n{}",
            self.what,
            self.code,
            end_of(&self.text()),
            end_of(&self.errors())
        );
        Ok(self)
    }
}

fn end_of(text: &str) -> &str {
    let mut from = text.len().saturating_sub(2000);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

/// Runs a command to its end, with its standard input given.
///
/// # Errors
/// When it cannot be started, or takes longer than the deadline (it is killed then).
pub fn run(mut command: Command, stdin: &[u8], deadline: Duration) -> Result<Outcome> {
    let what = format!("{command:?}");
    command.stdin(if stdin.is_empty() {
        Stdio::null()
    } else {
        Stdio::piped()
    });
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| what.clone())?;
    finish(child, what, stdin, deadline)
}

/// Waits for a child whose standard output and error are pipes (or inherited), as [`run`] does.
///
/// # Errors
/// As [`run`].
pub fn finish(mut child: Child, what: String, stdin: &[u8], deadline: Duration) -> Result<Outcome> {
    let (send, receive) = mpsc::channel();
    let pid = child.id();
    let mut out = child.stdout.take();
    let mut err = child.stderr.take();
    let mut input = child.stdin.take();
    let stdin = stdin.to_vec();
    std::thread::spawn(move || {
        if let Some(input) = input.as_mut() {
            // A command that does not want its input is free not to read it.
            let _ = input.write_all(&stdin);
        }
    });
    let errors = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(e) = err.as_mut() {
            let _ = e.read_to_end(&mut bytes);
        }
        bytes
    });
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(o) = out.as_mut() {
            let _ = o.read_to_end(&mut bytes);
        }
        let _ = send.send((bytes, child.wait()));
    });
    let Ok((stdout, status)) = receive.recv_timeout(deadline) else {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid.cast_signed()),
            nix::sys::signal::Signal::SIGKILL,
        );
        bail!(
            "`{what}` took longer than {} s and was killed",
            deadline.as_secs()
        );
    };
    let status = status.with_context(|| what.clone())?;
    let code = {
        use std::os::unix::process::ExitStatusExt;
        status
            .code()
            .or_else(|| status.signal().map(|s| 128 + s))
            .unwrap_or(-1)
    };
    Ok(Outcome {
        what,
        code,
        stdout,
        stderr: errors.join().unwrap_or_default(),
    })
}

/// Waits until a condition holds, asking again every 50 ms: for facts that no client can be told of.
///
/// # Errors
/// When it does not hold within [`DEADLINE`].
pub fn eventually(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = std::time::Instant::now();
    loop {
        if holds()? {
            return Ok(());
        }
        ensure!(
            start.elapsed() < DEADLINE,
            "{what}: not so after {} s",
            DEADLINE.as_secs()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
