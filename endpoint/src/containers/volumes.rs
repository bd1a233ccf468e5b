//! Volumes of containers: what a new one mounts, and who may start with what.

use super::{Container, Containers, config::Config, state::Phase};
use crate::{
    errors::{Error, Result},
    networks::attachment::Attachment,
    volumes::{
        mounts::{self, MountPoint, Requested},
        shares::{self, SharedMount},
    },
    vsphere::VolumeDisk,
};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, PoisonError},
    time::Duration,
};
use wire::{
    message::ToGuest,
    volume::{Mount, Nfs, VOLUMES_MAX},
};

/// A VM whose process has ended is off within this, or does not count as ending.
const OFF_LIMIT: Duration = Duration::from_secs(60);

/// A VM that is told to end is off within this, or powered off.
const END_LIMIT: Duration = Duration::from_secs(30);

/// A container that is about to be on, with its volumes; ends when this goes.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    containers: &'a Containers,
    id: String,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // One may be claimed by several who read.
        let mut claims = self.containers.claims();
        if let Some(own) = claims.iter().position(|id| *id == self.id) {
            claims.swap_remove(own);
        }
    }
}

/// The disks of these mounts, for the VM.
pub(super) fn disks(containers: &Containers, mounts: &[MountPoint]) -> Vec<VolumeDisk> {
    let disks = mounts::disks(mounts).into_iter();
    disks
        .map(|(mount, writes)| VolumeDisk {
            file: containers.volumes.disk(&mount.volume).to_string(),
            capacity: mount.capacity,
            read_only: !writes,
        })
        .collect()
}

/// The same for the guest.
pub(super) fn for_guest(mounts: &[MountPoint]) -> Vec<Mount> {
    let mounts = mounts.iter().map(|mount| Mount {
        volume: mount.uuid.clone(),
        target: mount.target.clone(),
        subpath: mount.subpath.clone(),
        read_only: mount.read_only,
        copy: mount.copy,
    });
    mounts.collect()
}

