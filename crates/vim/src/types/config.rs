//! How a VM is configured.

use crate::types::{ManagedObjectReference, OptionValue, VirtualDevice};
use crate::value::{DateTime, DecodeError, Field as _, Value};
use crate::xml::Element;
use std::borrow::Cow;

data_object! {
    /// What to make of a VM, or to change in one. What is not set stays as it is.
    VirtualMachineConfigSpec = "VirtualMachineConfigSpec" {
        /// Refuse the change unless the VM still has this version.
        change_version: Option<String> = "changeVersion",
        /// Display name.
        name: Option<String> = "name",
        /// Hardware version, `vmx-19`.
        version: Option<String> = "version",
        /// BIOS UUID.
        uuid: Option<String> = "uuid",
        /// UUID of the instance.
        instance_uuid: Option<String> = "instanceUuid",
        /// Guest system, `otherLinux64Guest`.
        guest_id: Option<String> = "guestId",
        /// Name of the guest system where `guest_id` is an `other`.
        alternate_guest_name: Option<String> = "alternateGuestName",
        /// Notes.
        annotation: Option<String> = "annotation",
        /// Where the VM's files are.
        files: Option<VirtualMachineFileInfo> = "files",
        /// Settings of the virtual machine.
        flags: Option<VirtualMachineFlagInfo> = "flags",
        /// Virtual CPUs.
        num_cpus: Option<i32> = "numCPUs",
        /// Cores of one socket.
        num_cores_per_socket: Option<i32> = "numCoresPerSocket",
        /// Memory in MiB, a multiple of 4.
        memory_mb: Option<i64> = "memoryMB",
        /// Memory can be added while it runs.
        memory_hot_add_enabled: Option<bool> = "memoryHotAddEnabled",
        /// CPUs can be added while it runs.
        cpu_hot_add_enabled: Option<bool> = "cpuHotAddEnabled",
        /// Changes of devices.
        device_change: Vec<VirtualDeviceConfigSpec> = "deviceChange",
        /// Limits and shares of CPU.
        cpu_allocation: Option<ResourceAllocationInfo> = "cpuAllocation",
        /// Limits and shares of memory.
        memory_allocation: Option<ResourceAllocationInfo> = "memoryAllocation",
        /// VM keys; an empty value removes one.
        extra_config: Vec<OptionValue> = "extraConfig",
        /// How it boots.
        boot_options: Option<VirtualMachineBootOptions> = "bootOptions",
        /// `bios` or `efi`.
        firmware: Option<String> = "firmware",
    }

    /// A VM's configuration as it stands.
    VirtualMachineConfigInfo = "VirtualMachineConfigInfo" {
        /// Changes with each change.
        change_version: String = "changeVersion",
        /// Time of the last change.
        modified: DateTime = "modified",
        /// Display name.
        name: String = "name",
        /// Name of the guest system.
        guest_full_name: String = "guestFullName",
        /// Hardware version.
        version: String = "version",
        /// BIOS UUID.
        uuid: String = "uuid",
        /// Time it was made.
        create_date: Option<DateTime> = "createDate",
        /// UUID of the instance.
        instance_uuid: Option<String> = "instanceUuid",
        /// It is a template.
        template: bool = "template",
        /// Guest system.
        guest_id: String = "guestId",
        /// Name of the guest system where `guest_id` is an `other`.
        alternate_guest_name: String = "alternateGuestName",
        /// Notes.
        annotation: Option<String> = "annotation",
        /// Where its files are.
        files: VirtualMachineFileInfo = "files",
        /// Settings of the virtual machine.
        flags: VirtualMachineFlagInfo = "flags",
        /// What power operations do.
        default_power_ops: VirtualMachineDefaultPowerOpInfo = "defaultPowerOps",
        /// CPUs, memory and devices.
        hardware: VirtualHardware = "hardware",
        /// Limits and shares of CPU.
        cpu_allocation: Option<ResourceAllocationInfo> = "cpuAllocation",
        /// Limits and shares of memory.
        memory_allocation: Option<ResourceAllocationInfo> = "memoryAllocation",
        /// Memory can be added while it runs.
        memory_hot_add_enabled: Option<bool> = "memoryHotAddEnabled",
        /// CPUs can be added while it runs.
        cpu_hot_add_enabled: Option<bool> = "cpuHotAddEnabled",
        /// VM keys.
        extra_config: Vec<OptionValue> = "extraConfig",
        /// How it boots.
        boot_options: Option<VirtualMachineBootOptions> = "bootOptions",
        /// `bios` or `efi`.
        firmware: Option<String> = "firmware",
    }

    /// Where a VM's files are, as datastore paths.
    VirtualMachineFileInfo = "VirtualMachineFileInfo" {
        /// Its .vmx; in a specification also just `[datastore]`, or its folder with a slash behind.
        vm_path_name: Option<String> = "vmPathName",
        /// Folder of snapshots.
        snapshot_directory: Option<String> = "snapshotDirectory",
        /// Folder of suspended states.
        suspend_directory: Option<String> = "suspendDirectory",
        /// Folder of logs.
        log_directory: Option<String> = "logDirectory",
    }

    /// Settings of the virtual machine.
    VirtualMachineFlagInfo = "VirtualMachineFlagInfo" {
        /// Write a log.
        enable_logging: Option<bool> = "enableLogging",
        /// Show disks' UUIDs to the guest.
        disk_uuid_enabled: Option<bool> = "diskUuidEnabled",
    }

    /// What power operations do.
    VirtualMachineDefaultPowerOpInfo = "VirtualMachineDefaultPowerOpInfo" {
        /// `soft` or `hard`.
        power_off_type: Option<String> = "powerOffType",
        /// `soft` or `hard`.
        reset_type: Option<String> = "resetType",
    }

    /// How a VM boots.
    VirtualMachineBootOptions = "VirtualMachineBootOptions" {
        /// Milliseconds before it boots.
        boot_delay: Option<i64> = "bootDelay",
        /// Enter the firmware's set-up.
        enter_bios_setup: Option<bool> = "enterBIOSSetup",
        /// Secure boot.
        efi_secure_boot_enabled: Option<bool> = "efiSecureBootEnabled",
        /// Try again after a failed boot.
        boot_retry_enabled: Option<bool> = "bootRetryEnabled",
        /// Milliseconds before it tries again.
        boot_retry_delay: Option<i64> = "bootRetryDelay",
        /// What is tried first; the others follow in the firmware's order: removable devices, disks, CD-ROM, network.
        boot_order: Vec<BootDevice> = "bootOrder",
    }

    /// CPUs, memory and devices.
    VirtualHardware = "VirtualHardware" {
        /// Virtual CPUs.
        num_cpu: i32 = "numCPU",
        /// Cores of one socket.
        num_cores_per_socket: Option<i32> = "numCoresPerSocket",
        /// Memory in MiB.
        memory_mb: i32 = "memoryMB",
        /// Devices.
        device: Vec<VirtualDevice> = "device",
    }

    /// Limits and shares.
    ResourceAllocationInfo = "ResourceAllocationInfo" {
        /// Guaranteed, in MHz or MiB.
        reservation: Option<i64> = "reservation",
        /// The reservation can grow.
        expandable_reservation: Option<bool> = "expandableReservation",
        /// At most, in MHz or MiB; -1: no limit.
        limit: Option<i64> = "limit",
        /// Shares.
        shares: Option<SharesInfo> = "shares",
    }

    /// Shares.
    SharesInfo = "SharesInfo" {
        /// Number; used with `custom`.
        shares: i32 = "shares",
        /// Level.
        level: SharesLevel = "level",
    }

    /// A change of one device.
    VirtualDeviceConfigSpec = "VirtualDeviceConfigSpec" {
        /// Add, change or remove.
        operation: Option<DeviceOperation> = "operation",
        /// What happens to its file.
        file_operation: Option<DeviceFileOperation> = "fileOperation",
        /// The device; a new one has a negative key of the caller's choice.
        device: VirtualDevice = "device",
    }
}

