//! Reading the containers back from vSphere, and following what happens to their VMs.

use super::{
    Container, Containers,
    files::maintenance::Maintenance,
    keys::{self, Keys},
    names,
    spec::Spec,
    state::{Changes, Phase, Prepared, Record, Status},
};
use crate::vsphere::{VmChange, VmRef, VmUpdate, VsphereError};
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::sync::oneshot;
use wire::health::Health;

/// Between two attempts to watch the VMs again, when vSphere is away.
const RETRY: Duration = Duration::from_millis(500);

impl Containers {
    pub(super) fn add(&self, container: Container) -> Arc<Container> {
        let container = Arc::new(container);
        let id = container.id().to_owned();
        let mut index = self.index();
        // The watch may have told of a VM before its creation returned here.
        if let Some(there) = index.by_id.get(&id) {
            return there.clone();
        }
        self.networks.note(&container.status().networks);
        self.volumes.note(&container.spec.mounts, &id);
        index.names.insert(container.status().name, id.clone());
        index.by_vm.insert(container.vm.clone(), id.clone());
        index.by_id.insert(id, container.clone());
        container
    }

    /// Takes a container out of the memory; its VM is gone.
    pub(super) fn forget(&self, container: &Container) {
        let mut index = self.index();
        index.by_id.remove(container.id());
        index.by_vm.remove(&container.vm);
        index.names.retain(|_, id| id != container.id());
        drop(index);
        self.networks.detach(&container.status().networks);
        self.volumes.release(container.id());
        let (networks, changes) = (self.networks.clone(), self.changes.clone());
        let id = container.id().to_owned();
        self.settling.spawn(async move {
            networks.forget(&id).await;
            changes.forget(&id).await;
        });
        container.modify(|status| {
            status.gone = true;
            status.removing = true;
            if let Some(session) = status.session.take() {
                session.close();
            }
        });
        container.pending().clear();
        self.execs.forget(container);
    }

