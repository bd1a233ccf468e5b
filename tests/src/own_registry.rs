//! Our registry as a process on loopback.

use crate::places;
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A running registry; killed when this goes out of scope.
#[derive(Debug)]
pub struct OwnRegistry {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub address: String,
    /// The administrator's password; the name is `admin`.
    pub password: String,
}

/// Makes a registry's folder that serves plain HTTP on a port that the system chooses; the password of `admin`.
///
/// # Errors
/// When it cannot be made.
pub fn init(folder: &Path) -> Result<String> {
    let mut c = Command::new(places::programs().join("registry"));
    c.args(["init", "--json", "--listen", "127.0.0.1:0", "--data"]);
    c.arg(folder);
    let out = crate::command::run(c, b"", crate::command::DEADLINE)?.ok()?;
    let made: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    Ok(made["password"]
        .as_str()
        .context("a password was generated")?
        .to_owned())
}

impl OwnRegistry {
    /// Makes one in an empty folder and starts it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(folder: &TempDir) -> Result<Self> {
        let password = init(folder.path())?;
        Self::serve(folder.path(), password)
    }

    /// Starts one that was made.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve(folder: &Path, password: String) -> Result<Self> {
        let program = places::programs().join("registry");
        let mut child = Command::new(&program)
            .args(["serve", "--log", "warn", "--data"])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| program.display().to_string())?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output")?).read_line(&mut line)?;
        let address = line
            .trim()
            .strip_prefix("ready: http://")
            .map(str::to_owned);
        ensure!(address.is_some(), "the registry did not start: {line}");
        Ok(OwnRegistry {
            child,
            address: address.unwrap_or_default(),
            password,
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for OwnRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
