//! Changing and renaming VMs.

use super::apply::{FileWork, apply, extra_of};
use super::config::check_extra;
use super::files::{do_file_work, name_disks, write_vmx};
use super::placing::{Reservation, check_name};
use super::power::wrong_state;
use super::{Vm, cards, remove};
use crate::datastore::{locked, write_durably};
use crate::host::{Host, system_error};
use crate::log::undo_and_note;
use std::sync::Arc;
use vim::types::*;
use vim::{DateTime, Fault};

/// Changes a VM. Blocks on files.
///
/// # Errors
/// `InvalidPowerState` for what can only be changed while it is off, else as [`create`](super::create::create).
pub fn reconfigure(
    host: &Arc<Host>,
    reference: &ManagedObjectReference,
    spec: &VirtualMachineConfigSpec,
    user: &str,
) -> Result<(), Fault> {
    let vm = host.state().vm(reference)?.clone();
    if let Some(name) = spec.name.as_deref().filter(|n| *n != vm.config.name) {
        check_name(name)?;
        host.state().check_name(name)?;
    }
    if vm.power == PowerState::PoweredOn {
        reconfigure_running(host, &vm, spec)?;
    } else {
        let mut config = vm.config.clone();
        let work = apply(&mut config, spec)?;
        name_disks(host, &mut config, &vm.vmx, &work)?;
        // A disk that is to be deleted must not be another VM's.
        for item in &work {
            if let FileWork::DeleteDisk { path } = item {
                let users = host.state().disk_users();
                if users
                    .get(path)
                    .is_some_and(|vms| vms.iter().any(|vm| vm != reference))
                {
                    return Err(locked(
                        &host.store.parse(path)?,
                        "another virtual machine has it",
                    ));
                }
            }
        }
        let mut made = Vec::new();
        let done = do_file_work(host, &config, &work, &mut made)
            .and_then(|()| write_vmx(host, &vm.vmx, &config));
        let config = done.inspect_err(|_| undo_and_note(&host.store, &host.disks, None, &made))?;
        host.change(|state| state.vm_mut(reference).map(|vm| vm.config = config))?;
    }
    let message = format!("Reconfigured {}", vm.config.name);
    host.vm_event(&vm, "VmReconfiguredEvent", user, message);
    Ok(())
}

/// While a VM is on, its keys, notes and network cards change; the keys are gone at power-off.
fn reconfigure_running(
    host: &Arc<Host>,
    vm: &Vm,
    spec: &VirtualMachineConfigSpec,
) -> Result<(), Fault> {
    let cards = cards::Changes::of(host, vm, spec)?;
    let allowed = VirtualMachineConfigSpec {
        device_change: spec.device_change.clone(),
        extra_config: spec.extra_config.clone(),
        annotation: spec.annotation.clone(),
        name: spec.name.clone(),
        change_version: spec.change_version.clone(),
        ..VirtualMachineConfigSpec::default()
    };
    if allowed != *spec {
        return Err(wrong_state(vm.power, Some(PowerState::PoweredOff)));
    }
    let mut runtime = vm.runtime.clone();
    for (key, value) in extra_of(spec)? {
        runtime.insert(key, value);
    }
    let with = Vm {
        runtime: runtime.clone(),
        ..vm.clone()
    };
    check_extra(&with.extra())?;
    let file = host.run_folder(&vm.id).overlay();
    let changed = runtime != vm.runtime;
    if changed {
        let text = serde_json::to_vec(&runtime).map_err(|e| system_error(e.to_string()))?;
        write_durably(&file, &text, 0o600)
            .map_err(|e| system_error(format!("cannot write {}: {e}", file.display())))?;
    }
    let mut config = vm.config.clone();
    if spec.annotation.is_some() || spec.name.is_some() || spec.change_version.is_some() {
        let durable = VirtualMachineConfigSpec {
            extra_config: Vec::new(),
            device_change: Vec::new(),
            ..allowed
        };
        apply(&mut config, &durable)?;
        config = write_vmx(host, &vm.vmx, &config)?;
    }
    host.change(|state| {
        let now = state.vm_mut(&vm.reference())?;
        // Its .vmx has it by now, whether it still is on or not.
        now.config = config;
        if now.is_still(vm) {
            now.runtime = runtime;
            return Ok(());
        }
        if !changed {
            return Ok(());
        }
        // It has ended meanwhile, and with it what it was told at run time; the file may have come after that.
        remove(&file);
        Err(wrong_state(now.power, Some(PowerState::PoweredOn)))
    })?;
    cards.carry_out(host, &vm.reference())
}

