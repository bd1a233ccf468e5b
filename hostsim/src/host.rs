//! The host: state, datastore, sessions, and how tasks are run.

use crate::datastore::{Datastore, Disks};
use crate::log::{Entry, InventoryLog};
use crate::session::Sessions;
use crate::shares::SharedFolder;
use crate::state::State;
use crate::vm::{RunFolder, Vm};
use crate::vmx::Launcher;
use crate::vmx::host::HostFacts;
use crate::vmx::switch::Switch;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use vim::types::*;
use vim::{Any, DatastorePath, DateTime, Fault, FaultKind};

/// How vSphere treats disks that are attached to a VM that is destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DestroyRule {
    /// As vCenter: the disk and all its parents, as far as no other disk needs them.
    Chain,
    /// As ESXi: the disk itself.
    Leaf,
}

/// What is behind a port group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// A user-mode network for each vNIC, with this subnet.
    User {
        /// An address of the subnet.
        address: Ipv4Addr,
        /// Its prefix length, 8 to 29.
        prefix: u8,
    },
    /// A VLAN of the virtual switch.
    Vlan(u16),
}

impl Network {
    /// Its VLAN; 0, as vSphere has it, where it has none.
    pub fn vlan(self) -> u16 {
        match self {
            Network::User { .. } => 0,
            Network::Vlan(vlan) => vlan,
        }
    }
}

/// Settings of a host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder of everything that is kept.
    pub state: PathBuf,
    /// No QEMU: VMs only have a state.
    pub state_only: bool,
    /// Announce `mooring.disk.upload`.
    pub disk_upload: bool,
    /// Announce `mooring.link.vsock` and `mooring.boot.kernel`.
    pub link_and_boot: bool,
    /// Whether guests' vsock device is the kernel's. As it was at the start: an endpoint listens where it was told to.
    pub kernel_vsock: bool,
    /// What Destroy_Task does with disks.
    pub destroy: DestroyRule,
    /// Idle time after which a session ends.
    pub session_idle: Duration,
    /// Bytes that the datastore pretends to have.
    pub datastore_size: Option<u64>,
    /// An upload for which there is no room loses its connection, as on ESXi, and gets no answer.
    pub cut_off_uploads: bool,
    /// Port groups, by their names.
    pub networks: BTreeMap<String, Network>,
    /// The virtual switch; `None`: every vNIC ends in a user-mode network.
    pub switch: Option<Switch>,
    /// Folders of this machine, resolved, of which VMs may have parts.
    pub shares: Vec<SharedFolder>,
    /// Program that runs as shim; `None`: this one.
    pub shim: Option<PathBuf>,
}

/// The host.
#[derive(Debug)]
pub struct Host {
    /// Its settings.
    pub settings: Settings,
    /// Its datastore.
    pub store: Datastore,
    /// The datastore's VMDKs.
    pub disks: Disks,
    /// Its sessions.
    pub sessions: Sessions,
    /// Which VMs there are, durably.
    pub log: InventoryLog,
    /// What the machine can do; `None` in state-only mode.
    pub facts: Option<HostFacts>,
    /// Starts shims.
    pub launcher: Launcher,
    /// When it started.
    pub started: DateTime,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Host {
    /// A host over its parts, without VMs.
    pub fn new(
        settings: Settings,
        store: Datastore,
        disks: Disks,
        sessions: Sessions,
        log: InventoryLog,
        facts: Option<HostFacts>,
    ) -> Arc<Host> {
        let launcher = match &settings.shim {
            Some(program) => Launcher::with_program(program),
            None => Launcher::new(),
        };
        Arc::new(Host {
            settings,
            store,
            disks,
            sessions,
            log,
            facts,
            launcher,
            started: DateTime::now(),
            state: Mutex::default(),
            changed: watch::channel(0).0,
        })
    }

    /// A state-only host in a folder, without VMs.
    #[cfg(test)]
    pub(crate) fn for_tests(folder: &std::path::Path) -> Arc<Host> {
        let settings = Settings {
            state: folder.to_owned(),
            state_only: true,
            disk_upload: false,
            link_and_boot: false,
            kernel_vsock: false,
            destroy: DestroyRule::Chain,
            session_idle: Duration::from_secs(60),
            datastore_size: None,
            cut_off_uploads: false,
            networks: BTreeMap::new(),
            switch: None,
            shares: Vec::new(),
            shim: None,
        };
        let store = Datastore::open("ds", &folder.join("ds"), None).expect("a datastore");
        let disks = Disks::scan(&store);
        let (log, _) = InventoryLog::open(&folder.join("log"), &store).expect("a log");
        let credentials = crate::session::Credentials {
            user: "root".into(),
            password: "p".into(),
        };
        let sessions = Sessions::new(credentials, settings.session_idle);
        Host::new(settings, store, disks, sessions, log, None)
    }

    /// The state, to read it.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state; whoever waits for changes is woken.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state);
        let seq = state.seq;
        drop(state);
        self.changed
            .send_if_modified(|known| std::mem::replace(known, seq) != seq);
        result
    }

