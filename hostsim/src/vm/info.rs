//! A VM as the API shows it.

use super::Vm;
use super::config::VmConfig;
use crate::host::Host;
use crate::inventory;
use vim::DateTime;
use vim::types::*;

/// Its networks.
pub fn networks(vm: &Vm) -> Vec<ManagedObjectReference> {
    let mut networks: Vec<ManagedObjectReference> = vm
        .config
        .devices
        .iter()
        .filter_map(|d| match &d.backing {
            Some(Backing::Network(backing)) => Some(inventory::network(&backing.device_name)),
            _ => None,
        })
        .collect();
    networks.sort();
    networks.dedup();
    networks
}

/// Its keys.
pub fn extra_config(vm: &Vm) -> Vec<OptionValue> {
    vm.extra()
        .into_iter()
        .map(|(key, value)| OptionValue::text(key, value))
        .collect()
}

fn full_name(config: &VmConfig) -> String {
    match config.guest_id.as_str() {
        "otherLinux64Guest" => "Other Linux (64-bit)".into(),
        "other5xLinux64Guest" => "Other 5.x Linux (64-bit)".into(),
        "other6xLinux64Guest" => "Other 6.x or later Linux (64-bit)".into(),
        other => other.to_owned(),
    }
}

/// Its configuration.
pub fn config(host: &Host, vm: &Vm) -> VirtualMachineConfigInfo {
    let config = &vm.config;
    VirtualMachineConfigInfo {
        change_version: config.changes.to_string(),
        modified: config.modified,
        name: config.name.clone(),
        guest_full_name: full_name(config),
        version: config.version.clone(),
        uuid: config.uuid.clone(),
        create_date: Some(config.created),
        instance_uuid: Some(config.instance_uuid.clone()),
        template: false,
        guest_id: config.guest_id.clone(),
        alternate_guest_name: String::new(),
        annotation: Some(config.annotation.clone()),
        files: VirtualMachineFileInfo {
            vm_path_name: Some(vm.vmx.to_string()),
            snapshot_directory: Some(format!("{}/", vm.folder())),
            suspend_directory: Some(format!("{}/", vm.folder())),
            log_directory: Some(format!("{}/", vm.folder())),
        },
        flags: VirtualMachineFlagInfo {
            enable_logging: Some(true),
            disk_uuid_enabled: Some(false),
        },
        default_power_ops: VirtualMachineDefaultPowerOpInfo {
            power_off_type: Some("soft".into()),
            reset_type: Some("soft".into()),
        },
        hardware: VirtualHardware {
            num_cpu: config.cpus,
            num_cores_per_socket: Some(config.cores_per_socket),
            memory_mb: config.memory_mb,
            device: devices(host, vm),
        },
        cpu_allocation: config.cpu_allocation.clone(),
        memory_allocation: config.memory_allocation.clone(),
        memory_hot_add_enabled: Some(config.memory_hot_add),
        cpu_hot_add_enabled: Some(config.cpu_hot_add),
        extra_config: extra_config(vm),
        boot_options: Some(config.boot_options.clone()),
        firmware: Some(config.firmware.clone()),
    }
}

/// Its devices, with labels, the disks' capacities and their parents.
fn devices(host: &Host, vm: &Vm) -> Vec<VirtualDevice> {
    let mut devices = vm.config.devices();
    for device in &mut devices {
        let mut summary = None;
        let label = match &mut device.kind {
            DeviceKind::Disk(members) => {
                if let Some(Backing::Disk(backing)) = &mut device.backing {
                    members.capacity_in_kb = fill_chain(host, backing);
                    members.capacity_in_bytes = Some(members.capacity_in_kb * 1024);
                }
                summary = Some(format!("{} KB", members.capacity_in_kb));
                format!("Hard disk {}", device.key - 1999)
            }
            DeviceKind::ParaVirtualScsi(m) => format!("SCSI controller {}", m.bus_number),
            DeviceKind::Ahci(m) => format!("SATA controller {}", m.bus_number),
            DeviceKind::Vmxnet3(_) => {
                if let Some(Backing::Network(backing)) = &mut device.backing {
                    backing.network = Some(inventory::network(&backing.device_name));
                    summary = Some(backing.device_name.clone());
                }
                format!("Network adapter {}", device.key - 3999)
            }
            DeviceKind::Cdrom => "CD/DVD drive 1".into(),
            DeviceKind::Serial(_) => format!("Serial port {}", device.key - 8999),
            _ => continue,
        };
        if let Some(Backing::Iso(file) | Backing::SerialFile(file)) = &mut device.backing {
            file.datastore = Some(inventory::datastore());
        }
        let connected = vm.is_connected(device);
        if let Some(connectable) = &mut device.connectable {
            connectable.connected = connected;
        }
        device.device_info = Some(Description {
            summary: summary.unwrap_or_else(|| label.clone()),
            label,
        });
    }
    devices
}

