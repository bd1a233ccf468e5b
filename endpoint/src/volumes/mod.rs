//! Volumes: each is a VMDK of its own with an ext4 on it, in the VCH's folder on the datastore
//! (docs/decisions/0016). Their records are written behind their disks and deleted before them: what has no record is
//! what an interruption left.

mod disk;
pub(crate) mod flags;
mod ledger;
pub mod mounts;
pub mod nfs;
pub mod record;
pub mod request;
mod server;
pub mod shares;
pub mod stores;

use crate::{
    errors::{Error, Kind, Result},
    events::Events,
    insist::insist,
    records::{self, Loaded, Records, Unremoved, failed},
    timestamps,
    vsphere::Vsphere,
};
use ledger::{Entry, Ledger, State};
use mounts::{MountPoint, Wanted};
use record::{ANONYMOUS, DRIVER, STORE, VolumeRecord};
use request::VolumeRequest;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, MutexGuard},
};
use stores::{Placed, Store};
use vim::DatastorePath;

/// What the name of a volume's record begins with; the volume's name follows.
const VOLUME: &str = "volume-";
/// All volumes of a VCH.
#[derive(Debug)]
pub struct Volumes {
    vsphere: Arc<Vsphere>,
    /// `[ds] mooring/<vch>/volumes`; a folder for each.
    folder: DatastorePath,
    records: Records,
    events: Events,
    /// Bytes of a volume that names no capacity.
    capacity: u64,
    /// Stores beside the datastore, by name: where this VCH's folders in them are.
    stores: BTreeMap<String, Placed>,
    ledger: Arc<Ledger>,
    /// Volumes that were there at the start.
    first: Vec<String>,
}

/// The volumes that records tell of; and the names of those whose record cannot be read, with why.
fn read(loaded: Loaded) -> (BTreeMap<String, Entry>, BTreeMap<String, String>) {
    let mut volumes = BTreeMap::new();
    let mut unread = BTreeMap::new();
    let mut pass_over = |record: &str, why: Error| {
        if let Some(name) = record.strip_prefix(VOLUME) {
            tracing::warn!(
                volume = name,
                error = why.message,
                "a volume is passed over; its files stay"
            );
            unread.insert(name.to_owned(), why.message);
        }
    };
    for (name, record) in loaded.records {
        if !name.starts_with(VOLUME) {
            continue;
        }
        match records::decode::<VolumeRecord>(&name, &record.value) {
            Ok(value) => {
                let entry = Entry {
                    record: Arc::new(value),
                    generation: record.generation,
                    users: BTreeSet::new(),
                };
                volumes.insert(entry.record.name.clone(), entry);
            }
            Err(why) => pass_over(&name, why),
        }
    }
    for (name, record) in loaded.unreadable {
        pass_over(&name, record.error);
    }
    (volumes, unread)
}

/// 404 in Docker's words.
pub fn no_such_volume(name: &str) -> Error {
    Error::not_found(format!("get {name}: no such volume"))
}

impl Volumes {
    /// Reads the volumes of a VCH, and deletes what an interruption has left of others. Called before anyone makes one.
    ///
    /// # Errors
    /// Where the datastore cannot be read.
    pub async fn open(
        vsphere: Arc<Vsphere>,
        vch: &str,
        capacity: u64,
        stores: &BTreeMap<String, Store>,
        events: Events,
    ) -> Result<Arc<Self>> {
        let base = DatastorePath::new(vsphere.datastore(), format!("mooring/{vch}"));
        let folder = base.join("volumes");
        records::make_folder(&vsphere, &folder).await?;
        let records = Records::open(vsphere.clone(), base.join("volume-records")).await?;
        let (volumes, unread) = read(records.load().await?);
        let this = Arc::new(Self {
            first: volumes.keys().cloned().collect(),
            vsphere,
            folder,
            records,
            events,
            capacity,
            stores: stores
                .values()
                .map(|store| (store.name.clone(), store.of(vch)))
                .collect(),
            ledger: Ledger::new(volumes),
        });
        this.state().unread = unread;
        for name in records::names(&this.vsphere, &this.folder).await? {
            // A volume on a server has no disk.
            if this.find(&name).is_ok_and(|record| record.nfs().is_none())
                || this.state().unread.contains_key(&name)
            {
                continue;
            }
            tracing::info!(
                volume = name,
                "left by an interrupted create or rm: deleted"
            );
            this.state().leaving.begin(&name);
            this.clone().delete(name, None).await;
        }
        // A server may be away for long: nobody waits for it here.
        for store in this.stores.values() {
            tokio::spawn(this.ledger.clone().sweep(store.clone()));
        }
        Ok(this)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.ledger.state()
    }

