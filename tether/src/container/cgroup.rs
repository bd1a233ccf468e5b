//! The container's cgroup (v2): all its processes, and nothing of the tether's.

use super::devices;
use super::notices::{Notices, value};
use nix::mount::{MsFlags, mount};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;
use wire::limits::Limits;

/// Where the tether mounts the hierarchy, in its own root.
pub const ROOT: &str = "/cg";
/// The folder around the container's: its limits are the VM's own, which nobody has asked for and the container does not
/// see.
const OUTER: &str = "/cg/outer";
/// The container's folder in it.
pub const CONTAINER: &str = "/cg/outer/container";

/// Threads that the tether, its children and the kernel have beside the container's.
const LEFT: u64 = 1024;
/// How long its processes may take to stop. One that waits for a device or a server in the kernel does not.
const FREEZE: Duration = Duration::from_secs(10);

/// The container's cgroup.
#[derive(Debug)]
pub struct Cgroup {
    folder: OwnedFd,
    devices: Result<(), String>,
}

impl Cgroup {
    /// Makes the container's cgroup in the hierarchy mounted at [`ROOT`], with every controller
    /// that the kernel has, for so many processes and threads at once, and so much of the CPUs' time.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(limits: &Limits) -> io::Result<Cgroup> {
        enable_controllers(ROOT)?;
        fs::create_dir(OUTER)?;
        enable_controllers(OUTER)?;
        let room = make_room(Path::new("/proc/sys/kernel"));
        // A kernel without the controller is none the worse: nobody has asked for it.
        let _ = fs::write(format!("{OUTER}/pids.max"), room.to_string());
        fs::create_dir(CONTAINER)?;
        let folder = OwnedFd::from(File::open(CONTAINER)?);
        let devices = delegate()
            .and_then(|()| devices::restrict(folder.as_fd()))
            .map_err(|e| super::reason(&e));
        let cgroup = Cgroup { folder, devices };
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

    /// Whether it has as many processes and threads as it may have: no clone comes into it then, but by [`Cgroup::join`].
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full = |group: &str| {
            let number = |file| number(&Path::new(group).join(file));
            let numbers = number("pids.current").zip(number("pids.max"));
            numbers.is_some_and(|(now, most)| now >= most)
        };
        full(CONTAINER) || full(OUTER)
    }

    /// Moves this process, which must be in the tether's root, into it, even where it is full
    /// (Documentation/admin-guide/cgroup-v2.rst, "PID").
    ///
    /// # Errors
    /// Those of the file system.
    pub fn join(&self) -> io::Result<()> {
        fs::write(format!("{CONTAINER}/cgroup.procs"), "0")
    }

    /// Whether its processes open no device but those that every container has.
    ///
    /// # Errors
    /// Why the kernel could not be told so.
    pub fn closes_devices(&self) -> Result<(), &str> {
        self.devices.as_ref().copied().map_err(String::as_str)
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
    /// Those of the file system; `TimedOut` where they do not all stop in time. They go on then.
    pub async fn freeze(&self, frozen: bool) -> io::Result<()> {
        let events = Notices::open(&format!("{CONTAINER}/cgroup.events"))?;
        let settled = events.other_than("frozen", u64::from(!frozen));
        settle(Path::new(CONTAINER), frozen, settled).await
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

/// Has the groups within a group have every controller that it has.
fn enable_controllers(group: &str) -> io::Result<()> {
    let controllers = fs::read_to_string(format!("{group}/cgroup.controllers"))?;
    let all: Vec<String> = controllers
        .split_whitespace()
        .map(|c| format!("+{c}"))
        .collect();
    let file = format!("{group}/cgroup.subtree_control");
    if fs::write(&file, all.join(" ")).is_err() {
        // One controller that cannot be enabled must not cost the others.
        for one in &all {
            let _ = fs::write(&file, one);
        }
    }
    Ok(())
}

/// Raises the kernel's limit of threads, so that a container that has all that the kernel had leaves some to the tether
/// and to the kernel itself; tells how many the container may have. `settings`: /proc/sys/kernel.
fn make_room(settings: &Path) -> u64 {
    let threads = number(&settings.join("threads-max")).unwrap_or(LEFT * 2);
    let raised = fs::write(settings.join("threads-max"), (threads + LEFT).to_string());
    let threads = raised.map_or(threads.saturating_sub(LEFT / 4), |()| threads);
    // There are no more numbers than these either.
    let numbers = number(&settings.join("pid_max"));
    let numbers = numbers.map_or(threads, |most| most.saturating_sub(LEFT));
    threads.min(numbers).max(1)
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Has the kernel take cgroup namespaces as borders (Documentation/admin-guide/cgroup-v2.rst, "nsdelegate"): whoever may
/// mount in the container changes none of its limits then, and moves no process out of it.
fn delegate() -> io::Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = Some("nsdelegate");
    mount(None::<&str>, ROOT, None::<&str>, flags, options).map_err(io::Error::from)
}

/// Freezes a cgroup, or thaws it, and waits for what tells that it has come to that.
async fn settle(
    folder: &Path,
    frozen: bool,
    settled: impl Future<Output = io::Result<u64>>,
) -> io::Result<()> {
    let switch = folder.join("cgroup.freeze");
    fs::write(&switch, if frozen { "1" } else { "0" })?;
    let result = match timeout(FREEZE, settled).await {
        Ok(settled) => settled.map(drop),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!(
                "not all of its processes came to it within {} s: one waits in the kernel, maybe for a server of NFS",
                FREEZE.as_secs()
            ),
        )),
    };
    if frozen && result.is_err() {
        // Nobody takes them for frozen: some of them must not stay so.
        fs::write(&switch, "0")?;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_leaves_threads_to_the_tether() {
        let folder = tempfile::tempdir().unwrap();
        let set = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        set("threads-max", "900\n");
        set("pid_max", "32768\n");
        assert_eq!(make_room(folder.path()), 900);
        let raised = fs::read_to_string(folder.path().join("threads-max")).unwrap();
        assert_eq!(raised, "1924");
        set("threads-max", "60000\n");
        assert_eq!(make_room(folder.path()), 31_744);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_freeze_in_time_is_thawed_again() {
        let folder = tempfile::tempdir().unwrap();
        let switch = || fs::read_to_string(folder.path().join("cgroup.freeze")).unwrap();
        let seen = std::cell::RefCell::new(String::new());
        let never = async {
            *seen.borrow_mut() = switch();
            std::future::pending().await
        };
        let before = tokio::time::Instant::now();
        let error = settle(folder.path(), true, never).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(before.elapsed(), FREEZE);
        assert_eq!((seen.borrow().as_str(), switch().as_str()), ("1", "0"));
        // Nor does what could not be looked at.
        let broken = async { Err(io::Error::other("broken")) };
        settle(folder.path(), true, broken).await.unwrap_err();
        assert_eq!(switch(), "0");
    }

    #[tokio::test]
    async fn what_freezes_stays_frozen_until_it_is_thawed() {
        let folder = tempfile::tempdir().unwrap();
        let switch = || fs::read_to_string(folder.path().join("cgroup.freeze")).unwrap();
        let told = || async { Ok(1) };
        settle(folder.path(), true, told()).await.unwrap();
        assert_eq!(switch(), "1");
        settle(folder.path(), false, told()).await.unwrap();
        assert_eq!(switch(), "0");
    }
}
