//! Containers: VMs of this virtual container host, read back from vSphere. There is no database;
//! what is kept in memory is a copy of the VMs' keys and what is live.

mod by_another;
pub mod cache;
pub mod changes;
pub mod commit;
pub mod config;
pub mod console;
pub mod create;
pub mod exec;
pub mod exit;
pub mod files;
pub mod filters;
pub mod health;
pub mod instructions;
pub mod journal;
pub mod keys;
pub mod names;
pub mod options;
pub mod pause;
pub mod places;
pub mod remove;
pub mod restart;
pub mod running;
pub mod signals;
pub mod spec;
pub mod start;
pub mod state;
pub mod stop;
pub mod volumes;

use crate::{
    errors::{Error, Result},
    events::Events,
    link::{
        LinkSetup, Session,
        session::{Stream, Wants},
    },
    networks::Networks,
    volumes::Volumes,
    vsphere::{Boot, VmRef, Vsphere},
};
use changes::KeptChanges;
pub(crate) use create::random_hex;
use spec::Spec;
use state::{Phase, Status};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::task::TaskTracker;
use wire::{limits::CpuTime, message::SessionId};

/// A tether that lost its link dials again well within this.
const LINK_LIMIT: Duration = Duration::from_secs(15);

/// What a VM of this virtual container host is made with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// ID of the VCH.
    pub vch: String,
    /// How VMs boot.
    pub boot: Boot,
    /// VM keys that go with it (`hostsim.boot.*`).
    pub boot_keys: BTreeMap<String, String>,
    /// Their link.
    pub link: LinkSetup,
    /// Memory where the container asks for none.
    pub memory_mib: u32,
    /// CPUs where the container asks for none.
    pub cpus: u32,
    /// Name servers of hostsim's user-mode network; `None`: the endpoint is one itself.
    pub dns: Option<Vec<String>>,
}

/// An attach that waits for the container's next start.
#[derive(Debug)]
struct Pending {
    wants: Wants,
    stream: oneshot::Sender<Stream>,
}

/// Where an attached client's stream comes from.
#[derive(Debug)]
pub enum Attached {
    /// It is there.
    Now(Stream),
    /// It comes with the next start; an error if that fails or the container goes.
    Later(oneshot::Receiver<Stream>),
}

/// One container.
#[derive(Debug)]
pub struct Container {
    /// As it was created.
    pub spec: Spec,
    /// Its VM.
    pub vm: VmRef,
    /// Held by whoever starts, stops, renames or removes it.
    pub operation: tokio::sync::Mutex<()>,
    /// Held for each change of the VM: vSphere refuses a second task on a VM that has one. Taken
    /// behind `operation`.
    vm_task: tokio::sync::Mutex<()>,
    status: watch::Sender<Status>,
    pending: Mutex<Vec<Pending>>,
}

impl Container {
    fn new(spec: Spec, vm: VmRef, status: Status) -> Self {
        Self {
            spec,
            vm,
            operation: tokio::sync::Mutex::new(()),
            vm_task: tokio::sync::Mutex::new(()),
            status: watch::Sender::new(status),
            pending: Mutex::new(Vec::new()),
        }
    }

    /// Its ID.
    pub fn id(&self) -> &str {
        &self.spec.id
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Memory of its VM, in MiB.
    pub fn memory_mib(&self) -> u32 {
        let changed = self.status.borrow().changes.memory_mib;
        changed.unwrap_or(self.spec.memory_mib)
    }

    /// CPUs of its VM.
    pub fn cpus(&self) -> u32 {
        let changed = self.status.borrow().changes.cpus;
        changed.unwrap_or(self.spec.cpus)
    }

    /// What of its CPUs' time there is, where that is not all.
    pub fn cpu(&self) -> Option<CpuTime> {
        let status = self.status.borrow();
        let changed = status.changes.cpus.map(|_| status.changes.cpu);
        changed.unwrap_or(self.spec.options.limits.cpu)
    }

    /// How it stands, to be waited on.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    fn modify<R>(&self, change: impl FnOnce(&mut Status) -> R) -> R {
        let mut result = None;
        self.status
            .send_modify(|status| result = Some(change(status)));
        // send_modify calls its closure exactly once.
        result.unwrap_or_else(|| unreachable!("send_modify did not call its closure"))
    }

    /// Waits until `test` holds; the status then. `None` after `limit`.
    pub async fn until(
        &self,
        limit: Option<Duration>,
        mut test: impl FnMut(&Status) -> bool,
    ) -> Option<Status> {
        let mut watch = self.watch();
        let waiting = watch.wait_for(|status| test(status));
        match limit {
            Some(limit) => tokio::time::timeout(limit, waiting).await.ok()?,
            None => waiting.await,
        }
        .ok()
        .map(|status| status.clone())
    }