/// Refuses a path of a container that does not run if it is on an NFS server: its VM is up without a network for that.
///
/// # Errors
/// 409 with what to do.
pub(super) fn check_reachable(container: &Container, path: &str) -> Result<()> {
    if container.status().live() {
        return Ok(());
    }
    let path = mounts::clean(path);
    let is_in = |mount: &&MountPoint| {
        let rest = path.strip_prefix(&mount.target);
        mount.nfs.is_some() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match container.spec.mounts.iter().find(is_in) {
        Some(mount) => Err(Error::conflict(format!(
            "cannot reach {path}: volume {} is on an NFS server, which is reached while container {} runs only; start it first",
            mount.volume,
            container.id()
        ))),
        None => Ok(()),
    }
}

/// Refuses a start that could only end in a server that is not reached.
fn check_ways(mount: &MountPoint, place: &str, address: IpAddr, nets: &[Attachment]) -> Result<()> {
    let reached =
        |net: &Attachment| !net.internal || net.places.iter().any(|own| own.is_near(address));
    if nets.iter().any(reached) {
        return Ok(());
    }
    let why = match nets.is_empty() {
        true => "the container has no network (--network none)",
        false => "the container's networks are internal, and lead nowhere else",
    };
    Err(Error::bad(format!(
        "failed to mount local volume: volume {}: mount {place}: a container's VM reaches the server over the container's own network: {why}",
        mount.volume
    )))
}

impl Containers {
    /// What the guest is told of volumes on NFS servers; their names are looked up now.
    ///
    /// # Errors
    /// 400 where no network of the container leads there, 500 where a name is not known.
    pub(super) async fn nfs_for_guest(
        &self,
        mounts: &[MountPoint],
        networks: &[Attachment],
    ) -> Result<Vec<Nfs>> {
        let mut all = Vec::new();
        for (mount, nfs) in mounts::remote(mounts) {
            let address = nfs.look_up().await?;
            check_ways(mount, &nfs.place(), address, networks)?;
            all.push(nfs.for_guest(&mount.uuid, Some(address)));
        }
        Ok(all)
    }

    fn claims(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a new container mounts, sorted by path: others' volumes, its own, then its image's; missing ones are made.
    ///
    /// # Errors
    /// 400 for a container of `--volumes-from` that there is not and for too many volumes, those of volumes and shares. Then nothing is held.
    pub(super) async fn mounts(
        &self,
        id: &str,
        requested: Requested,
        config: &Config,
    ) -> Result<(Vec<MountPoint>, Vec<SharedMount>)> {
        let shares = self.shares(&requested).await?;
        let mut made = BTreeMap::new();
        match self
            .try_mounts(id, requested, config, &shares, &mut made)
            .await
        {
            Ok(()) => Ok((made.into_values().collect(), shares)),
            Err(error) => {
                self.volumes.remove_of(id, &[]).await;
                Err(error)
            }
        }
    }

    /// A container of `--volumes-from`. A 404 would have the client pull the image.
    fn other(&self, name: &str) -> Result<Arc<Container>> {
        self.find(name).map_err(|error| Error::bad(error.message))
    }

    /// Paths of the machine: others', then its own, each target once.
    async fn shares(&self, requested: &Requested) -> Result<Vec<SharedMount>> {
        let mut made = BTreeMap::new();
        for (container, read_only) in &requested.from {
            let other = self.other(container)?;
            // Of two containers the later one counts, as with dockerd.
            for mount in &other.spec.mounts {
                made.remove(&mount.target);
            }
            for mut share in other.spec.shares.clone() {
                share.read_only |= read_only;
                made.insert(share.target.clone(), share);
            }
        }
        for volume in &requested.mounts {
            made.remove(&volume.target);
        }
        let (wanted, shared) = (
            requested.shares.clone(),
            self.vsphere.capabilities().shares.clone(),
        );
        let own = tokio::task::spawn_blocking(move || {
            let own = wanted.into_iter();
            own.map(|wanted| shares::resolve(wanted, &shared))
                .collect::<Result<Vec<_>>>()
        });
        let own = own.await.map_err(|e| Error::internal(e.to_string()))??;
        made.extend(own.into_iter().map(|share| (share.target.clone(), share)));
        let made: Vec<_> = made.into_values().collect();
        shares::check_count(&made)?;
        Ok(made)
    }

    async fn try_mounts(
        &self,
        id: &str,
        requested: Requested,
        config: &Config,
        shares: &[SharedMount],
        made: &mut BTreeMap<String, MountPoint>,
    ) -> Result<()> {
        let in_memory = requested.in_memory;
        for (container, read_only) in requested.from {
            let other = self.other(&container)?;
            for mut mount in other.spec.mounts.clone() {
                if shares.iter().any(|share| share.target == mount.target) {
                    continue;
                }
                // It may have been removed together with the other container by now.
                self.volumes.find(&mount.volume)?;
                mount.read_only |= read_only;
                self.volumes.note(std::slice::from_ref(&mount), id);
                made.insert(mount.target.clone(), mount);
            }
        }
        for wanted in requested.mounts {
            let mount = self.volumes.mount(wanted, id).await?;
            made.insert(mount.target.clone(), mount);
        }
        for path in config.volumes.iter().flatten().map(|(path, _)| path) {
            let wanted = mounts::anonymous_at(path)?;
            let shared = shares.iter().any(|share| share.target == wanted.target);
            let taken = shared || in_memory.contains(&wanted.target);
            if !taken && !made.contains_key(&wanted.target) {
                let mount = self.volumes.mount(wanted, id).await?;
                made.insert(mount.target.clone(), mount);
            }
        }
        let all: Vec<MountPoint> = made.values().cloned().collect();
        let count = mounts::disks(&all).len();
        if count > VOLUMES_MAX {
            return Err(Error::bad(format!(
                "the container has {count} volumes; a VM has room for {VOLUMES_MAX} beside its own disk: put some of them into one, and mount parts of it (volume-subpath)"
            )));
        }
        Ok(())
    }

    /// Makes sure that a container that is about to start may have its volumes until its VM is off: what one writes to,
    /// no other has. One whose process has ended, and whose VM is on its way off, is waited for. `what` cannot be done
    /// otherwise.
    ///
    /// # Errors
    /// 409 that names the volume and who has it.
    pub(super) async fn claim_volumes(
        &self,
        container: &Arc<Container>,
        what: &str,
    ) -> Result<Claim<'_>> {
        loop {
            let Some((holder, volume)) = self.try_claim(container) else {
                return Ok(Claim {
                    containers: self,
                    id: container.id().to_owned(),
                });
            };
            let status = holder.status();
            let ending = matches!(status.phase, Phase::Exited | Phase::Created);
            let off = |status: &super::state::Status| !status.on || status.gone;
            // One that is not on is about to be.
            if ending && status.on && holder.until(Some(OFF_LIMIT), off).await.is_some() {
                continue;
            }
            if status.maintenance.is_some() || status.reading.is_going_on() {
                return Err(Error::conflict(format!(
                    "cannot {what} {}: volume {volume} is in use by container \"/{}\" ({}), whose files are being copied; try again when that is done",
                    container.id(),
                    status.name,
                    holder.id(),
                )));
            }
            return Err(Error::conflict(format!(
                "cannot {what} {}: volume {volume} is in use by container \"/{}\" ({}), which is {}: a volume is a disk, and where one container writes to it no other can have it; stop that container first, or mount the volume read-only in both (--volume {volume}:/path:ro)",
                container.id(),
                status.name,
                holder.id(),
                if status.live() {
                    status.word()
                } else {
                    "starting"
                },
            )));
        }
    }

    /// `None`: claimed.
    fn try_claim(&self, container: &Arc<Container>) -> Option<(Arc<Container>, String)> {
        let own = mounts::disks(&container.spec.mounts);
        let mut claims = self.claims();
        for other in self.all() {
            if other.id() == container.id()
                || !(other.status.borrow().on || claims.iter().any(|id| id == other.id()))
            {
                continue;
            }
            for (mount, writes) in mounts::disks(&other.spec.mounts) {
                let shared = own.iter().find(|(own, _)| own.volume == mount.volume);
                if shared.is_some_and(|(_, own_writes)| writes || *own_writes) {
                    return Some((other.clone(), mount.volume.clone()));
                }
            }
        }
        claims.push(container.id().to_owned());
        None
    }

    /// Ends a VM that is on in such a way that what was written to its volumes is on their disks: Docker loses nothing of
    /// it by `rm -f` either. The caller powers it off where that takes too long, or where the guest does not answer.
    pub(super) async fn end_with_volumes(&self, container: &Container) {
        let status = container.status();
        if container.spec.mounts.is_empty() || !status.on || status.phase == Phase::Starting {
            return;
        }
        let ask = async {
            match &status.session {
                Some(session) => session
                    .request(|request| ToGuest::Shutdown { request })
                    .await
                    .is_ok(),
                None => !status.live(),
            }
        };
        let off = async {
            let off = |status: &super::state::Status| !status.on || status.gone;
            container.until(Some(END_LIMIT), off).await.is_some()
        };
        tokio::pin!(off);
        // A guest that answers and one that goes off without an answer are both well.
        let well = tokio::select! {
            asked = ask => asked && off.await,
            off = &mut off => off,
        };
        if !well {
            tracing::warn!(
                id = container.id(),
                "its VM does not end by itself; it is powered off, and its volumes' journals are replayed when they are next mounted"
            );
        }
    }

    /// Tells that a boot has its volumes, or has them no more.
    pub(super) fn tell_volumes(&self, container: &Container, mounted: bool) {
        for mount in &container.spec.mounts {
            let id = ("container", container.id().to_owned());
            if mounted {
                let more = [
                    id,
                    ("destination", mount.target.clone()),
                    ("propagation", String::new()),
                    ("read/write", (!mount.read_only).to_string()),
                ];
                self.volumes.tell(&mount.volume, "mount", &more);
            } else {
                self.volumes.tell(&mount.volume, "unmount", &[id]);
            }
        }
    }
}