string_enum! {
    /// Level of shares.
    SharesLevel = "SharesLevel" {
        /// Normal.
        Normal = "normal",
        /// Low.
        Low = "low",
        /// High.
        High = "high",
        /// By number.
        Custom = "custom",
    }

    /// What to do with a device.
    DeviceOperation = "VirtualDeviceConfigSpecOperation" {
        /// Add it.
        Add = "add",
        /// Remove it; the key names it.
        Remove = "remove",
        /// Change it; the key names it.
        Edit = "edit",
    }

    /// What to do with a device's file.
    DeviceFileOperation = "VirtualDeviceConfigSpecFileOperation" {
        /// Make it; with `backing.parent` a child disk.
        Create = "create",
        /// Delete it; with removal.
        Destroy = "destroy",
        /// Put an empty one in its place.
        Replace = "replace",
    }
}

impl VirtualDeviceConfigSpec {
    /// Adds a device whose files exist or that has none.
    pub fn add(device: VirtualDevice) -> VirtualDeviceConfigSpec {
        VirtualDeviceConfigSpec {
            operation: Some(DeviceOperation::Add),
            file_operation: None,
            device,
        }
    }

    /// Adds a device and makes its file.
    pub fn create(device: VirtualDevice) -> VirtualDeviceConfigSpec {
        VirtualDeviceConfigSpec {
            operation: Some(DeviceOperation::Add),
            file_operation: Some(DeviceFileOperation::Create),
            device,
        }
    }