    /// The live link of a running container. One that is away (the endpoint has just been started)
    /// is waited for.
    ///
    /// # Errors
    /// 409 where it does not run, 503 where its link is away.
    pub async fn session(&self) -> Result<Arc<Session>> {
        let session = self.live_session().await?;
        if self.status.borrow().restarting() {
            return Err(Error::restarting(self.id()));
        }
        Ok(session)
    }

    /// As [`Container::session`], also between two runs.
    async fn live_session(&self) -> Result<Arc<Session>> {
        self.linked().await;
        let status = self.status.borrow();
        if !status.live() {
            return Err(Error::not_running(self.id()));
        }
        status.session.clone().ok_or_else(|| self.link_away())
    }

    async fn linked(&self) {
        let settled = |status: &Status| status.session.is_some() || !status.live() || status.gone;
        let _or_not_in_time = self.until(Some(LINK_LIMIT), settled).await;
    }

    fn link_away(&self) -> Error {
        Error::unavailable(format!(
            "the link to the VM of container {} is away; it dials again by itself, repeat the command",
            self.id()
        ))
    }

    /// Attaches to the container's process, now or at its next start.
    ///
    /// # Errors
    /// Where the link breaks or the container goes.
    pub async fn attach(&self, wants: Wants) -> Result<Attached> {
        self.linked().await;
        let session = {
            let mut pending = self.pending();
            let status = self.status.borrow();
            if status.gone || status.removing {
                return Err(Error::no_such_container(self.id()));
            }
            if status.restarting() {
                return Err(Error::restarting(self.id()));
            }
            if status.paused {
                return Err(Error::conflict(format!(
                    "container {} is paused, unpause the container before attach",
                    self.id()
                )));
            }
            match (&status.session, status.phase) {
                // A tether has its streams before its process: `launch` sets this once those that waited have theirs.
                (Some(session), Phase::Starting | Phase::Running) => session.clone(),
                (None, Phase::Running) => return Err(self.link_away()),
                _ => {
                    let (stream, later) = oneshot::channel();
                    pending.push(Pending { wants, stream });
                    return Ok(Attached::Later(later));
                }
            }
        };
        session
            .attach(SessionId::CONTAINER, wants)
            .await
            .map(Attached::Now)
    }

    fn pending(&self) -> MutexGuard<'_, Vec<Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attributes of its events: name, image, labels.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        self.attributes_as(&self.status.borrow().name)
    }

    fn attributes_as(&self, name: &str) -> BTreeMap<String, String> {
        let mut attributes = self.spec.config.labels.clone();
        attributes.insert("image".to_owned(), self.spec.config.image.clone());
        attributes.insert("name".to_owned(), name.to_owned());
        attributes
    }
}

#[derive(Debug, Default)]
struct Index {
    by_id: HashMap<String, Arc<Container>>,
    by_vm: HashMap<VmRef, String>,
    /// Name to ID; also of containers that are being created.
    names: HashMap<String, String>,
    /// VMs whose removal was cut short and goes on.
    leaving: HashSet<VmRef>,
    /// Containers whose creation failed: where their VM shows up all the same, it goes.
    given_up: HashSet<String>,
}

/// All containers.
#[derive(Debug)]
pub struct Containers {
    vsphere: Arc<Vsphere>,
    events: Events,
    setup: Setup,
    networks: Arc<Networks>,
    volumes: Arc<Volumes>,
    changes: Arc<KeptChanges>,
    /// Room for those who read disks.
    readers: Arc<Semaphore>,
    /// IDs of containers that are about to be on.
    claims: Mutex<Vec<String>>,
    index: Mutex<Index>,
    execs: exec::Execs,
    /// What settles the ends of boots: none of it may be cut off by an orderly end.
    settling: TaskTracker,
    /// No VM is started because of a restart policy.
    held: AtomicBool,
}

impl Containers {
    /// None yet; [`Containers::follow`] reads them.
    pub fn new(
        vsphere: Arc<Vsphere>,
        events: Events,
        setup: Setup,
        networks: Arc<Networks>,
        volumes: Arc<Volumes>,
        changes: Arc<KeptChanges>,
    ) -> Self {
        Self {
            vsphere,
            events,
            setup,
            networks,
            volumes,
            changes,
            readers: Arc::new(Semaphore::new(files::READERS)),
            claims: Mutex::default(),
            index: Mutex::new(Index::default()),
            execs: exec::Execs::default(),
            settling: TaskTracker::new(),
            held: AtomicBool::new(false),
        }
    }

