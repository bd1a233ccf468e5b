//! The container's cgroup (v2): all its processes, and nothing of the tether's.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;

/// Where the tether mounts the hierarchy, in its own root.
pub const ROOT: &str = "/cg";
const CONTAINER: &str = "/cg/container";

/// The container's cgroup.
#[derive(Debug)]
pub struct Cgroup {
    folder: OwnedFd,
}

impl Cgroup {
    /// Makes the container's cgroup in the hierarchy mounted at [`ROOT`], with every controller
    /// that the kernel has, for `pids` processes and threads at once (0: without limit).
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(pids: u64) -> io::Result<Cgroup> {
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
        if pids > 0 {
            cgroup.limit_pids(pids)?;
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
        events
            .lines()
            .find_map(|l| l.strip_prefix("oom_kill "))
            .and_then(|n| n.trim().parse().ok())
            .unwrap_or(0)
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
