//! Debian's dockerd as a peer, in a network namespace of its own, so that nothing of it touches the machine's network.

use crate::command;
use crate::docker::Docker;
use crate::namespace::Namespace;
use crate::registry::Registry;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long dockerd may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running dockerd; ended when this goes out of scope.
#[derive(Debug)]
pub struct Dockerd {
    // Dropped in this order, after dockerd was ended.
    registry: Option<Child>,
    daemon: Child,
    namespace: Namespace,
    folder: TempDir,
    /// A client for it.
    pub docker: Docker,
}

impl Dockerd {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not serve; with the end of its log.
    pub fn start() -> Result<Self> {
        eprintln!("starting dockerd, the peer");
        let folder = tempfile::Builder::new().prefix("dockerd-").tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let namespace = Namespace::new("peer")?;
        let host = format!("unix://{}", at("sock").display());
        let log = at("log");
        let mut c = namespace.command("dockerd");
        c.arg("-H").arg(&host);
        c.arg("--data-root").arg(at("data"));
        c.arg("--exec-root").arg(at("exec"));
        c.arg("--pidfile").arg(at("pid"));
        let output = std::fs::File::create(&log)?;
        c.stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        // Ctrl-C is for this program, which then ends it.
        std::os::unix::process::CommandExt::process_group(&mut c, 0);
        let config = at("config");
        std::fs::create_dir(&config)?;
        let mut dockerd = Dockerd {
            registry: None,
            daemon: c
                .spawn()
                .context("start dockerd (Debian package docker.io)")?,
            namespace,
            docker: Docker::new(host, &config),
            folder,
        };
        command::eventually("dockerd serves", || {
            if let Some(status) = dockerd.daemon.try_wait()? {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().rev().take(10).collect();
                anyhow::bail!(
                    "dockerd ended ({status}); its last lines first:\n{}",
                    lines.join("\n")
                );
            }
            Ok(dockerd.docker.run(&["version"])?.code == 0)
        })?;
        Ok(dockerd)
    }

    /// The name of its network namespace.
    pub fn namespace(&self) -> &str {
        self.namespace.name()
    }

    /// Serves a registry's storage inside the namespace, under the address that it has outside: dockerd then pulls
    /// from the same program, the same files, over a loopback as good.
    ///
    /// # Errors
    /// When the second registry does not start.
    pub fn serve(&mut self, registry: &Registry) -> Result<()> {
        if self.registry.is_some() {
            return Ok(());
        }
        let mut c = self.namespace.command("docker-registry");
        c.arg("serve")
            .arg(registry.storage.path().join("config.yml"));
        c.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = c.stderr(Stdio::piped()).spawn()?;
        let mut log = BufReader::new(child.stderr.take().context("the registry's log")?);
        self.registry = Some(child);
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            ensure!(
                log.read_line(&mut line)? > 0,
                "docker-registry ended before it listened"
            );
        }
        // Its log must be read on, or it would block.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Ok(())
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        if let Some(registry) = &mut self.registry {
            let _ = registry.kill();
            let _ = registry.wait();
        }
        // Containers first: dockerd waits long for theirs that ignore SIGTERM.
        if let Ok(all) = self.docker.ok(&["ps", "-aq"]) {
            for id in all.lines() {
                let _ = self.docker.run(&["rm", "-f", id]);
            }
        }
        let pid = Pid::from_raw(self.daemon.id().cast_signed());
        let _ = kill(pid, Signal::SIGTERM);
        let begin = Instant::now();
        while matches!(self.daemon.try_wait(), Ok(None)) {
            if begin.elapsed() > PATIENCE {
                eprintln!("dockerd does not end; killed");
                let _ = self.daemon.kill();
                let _ = self.daemon.wait();
                break;
            }
            // waitpid(2) has no deadline of its own.
            std::thread::sleep(Duration::from_millis(20));
        }
        // Left mounted by a dockerd that was killed; else there is none.
        for left in ["data/overlay2", "data", "exec/netns/default"] {
            let path = self.folder.path().join(left);
            let _ = nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}
