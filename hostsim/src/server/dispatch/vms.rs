//! VirtualMachine, and the folder that VMs are made in.

use super::{Answer, Context, answer, decode};
use crate::host::system_error;
use crate::inventory;
use crate::state::not_found;
use crate::vm::{create, power, reconfigure, remove};
use vim::method::*;
use vim::types::*;
use vim::xml::Element;
use vim::{Fault, FaultKind};

impl Context {
    pub(super) async fn vm(
        &self,
        name: &str,
        this: &ManagedObjectReference,
        element: &Element,
    ) -> Answer {
        let (host, of, by) = (self.host.clone(), this.clone(), self.user().to_owned());
        match name {
            "CreateVM_Task" => {
                let make: CreateVm = decode(element)?;
                check_folder(this)?;
                self.task_on_files::<CreateVm>(this, "Folder.createVm", move |host| {
                    create::create(host, &make.config, &by).map(Some)
                })
            }
            "RegisterVM_Task" => {
                let make: RegisterVm = decode(element)?;
                check_folder(this)?;
                self.task_on_files::<RegisterVm>(this, "Folder.registerVm", move |host| {
                    create::register(host, &make.path, make.name.as_deref(), &by).map(Some)
                })
            }
            "ReconfigVM_Task" => {
                let change: ReconfigVm = decode(element)?;
                let id = "VirtualMachine.reconfigure";
                self.vm_task_on_files::<ReconfigVm>(this, id, move |host| {
                    reconfigure::reconfigure(host, &of, &change.spec, &by)
                })
            }
            "Rename_Task" => {
                let change: Rename = decode(element)?;
                self.vm_task_on_files::<Rename>(this, "ManagedEntity.rename", move |host| {
                    reconfigure::rename(host, &of, &change.new_name, &by)
                })
            }
            "Destroy_Task" => {
                self.vm_task_on_files::<Destroy>(this, "VirtualMachine.destroy", move |host| {
                    remove::destroy(host, &of, &by)
                })
            }
            "PowerOnVM_Task" => {
                self.vm_task::<PowerOnVm>(this, "VirtualMachine.powerOn", async move {
                    power::power_on(&host, &of, &by).await
                })
            }
            "PowerOffVM_Task" => {
                self.vm_task::<PowerOffVm>(this, "VirtualMachine.powerOff", async move {
                    power::power_off(&host, &of, &by).await
                })
            }
            "ResetVM_Task" => self.vm_task::<ResetVm>(this, "VirtualMachine.reset", async move {
                power::reset(&host, &of, &by).await
            }),
            "ShutdownGuest" => {
                power::shutdown_guest(&host, this, &by).await?;
                answer::<ShutdownGuest>(&())
            }
            "UnregisterVM" => {
                self.unregister(this).await?;
                answer::<UnregisterVm>(&())
            }
            "CancelTask" => {
                // None of the tasks here can be cancelled, as ESXi says of most of its own.
                Err(not_supported("The task cannot be cancelled"))
            }
            "CreateFolder" => Err(not_supported("A host has no folders of folders")),
            _ => Err(self.no_method(name, this)),
        }
    }

    /// Unregisters as a task, so that nothing else works on the VM meanwhile, and waits for it.
    async fn unregister(&self, this: &ManagedObjectReference) -> Result<(), Fault> {
        let (host, of, by) = (self.host.clone(), this.clone(), self.user().to_owned());
        let (done, result) = tokio::sync::oneshot::channel();
        let work = async move {
            let result = host
                .blocking(move |host| remove::unregister(host, &of, &by))
                .await;
            let _ = done.send(result.clone());
            result.map(|()| None)
        };
        self.host
            .vm_task(this, "VirtualMachine.unregister", self.user(), work)?;
        result
            .await
            .map_err(|_| system_error("unregistering failed inside of hostsim"))?
    }
}

fn not_supported(message: impl Into<String>) -> Fault {
    Fault::new(FaultKind::NotSupported {}, message)
}

/// Refuses a folder that VMs cannot be made in.
fn check_folder(this: &ManagedObjectReference) -> Result<(), Fault> {
    if *this == inventory::vm_folder() {
        return Ok(());
    }
    if this.kind == "Folder" {
        let message = format!("{this} is no folder of virtual machines");
        return Err(not_supported(message));
    }
    Err(not_found(this))
}