    /// All volumes with the IDs of the containers that mount them, by name.
    pub fn all(&self) -> Vec<(Arc<VolumeRecord>, Vec<String>)> {
        let state = self.state();
        let all = state.volumes.values();
        all.map(|e| (e.record.clone(), e.users.iter().cloned().collect()))
            .collect()
    }

    /// The volume of this name.
    ///
    /// # Errors
    /// 404 in Docker's words.
    pub fn find(&self, name: &str) -> Result<Arc<VolumeRecord>> {
        let state = self.state();
        let entry = state.volumes.get(name);
        entry
            .map(|e| e.record.clone())
            .ok_or_else(|| no_such_volume(name))
    }

    /// Where a volume is, for people: its disk, or the folder on its server.
    pub fn place(&self, name: &str, nfs: Option<&nfs::Source>) -> String {
        nfs.map_or_else(|| self.disk(name).to_string(), nfs::Source::place)
    }

    /// Where a volume's disk is.
    pub fn disk(&self, name: &str) -> DatastorePath {
        self.folder.join(name).join(disk::FILE)
    }

    /// Bytes that a volume's disk takes on the datastore.
    ///
    /// # Errors
    /// Where it is not there.
    pub async fn size(&self, name: &str) -> Result<u64> {
        let path = self.disk(name);
        let client = self.vsphere.client();
        let stat = client
            .file_head(self.vsphere.datacenter_path(), &path)
            .await;
        Ok(stat
            .map_err(failed(format!("cannot read the size of {path}")))?
            .size)
    }

    /// Why a volume cannot be mounted, where that is because its disk is not on the datastore any more: what to do.
    pub async fn lost(&self, name: &str) -> Option<String> {
        let path = self.disk(name);
        let client = self.vsphere.client();
        let found = client
            .file_head(self.vsphere.datacenter_path(), &path)
            .await;
        found.err().filter(vim::Error::is_not_found).map(|_| {
            format!(
                "the disk of volume {name}, {path}, is not there any more: put it back from a backup, or give the volume up (remove its containers, then docker volume rm {name}, and create it anew)"
            )
        })
    }

    /// The error of a VM that could not be made or powered on, with the first of its volumes that has lost its disk.
    pub async fn explain(&self, error: Error, mounts: &[MountPoint]) -> Error {
        for (mount, _) in mounts::disks(mounts) {
            if let Some(why) = self.lost(&mount.volume).await {
                return Error::new(error.kind, format!("{why} ({})", error.message));
            }
        }
        error
    }

    /// Makes a volume, or gives the one that has the name.
    ///
    /// # Errors
    /// Those of the datastore; 501 where the host takes no disks.
    pub async fn create(self: &Arc<Self>, request: VolumeRequest) -> Result<Arc<VolumeRecord>> {
        let _change = self.ledger.change.lock().await;
        self.create_locked(request, None).await
    }

