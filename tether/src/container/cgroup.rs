//! The container's cgroup (v2): all its processes, and nothing of the tether's.

use super::notices::{Notices, value};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use wire::limits::Limits;

/// Where the tether mounts the hierarchy, in its own root.
pub const ROOT: &str = "/cg";
/// The container's folder in it.
pub const CONTAINER: &str = "/cg/container";

/// The container's cgroup.
#[derive(Debug)]
pub struct Cgroup {
    folder: OwnedFd,
}

impl Cgroup {
    /// Makes the container's cgroup in the hierarchy mounted at [`ROOT`], with every controller
    /// that the kernel has, for so many processes and threads at once, and so much of the CPUs' time.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(limits: &Limits) -> io::Result<Cgroup> {
        let controllers = fs::read_to_string(format!("{ROOT}/cgroup.controllers"))?;
        let all: Vec<String> = controllers
            .split_whitespace()
            .map(|c| format!("+{c}"))
            .collect();
        if fs::write(format!("{ROOT}/cgroup.subtree_control"), all.join(" ")).is_err() {
            // One controller that cannot be enabled must not cost the others.
            for one in &all {
                let _ = fs::write(format!("{ROOT}/cgroup.subtree_control"), one);
            }
        }
        fs::create_dir(CONTAINER)?;
        let cgroup = Cgroup {
            folder: File::open(CONTAINER)?.into(),
        };
        if limits.pids > 0 {
            cgroup.limit_pids(limits.pids)?;
        }
        if let Some(cpu) = limits.cpu {
            let text = format!("{} {}", cpu.quota, cpu.period);
            fs::write(format!("{CONTAINER}/cpu.max"), text)?;
        }
        Ok(cgroup)
    }

    /// Sets how many processes and threads there may be at once; 0: without limit.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn limit_pids(&self, most: u64) -> io::Result<()> {
        let text = match most {
            0 => "max".to_owned(),
            most => most.to_string(),
        };
        fs::write(format!("{CONTAINER}/pids.max"), text)
    }

    /// The folder, for CLONE_INTO_CGROUP.
    #[must_use]
    pub fn folder(&self) -> &OwnedFd {
        &self.folder
    }

    /// How many of its processes the OOM killer ended.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let events = fs::read_to_string(format!("{CONTAINER}/memory.events")).unwrap_or_default();
        value(&events, "oom_kill")
    }

    /// What tells of OOM kills.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn oom_notices(&self) -> io::Result<Notices> {
        Notices::open(&format!("{CONTAINER}/memory.events"))
    }

    /// Freezes its processes or lets them go on; returns when they have stopped.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn freeze(&self, frozen: bool) -> io::Result<()> {
        let events = Notices::open(&format!("{CONTAINER}/cgroup.events"))?;
        fs::write(
            format!("{CONTAINER}/cgroup.freeze"),
            if frozen { "1" } else { "0" },
        )?;
        events
            .other_than("frozen", u64::from(!frozen))
            .await
            .map(drop)
    }

    /// Its processes, as the tether numbers them.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        Ok(fs::read_to_string(format!("{CONTAINER}/cgroup.procs"))?
            .lines()
            .filter_map(|l| l.parse().ok())
            .collect())
    }
}