    /// Removes a device and keeps its file.
    pub fn remove(device: VirtualDevice) -> VirtualDeviceConfigSpec {
        VirtualDeviceConfigSpec {
            operation: Some(DeviceOperation::Remove),
            file_operation: None,
            device,
        }
    }
}

data_object! {
    /// Where a VM goes: not needed by hosts, named here for a pool's sake.
    ResourcePoolSummary = "ResourcePoolSummary" {
        /// Name.
        name: String = "name",
        /// Its configuration.
        config: ResourceConfigSpec = "config",
    }

    /// Configuration of a pool.
    ResourceConfigSpec = "ResourceConfigSpec" {
        /// The pool.
        entity: Option<ManagedObjectReference> = "entity",
        /// CPU.
        cpu_allocation: ResourceAllocationInfo = "cpuAllocation",
        /// Memory.
        memory_allocation: ResourceAllocationInfo = "memoryAllocation",
    }
}

/// `VirtualMachineBootOptionsBootableDevice`: what a VM can boot from. Disks and vNICs by their device keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootDevice {
    /// The CD-ROM.
    Cdrom,
    /// The floppy disk.
    Floppy,
    /// A disk.
    Disk(i32),
    /// A vNIC.
    Ethernet(i32),
}

const BOOT_CDROM: &str = "VirtualMachineBootOptionsBootableCdromDevice";
const BOOT_FLOPPY: &str = "VirtualMachineBootOptionsBootableFloppyDevice";
const BOOT_DISK: &str = "VirtualMachineBootOptionsBootableDiskDevice";
const BOOT_ETHERNET: &str = "VirtualMachineBootOptionsBootableEthernetDevice";
const DEVICE_KEY: &str = "deviceKey";

impl Value for BootDevice {
    const TYPE: &'static str = "VirtualMachineBootOptionsBootableDevice";
    fn to_element(&self, name: &'static str) -> Element {
        let (kind, key) = match *self {
            BootDevice::Cdrom => (BOOT_CDROM, None),
            BootDevice::Floppy => (BOOT_FLOPPY, None),
            BootDevice::Disk(key) => (BOOT_DISK, Some(key)),
            BootDevice::Ethernet(key) => (BOOT_ETHERNET, Some(key)),
        };
        let mut element = Element::new(name);
        element.xsi_type = Some(Cow::Borrowed(kind));
        key.write(DEVICE_KEY, &mut element.children);
        element
    }
    fn from_element(element: &Element) -> Result<Self, DecodeError> {
        let key = || i32::read(element, DEVICE_KEY);
        Ok(match element.xsi_type.as_deref().unwrap_or_default() {
            BOOT_CDROM => BootDevice::Cdrom,
            BOOT_FLOPPY => BootDevice::Floppy,
            BOOT_DISK => BootDevice::Disk(key()?),
            BOOT_ETHERNET => BootDevice::Ethernet(key()?),
            _ => return Err(DecodeError::text(element, Self::TYPE)),
        })
    }
}