    async fn create_locked(
        self: &Arc<Self>,
        request: VolumeRequest,
        container: Option<&str>,
    ) -> Result<Arc<VolumeRecord>> {
        let mut labels = request.labels;
        let name = match request.name {
            Some(name) => name,
            None => {
                labels.insert(ANONYMOUS.to_owned(), String::new());
                crate::containers::random_hex()?
            }
        };
        let placed = self.store(request.store.as_deref(), request.nfs.is_some())?;
        if placed.is_some() && request.capacity.is_some() {
            return Err(Error::bad(format!(
                "create {name}: invalid option: \"Capacity\": a volume in this store is a folder on an NFS server, and has the room that there is"
            )));
        }
        if let Ok(there) = self.find(&name) {
            return Ok(there);
        }
        if let Some(why) = self.state().unread.get(&name) {
            return Err(Error::conflict(format!(
                "create {name}: there is a volume of this name, and {why}; then start the endpoint again"
            )));
        }
        if self.state().leaving.contains(&name) {
            return Err(Error::conflict(format!(
                "create {name}: what is left of the volume that had this name is still being deleted; try again in a moment, or use another name"
            )));
        }
        let remote = request.nfs.is_some() || placed.is_some();
        if !remote && !self.vsphere.capabilities().disk_upload {
            return Err(Error::new(
                Kind::NotImplemented,
                format!(
                    "create {name}: this host takes no disks that are uploaded (it does not announce mooring.disk.upload), and the endpoint does not make them by attaching them to itself yet; run the container without a volume, or with one on an NFS server"
                ),
            ));
        }
        let mut uuid = [0u8; 16];
        getrandom::fill(&mut uuid)
            .map_err(|e| Error::internal(format!("the system gives no random bytes: {e}")))?;
        let record = Arc::new(VolumeRecord {
            created: timestamps::now(),
            uuid: hex::encode(uuid),
            capacity: match remote {
                true => 0,
                false => request.capacity.unwrap_or(self.capacity),
            },
            labels,
            options: request.options,
            placed,
            container: container.map(str::to_owned),
            name: name.clone(),
        });
        match self.write(&record, uuid).await {
            Ok(generation) => {
                let entry = Entry {
                    record: record.clone(),
                    generation,
                    users: BTreeSet::new(),
                };
                self.state().volumes.insert(name, entry);
                self.tell(&record.name, "create", &[]);
                Ok(record)
            }
            Err(error) => {
                self.state().leaving.begin(&name);
                tokio::spawn(self.clone().take_back(name, 1, record.placed.clone()));
                Err(error)
            }
        }
    }

    /// The stores that can be asked for, for people.
    pub fn store_names(&self) -> String {
        let mut all: BTreeSet<&str> = self.stores.keys().map(String::as_str).collect();
        all.insert(STORE);
        all.into_iter().collect::<Vec<_>>().join(", ")
    }

    /// The store that is asked for, where it is not the datastore.
    fn store(&self, name: Option<&str>, mounted: bool) -> Result<Option<Placed>> {
        let wanted = name.unwrap_or(STORE);
        match self.stores.get(wanted) {
            // A mount of the client's own is in no store.
            _ if mounted => Ok(None),
            Some(placed) => Ok(Some(placed.clone())),
            None if wanted == STORE => Ok(None),
            None => Err(Error::not_found(format!(
                "volume store {wanted:?} is not there: this host has {}",
                self.store_names()
            ))),
        }
    }

    /// Disk or folder first, record last.
    async fn write(&self, record: &VolumeRecord, uuid: [u8; 16]) -> Result<u64> {
        let name = format!("{VOLUME}{}", record.name);
        if let Some(placed) = &record.placed {
            placed.make(&record.name).await?;
        }
        if record.nfs().is_some() {
            return self.records.save(&name, 0, record).await;
        }
        let (capacity, created) = (record.capacity, record.created);
        let rendering = tokio::task::spawn_blocking(move || disk::render(uuid, capacity, created));
        let body = rendering
            .await
            .map_err(|e| Error::internal(format!("formatting a volume: {e}")))??;
        records::make_folder(&self.vsphere, &self.folder.join(&record.name)).await?;
        let path = self.disk(&record.name);
        let (length, content) = (body.len(), disk::InMemory(body.reader()));
        records::upload(&self.vsphere, &path, content, length).await?;
        self.records.save(&name, 0, record).await
    }