/// Renames a VM, on or off; its files keep their names. Blocks on files.
///
/// # Errors
/// `DuplicateName`, `InvalidName`.
pub fn rename(
    host: &Arc<Host>,
    reference: &ManagedObjectReference,
    name: &str,
    user: &str,
) -> Result<(), Fault> {
    check_name(name)?;
    let vm = host.change(|state| {
        let vm = state.vm(reference)?.clone();
        if vm.config.name != name {
            state.check_name(name)?;
            state.names.insert(name.to_owned());
        }
        Ok::<Vm, Fault>(vm)
    })?;
    let _reservation = Reservation::of_name(host, name);
    let mut config = vm.config.clone();
    config.name = name.to_owned();
    config.changes += 1;
    config.modified = DateTime::now();
    let config = write_vmx(host, &vm.vmx, &config)?;
    host.change(|state| {
        state.vm_mut(reference)?.config = config;
        let message = format!("Renamed {} to {name}", vm.config.name);
        state.event("VmRenamedEvent", Some((reference, name)), user, message);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::super::power::{ended, power_on};
    use super::super::{VmConfig, cards};
    use super::*;
    use crate::vmx::ExitReason;
    use std::collections::BTreeMap;
    use vim::{DatastorePath, FaultKind};

    /// A state-only host whose VM is on, and was told something at run time.
    async fn running(folder: &std::path::Path) -> (Arc<Host>, Vm) {
        let host = Host::for_tests(folder);
        let vmx = DatastorePath::new(host.store.name(), "v.vmx");
        let config = VmConfig {
            name: "v".into(),
            ..VmConfig::default()
        };
        let vm = Vm::new("1".into(), vmx, config);
        host.change(|state| state.vms.insert(1, vm.clone()));
        power_on(&host, &vm.reference(), "").await.unwrap();
        let vm = host.state().vm(&vm.reference()).unwrap().clone();
        (host, vm)
    }

    fn end(host: &Arc<Host>, vm: &Vm) {
        let reason = &ExitReason::GuestPowerOff;
        ended(host, &vm.reference(), vm.run, reason, "");
    }

    fn keys() -> VirtualMachineConfigSpec {
        VirtualMachineConfigSpec {
            extra_config: vec![OptionValue::text("guestinfo.a", "b")],
            ..VirtualMachineConfigSpec::default()
        }
    }

    #[tokio::test]
    async fn a_vm_that_ends_during_a_change_keeps_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let (host, vm) = running(folder.path()).await;
        let files = host.run_folder(&vm.id);
        reconfigure_running(&host, &vm, &keys()).unwrap();
        assert!(files.overlay().exists());
        end(&host, &vm);

        let is_off = |result: Result<(), Fault>| {
            let kind = result.unwrap_err().kind;
            assert!(
                matches!(kind, FaultKind::InvalidPowerState { .. }),
                "{kind:?}"
            );
        };
        // What was begun while it was on comes to its end now.
        is_off(reconfigure_running(&host, &vm, &keys()));
        let plugged = BTreeMap::from([(4000, true)]);
        is_off(cards::keep(&host, &vm, vm.config.clone(), plugged));
        assert!(!files.overlay().exists() && !files.cables().exists());
        let now = host.state().vm(&vm.reference()).unwrap().clone();
        assert!(now.runtime.is_empty() && now.cables.is_empty());
    }

    #[tokio::test]
    async fn a_run_begins_with_nothing_of_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let (host, vm) = running(folder.path()).await;
        end(&host, &vm);
        let files = host.run_folder(&vm.id);
        std::fs::write(files.overlay(), r#"{"a":"b"}"#).unwrap();
        std::fs::write(files.cables(), r#"{"4000":true}"#).unwrap();
        host.change(|state| {
            let vm = state.vm_mut(&vm.reference()).unwrap();
            vm.runtime.insert("a".into(), Some("b".into()));
            vm.cables.insert(4000, true);
        });
        power_on(&host, &vm.reference(), "").await.unwrap();
        assert!(!files.overlay().exists() && !files.cables().exists());
        let now = host.state().vm(&vm.reference()).unwrap().clone();
        assert!(now.runtime.is_empty() && now.cables.is_empty());
    }
}
