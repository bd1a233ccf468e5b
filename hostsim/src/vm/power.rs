//! On, off, reset; and what happens when a VM ends by itself.

use super::{Vm, locks, run};
use crate::datastore::write_durably;
use crate::host::{Host, system_error};
use crate::inventory::HOST_NAME;
use crate::vmx::{ExitReason, VmxError, VmxHandle};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use vim::types::*;
use vim::{DateTime, Fault, FaultKind};

/// The fault for a VM in the wrong power state.
pub fn wrong_state(existing: PowerState, requested: Option<PowerState>) -> Fault {
    let kind = FaultKind::InvalidPowerState {
        requested_state: requested,
        existing_state: existing,
    };
    let message =
        format!("The attempted operation cannot be performed in the current state ({existing}).");
    Fault::new(kind, message)
}

/// The VM of a reference as it stands; refuses one that is not in this power state.
///
/// # Errors
/// `ManagedObjectNotFound`, `InvalidPowerState`.
pub fn vm_that_is(
    state: PowerState,
    host: &Host,
    reference: &ManagedObjectReference,
) -> Result<Vm, Fault> {
    let vm = host.state().vm(reference)?.clone();
    if vm.power == state {
        Ok(vm)
    } else {
        Err(wrong_state(vm.power, Some(state)))
    }
}

/// What `power.json` holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct PowerRecord {
    /// When the VM was powered on, ns since 1970.
    pub since: i64,
}

/// The fault for what a VM's shim could not do.
pub fn shim_fault(error: &VmxError) -> Fault {
    let reason = error.to_string();
    let message = format!("The virtual machine could not be run: {reason}");
    Fault::new(FaultKind::GenericVmConfigFault { reason }, message)
}

/// Powers a VM on.
///
/// # Errors
/// `InvalidPowerState`, `FileNotFound`, `GenericVmConfigFault` with what QEMU says, or where another
/// VM has a disk open.
pub async fn power_on(
    host: &Arc<Host>,
    reference: &ManagedObjectReference,
    user: &str,
) -> Result<(), Fault> {
    let vm = vm_that_is(PowerState::PoweredOff, host, reference)?;
    let files = host.run_folder(&vm.id);
    let since = DateTime::now();
    let message = format!("{} on {HOST_NAME} is starting", vm.config.name);
    host.vm_event(&vm, "VmStartingEvent", user, message);
    let record = PowerRecord {
        since: i64::try_from(since.0.unix_timestamp_nanos()).unwrap_or(0),
    };
    let text = serde_json::to_vec(&record).map_err(|e| system_error(e.to_string()))?;
    let (run_folder, power) = (files.clone(), files.power());
    let prepared = vm.clone();
    let mut held = Held {
        host,
        vm: &vm.id,
        kept: false,
    };
    let spec = host
        .blocking(move |host| {
            let opens = locks::opens(host, &prepared)?;
            let locked = host.change(|state| state.locks.take(&prepared.id, opens));
            locked.map_err(|path| locks::fault(&path))?;
            let folder = &run_folder.0;
            std::fs::create_dir_all(folder)
                .map_err(|e| system_error(format!("cannot make {}: {e}", folder.display())))?;
            // Nothing of an earlier run, which a restart would take for this one's.
            run_folder.forget_run_time();
            let spec = run::spec(host, &prepared)?;
            // Before the VM runs: a hostsim that is killed now must look for it.
            write_durably(&power, &text, 0o600)
                .map_err(|e| system_error(format!("cannot write {}: {e}", power.display())))?;
            Ok(spec)
        })
        .await?;
    let handle = match spec {
        Some(spec) => match host.launcher.power_on(&files.shim(), &spec).await {
            Ok(handle) => Some(handle),
            Err(error) => {
                let _ = std::fs::remove_file(files.power());
                return Err(shim_fault(&error));
            }
        },
        None => None,
    };
    let run = host.change(|state| {
        let vm = state.vm_mut(reference)?;
        vm.power = PowerState::PoweredOn;
        vm.boot_time = Some(since);
        vm.handle.clone_from(&handle);
        vm.runtime.clear();
        vm.cables.clear();
        vm.run += 1;
        let (run, name) = (vm.run, vm.config.name.clone());
        let message = format!("{name} on {HOST_NAME} is powered on");
        state.event("VmPoweredOnEvent", Some((reference, &name)), user, message);
        Ok::<u64, Fault>(run)
    })?;
    held.kept = true;
    if let Some(handle) = handle {
        watch_end(host, reference.clone(), run, handle);
    }
    Ok(())
}