    /// A creation or a removal failed. A record of which it was never heard whether it is there goes first.
    async fn take_back(self: Arc<Self>, name: String, generation: u64, placed: Option<Placed>) {
        let record = format!("{VOLUME}{name}");
        insist("the removal of a volume's record", &name, || {
            self.records.remove(&record, generation)
        })
        .await;
        self.delete(name, placed).await;
    }

    /// Deletes the disk of a volume that has no record any more, or its folder in a store.
    async fn delete(self: Arc<Self>, name: String, placed: Option<Placed>) {
        let (ledger, of) = (self.ledger.clone(), name.clone());
        let attempt = move || {
            let (this, name, placed) = (self.clone(), of.clone(), placed.clone());
            async move { this.try_delete(&name, placed.as_ref()).await }
        };
        ledger.delete(name, attempt).await;
    }

    async fn try_delete(&self, name: &str, placed: Option<&Placed>) -> Result<()> {
        match placed {
            Some(placed) => placed.delete(name).await,
            None => Ok(self.vsphere.delete_folder(&self.folder.join(name)).await?),
        }
    }

    /// Removes a volume that no container mounts.
    ///
    /// # Errors
    /// 404 and 409 in Docker's words, those of the datastore. Where it has refused, the volume is as it was; where it has
    /// not answered, there is no volume any more.
    pub async fn remove(self: &Arc<Self>, name: &str) -> Result<()> {
        let change = self.ledger.change.lock().await;
        let (generation, placed) = {
            let state = self.state();
            let entry = state
                .volumes
                .get(name)
                .ok_or_else(|| no_such_volume(name))?;
            if !entry.users.is_empty() {
                let users: Vec<&str> = entry.users.iter().map(String::as_str).collect();
                return Err(Error::conflict(format!(
                    "remove {name}: volume is in use - [{}]",
                    users.join(", ")
                )));
            }
            (entry.generation, entry.record.placed.clone())
        };
        // Who wants to mount it waits for `change`.
        let record = format!("{VOLUME}{name}");
        let unheard = match self.records.try_remove(&record, generation).await {
            Ok(()) => None,
            Err(Unremoved::Refused(error)) => return Err(error),
            // Without a record the next start deletes what is written to it from here on.
            Err(Unremoved::Unheard(error)) => Some(error),
        };
        {
            let mut state = self.state();
            state.volumes.remove(name);
            state.leaving.begin(name);
        }
        self.tell(name, "destroy", &[]);
        if let Some(mut error) = unheard {
            error.message += "; the removal goes on by itself once it can";
            tokio::spawn(self.clone().take_back(name.to_owned(), generation, placed));
            return Err(error);
        }
        // A folder with much in it takes a while.
        drop(change);
        self.clone().delete(name.to_owned(), placed).await;
        Ok(())
    }

    /// Tells of something that happened to a volume.
    pub fn tell(&self, name: &str, action: &str, more: &[(&str, String)]) {
        let mut attributes = BTreeMap::from([("driver".to_owned(), DRIVER.to_owned())]);
        for (key, value) in more {
            attributes.insert((*key).to_owned(), value.clone());
        }
        self.events.emit("volume", action, name, attributes);
    }

    /// Makes what a mount asks for, where it is missing, and notes its user.
    ///
    /// # Errors
    /// As [`Volumes::create`].
    pub async fn mount(self: &Arc<Self>, wanted: Wanted, container: &str) -> Result<MountPoint> {
        let _change = self.ledger.change.lock().await;
        let anonymous = wanted.volume.name.is_none();
        let owner = anonymous.then_some(container);
        let made = self.create_locked(wanted.volume, owner).await;
        let record = made.map_err(mounts::no_404)?;
        let mount = MountPoint {
            volume: record.name.clone(),
            uuid: record.uuid.clone(),
            capacity: record.capacity,
            nfs: record.nfs(),
            target: wanted.target,
            subpath: wanted.subpath,
            read_only: wanted.read_only,
            copy: wanted.copy,
            anonymous,
            mode: wanted.mode,
        };
        self.note(std::slice::from_ref(&mount), container);
        Ok(mount)
    }

