//! `docker rm`, and what an interrupted create or rm has left.

use super::{Container, Containers, keys, state::Phase};
use crate::{
    errors::{Error, Result},
    insist::insist,
    vsphere::{VmChange, VmRef},
};
use std::{collections::HashSet, sync::Arc};

impl Containers {
    /// Removes a container with its VM and disk, and with its anonymous volumes where those are to go, too.
    ///
    /// # Errors
    /// 409 where it runs and `force` is not set, or where its removal is in progress.
    pub async fn remove(
        self: &Arc<Self>,
        container: &Arc<Container>,
        force: bool,
        volumes: bool,
    ) -> Result<()> {
        let status = container.status();
        if status.gone {
            return Err(Error::no_such_container(container.id()));
        }
        if !force && (status.live() || status.revive || status.phase == Phase::Starting) {
            return Err(Error::conflict(format!(
                "cannot remove container \"/{}\": container is {}: {} the container before removing or force remove",
                status.name,
                match status.phase {
                    Phase::Starting => "starting",
                    _ => status.word(),
                },
                if status.paused {
                    "unpause and then stop"
                } else {
                    "stop"
                },
            )));
        }
        if container.modify(|status| std::mem::replace(&mut status.removing, true)) {
            return Err(Error::conflict(format!(
                "removal of container {} is already in progress",
                container.id()
            )));
        }
        match self.take_away(container, volumes).await {
            Ok(()) => {
                self.emit(container, "destroy", &[]);
                self.forget(container);
                let gone = if volumes {
                    &container.spec.mounts[..]
                } else {
                    &[]
                };
                self.volumes.remove_of(container.id(), gone).await;
                Ok(())
            }
            Err(mut error) => {
                if let Ok(Some(false)) = self.vsphere.removal_began(&container.vm).await {
                    container.modify(|status| status.removing = false);
                } else {
                    // Where it had begun, the container has no disk any more.
                    error.message += "; the removal goes on by itself once it can";
                    self.go_on_removing(container.vm.clone(), container.id().to_owned());
                }
                Err(error)
            }
        }
    }

    async fn take_away(self: &Arc<Self>, container: &Arc<Container>, volumes: bool) -> Result<()> {
        // A start in progress holds the lock: end its VM first.
        if container.status().phase == Phase::Starting {
            self.power_off(container).await?;
        }
        let _operation = container.operation.lock().await;
        self.end_maintenance(container).await?;
        let status = container.status();
        if status.on {
            if status.running() {
                self.emit(container, "kill", &[("signal", "9".to_owned())]);
            }
            self.end_with_volumes(container).await;
            self.power_off(container).await?;
            if status.running() {
                let exit = wire::message::ExitStatus {
                    code: 137,
                    oom: false,
                    at: crate::timestamps::now(),
                };
                self.exited(container, status.boot(), exit);
            }
        }
        if !volumes {
            self.volumes.keep(&container.spec.mounts).await?;
        }
        let _task = container.vm_task.lock().await;
        self.vsphere.remove(&container.vm, container.id()).await?;
        Ok(())
    }

    /// Goes on with a removal that was cut short, until it is done.
    pub(super) fn go_on_removing(self: &Arc<Self>, vm: VmRef, id: String) {
        if !self.index().leaving.insert(vm.clone()) {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            let removed = insist("a removal", &id, || this.finish_removal(&vm, &id)).await;
            this.index().leaving.remove(&vm);
            let Some(container) = this.by_id(&id) else {
                this.volumes.remove_of(&id, &[]).await;
                return;
            };
            if removed {
                this.emit(&container, "destroy", &[]);
                this.forget(&container);
                this.volumes.remove_of(&id, &[]).await;
            } else {
                container.modify(|status| status.removing = false);
            }
        });
    }

    /// False where the removal had not begun: the VM is as it was.
    async fn finish_removal(&self, vm: &VmRef, id: &str) -> Result<bool> {
        let wanted = !self.index().given_up.contains(id);
        if wanted && self.vsphere.removal_began(vm).await? == Some(false) {
            return Ok(false);
        }
        self.vsphere.remove(vm, id).await?;
        Ok(true)
    }

    /// A creation failed. Whether there is a VM is not known where no answer came: one that shows up belongs to nobody
    /// and goes, now or once vSphere answers again. The caller has put it into `given_up`.
    pub(super) async fn give_up(self: &Arc<Self>, id: &str) {
        if let Err(error) = self.take_back(id).await {
            tracing::warn!(%id, %error, "a creation that failed has left something; it goes later");
            let (this, id) = (self.clone(), id.to_owned());
            tokio::spawn(async move {
                insist("a creation's undoing", &id, || this.take_back(&id)).await
            });
        }
    }

    async fn take_back(&self, id: &str) -> Result<()> {
        // It may still be on its way: see `sweep`.
        self.vsphere.creations_over().await?;
        let vms = self.vsphere.list_vms().await?;
        let own = |vm: &VmChange| {
            let keys = vm.keys.as_ref();
            keys.and_then(|k| k.get(keys::ID)).is_some_and(|k| k == id)
        };
        match vms.into_iter().find(own) {
            Some(vm) => self.vsphere.remove(&vm.vm, id).await?,
            None => {
                let folder = self.vsphere.container_folder(id);
                self.vsphere.delete_folder(&folder).await?;
            }
        }
        self.volumes.remove_of(id, &[]).await;
        Ok(())
    }

    /// Deletes folders of containers that have no VM: a create or rm that was cut short. Called once, at the start;
    /// may run beside anything else, of this endpoint or another one. Nothing is deleted while vSphere cannot read the
    /// files of some VM, whose folder may be one of these, nor a folder with a VM that someone has taken out of the
    /// inventory.
    ///
    /// The folder of a creation in flight has no VM either. It is made by the creation's task, so the task of each
    /// folder that is listed had begun by then: once those tasks are over, a folder without a VM is nobody's. (IDs are
    /// random, none comes twice. A removal in flight deletes the same folder, and takes it well if it is gone.)
    pub async fn sweep(self: Arc<Self>) {
        if let Err(error) = self.try_sweep().await {
            tracing::warn!(%error, "cannot look for what a create or rm has left; the next start does");
        }
    }

    async fn try_sweep(&self) -> Result<()> {
        let folders = self.vsphere.container_folders().await?;
        self.vsphere.creations_over().await?;
        let vms = self.vsphere.list_vms().await?;
        if let Some(vm) = vms.iter().find(|vm| vm.keys.is_none()) {
            tracing::warn!(vm = %vm.vm, name = vm.name, "its files cannot be read: what a create or rm has left stays until the next start");
            return Ok(());
        }
        let vms = vms.into_iter();
        let mut known: HashSet<String> = vms.filter_map(|vm| vm.keys?.remove(keys::ID)).collect();
        for folder in &folders {
            if !known.contains(folder) && self.vsphere.holds_vm(folder).await? {
                tracing::warn!(%folder, "its VM is not in the inventory: it stays; register the VM, or delete the folder");
                known.insert(folder.clone());
            }
        }
        self.volumes.sweep(&known).await;
        for folder in folders {
            let is_id = folder.len() == 64 && folder.bytes().all(|b| b.is_ascii_hexdigit());
            if is_id && !known.contains(&folder) {
                tracing::info!(%folder, "left by an interrupted create or rm: deleted");
                let path = self.vsphere.container_folder(&folder);
                if let Err(error) = self.vsphere.delete_folder(&path).await {
                    tracing::warn!(%error, "left folder");
                }
            }
        }
        Ok(())
    }
}
