//! What the host knows: VMs, tasks, events; and who has changed when.

use crate::vm::Vm;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use vim::types::*;
use vim::{DateTime, Fault, FaultKind};

/// Tasks that are kept once they have ended.
const TASKS_KEPT: usize = 1000;
/// Events that are kept.
const EVENTS_KEPT: usize = 10_000;
/// Changes that are kept; a reader that is further behind looks at everything.
const CHANGES_KEPT: usize = 20_000;

/// The host's state, under one lock.
#[derive(Debug, Default)]
pub struct State {
    /// Registered VMs by ID.
    pub vms: BTreeMap<u64, Vm>,
    /// Names that are being given to VMs in the making.
    pub names: BTreeSet<String>,
    /// Folders that are being used for VMs in the making.
    pub folders: BTreeSet<String>,
    /// Which VMDKs are open.
    pub locks: crate::vm::locks::DiskLocks,
    /// Last ID given to a VM.
    pub last_vm: u64,
    /// Tasks by number.
    pub tasks: BTreeMap<u64, TaskInfo>,
    last_task: u64,
    /// Events, oldest first.
    pub events: VecDeque<Event>,
    last_event: i32,
    /// Number of the last change.
    pub seq: u64,
    /// Number of the last change of what is in the inventory or in a view.
    pub structure: u64,
    changes: VecDeque<(u64, ManagedObjectReference)>,
}

impl State {
    /// Notes that an object has changed.
    pub fn touch(&mut self, object: &ManagedObjectReference) {
        self.seq += 1;
        self.changes.push_back((self.seq, object.clone()));
        if self.changes.len() > CHANGES_KEPT {
            self.changes.pop_front();
        }
    }

    /// Notes that objects came or went.
    pub fn touch_structure(&mut self) {
        self.seq += 1;
        self.structure = self.seq;
    }

    /// Objects changed after `seq`; `None` where that is too long ago to know.
    pub fn changed_since(&self, seq: u64) -> Option<Vec<&ManagedObjectReference>> {
        if self.changes.len() == CHANGES_KEPT
            && self
                .changes
                .front()
                .is_some_and(|(first, _)| *first > seq + 1)
        {
            return None;
        }
        let start = self.changes.partition_point(|(s, _)| *s <= seq);
        let mut seen = std::collections::HashSet::new();
        Some(
            self.changes
                .range(start..)
                .map(|(_, o)| o)
                .filter(|o| seen.insert(*o))
                .collect(),
        )
    }

    /// The VM of a reference.
    ///
    /// # Errors
    /// `ManagedObjectNotFound`.
    pub fn vm(&self, reference: &ManagedObjectReference) -> Result<&Vm, Fault> {
        let id = (reference.kind == "VirtualMachine")
            .then(|| reference.id.parse().ok())
            .flatten();
        id.and_then(|id: u64| self.vms.get(&id))
            .ok_or_else(|| not_found(reference))
    }

    /// The VM of a reference, to change it; the change is noted.
    ///
    /// # Errors
    /// `ManagedObjectNotFound`.
    pub fn vm_mut(&mut self, reference: &ManagedObjectReference) -> Result<&mut Vm, Fault> {
        self.vm(reference)?;
        self.touch(reference);
        let id = reference.id.parse().ok();
        id.and_then(|id: u64| self.vms.get_mut(&id))
            .ok_or_else(|| not_found(reference))
    }

    /// Refuses a name that a VM has or is getting.
    ///
    /// # Errors
    /// `DuplicateName`.
    pub fn check_name(&self, name: &str) -> Result<(), Fault> {
        let owner = self.vms.values().find(|vm| vm.config.name == name);
        if owner.is_none() && !self.names.contains(name) {
            return Ok(());
        }
        let object = owner.map_or_else(crate::inventory::vm_folder, Vm::reference);
        let message = format!("The name '{name}' already exists");
        Err(Fault::new(
            FaultKind::DuplicateName {
                name: name.to_owned(),
                object,
            },
            message,
        ))
    }

