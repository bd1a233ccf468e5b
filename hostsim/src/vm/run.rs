//! From a VM's configuration to what its shim runs; and finding VMs again at the start.

use super::Vm;
use super::config::{IDE_KEY, NIC_KEY, SATA_KEY, SCSI_KEY};
use super::files::read_vmx;
use super::power::{PowerRecord, ended, watch_end};
use crate::host::{Host, Network, system_error};
use crate::log::Inventory;
use crate::vmx::{
    Accelerator, DirectBoot, DiskSpec, ExitReason, ExitRecord, Firmware, NicBackend, NicSpec,
    SerialDirection, SerialFaults, SerialSpec, SerialUri, SwitchPort, UserNet, VmxHandle, VmxSpec,
    VsockSpec,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use time::OffsetDateTime;
use vim::types::*;
use vim::{DateTime, Fault, FaultKind};

/// What the shim is to run; `None` in state-only mode. Blocks on files.
///
/// # Errors
/// `FileNotFound` for a missing disk or image, `GenericVmConfigFault` for what cannot be run.
pub fn spec(host: &Host, vm: &Vm) -> Result<Option<VmxSpec>, Fault> {
    let config = &vm.config;
    for device in config.disks() {
        if let Some(backing) = device.disk_backing() {
            host.disks
                .chain(&host.store, &host.store.parse(&backing.file_name)?)?;
        }
    }
    if host.settings.state_only {
        return Ok(None);
    }
    let mut spec = VmxSpec {
        uuid: parse_uuid(&config.uuid)?,
        instance_uuid: parse_uuid(&config.instance_uuid)?,
        name: config.name.clone(),
        memory_mib: u64::try_from(config.memory_mb).unwrap_or(0),
        cpus: u32::try_from(config.cpus).unwrap_or(0),
        accelerator: host
            .facts
            .as_ref()
            .map_or(Accelerator::Tcg, |f| f.accelerator),
        tsc_khz: host.facts.as_ref().and_then(|f| f.tsc_khz),
        firmware: if config.firmware == "efi" {
            Firmware::Efi
        } else {
            Firmware::Bios
        },
        boot: boot(host, vm)?,
        disks: Vec::new(),
        nics: Vec::new(),
        cdrom: None,
        cdrom_first: vm.config.boot_options.boot_order.first() == Some(&BootDevice::Cdrom),
        serials: Vec::new(),
        guestinfo: config
            .extra
            .iter()
            .filter(|(key, _)| key.starts_with("guestinfo."))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        vsock: vsock(host, vm)?,
        shares: crate::shares::of(host, vm)?,
    };
    let mut devices: Vec<&VirtualDevice> = config.devices.iter().collect();
    devices.sort_by_key(|d| d.key);
    for device in devices {
        add_device(host, vm, device, &mut spec)?;
    }
    Ok(Some(spec))
}

fn unrunnable(reason: String) -> Fault {
    let message = format!("The virtual machine cannot be run: {reason}");
    Fault::new(FaultKind::GenericVmConfigFault { reason }, message)
}

fn parse_uuid(text: &str) -> Result<uuid::Uuid, Fault> {
    uuid::Uuid::parse_str(text).map_err(|_| unrunnable(format!("{text:?} is no UUID")))
}

/// A file of the datastore that must exist.
fn existing(host: &Host, path: &str) -> Result<PathBuf, Fault> {
    let path = host.store.parse(path)?;
    let file = host.store.resolve(&path)?;
    if file.is_file() {
        return Ok(file);
    }
    Err(crate::datastore::file_fault(
        &path,
        &std::io::ErrorKind::NotFound.into(),
    ))
}

fn boot(host: &Host, vm: &Vm) -> Result<Option<DirectBoot>, Fault> {
    let key = |name: &str| vm.config.extra.get(name);
    let Some(kernel) = key("hostsim.boot.kernel") else {
        return Ok(None);
    };
    if !host.settings.link_and_boot {
        return Err(unrunnable(
            "hostsim.boot.kernel is set, but this host does not announce mooring.boot.kernel"
                .into(),
        ));
    }
    Ok(Some(DirectBoot {
        kernel: existing(host, kernel)?,
        initrd: key("hostsim.boot.initrd")
            .map(|path| existing(host, path))
            .transpose()?,
        cmdline: key("hostsim.boot.cmdline").cloned().unwrap_or_default(),
    }))
}

fn vsock(host: &Host, vm: &Vm) -> Result<Option<VsockSpec>, Fault> {
    if !host.settings.link_and_boot {
        return Ok(None);
    }
    Ok(Some(match crate::options::link_folder(host) {
        Some(folder) => {
            std::fs::create_dir_all(&folder)
                .map_err(|e| system_error(format!("cannot make {}: {e}", folder.display())))?;
            VsockSpec::Uds { folder }
        }
        None => VsockSpec::Kernel {
            cid: guest_cid(parse_uuid(&vm.config.instance_uuid)?),
        },
    }))
}

/// A guest's address at the kernel's vsock device (vsock(7)). All hosts of a machine share them, so it follows from what
/// no other VM has; 0 to 2 and the largest number mean something else.
fn guest_cid(instance: uuid::Uuid) -> u32 {
    let whole = instance.as_u128();
    let folded = (0..4).fold(0, |all, n| all ^ (whole >> (32 * n)));
    let range = u128::from(u32::MAX - 3);
    // Less than 2^32: a remainder of what is less than that.
    3 + u32::try_from((folded & u128::from(u32::MAX)) % range).unwrap_or(0)
}

/// The faults of a VM's serial lines.
///
/// # Errors
/// Where a key is not known or its value no number: a line that was meant to be bad would be good.
fn serial_faults(extra: &BTreeMap<String, String>) -> Result<SerialFaults, Fault> {
    const PREFIX: &str = "hostsim.serial.";
    let mut faults = SerialFaults::default();
    for (key, value) in extra {
        let Some(name) = key.strip_prefix(PREFIX) else {
            continue;
        };
        let wrong = |_| {
            unrunnable(format!(
                "{key} is {value:?}, which is no number of its range"
            ))
        };
        match name {
            "corrupt" => faults.corrupt = value.parse().map_err(wrong)?,
            "drop" => faults.drop = value.parse().map_err(wrong)?,
            "seed" => faults.seed = value.parse().map_err(wrong)?,
            _ => return Err(unrunnable(format!("no key {key} is known"))),
        }
    }
    Ok(faults)
}

fn add_device(
    host: &Host,
    vm: &Vm,
    device: &VirtualDevice,
    spec: &mut VmxSpec,
) -> Result<(), Fault> {
    let number = |n: i32| u32::try_from(n).unwrap_or(u32::MAX);
    let unit = device.unit_number.unwrap_or(0);
    let controller = device.controller_key.unwrap_or(0);
    let connected = device
        .connectable
        .as_ref()
        .is_none_or(|c| c.start_connected);
    match (&device.kind, &device.backing) {
        (DeviceKind::Disk(_), Some(Backing::Disk(backing))) => spec.disks.push(DiskSpec {
            path: existing(host, &backing.file_name)?,
            controller: number(controller - SCSI_KEY),
            unit: number(unit),
            read_only: super::locks::reads_only(&backing.disk_mode),
        }),
        (DeviceKind::Cdrom, Some(Backing::Iso(file))) if connected => {
            if spec.cdrom.is_some() {
                return Err(unrunnable(
                    "one CD-ROM drive with an image is what can be run".into(),
                ));
            }
            debug_assert!(controller >= IDE_KEY || controller >= SATA_KEY);
            spec.cdrom = Some(existing(host, &file.file_name)?);
        }
        (DeviceKind::Vmxnet3(members), Some(Backing::Network(backing))) => {
            let nic = nic(host, device.key, members, backing, connected).map_err(unrunnable)?;
            spec.nics.push(nic);
        }
        (DeviceKind::Serial(_), _) if !connected => spec.serials.push(SerialSpec::Disconnected),
        (DeviceKind::Serial(_), Some(Backing::SerialFile(file))) => {
            let path = host.store.resolve(&host.store.parse(&file.file_name)?)?;
            let answer = vm.config.extra.get("answer.msg.serial.file.open");
            if answer.is_none() && path.exists() {
                // vSphere asks whether to replace the file or to append, and the power-on waits for somebody to answer.
                return Err(unrunnable(format!(
                    "msg.serial.file.open: {} exists, and no key answers what is to become of it",
                    file.file_name
                )));
            }
            let append = answer.is_some_and(|v| v == "Append");
            spec.serials.push(SerialSpec::File { path, append });
        }
        (DeviceKind::Serial(_), Some(Backing::SerialUri(uri))) => {
            spec.serials.push(SerialSpec::Uri(SerialUri {
                service_uri: uri.service_uri.clone(),
                proxy_uri: uri.proxy_uri.clone().unwrap_or_default(),
                direction: if uri.direction == "server" {
                    SerialDirection::Server
                } else {
                    SerialDirection::Client
                },
                faults: serial_faults(&vm.config.extra)?,
            }));
        }
        _ => {}
    }
    Ok(())
}

/// A vNIC as the shim takes it. `connected`: its cable is plugged in.
///
/// # Errors
/// A sentence: its network does not exist.
pub fn nic(
    host: &Host,
    key: i32,
    members: &EthernetMembers,
    backing: &NetworkBacking,
    connected: bool,
) -> Result<NicSpec, String> {
    let settings = &host.settings;
    let name = &backing.device_name;
    let network = settings
        .networks
        .get(name)
        .ok_or_else(|| format!("the network '{name}' does not exist"))?;
    let backend = match (*network, &settings.switch) {
        (Network::User { address, prefix }, _) => {
            let net = UserNet::of_subnet(address, prefix)
                .ok_or_else(|| format!("the network '{name}' has the prefix length {prefix}"))?;
            NicBackend::User(net)
        }
        (Network::Vlan(vlan), Some(switch)) => NicBackend::Port(SwitchPort {
            netns: switch.netns().to_owned(),
            vlan,
        }),
        (Network::Vlan(vlan), None) => {
            return Err(format!(
                "the network '{name}' is the VLAN {vlan}, and there is no switch"
            ));
        }
    };
    Ok(NicSpec {
        slot: u8::try_from(key - NIC_KEY).unwrap_or(u8::MAX),
        mac: members.mac_address.clone().unwrap_or_default(),
        port_group: name.clone(),
        connected,
        backend,
    })
}

/// Takes the registered VMs up again: those whose shims still run are on.
pub async fn restore(host: &Arc<Host>, inventory: Inventory) {
    host.change(|state| state.last_vm = state.last_vm.max(inventory.last));
    for (id, vmx) in inventory.vms {
        let Ok(path) = vmx.parse() else {
            tracing::error!(
                id,
                vmx,
                "a registered VM's path cannot be read; it is left out"
            );
            continue;
        };
        let config = match read_vmx(&host.store, &path) {
            Ok(config) => config,
            Err(fault) => {
                // Its files are gone or broken: nothing can be done with it here, and its
                // registration stays for the case that they come back.
                tracing::error!(id, vmx, %fault, "a registered VM cannot be read; it is left out");
                continue;
            }
        };
        restore_one(host, id, Vm::new(id.to_string(), path, config)).await;
    }
}

/// What a JSON file of a running VM holds; one that was never written holds nothing.
fn kept<T: serde::de::DeserializeOwned + Default>(path: &std::path::Path) -> T {
    std::fs::read(path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

async fn restore_one(host: &Arc<Host>, id: u64, mut vm: Vm) {
    let files = host.run_folder(&vm.id);
    let reference = vm.reference();
    let record: Option<PowerRecord> = std::fs::read(files.power())
        .ok()
        .and_then(|t| serde_json::from_slice(&t).ok());
    if let Some(record) = &record {
        vm.power = PowerState::PoweredOn;
        vm.run = 1;
        let since = OffsetDateTime::from_unix_timestamp_nanos(record.since.into());
        vm.boot_time = since.ok().map(DateTime);
        vm.runtime = kept(&files.overlay());
        vm.cables = kept(&files.cables());
    }
    let found = match (&record, host.settings.state_only) {
        (Some(_), false) => match VmxHandle::reattach(&files.shim()).await {
            Ok(handle) => handle,
            Err(error) => {
                // That is no news of its end. Whoever waits for that asks again.
                tracing::error!(vm = %reference, %error, "the VM's shim cannot be asked");
                Some(VmxHandle::of(&files.shim()))
            }
        },
        _ => None,
    };
    vm.handle.clone_from(&found);
    let opens = match (&record, &found, host.settings.state_only) {
        (Some(_), Some(_), _) | (Some(_), _, true) => super::locks::opens(host, &vm),
        _ => Ok(Vec::new()),
    };
    host.change(|state| {
        let opens = opens.unwrap_or_default();
        if let Err(path) = state.locks.take(&vm.id, opens) {
            tracing::error!(vm = %reference, path, "a VM that runs has a disk that another one has");
        }
        state.vms.insert(id, vm);
        state.touch_structure();
    });
    match (record, found) {
        (Some(_), Some(handle)) => watch_end(host, reference, 1, handle),
        (Some(_), None) if !host.settings.state_only => {
            let record = ExitRecord::read(&files.shim()).ok().flatten();
            let reason = record.map_or(ExitReason::ShimDied, |record| record.reason);
            ended(host, &reference, 1, &reason, "");
        }
        (None, _) => {
            // Left behind by a kill between the removals of a power-off.
            files.forget_run_time();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::VmConfig;
    use super::super::files::write_vmx;
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Duration;

    /// Takes one request and answers it with a line.
    fn answer(listener: &UnixListener, line: &str) {
        let (mut stream, _) = listener.accept().unwrap();
        let asked: UnixStream = stream.try_clone().unwrap();
        BufReader::new(asked).read_line(&mut String::new()).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
    }

    #[test]
    fn a_guest_s_address_is_its_own_and_none_that_means_something() {
        let of = |whole: u128| guest_cid(uuid::Uuid::from_u128(whole));
        assert_ne!(of(1 << 96 | 7), of(7));
        assert_ne!(of(7), of(8));
        for whole in [
            0,
            1,
            u128::MAX,
            u128::from(u32::MAX),
            u128::from(u32::MAX - 1),
        ] {
            assert!((3..u32::MAX).contains(&of(whole)), "{whole:x}");
        }
    }

    #[test]
    fn a_line_that_was_meant_to_be_bad_is_bad_or_the_vm_does_not_start() {
        let faults = |key: &str, value: &str| {
            let key = format!("hostsim.serial.{key}");
            serial_faults(&BTreeMap::from([(key, value.to_owned())]))
        };
        assert_eq!(faults("corrupt", "1000").unwrap().corrupt, 1000);
        assert_eq!(faults("drop", "900").unwrap().drop, 900);
        assert_eq!(
            faults("seed", "18446744073709551615").unwrap().seed,
            u64::MAX
        );
        for (key, value) in [
            ("corrupt", "many"),
            ("drop", "-1"),
            ("drop", "4294967296"),
            ("corupt", "1"),
        ] {
            let text = faults(key, value).unwrap_err().to_string();
            assert!(text.contains(key), "{text}");
        }
        assert_eq!(
            serial_faults(&BTreeMap::new()).unwrap(),
            SerialFaults::default()
        );
    }

    #[tokio::test]
    async fn a_vm_whose_shim_could_not_be_asked_at_the_start_is_on_until_its_end_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = Host::for_tests(folder.path());
        Arc::get_mut(&mut host).unwrap().settings.state_only = false;
        let vmx = "[ds] v.vmx".parse().unwrap();
        write_vmx(&host, &vmx, &VmConfig::default()).unwrap();
        let files = host.run_folder("1");
        std::fs::create_dir_all(files.shim()).unwrap();
        std::fs::write(files.power(), r#"{"since":5}"#).unwrap();
        let listener = UnixListener::bind(files.shim().join("control.sock")).unwrap();
        let (end, ended) = std::sync::mpsc::channel();
        let shim = std::thread::spawn(move || {
            answer(&listener, "what?\n");
            ended.recv().unwrap();
            let record = r#"{"reply":"exited","reason":"guest_power_off","at":5,"ran":true}"#;
            answer(&listener, &format!("{record}\n"));
        });

        let mut changes = host.subscribe();
        let inventory = Inventory {
            vms: [(1, vmx.to_string())].into(),
            last: 1,
        };
        restore(&host, inventory).await;
        let power = || host.state().vms.get(&1).unwrap().power;
        assert_eq!(power(), PowerState::PoweredOn);
        end.send(()).unwrap();
        let off = async {
            while power() == PowerState::PoweredOn {
                changes.changed().await.unwrap();
            }
        };
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, off).await.unwrap();
        assert!(!files.power().exists());
        shim.join().unwrap();
    }
}