/// The locks of a VM that is being powered on: gone again where that fails.
struct Held<'a> {
    host: &'a Arc<Host>,
    vm: &'a str,
    kept: bool,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.host.change(|state| state.locks.release(self.vm));
        }
    }
}

/// Waits for a VM's end in the background.
pub fn watch_end(host: &Arc<Host>, reference: ManagedObjectReference, run: u64, handle: VmxHandle) {
    let host = host.clone();
    tokio::spawn(async move {
        let reason = match handle.exited().await {
            Ok(record) => record.reason,
            Err(error) => {
                tracing::warn!(vm = %reference, %error, "the VM's shim makes no sense any more");
                ExitReason::ShimDied
            }
        };
        ended(&host, &reference, run, &reason, "");
    });
}

/// Notes that a VM's run has ended.
pub fn ended(
    host: &Host,
    reference: &ManagedObjectReference,
    run: u64,
    reason: &ExitReason,
    user: &str,
) {
    let files = host.run_folder(&reference.id);
    host.change(|state| {
        let Ok(vm) = state.vm(reference) else { return };
        if vm.run != run || vm.power != PowerState::PoweredOn {
            return;
        }
        // Under the lock, so that a power-on right behind cannot lose its files to this.
        files.forget_run_time();
        super::remove(&files.power());
        state.locks.release(&reference.id);
        let Ok(vm) = state.vm_mut(reference) else {
            return;
        };
        vm.power = PowerState::PoweredOff;
        vm.boot_time = None;
        vm.handle = None;
        vm.runtime.clear();
        vm.cables.clear();
        vm.clean_power_off = matches!(
            reason,
            ExitReason::GuestPowerOff | ExitReason::PowerOffRequested
        );
        let name = vm.config.name.clone();
        let message = format!("{name} on {HOST_NAME} is powered off: {reason}");
        state.event("VmPoweredOffEvent", Some((reference, &name)), user, message);
    });
}

/// Powers a VM off, hard.
///
/// # Errors
/// `InvalidPowerState`.
pub async fn power_off(
    host: &Arc<Host>,
    reference: &ManagedObjectReference,
    user: &str,
) -> Result<(), Fault> {
    let vm = vm_that_is(PowerState::PoweredOn, host, reference)?;
    let reason = match &vm.handle {
        Some(handle) => handle.power_off().await.map_err(|e| shim_fault(&e))?.reason,
        None => ExitReason::PowerOffRequested,
    };
    ended(host, reference, vm.run, &reason, user);
    Ok(())
}

/// Resets a VM.
///
/// # Errors
/// `InvalidPowerState`.
pub async fn reset(
    host: &Arc<Host>,
    reference: &ManagedObjectReference,
    user: &str,
) -> Result<(), Fault> {
    let vm = vm_that_is(PowerState::PoweredOn, host, reference)?;
    if let Some(handle) = &vm.handle {
        handle.reset().await.map_err(|e| shim_fault(&e))?;
    }
    let message = format!("{} is reset", vm.config.name);
    host.vm_event(&vm, "VmResettingEvent", user, message);
    host.change(|state| state.touch(reference));
    Ok(())
}

/// Asks the guest to shut down: the ACPI power button. In state-only mode there is no guest that
/// could take its time: the VM is off at once.
///
/// # Errors
/// `InvalidPowerState`.
pub async fn shutdown_guest(
    host: &Arc<Host>,
    reference: &ManagedObjectReference,
    user: &str,
) -> Result<(), Fault> {
    let vm = vm_that_is(PowerState::PoweredOn, host, reference)?;
    let message = format!("Guest OS shut down for {}", vm.config.name);
    host.vm_event(&vm, "VmGuestShutdownEvent", user, message);
    match &vm.handle {
        Some(handle) => handle.shutdown_guest().await.map_err(|e| shim_fault(&e)),
        None => {
            ended(host, reference, vm.run, &ExitReason::GuestPowerOff, user);
            Ok(())
        }
    }
}
