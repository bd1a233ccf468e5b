//! The tether's own file trees: a tmpfs as root (a pivot cannot leave the initramfs itself), /proc,
//! /sys, /dev, cgroup2.

use super::Fault;
use nix::mount::{MsFlags, mount};

const STEP: &str = "modules";

/// Sets the VM's kernel settings: names with dots, values. Those of the container's IPC namespace are for
/// [`set_own_sysctls`].
///
/// # Errors
/// The fault of the step `process`, in runc's words.
pub fn set_sysctls(sysctls: &[(String, String)]) -> Result<(), Fault> {
    let all = sysctls.iter().filter(|(name, _)| !is_of_ipc(name));
    write_sysctls(all).map_err(|message| Fault {
        step: "process",
        message,
    })
}

/// Sets the kernel settings that each run of the container has of its own, with its IPC namespace, which this process
/// must be in.
///
/// # Errors
/// runc's words.
pub fn set_own_sysctls(sysctls: &[(String, String)]) -> Result<(), String> {
    write_sysctls(sysctls.iter().filter(|(name, _)| is_of_ipc(name)))
}

/// Whether a setting belongs to an IPC namespace (ipc/ipc_sysctl.c, ipc/mq_sysctl.c).
fn is_of_ipc(name: &str) -> bool {
    let name = name.replace('/', ".");
    ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."]
        .iter()
        .any(|kind| name.starts_with(kind))
}

fn write_sysctls<'a>(sysctls: impl Iterator<Item = &'a (String, String)>) -> Result<(), String> {
    for (name, value) in sysctls {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        std::fs::write(&path, value).map_err(|error| {
            let reason = crate::container::reason(&error);
            format!("write sysctl key {name}: open {path}: {reason}")
        })?;
    }
    Ok(())
}

/// Mounts them. The initramfs's /modules are reachable at `/modules` afterwards.
///
/// # Errors
/// Names the mount that failed.
pub fn mount_all() -> Result<(), Fault> {
    let none = None::<&str>;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let at = |target: &'static str| Fault::at::<nix::Error>(STEP, format!("mounting {target}"));
    mount(
        Some("tmpfs"),
        "/root",
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=700"),
    )
    .map_err(at("/"))?;
    for folder in [
        "proc", "sys", "dev", "cg", "l", "e", "c", "f", "v", "modules",
    ] {
        std::fs::create_dir(format!("/root/{folder}"))
            .map_err(Fault::at(STEP, format!("making /{folder}")))?;
    }
    mount(
        Some("/modules"),
        "/root/modules",
        none,
        MsFlags::MS_BIND,
        none,
    )
    .map_err(at("/modules"))?;
    nix::unistd::chdir("/root").map_err(at("/"))?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none).map_err(at("/"))?;
    nix::unistd::chroot(".").map_err(at("/"))?;
    nix::unistd::chdir("/").map_err(at("/"))?;
    mount(Some("proc"), "/proc", Some("proc"), safe, none).map_err(at("/proc"))?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), safe, none).map_err(at("/sys"))?;
    mount(
        Some("devtmpfs"),
        "/dev",
        Some("devtmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        none,
    )
    .map_err(at("/dev"))?;
    mount(Some("cgroup2"), "/cg", Some("cgroup2"), safe, none).map_err(at("/cg"))?;
    // Hosts, hostname and resolv.conf are generated on the root's tmpfs, which is nodev and nosuid.
    Ok(())
}
