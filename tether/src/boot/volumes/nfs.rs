//! Volumes on NFS servers, mounted whole at `/v/<volume>` by the kernel's own client. Whatever may wait for a server is
//! done by a child: the tether goes on, and ends what takes too long.

use super::copy::Copy;
use super::{Fault, STEP, in_image, top};
use crate::container::reason;
use crate::reaper::Reaper;
use crate::sys::process;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;
use wire::config::GuestConfig;
use wire::volume::Nfs;

/// A server answers within this, or the start fails.
const MOUNT_LIMIT: Duration = Duration::from_secs(30);
/// What the image has is copied within this: the endpoint waits 300 s for a start.
const FILL_LIMIT: Duration = Duration::from_secs(200);
/// What is still to be written is written within this, or given up.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(10);
/// After SIGKILL a process that waits for a server is let go after this: the endpoint powers the VM off after 10 s.
const PATIENCE: Duration = Duration::from_secs(4);
/// What waits for a server may begin to wait anew: it is let go several times.
const ATTEMPTS: u32 = 16;
const BETWEEN: Duration = Duration::from_millis(250);

pub(super) fn is_on(config: &GuestConfig, volume: &str) -> bool {
    config.nfs.iter().any(|nfs| nfs.volume == volume)
}

/// Mounts all that the container has, over networks that are up, and fills those that are to be. In a maintenance, which
/// has no network, their folders stay empty.
///
/// # Errors
/// The fault of the step `volumes`, within bounds.
pub async fn mount_all(config: &GuestConfig, reaper: &Reaper) -> Result<(), Fault> {
    for nfs in &config.nfs {
        let target = top(&nfs.volume);
        let at = || format!("failed to mount local volume: mount {}", nfs.source);
        fs::create_dir(&target).map_err(Fault::at(STEP, at()))?;
        if config.maintenance.is_none() {
            in_child(reaper, 0, MOUNT_LIMIT, &|| try_mount(nfs, &target))
                .await
                .map_err(Fault::at(STEP, at()))?;
        }
    }
    for place in &config.mounts {
        if place.copy && config.maintenance.is_none() && is_on(config, &place.volume) {
            let work = || fill(&place.target, &top(&place.volume));
            in_child(reaper, 0, FILL_LIMIT, &work)
                .await
                .map_err(Fault::at(
                    STEP,
                    format!(
                        "filling the NFS volume at {} from the image (nocopy leaves it as it is)",
                        place.target
                    ),
                ))?;
        }
    }
    Ok(())
}

/// Runs `work` in a child.
///
/// # Errors
/// Its error, in Go's words; or that the server did not answer.
async fn in_child(
    reaper: &Reaper,
    flags: i32,
    limit: Duration,
    work: &dyn Fn() -> io::Result<()>,
) -> Result<(), String> {
    let child = process::spawn(flags, None, || match work() {
        Ok(()) => 0,
        Err(e) => e.raw_os_error().unwrap_or(libc::EIO),
    })
    .map_err(|e| e.to_string())?;
    let ended = reaper.watch(child.pid);
    match timeout(limit, ended).await {
        Ok(Ok(process::Ended::Exited(0))) => Ok(()),
        Ok(Ok(process::Ended::Exited(code))) => Err(reason(&io::Error::from_raw_os_error(code))),
        Ok(_) => Err("the child that did it was killed".to_owned()),
        Err(_) => {
            let _ = process::signal(child.pidfd.as_fd(), libc::SIGKILL);
            Err(format!(
                "the server has not answered for {} s",
                limit.as_secs()
            ))
        }
    }
}

/// Takes the first version that the server has.
fn try_mount(nfs: &Nfs, target: &str) -> io::Result<()> {
    let flags = MsFlags::from_bits_truncate(nfs.flags) | MsFlags::MS_NODEV;
    let mut last = nix::Error::EINVAL;
    for data in &nfs.data {
        let source = Some(nfs.source.as_str());
        match mount(source, target, Some("nfs"), flags, Some(data.as_str())) {
            Err(error @ nix::Error::EPROTONOSUPPORT) => last = error,
            other => return Ok(other?),
        }
    }
    Err(last.into())
}

/// Gives an empty volume what the image has at `target`. Others may see it come.
fn fill(target: &str, top: &str) -> io::Result<()> {
    if fs::read_dir(top)?.next().is_some() {
        return Ok(());
    }
    if let Some(source) = in_image(target)? {
        let mut copy = Copy::into(source, PathBuf::from(top))?;
        while copy.step()? {}
    }
    Ok(())
}

/// Writes what is still to be written, and unmounts all; what a server does not take for a while is given up. False:
/// something is still mounted, and a sync(2) would wait for it.
pub async fn unmount(config: &GuestConfig, reaper: &Reaper) -> bool {
    if config.nfs.is_empty() {
        return true;
    }
    let work = || {
        for nfs in &config.nfs {
            let target = top(&nfs.volume);
            // A server that refuses it has told the container's process, or nobody is left to be told.
            let _ = File::open(&target).map(nix::unistd::syncfs);
            let _ = umount2(Path::new(&target), MntFlags::empty());
        }
        0
    };
    let Ok(child) = process::spawn(0, None, work) else {
        return false;
    };
    let mut ended = reaper.watch(child.pid);
    if timeout(UNMOUNT_LIMIT, &mut ended).await.is_ok() {
        return true;
    }
    crate::console("NFS: a server does not take what was written last: given up");
    for _ in 0..ATTEMPTS {
        let_go(config, reaper).await;
        if timeout(BETWEEN, &mut ended).await.is_ok() {
            return true;
        }
    }
    false
}

/// Has all that waits for a server now fail: umount(2) with `MNT_FORCE`, in a mount namespace that is thrown away, so
/// that it can be done again.
async fn let_go(config: &GuestConfig, reaper: &Reaper) {
    let work = || {
        for nfs in &config.nfs {
            let _ = umount2(Path::new(&top(&nfs.volume)), MntFlags::MNT_FORCE);
        }
        Ok(())
    };
    let _ = in_child(reaper, libc::CLONE_NEWNS, BETWEEN * 4, &work).await;
}

/// The container was killed: what of it waits for a server is to end all the same, once it had time to.
pub async fn after_kill(config: &GuestConfig, reaper: &Reaper, ended: impl Fn() -> bool) {
    tokio::time::sleep(PATIENCE).await;
    for _ in 0..ATTEMPTS {
        if ended() {
            return;
        }
        let_go(config, reaper).await;
        tokio::time::sleep(BETWEEN).await;
    }
}