/// Fills a backing's parents in; returns the capacity in KiB (0 where the VMDK cannot be read).
fn fill_chain(host: &Host, backing: &mut DiskBacking) -> i64 {
    let Ok(path) = backing.file_name.parse() else {
        return 0;
    };
    let Ok(chain) = host.disks.chain(&host.store, &path) else {
        return 0;
    };
    let mode = backing.disk_mode.clone();
    let mut parent = None;
    for (path, disk) in chain.iter().skip(1).rev() {
        parent = Some(Box::new(DiskBacking {
            datastore: Some(inventory::datastore()),
            disk_mode: mode.clone(),
            content_id: Some(format!("{:08x}", disk.cid)),
            parent,
            ..DiskBacking::new(&path.to_string())
        }));
    }
    backing.parent = parent;
    backing.datastore = Some(inventory::datastore());
    backing.thin_provisioned = Some(true);
    backing.content_id = chain.first().map(|(_, d)| format!("{:08x}", d.cid));
    chain.first().map_or(0, |(_, d)| {
        i64::try_from(d.capacity / 1024).unwrap_or(i64::MAX)
    })
}

/// What it is doing.
pub fn runtime(vm: &Vm) -> VirtualMachineRuntimeInfo {
    VirtualMachineRuntimeInfo {
        host: Some(inventory::host()),
        connection_state: ConnectionState::Connected,
        power_state: vm.power,
        tools_installer_mounted: false,
        boot_time: vm.boot_time,
        max_cpu_usage: None,
        max_memory_usage: Some(vm.config.memory_mb),
        num_mks_connections: 0,
        clean_power_off: Some(vm.clean_power_off),
        consolidation_needed: Some(false),
    }
}

/// Its guest: without Tools nothing is known of it.
pub fn guest(vm: &Vm) -> GuestInfo {
    GuestInfo {
        tools_status: Some(ToolsStatus::NotInstalled),
        tools_running_status: Some("guestToolsNotRunning".into()),
        guest_state: if vm.power == PowerState::PoweredOn {
            "running"
        } else {
            "notRunning"
        }
        .into(),
        ..GuestInfo::default()
    }
}

/// It in short.
pub fn summary(host: &Host, vm: &Vm) -> VirtualMachineSummary {
    use std::os::unix::fs::MetadataExt as _;
    let config = &vm.config;
    let count = |is: fn(&DeviceKind) -> bool| i32::try_from(config.of_kind(is).count()).ok();
    let committed: u64 = config
        .disks()
        .filter_map(|d| d.disk_backing()?.file_name.parse().ok())
        .filter_map(|path| host.store.resolve(&path).ok()?.metadata().ok())
        .map(|meta| meta.blocks() * 512)
        .sum();
    let committed = i64::try_from(committed).unwrap_or(i64::MAX);
    VirtualMachineSummary {
        vm: Some(vm.reference()),
        runtime: runtime(vm),
        guest: Some(VirtualMachineGuestSummary {
            tools_status: Some(ToolsStatus::NotInstalled),
            tools_running_status: Some("guestToolsNotRunning".into()),
            ..VirtualMachineGuestSummary::default()
        }),
        config: VirtualMachineConfigSummary {
            name: config.name.clone(),
            template: false,
            vm_path_name: vm.vmx.to_string(),
            memory_size_mb: Some(config.memory_mb),
            num_cpu: Some(config.cpus),
            num_ethernet_cards: count(|k| matches!(k, DeviceKind::Vmxnet3(_))),
            num_virtual_disks: count(|k| matches!(k, DeviceKind::Disk(_))),
            uuid: Some(config.uuid.clone()),
            instance_uuid: Some(config.instance_uuid.clone()),
            guest_id: Some(config.guest_id.clone()),
            guest_full_name: Some(full_name(config)),
            annotation: Some(config.annotation.clone()),
        },
        storage: Some(VirtualMachineStorageSummary {
            committed,
            uncommitted: 0,
            unshared: committed,
            timestamp: DateTime::now(),
        }),
        quick_stats: VirtualMachineQuickStats {
            uptime_seconds: vm
                .boot_time
                .and_then(|t| i32::try_from((DateTime::now().0 - t.0).whole_seconds()).ok()),
            ..VirtualMachineQuickStats::default()
        },
        overall_status: ManagedEntityStatus::Green,
    }
}