    /// Adds an event about a VM.
    pub fn vm_event(&self, vm: &Vm, kind: &str, user: &str, message: String) {
        let (reference, name) = (vm.reference(), vm.config.name.as_str());
        self.change(|state| state.event(kind, Some((&reference, name)), user, message));
    }

    /// Notes durably that a VM is registered.
    ///
    /// # Errors
    /// `SystemError`: the log of the inventory cannot be written.
    pub fn note_registered(&self, id: u64, vmx: &DatastorePath) -> Result<(), Fault> {
        let vmx = vmx.to_string();
        self.log
            .append(&Entry::Add { id, vmx }, true)
            .map_err(|e| system_error(format!("the inventory cannot be written: {e}")))
    }

    /// Tells of changes of the state.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Files of a VM in the state folder.
    pub fn run_folder(&self, id: &str) -> RunFolder {
        RunFolder(self.settings.state.join("run").join(id))
    }

    /// Starts a task on a VM; no other may work on it.
    ///
    /// # Errors
    /// `ManagedObjectNotFound`, `TaskInProgress`.
    pub fn vm_task<F>(
        self: &Arc<Self>,
        vm: &ManagedObjectReference,
        description_id: &str,
        user: &str,
        work: F,
    ) -> Result<ManagedObjectReference, Fault>
    where
        F: Future<Output = Result<Option<Any>, Fault>> + Send + 'static,
    {
        let task = self.change(|state| {
            let entry = state.vm(vm)?;
            let name = entry.config.name.clone();
            if let Some(task) = &entry.busy {
                let message =
                    format!("The operation is not allowed while another task works on '{name}'");
                return Err(Fault::new(
                    FaultKind::TaskInProgress { task: task.clone() },
                    message,
                ));
            }
            let task = state.new_task(description_id, vm, name, user);
            state.vm_mut(vm)?.busy = Some(task.clone());
            Ok(task)
        })?;
        self.run(task.clone(), Some(vm.clone()), work);
        Ok(task)
    }

    /// Starts a task on anything else.
    pub fn task<F>(
        self: &Arc<Self>,
        entity: &ManagedObjectReference,
        description_id: &str,
        user: &str,
        work: F,
    ) -> ManagedObjectReference
    where
        F: Future<Output = Result<Option<Any>, Fault>> + Send + 'static,
    {
        let task =
            self.change(|state| state.new_task(description_id, entity, entity.id.clone(), user));
        self.run(task.clone(), None, work);
        task
    }

    fn run<F>(
        self: &Arc<Self>,
        task: ManagedObjectReference,
        vm: Option<ManagedObjectReference>,
        work: F,
    ) where
        F: Future<Output = Result<Option<Any>, Fault>> + Send + 'static,
    {
        let host = self.clone();
        tokio::spawn(async move {
            let result = match tokio::spawn(work).await {
                Ok(result) => result,
                Err(error) => {
                    let reason = format!("the task failed inside of hostsim: {error}");
                    let message = format!("A general system error occurred: {reason}");
                    Err(Fault::new(FaultKind::SystemError { reason }, message))
                }
            };
            host.change(|state| {
                if let Some(vm) = vm
                    && let Ok(entry) = state.vm_mut(&vm)
                {
                    entry.busy = None;
                }
                state.change_task(&task, |info| {
                    info.complete_time = Some(DateTime::now());
                    match result {
                        Ok(result) => {
                            info.state = TaskInfoState::Success;
                            info.result = result;
                        }
                        Err(fault) => {
                            tracing::debug!(task = %info.key, %fault, "task failed");
                            info.state = TaskInfoState::Error;
                            info.error = Some(fault);
                        }
                    }
                });
            });
        });
    }

    /// Runs work on files where it may block.
    ///
    /// # Errors
    /// The work's own.
    pub async fn blocking<T, F>(self: &Arc<Self>, work: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Host>) -> Result<T, Fault> + Send + 'static,
    {
        let host = self.clone();
        match tokio::task::spawn_blocking(move || work(&host)).await {
            Ok(result) => result,
            Err(error) => Err(system_error(format!(
                "work on files failed inside of hostsim: {error}"
            ))),
        }
    }
}

/// A `SystemError`.
pub fn system_error(reason: impl Into<String>) -> Fault {
    let reason = reason.into();
    let message = format!("A general system error occurred: {reason}");
    Fault::new(FaultKind::SystemError { reason }, message)
}