    /// Follows the VMs for ever; `first` is told once all that there are have been read.
    pub async fn follow(self: Arc<Self>, first: oneshot::Sender<Result<(), VsphereError>>) {
        let mut first = Some(first);
        loop {
            let result = self.follow_once(&mut first).await;
            let Err(error) = result else { continue };
            if let Some(first) = first.take() {
                let _caller_is_gone = first.send(Err(error));
                return;
            }
            tracing::warn!(%error, "the watch of the VMs ended; trying again");
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn follow_once(
        self: &Arc<Self>,
        first: &mut Option<oneshot::Sender<Result<(), VsphereError>>>,
    ) -> Result<(), VsphereError> {
        let mut watch = self.vsphere.watch_vms().await?;
        // One that is made after the list was does not count as absent.
        let known: Vec<VmRef> = self.index().by_vm.keys().cloned().collect();
        // A watch over no VM says nothing before there is one: read what there is beforehand.
        let mut present: HashSet<VmRef> = HashSet::new();
        let listed = self.vsphere.list_vms().await?;
        for change in listed {
            present.insert(change.vm.clone());
            self.changed(change);
        }
        self.drop_absent(known, &present);
        if let Some(first) = first.take() {
            let _caller_is_gone = first.send(Ok(()));
        }
        loop {
            for update in watch.next().await? {
                match update {
                    // Told anew: read what is gone by a watch of its own.
                    VmUpdate::Reset => return Ok(()),
                    // One whose files could not be read before: what it is in whole a list tells.
                    VmUpdate::Changed(change) if self.is_half_known(&change) => return Ok(()),
                    VmUpdate::Changed(change) => self.changed(change),
                    VmUpdate::Gone(vm) => self.vanished(&vm),
                }
            }
        }
    }

    fn drop_absent(&self, known: Vec<VmRef>, present: &HashSet<VmRef>) {
        for vm in known.iter().filter(|vm| !present.contains(*vm)) {
            self.vanished(vm);
        }
    }

    /// A VM is gone: by our own removal, or by an administrator's hand.
    fn vanished(&self, vm: &VmRef) {
        let container = {
            let index = self.index();
            index
                .by_vm
                .get(vm)
                .and_then(|id| index.by_id.get(id))
                .cloned()
        };
        let Some(container) = container else { return };
        if container.status().removing {
            return;
        }
        tracing::info!(id = container.id(), "the VM was destroyed by someone else");
        self.emit(&container, "destroy", &[]);
        self.forget(&container);
    }

    /// Whether it is a VM of this host that is not known, and not all of it is in the change.
    fn is_half_known(&self, change: &VmChange) -> bool {
        let own = |keys: &Keys| keys.get(keys::VCH) == Some(&self.setup.vch);
        change.keys.as_ref().is_some_and(own)
            && (change.name.is_none() || change.on.is_none())
            && !self.index().by_vm.contains_key(&change.vm)
    }

    fn changed(self: &Arc<Self>, change: VmChange) {
        let known = {
            let index = self.index();
            index
                .by_vm
                .get(&change.vm)
                .and_then(|id| index.by_id.get(id))
                .cloned()
        };
        match known {
            Some(container) => self.update(&container, &change),
            None => self.adopt(change),
        }
    }

    fn update(self: &Arc<Self>, container: &Arc<Container>, change: &VmChange) {
        if let Some(vm_name) = &change.name {
            self.renamed(container, vm_name);
        }
        // The mark was set by an endpoint whose last request outlived it.
        if change.keys.as_ref().is_some_and(keys::removing)
            && !container.modify(|status| std::mem::replace(&mut status.removing, true))
        {
            self.go_on_removing(container.vm.clone(), container.id().to_owned());
        }
        if let Some(on) = change.on {
            let before = container.modify(|status| std::mem::replace(&mut status.on, on));
            if before && !on {
                self.settling
                    .spawn(self.clone().powered_off(container.clone()));
            }
        }
    }

    /// An administrator's rename of the VM is one of the container, if the name can be one.
    fn renamed(&self, container: &Container, vm_name: &str) {
        let name = names::from_vm_name(vm_name, container.id());
        let old = container.status().name;
        if name == old || container.operation.try_lock().is_err() {
            return;
        }
        if self.reserve_name(&name, container.id()).is_ok() {
            container.modify(|status| status.name = name);
            self.release_name(&old, container.id());
        }
    }

    /// A VM that was not known: at the endpoint's start, or made elsewhere.
    fn adopt(self: &Arc<Self>, change: VmChange) {
        let Some(vm_keys) = &change.keys else { return };
        if vm_keys.get(keys::VCH) != Some(&self.setup.vch) {
            return;
        }
        let Some(id) = vm_keys.get(keys::ID).cloned() else {
            return;
        };
        // Our own creation is about to add it.
        if self.index().names.values().any(|owner| *owner == id) {
            return;
        }
        let given_up = self.index().given_up.contains(&id);
        if given_up || keys::removing(vm_keys) {
            self.go_on_removing(change.vm, id);
            return;
        }
        match read(vm_keys) {
            Ok(known) => self.restore(change, known),
            Err(error) => {
                tracing::warn!(vm = %change.vm, %error, "a VM of this host cannot be read; it is left alone")
            }
        }
    }

    fn restore(
        self: &Arc<Self>,
        change: VmChange,
        Known {
            spec,
            mut record,
            prepared,
            changes,
        }: Known,
    ) {
        let changes = self.changes.of(&spec.id).unwrap_or(changes);
        let vm_keys = change.keys.unwrap_or_default();
        let on = change.on.unwrap_or(false);
        let marked = vm_keys
            .get(keys::MAINTENANCE)
            .is_some_and(|nonce| !nonce.is_empty());
        // The end of a boot for the files is known beforehand: one that has none is a start, whatever the mark says.
        let maintenance = marked && record.boots == record.ended;
        let uncounted = on && !maintenance && record.boots == record.ended;
        // Each boot but the first is counted before the VM is on. One that is over has a tether that will dial.
        let by_another = uncounted && record.boots > 0;
        if uncounted && !by_another {
            // The first boot is prepared at creation and not counted before its end.
            record.boots = 1;
        }
        let link = keys::resume(&vm_keys, record.boots).or_else(|| {
            prepared
                .as_ref()
                .filter(|p| p.boot == record.boots)
                .and_then(Prepared::keys)
        });
        let phase = match () {
            () if record.boots > record.ended => Phase::Running,
            () if record.started != 0 => Phase::Exited,
            () => Phase::Created,
        };
        let name = change.name.as_deref().map_or_else(
            || spec.id[..names::SHORT_ID].to_owned(),
            |vm| names::from_vm_name(vm, &spec.id),
        );
        let never_ended = !on && record.boots == 0;
        let lost_exit = !on && record.boots > record.ended;
        // Or its boots were for its files only.
        let tried = record.started != 0 || !record.error.is_empty();
        let remove = !on && !lost_exit && spec.options.auto_remove && record.boots > 0 && tried;
        let networks = self
            .networks
            .moved(&spec.id)
            .unwrap_or_else(|| spec.networks.clone());
        let mut status = Status::new(name, phase, record, prepared, networks);
        (status.on, status.link, status.changes) = (on, link, changes);
        status.maintenance = maintenance.then(Maintenance::left);
        status.nics_off = marked;
        if on && !maintenance && !by_another {
            status.ports = self.read_ports(&vm_keys, &spec.id, status.boot());
            // Until its tether tells.
            status.health = spec.config.health_check().map(|_| Health::default());
        }
        let container = self.add(Container::new(spec, change.vm, status));
        let this = self.clone();
        if maintenance {
            self.settling.spawn(this.end_left_maintenance(container));
        } else if lost_exit {
            self.settling.spawn(this.powered_off(container));
        } else if never_ended {
            self.settling.spawn(this.find_unrecorded_exit(container));
        } else if remove {
            self.remove_itself(&container);
        }
    }
}

/// What a VM's keys say.
struct Known {
    spec: Spec,
    record: Record,
    prepared: Option<Prepared>,
    changes: Changes,
}

fn read(vm_keys: &Keys) -> Result<Known, keys::KeyError> {
    let spec: Spec = keys::spec(vm_keys)?;
    if spec.id.len() != 64 || !spec.id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(keys::KeyError::Invalid {
            key: keys::ID.to_owned(),
            reason: "it is no container ID".to_owned(),
        });
    }
    Ok(Known {
        spec,
        record: keys::json(vm_keys, keys::STATE)?.unwrap_or_default(),
        prepared: keys::json(vm_keys, keys::PREPARED)?,
        changes: keys::json(vm_keys, keys::CHANGES)?.unwrap_or_default(),
    })
}