    /// Notes that a container mounts these.
    pub fn note(&self, mounts: &[MountPoint], container: &str) {
        let mut state = self.state();
        for mount in mounts {
            match state.volumes.get_mut(&mount.volume) {
                Some(entry) => drop(entry.users.insert(container.to_owned())),
                None => {
                    tracing::warn!(container, volume = mount.volume, "its volume has no record")
                }
            }
        }
    }

    /// Notes that a container is gone.
    pub fn release(&self, container: &str) {
        for entry in self.state().volumes.values_mut() {
            entry.users.remove(container);
        }
    }

    /// A container is gone: removes the anonymous volumes that were made for it and not kept, and those of `mounts`, as
    /// far as nobody else mounts them.
    pub async fn remove_of(self: &Arc<Self>, container: &str, mounts: &[MountPoint]) {
        self.release(container);
        let mut doomed: BTreeSet<String> = {
            let state = self.state();
            let all = state.volumes.values().map(|entry| &entry.record);
            all.filter(|record| record.container.as_deref() == Some(container))
                .map(|record| record.name.clone())
                .collect()
        };
        let anonymous = mounts.iter().filter(|mount| mount.anonymous);
        doomed.extend(anonymous.map(|mount| mount.volume.clone()));
        for name in doomed {
            self.remove_orphan(name).await;
        }
    }

    /// Removes an anonymous volume whose container is gone, unless another one mounts it; goes on in the background where
    /// that fails: nobody else would.
    async fn remove_orphan(self: &Arc<Self>, name: String) {
        let remove = async |this: &Arc<Self>, name: &str| match this.remove(name).await {
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Conflict) => Ok(()),
            removed => removed,
        };
        let Err(error) = remove(self, &name).await else {
            return;
        };
        tracing::warn!(volume = name, %error, "an anonymous volume is removed later");
        let this = self.clone();
        tokio::spawn(async move {
            insist("the removal of an anonymous volume", &name, || {
                remove(&this, &name)
            })
            .await
        });
    }

    /// Writes down that anonymous volumes stay when their container goes.
    ///
    /// # Errors
    /// Those of the datastore.
    pub async fn keep(&self, mounts: &[MountPoint]) -> Result<()> {
        let _change = self.ledger.change.lock().await;
        for mount in mounts.iter().filter(|mount| mount.anonymous) {
            let (record, generation) = {
                let state = self.state();
                let entry = state.volumes.get(&mount.volume);
                match entry.filter(|entry| entry.record.container.is_some()) {
                    Some(entry) => ((*entry.record).clone(), entry.generation),
                    None => continue,
                }
            };
            let record = VolumeRecord {
                container: None,
                ..record
            };
            let name = format!("{VOLUME}{}", mount.volume);
            let generation = self.records.save(&name, generation, &record).await?;
            if let Some(entry) = self.state().volumes.get_mut(&mount.volume) {
                (entry.record, entry.generation) = (Arc::new(record), generation);
            }
        }
        Ok(())
    }

    /// Removes the anonymous volumes of containers that have no VM: what an interrupted create or `rm -v` left. Looks
    /// only at those that were there at the start, since the list of VMs is older than the others.
    pub async fn sweep(self: &Arc<Self>, known: &HashSet<String>) {
        for name in &self.first {
            let Ok(record) = self.find(name) else {
                continue;
            };
            if record
                .container
                .as_ref()
                .is_none_or(|id| known.contains(id))
            {
                continue;
            }
            tracing::info!(
                volume = name,
                "anonymous, of a container that is not there: removed"
            );
            self.remove_orphan(name.clone()).await;
        }
    }
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
