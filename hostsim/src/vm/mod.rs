//! Virtual machines: configuration, its file, and what is done with them.

pub mod apply;
mod cards;
pub mod config;
pub mod create;
pub mod files;
pub mod info;
pub mod locks;
mod placing;
pub mod power;
pub mod reconfigure;
pub mod remove;
pub mod run;
pub mod vmx_file;

pub use config::VmConfig;

use crate::vmx::VmxHandle;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vim::types::{ManagedObjectReference, PowerState, VirtualDevice};
use vim::{DatastorePath, DateTime};

/// A registered VM.
#[derive(Debug, Clone)]
pub struct Vm {
    /// Its ID in the inventory.
    pub id: String,
    /// Its .vmx.
    pub vmx: DatastorePath,
    /// Its configuration as it is in the .vmx.
    pub config: VmConfig,
    /// Keys set (or removed: `None`) since the power-on, gone at power-off.
    pub runtime: BTreeMap<String, Option<String>>,
    /// Network cards whose cable was plugged in (`true`) or out since the power-on, by their keys; gone at power-off.
    pub cables: BTreeMap<i32, bool>,
    /// On or off.
    pub power: PowerState,
    /// When it was powered on.
    pub boot_time: Option<DateTime>,
    /// The last power-off was an orderly one.
    pub clean_power_off: bool,
    /// Its shim, while it is on (none in state-only mode).
    pub handle: Option<VmxHandle>,
    /// Counts power-ons, so that a late end of an earlier one is told apart.
    pub run: u64,
    /// The task that works on it.
    pub busy: Option<ManagedObjectReference>,
}

impl Vm {
    /// A VM that is off.
    pub fn new(id: String, vmx: DatastorePath, config: VmConfig) -> Vm {
        Vm {
            id,
            vmx,
            config,
            runtime: BTreeMap::new(),
            cables: BTreeMap::new(),
            power: PowerState::PoweredOff,
            boot_time: None,
            clean_power_off: true,
            handle: None,
            run: 0,
            busy: None,
        }
    }

    /// Its reference.
    pub fn reference(&self) -> ManagedObjectReference {
        ManagedObjectReference::new("VirtualMachine", self.id.clone())
    }

    /// Its keys as they hold now.
    pub fn extra(&self) -> BTreeMap<String, String> {
        let mut extra = self.config.extra.clone();
        for (key, value) in &self.runtime {
            match value {
                Some(value) => extra.insert(key.clone(), value.clone()),
                None => extra.remove(key),
            };
        }
        extra
    }

    /// Whether a device is connected now.
    pub fn is_connected(&self, device: &VirtualDevice) -> bool {
        let at_power_on = device
            .connectable
            .as_ref()
            .is_none_or(|c| c.start_connected);
        let now = self.cables.get(&device.key).copied();
        self.power == PowerState::PoweredOn && now.unwrap_or(at_power_on)
    }

    /// Whether it still is in the run that an earlier look at it found it in.
    fn is_still(&self, earlier: &Vm) -> bool {
        self.power == PowerState::PoweredOn && self.run == earlier.run
    }

    /// Its folder on the datastore.
    pub fn folder(&self) -> DatastorePath {
        folder_of(&self.vmx)
    }
}

/// The folder of a .vmx, which is always in one; for the root it is the root itself.
fn folder_of(vmx: &DatastorePath) -> DatastorePath {
    vmx.parent().unwrap_or_else(|| vmx.clone())
}

/// Files of a VM in hostsim's state folder (not on the datastore).
#[derive(Debug, Clone)]
pub struct RunFolder(pub PathBuf);

impl RunFolder {
    /// The shim's folder.
    pub fn shim(&self) -> PathBuf {
        self.0.join("vmx")
    }
    /// Exists while the VM is on.
    pub fn power(&self) -> PathBuf {
        self.0.join("power.json")
    }
    /// The keys changed at run time.
    pub fn overlay(&self) -> PathBuf {
        self.0.join("overlay.json")
    }
    /// The cables plugged in and out at run time.
    pub fn cables(&self) -> PathBuf {
        self.0.join("cables.json")
    }

    /// Removes what only holds while a VM runs.
    fn forget_run_time(&self) {
        for file in [self.overlay(), self.cables()] {
            remove(&file);
        }
    }
}

/// Removes a file of a run folder, if it is there.
fn remove(file: &Path) {
    if let Err(error) = std::fs::remove_file(file)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(file = %file.display(), %error, "cannot remove");
    }
}
