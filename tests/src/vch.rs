//! A virtual container host of its own, made by `vch up` and ended with the test.

use crate::command::{self, DEADLINE, Outcome};
use crate::docker::Docker;
use crate::{ordinary, places};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// How a host is started.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `vsock`, `serial` or `auto`.
    pub link: &'static str,
    /// What hostsim withholds of that which ESXi lacks: `link` or `all`.
    pub strict: Option<&'static str>,
    /// Boot files; by default the fast kernel's where they are built.
    pub boot: PathBuf,
    /// An ordinary user has it.
    pub ordinary: bool,
    /// Further arguments of `vch up`.
    pub more: Vec<String>,
}

impl Settings {
    /// A host with this link.
    pub fn link(link: &'static str) -> Self {
        Settings {
            link,
            strict: None,
            boot: places::boot(),
            ordinary: false,
            more: Vec::new(),
        }
    }
}

/// A running virtual container host; ended, with all of its VMs, when this goes out of scope.
#[derive(Debug)]
pub struct Vch {
    dir: TempDir,
    settings: Settings,
    /// A client for it.
    pub docker: Docker,
}

impl Vch {
    /// Starts one in a new folder.
    ///
    /// # Errors
    /// When `vch up` fails.
    pub fn start(settings: Settings) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("mooring-").tempdir()?;
        let host = format!("unix://{}", dir.path().join("docker.sock").display());
        let config = dir.path().join("docker-config");
        std::fs::create_dir(&config)?;
        if settings.ordinary && nix::unistd::geteuid().is_root() {
            chown(dir.path(), Some(ordinary::ID), Some(ordinary::ID))?;
        }
        let vch = Vch {
            docker: Docker::new(host, &config),
            dir,
            settings,
        };
        vch.up()?;
        Ok(vch)
    }

    /// Its state folder.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Where hostsim keeps the datastore's files.
    pub fn datastore(&self) -> PathBuf {
        self.state().join("hostsim/datastores/datastore1")
    }

    /// The endpoint's own folder on the datastore.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn vch_folder(&self) -> Result<PathBuf> {
        let mooring = self.datastore().join("mooring");
        let found = std::fs::read_dir(&mooring)?.collect::<std::io::Result<Vec<_>>>()?;
        ensure!(found.len() == 1, "in {}: {found:?}", mooring.display());
        Ok(found[0].path())
    }

    /// `vch up --detach`: starts what is missing.
    ///
    /// # Errors
    /// When it fails.
    pub fn up(&self) -> Result<Outcome> {
        let s = &self.settings;
        let mut c = self.command("up");
        c.args(["--docker", self.docker.host(), "--detach", "--link", s.link]);
        c.arg("--boot").arg(&s.boot);
        if let Some(what) = s.strict {
            c.arg(format!("--strict={what}"));
        }
        c.args(&s.more);
        let outcome = command::run(c, b"", DEADLINE)?.ok()?;
        ensure!(
            outcome.text().contains("ready: DOCKER_HOST="),
            "vch up did not say that it is ready: {}",
            outcome.text()
        );
        Ok(outcome)
    }

    /// `vch down`.
    ///
    /// # Errors
    /// When it fails.
    pub fn down(&self) -> Result<Outcome> {
        command::run(self.command("down"), b"", DEADLINE)?.ok()
    }

    /// `vch status --json`.
    ///
    /// # Errors
    /// When it fails.
    pub fn status(&self) -> Result<Value> {
        let mut c = self.command("status");
        c.arg("--json");
        Ok(serde_json::from_slice(
            &command::run(c, b"", DEADLINE)?.ok()?.stdout,
        )?)
    }

    /// The process of a part.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self, part: &str) -> Result<u32> {
        let status = self.status()?;
        let parts = status["parts"].as_array().context("parts of vch status")?;
        let pid = parts
            .iter()
            .find(|p| p["name"] == part)
            .and_then(|p| p["pid"].as_u64());
        u32::try_from(pid.with_context(|| format!("{part} does not run: {status}"))?)
            .context("a process ID")
    }

    /// Name of the network namespace that is its virtual switch.
    ///
    /// # Errors
    /// Where its network is not on bridges that root made.
    pub fn switch(&self) -> Result<String> {
        let status = self.status()?;
        let parts = status["parts"].as_array().context("parts of vch status")?;
        let router = parts
            .iter()
            .find(|part| part["name"] == "uplink")
            .and_then(|part| part["serves"].as_str())
            .context("the uplink serves no namespace")?;
        let router = router.rsplit('/').next().unwrap_or(router);
        Ok(router.trim().replace("-router", "-switch"))
    }

    /// Kills a part with SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, part: &str) -> Result<()> {
        kill_process(self.pid(part)?)
    }

    /// The QEMU process of a container's VM, found by its VM folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn qemu(&self, container_id: &str) -> Result<u32> {
        let mark = &container_id[..12];
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            let Some(pid) = path
                .file_name()
                .and_then(|n| n.to_str())
                .and_then(|n| n.parse::<u32>().ok())
            else {
                continue;
            };
            // A process may end between the two reads.
            let Ok(line) = std::fs::read(path.join("cmdline")) else {
                continue;
            };
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let program = line.split(' ').next().unwrap_or_default();
            let is_qemu = program.rsplit('/').next() == Some("qemu-system-x86_64");
            if is_qemu && line.contains(mark) && line.contains(&*self.dir.path().to_string_lossy())
            {
                return Ok(pid);
            }
        }
        anyhow::bail!("no QEMU process for container {mark}")
    }

    fn command(&self, sub: &str) -> Command {
        let program = places::programs().join("vch");
        let mut c = if self.settings.ordinary {
            ordinary::command(&program)
        } else {
            Command::new(program)
        };
        c.arg(sub).arg("--state").arg(self.state());
        c
    }

    /// The whole folder, for tests that look for leaks.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Vch {
    fn drop(&mut self) {
        if std::env::var_os("MOORING_KEEP").is_some() {
            eprintln!("kept: {}", self.dir.path().display());
            self.dir.disable_cleanup(true);
        }
        if let Err(e) = self.down() {
            eprintln!("vch down of {}: {e}", self.dir.path().display());
        }
    }
}

/// A process that stands still until this is dropped.
#[derive(Debug)]
pub struct Frozen(Pid);

impl Frozen {
    /// Stops a process.
    ///
    /// # Errors
    /// Where there is none.
    pub fn new(pid: u32) -> Result<Self> {
        let pid = Pid::from_raw(pid.cast_signed());
        kill(pid, Signal::SIGSTOP).with_context(|| format!("stop process {pid}"))?;
        Ok(Self(pid))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// Kills a process with SIGKILL and waits until it is gone. A zombie counts as gone once its other threads are, too: as
/// long as one of them is left, so are its locks and sockets.
///
/// # Errors
/// When it cannot be signalled.
pub fn kill_process(pid: u32) -> Result<()> {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL)
        .with_context(|| format!("kill -9 {pid}"))?;
    command::eventually(&format!("process {pid} is gone"), || {
        let zombie = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_or(true, |s| s[s.rfind(')').unwrap_or(0)..].starts_with(") Z"));
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        Ok(zombie && threads <= 1)
    })
}