    /// A new task that runs.
    pub fn new_task(
        &mut self,
        description_id: &str,
        entity: &ManagedObjectReference,
        entity_name: String,
        user: &str,
    ) -> ManagedObjectReference {
        self.last_task += 1;
        let id = format!("haTask-{}-{description_id}-{}", entity.id, self.last_task);
        let task = ManagedObjectReference::new("Task", id.clone());
        let now = DateTime::now();
        let is_entity = crate::inventory::is_a(&entity.kind, "ManagedEntity");
        let info = TaskInfo {
            key: id,
            task: task.clone(),
            name: None,
            description_id: description_id.to_owned(),
            // A manager is no entity of the inventory, and a task's entity must be one.
            entity: is_entity.then(|| entity.clone()),
            entity_name: is_entity.then_some(entity_name),
            state: TaskInfoState::Running,
            reason: TaskReason {
                user_name: Some(user.to_owned()),
            },
            queue_time: now,
            start_time: Some(now),
            event_chain_id: self.last_event,
            ..TaskInfo::default()
        };
        self.tasks.insert(self.last_task, info);
        self.touch(&task);
        task
    }

    /// A task by its reference.
    pub fn task(&self, reference: &ManagedObjectReference) -> Option<&TaskInfo> {
        let number: u64 = reference.id.rsplit('-').next()?.parse().ok()?;
        self.tasks
            .get(&number)
            .filter(|info| info.task == *reference)
    }

    /// Changes a task; the change is noted.
    pub fn change_task(
        &mut self,
        reference: &ManagedObjectReference,
        change: impl FnOnce(&mut TaskInfo),
    ) {
        let number: Option<u64> = reference.id.rsplit('-').next().and_then(|n| n.parse().ok());
        if let Some(info) = number.and_then(|n| self.tasks.get_mut(&n)) {
            change(info);
            self.touch(reference);
        }
        while self.tasks.len() > TASKS_KEPT {
            // Those that still run are few: never more than there are VMs at work.
            let oldest = self
                .tasks
                .iter()
                .find(|(_, t)| t.state.is_final())
                .map(|(n, _)| *n);
            match oldest {
                Some(number) => self.tasks.remove(&number),
                None => break,
            };
        }
    }

    /// Adds an event.
    pub fn event(
        &mut self,
        kind: &str,
        vm: Option<(&ManagedObjectReference, &str)>,
        user: &str,
        message: String,
    ) {
        self.last_event = self.last_event.wrapping_add(1);
        self.events.push_back(Event {
            kind: kind.to_owned(),
            key: self.last_event,
            chain_id: self.last_event,
            created_time: DateTime::now(),
            user_name: user.to_owned(),
            host: Some(HostEventArgument {
                name: crate::inventory::HOST_NAME.into(),
                host: crate::inventory::host(),
            }),
            vm: vm.map(|(vm, name)| VmEventArgument {
                name: name.to_owned(),
                vm: vm.clone(),
            }),
            full_formatted_message: Some(message),
        });
        if self.events.len() > EVENTS_KEPT {
            self.events.pop_front();
        }
        self.touch(&crate::inventory::event_manager());
    }

    /// VMs whose disks include a VMDK, itself or as a parent, by the given chains.
    pub fn disk_users(&self) -> HashMap<String, Vec<ManagedObjectReference>> {
        let mut users: HashMap<String, Vec<ManagedObjectReference>> = HashMap::new();
        for vm in self.vms.values() {
            for backing in vm.config.disks().filter_map(VirtualDevice::disk_backing) {
                users
                    .entry(backing.file_name.clone())
                    .or_default()
                    .push(vm.reference());
            }
        }
        users
    }
}

/// The fault for an object that does not exist.
pub fn not_found(reference: &ManagedObjectReference) -> Fault {
    let message = format!(
        "The object '{reference}' has already been deleted or has not been completely created"
    );
    Fault::new(
        FaultKind::ManagedObjectNotFound {
            obj: reference.clone(),
        },
        message,
    )
}
