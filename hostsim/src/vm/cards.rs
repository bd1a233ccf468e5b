//! Network cards of a VM that is on: plugged in, moved to another port group, connected and disconnected, taken out.

use super::apply::{apply, invalid};
use super::files::write_vmx;
use super::power::{shim_fault, wrong_state};
use super::{Vm, VmConfig, remove, run};
use crate::datastore::write_durably;
use crate::host::{Host, system_error};
use crate::vmx::{NicSpec, VmxHandle};
use std::collections::BTreeMap;
use std::sync::Arc;
use vim::Fault;
use vim::types::*;

/// What is to be done with a VM's network cards, found possible.
#[derive(Debug)]
pub struct Changes(Vec<VirtualDeviceConfigSpec>);

/// One step, as the VM's shim takes it.
enum Step {
    Plug(NicSpec),
    Set(NicSpec),
    Unplug(u8),
}

impl Changes {
    /// The changes of a specification for a VM that is on. Nothing is done yet.
    ///
    /// # Errors
    /// `InvalidPowerState` where one is about another kind of device, else as [`apply`].
    pub fn of(host: &Host, vm: &Vm, spec: &VirtualMachineConfigSpec) -> Result<Changes, Fault> {
        let mut config = vm.config.clone();
        for (index, change) in spec.device_change.iter().enumerate() {
            let index = i32::try_from(index).unwrap_or(i32::MAX);
            let old = config.devices.iter().find(|d| d.key == change.device.key);
            let is_card = |d: &VirtualDevice| matches!(d.kind, DeviceKind::Vmxnet3(_));
            let fine = match change.operation {
                Some(DeviceOperation::Remove) => old.is_none_or(is_card),
                Some(DeviceOperation::Edit) => {
                    is_card(&change.device)
                        && old.is_none_or(|old| {
                            let mac = change.device.mac_address().unwrap_or_default();
                            is_card(old) && (mac.is_empty() || Some(mac) == old.mac_address())
                        })
                }
                Some(DeviceOperation::Add) | None => is_card(&change.device),
            };
            if !fine {
                return Err(wrong_state(vm.power, Some(PowerState::PoweredOff)));
            }
            let before = config.clone();
            config = with(&before, change)?;
            let (key, _) = touched(&before, &config, change);
            step(host, &config, key, false, true)
                .map_err(|reason| invalid(index, "device.backing.deviceName", reason))?;
        }
        Ok(Changes(spec.device_change.clone()))
    }

    /// Does them, one after the other; what was done before one fails stays done. Blocks on files and on the guest.
    ///
    /// # Errors
    /// `GenericVmConfigFault` with the shim's words: the guest has not let a card go, say.
    pub fn carry_out(
        &self,
        host: &Arc<Host>,
        reference: &ManagedObjectReference,
    ) -> Result<(), Fault> {
        for change in &self.0 {
            let vm = host.state().vm(reference)?.clone();
            if vm.power != PowerState::PoweredOn {
                return Err(wrong_state(vm.power, Some(PowerState::PoweredOn)));
            }
            let config = with(&vm.config, change)?;
            let (key, cable) = touched(&vm.config, &config, change);
            let connected = cable.unwrap_or_else(|| {
                let device = config.devices.iter().find(|d| d.key == key);
                device.is_some_and(|device| vm.is_connected(device))
            });
            let new = vm.config.devices.iter().all(|d| d.key != key);
            let step = step(host, &config, key, new, connected).map_err(system_error)?;
            if let Some(handle) = &vm.handle {
                carry_out(handle, &step)?;
            }
            let config = write_vmx(host, &vm.vmx, &config)?;
            let mut cables = vm.cables.clone();
            match (&step, cable) {
                (Step::Unplug(_), _) => cables.remove(&key),
                (_, Some(cable)) => cables.insert(key, cable),
                _ => None,
            };
            keep(host, &vm, config, cables)?;
        }
        Ok(())
    }
}

/// The configuration with one change.
fn with(config: &VmConfig, change: &VirtualDeviceConfigSpec) -> Result<VmConfig, Fault> {
    let mut config = config.clone();
    let spec = VirtualMachineConfigSpec {
        device_change: vec![change.clone()],
        ..VirtualMachineConfigSpec::default()
    };
    apply(&mut config, &spec)?;
    Ok(config)
}

/// The key of the card that a change is about, and how its cable is to be where the change says so.
fn touched(
    before: &VmConfig,
    after: &VmConfig,
    change: &VirtualDeviceConfigSpec,
) -> (i32, Option<bool>) {
    let connectable = change.device.connectable.as_ref();
    match change.operation {
        Some(DeviceOperation::Remove) => (change.device.key, None),
        Some(DeviceOperation::Edit) => (change.device.key, connectable.map(|c| c.connected)),
        // Clients set the one or the other to have a new card connected.
        Some(DeviceOperation::Add) | None => {
            let old = |key: i32| before.devices.iter().any(|d| d.key == key);
            let key = after.devices.iter().map(|d| d.key).find(|key| !old(*key));
            let cable = connectable.map(|c| c.connected || c.start_connected);
            (key.unwrap_or_default(), cable)
        }
    }
}

/// What the shim is to do for the card with this key to be as it is in the configuration; `new`: it was not there.
fn step(
    host: &Host,
    config: &VmConfig,
    key: i32,
    new: bool,
    connected: bool,
) -> Result<Step, String> {
    let Some(device) = config.devices.iter().find(|d| d.key == key) else {
        return Ok(Step::Unplug(
            u8::try_from(key - super::config::NIC_KEY).unwrap_or(u8::MAX),
        ));
    };
    match (&device.kind, &device.backing) {
        (DeviceKind::Vmxnet3(members), Some(Backing::Network(backing))) => {
            let nic = run::nic(host, key, members, backing, connected)?;
            Ok(if new { Step::Plug(nic) } else { Step::Set(nic) })
        }
        _ => Err("a network card is in a port group here".into()),
    }
}

/// Has the shim do it. Runs where it may block.
fn carry_out(handle: &VmxHandle, step: &Step) -> Result<(), Fault> {
    let work = async {
        match step {
            Step::Plug(nic) => handle.plug_nic(nic).await,
            Step::Set(nic) => handle.set_nic(nic).await,
            Step::Unplug(slot) => handle.unplug_nic(*slot).await,
        }
    };
    tokio::runtime::Handle::current()
        .block_on(work)
        .map_err(|e| shim_fault(&e))
}

/// Notes what a VM that was on has now: its configuration, which its .vmx has by now, and its cables.
///
/// # Errors
/// `InvalidPowerState` where it has ended meanwhile, and with it what was plugged in and out.
pub(super) fn keep(
    host: &Host,
    vm: &Vm,
    config: VmConfig,
    cables: BTreeMap<i32, bool>,
) -> Result<(), Fault> {
    let file = host.run_folder(&vm.id).cables();
    if cables != vm.cables {
        let text = serde_json::to_vec(&cables).map_err(|e| system_error(e.to_string()))?;
        write_durably(&file, &text, 0o600)
            .map_err(|e| system_error(format!("cannot write {}: {e}", file.display())))?;
    }
    host.change(|state| {
        let now = state.vm_mut(&vm.reference())?;
        now.config = config;
        if now.is_still(vm) {
            now.cables = cables;
            return Ok(());
        }
        // The file may have come after its end.
        remove(&file);
        Err(wrong_state(now.power, Some(PowerState::PoweredOn)))
    })
}