    /// Waits until the ends that are known of are settled: journals read, records written, `--rm`
    /// containers removed. False where that took longer than `limit`; it goes on all the same.
    pub async fn settled(&self, limit: Duration) -> bool {
        // Closed, it still takes tasks; it only lets a wait end.
        self.settling.close();
        tokio::time::timeout(limit, self.settling.wait())
            .await
            .is_ok()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hypervisor.
    pub fn vsphere(&self) -> &Arc<Vsphere> {
        &self.vsphere
    }

    /// The networks.
    pub fn networks(&self) -> &Arc<Networks> {
        &self.networks
    }

    /// The volumes.
    pub fn volumes(&self) -> &Arc<Volumes> {
        &self.volumes
    }

    /// What VMs are made with.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The execs.
    pub fn execs(&self) -> &exec::Execs {
        &self.execs
    }

    /// All containers, newest first.
    pub fn all(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = self.index().by_id.values().cloned().collect();
        all.sort_by(|a, b| (b.spec.created, b.id()).cmp(&(a.spec.created, a.id())));
        all
    }

    /// Whether a container was made from this image.
    pub fn uses_image(&self, image: &str) -> Option<Arc<Container>> {
        self.index()
            .by_id
            .values()
            .find(|c| c.spec.image == image)
            .cloned()
    }

    /// The container of this ID.
    pub fn by_id(&self, id: &str) -> Option<Arc<Container>> {
        self.index().by_id.get(id).cloned()
    }

    /// The container that a client means: full ID, name, or a unique prefix of the ID, in this
    /// order.
    ///
    /// # Errors
    /// 404 where there is none, 400 where the prefix is not unique.
    pub fn find(&self, text: &str) -> Result<Arc<Container>> {
        let index = self.index();
        let name = text.strip_prefix('/').unwrap_or(text);
        if let Some(found) = index.by_id.get(text) {
            return Ok(found.clone());
        }
        if let Some(found) = index.names.get(name).and_then(|id| index.by_id.get(id)) {
            return Ok(found.clone());
        }
        if text.is_empty() || text.len() > 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::no_such_container(text));
        }
        let mut found = index.by_id.values().filter(|c| c.id().starts_with(text));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one.clone()),
            (None, _) => Err(Error::no_such_container(text)),
            _ => Err(Error::bad(format!(
                "multiple IDs found with provided prefix: {text}"
            ))),
        }
    }

    fn emit(&self, container: &Container, action: impl Into<String>, more: &[(&str, String)]) {
        self.emit_as(container, &container.status().name, action, more);
    }

    /// The same for who knows the name: inside of a change of the status, so that who waits for the change finds the
    /// event, and none that comes behind it.
    fn emit_as(
        &self,
        container: &Container,
        name: &str,
        action: impl Into<String>,
        more: &[(&str, String)],
    ) {
        let mut attributes = container.attributes_as(name);
        for (name, value) in more {
            attributes.insert((*name).to_owned(), value.clone());
        }
        self.events
            .emit("container", action, container.id(), attributes);
    }

    /// Tells of something that a client did to a container.
    pub fn tell(&self, container: &Container, action: impl Into<String>, more: &[(&str, String)]) {
        self.emit(container, action, more);
    }

    /// Takes a name for a container, or says who has it.
    fn reserve_name(&self, name: &str, id: &str) -> Result<()> {
        let mut index = self.index();
        if let Some(owner) = index.names.get(name) {
            return Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
            )));
        }
        index.names.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    fn release_name(&self, name: &str, id: &str) {
        let mut index = self.index();
        if index.names.get(name).is_some_and(|owner| owner == id) {
            index.names.remove(name);
        }
    }

    /// Renames a container.
    ///
    /// # Errors
    /// 400 for a wrong name, 409 where it is taken or the container's own.
    pub async fn rename(&self, container: &Arc<Container>, name: &str) -> Result<()> {
        if name.is_empty() {
            return Err(Error::bad("Neither old nor new names may be empty"));
        }
        // As `inspect` tells it is as good (moby, daemon/rename.go).
        let asked = format!("/{}", name.strip_prefix('/').unwrap_or(name));
        let refused = |error: Error| {
            let message = format!("Error when allocating new name: {}", error.message);
            Error::new(error.kind, message)
        };
        let name = names::check(&asked).map_err(refused)?;
        let _operation = container.operation.lock().await;
        let old = container.status().name;
        if old == name {
            return Err(Error::bad(
                "Renaming a container with the same name as its current name",
            ));
        }
        self.reserve_name(name, container.id()).map_err(refused)?;
        let vm_name = names::vm_name(name, container.id());
        let _task = container.vm_task.lock().await;
        if let Err(error) = self.vsphere.rename(&container.vm, &vm_name).await {
            self.release_name(name, container.id());
            return Err(error.into());
        }
        container.modify(|status| status.name = name.to_owned());
        self.release_name(&old, container.id());
        self.emit(container, "rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }
}
