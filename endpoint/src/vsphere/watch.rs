//! The VMs as they change: the property collector's updates.

use super::{Result, VmRef, Vsphere, VsphereError, call};
use std::collections::BTreeMap;
use vim::{
    client::{Watch, WatchEvent},
    types::{ObjectUpdate, ObjectUpdateKind, OptionValue, PowerState, PropertyFilterSpec},
};

/// What changed of a VM; `None` is what did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmChange {
    /// Which.
    pub vm: VmRef,
    /// Its name.
    pub name: Option<String>,
    /// Whether it is on.
    pub on: Option<bool>,
    /// All of its VM keys. A VM whose files cannot be read has none (`connectionState` is `inaccessible` or `invalid`,
    /// and `config` is not set): nobody knows then whose it is.
    pub keys: Option<BTreeMap<String, String>>,
}

/// One step of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmUpdate {
    /// Everything comes anew; what does not come is gone. The next batch is whole.
    Reset,
    /// A VM is new or changed.
    Changed(VmChange),
    /// A VM is gone.
    Gone(VmRef),
}

/// The feed. It makes itself anew where the session was lost.
#[derive(Debug)]
pub struct VmWatch {
    watch: Watch,
}

const PATHS: [&str; 3] = ["name", "runtime.powerState", "config.extraConfig"];

impl Vsphere {
    /// Watches all VMs below the datacenter's VM folder. The first batch holds all there are.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn watch_vms(&self) -> Result<VmWatch> {
        let view = self
            .client
            .container_view(&self.places.vm_folder, &["VirtualMachine"])
            .await
            .map_err(call("cannot make a view of the VMs"))?;
        let spec = PropertyFilterSpec::view(&view, "VirtualMachine", &PATHS);
        let watch = self
            .client
            .watch(spec)
            .await
            .map_err(call("cannot watch the VMs"))?;
        Ok(VmWatch { watch })
    }
}

impl Vsphere {
    /// All VMs below the datacenter's VM folder, as they are now.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn list_vms(&self) -> Result<Vec<VmChange>> {
        self.client
            .list(&self.places.vm_folder, "VirtualMachine", &PATHS)
            .await
            .map_err(call("cannot list the VMs"))?
            .into_iter()
            .map(|vm| {
                let decode =
                    |e: vim::DecodeError| VsphereError::Missing(format!("{}: {e}", vm.obj));
                let keys = super::vm_keys(&vm).map_err(decode)?;
                let power: Option<PowerState> = vm.get("runtime.powerState").map_err(decode)?;
                Ok(VmChange {
                    name: vm.get("name").map_err(decode)?,
                    on: power.map(|state| state != PowerState::PoweredOff),
                    keys,
                    vm: vm.obj,
                })
            })
            .collect()
    }
}

pub(super) fn to_keys(options: &[OptionValue]) -> BTreeMap<String, String> {
    options
        .iter()
        .map(|option| (option.key.clone(), option.as_text().to_owned()))
        .collect()
}

impl VmWatch {
    /// The next batch. After an error make a new watch.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn next(&mut self) -> Result<Vec<VmUpdate>> {
        match self
            .watch
            .next()
            .await
            .map_err(call("cannot watch the VMs"))?
        {
            WatchEvent::Reset => Ok(vec![VmUpdate::Reset]),
            WatchEvent::Updates(updates) => updates.iter().map(change).collect(),
        }
    }
}

fn change(update: &ObjectUpdate) -> Result<VmUpdate> {
    if update.kind == ObjectUpdateKind::Leave {
        return Ok(VmUpdate::Gone(update.obj.clone()));
    }
    let decode = |e: vim::DecodeError| VsphereError::Missing(format!("{}: {e}", update.obj));
    let keys = update
        .items::<OptionValue>("config.extraConfig")
        .map_err(decode)?
        .map(|options| to_keys(&options));
    Ok(VmUpdate::Changed(VmChange {
        vm: update.obj.clone(),
        name: update.get("name").map_err(decode)?,
        on: update
            .get::<PowerState>("runtime.powerState")
            .map_err(decode)?
            .map(|state| state != PowerState::PoweredOff),
        keys,
    }))
}
