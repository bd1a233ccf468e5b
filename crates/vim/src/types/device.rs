//! Virtual devices and their backings.
//!
//! The API derives each device from `VirtualDevice`; here the common members are one struct and
//! what differs is its [`DeviceKind`], named in `xsi:type`.

use crate::types::{Description, ManagedObjectReference};
use crate::value::{Any, DecodeError, Field, Value};
use crate::xml::Element;
use std::borrow::Cow;

/// A device of a VM.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VirtualDevice {
    /// Key, unique in the VM; negative for a device that is to be added.
    pub key: i32,
    /// Label and summary, set by the server.
    pub device_info: Option<Description>,
    /// What is behind it.
    pub backing: Option<Backing>,
    /// Whether it is connected.
    pub connectable: Option<VirtualDeviceConnectInfo>,
    /// Key of its controller.
    pub controller_key: Option<i32>,
    /// Place on its controller.
    pub unit_number: Option<i32>,
    /// What it is.
    pub kind: DeviceKind,
}

/// What a device is, with the members that only this kind has.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum DeviceKind {
    /// `VirtualDisk`.
    Disk(DiskMembers),
    /// `ParaVirtualSCSIController`.
    ParaVirtualScsi(ScsiMembers),
    /// `VirtualIDEController`.
    Ide(ControllerMembers),
    /// `VirtualAHCIController`.
    Ahci(ControllerMembers),
    /// `VirtualPCIController`.
    Pci(ControllerMembers),
    /// `VirtualSIOController`.
    Sio(ControllerMembers),
    /// `VirtualVmxnet3`.
    Vmxnet3(EthernetMembers),
    /// `VirtualCdrom`.
    Cdrom,
    /// `VirtualSerialPort`.
    Serial(SerialMembers),
    /// Any other, by its type's name; its own members are dropped.
    Other(String),
    /// No type was given.
    #[default]
    Unspecified,
}

data_object! {
    /// Own members of a disk.
    DiskMembers = "VirtualDisk" {
        /// Capacity in KiB.
        capacity_in_kb: i64 = "capacityInKB",
        /// Capacity in bytes; wins over `capacity_in_kb`.
        capacity_in_bytes: Option<i64> = "capacityInBytes",
    }

    /// Own members of a controller.
    ControllerMembers = "VirtualController" {
        /// Number of the bus.
        bus_number: i32 = "busNumber",
        /// Keys of the devices on it.
        device: Vec<i32> = "device",
    }

    /// Own members of a SCSI controller.
    ScsiMembers = "VirtualSCSIController" {
        /// Number of the bus.
        bus_number: i32 = "busNumber",
        /// Keys of the devices on it.
        device: Vec<i32> = "device",
        /// Devices can come and go while the VM runs.
        hot_add_remove: Option<bool> = "hotAddRemove",
        /// Shared with other VMs.
        shared_bus: ScsiSharing = "sharedBus",
        /// The controller's own unit number, 7.
        scsi_ctlr_unit_number: Option<i32> = "scsiCtlrUnitNumber",
    }

    /// Own members of a network card.
    EthernetMembers = "VirtualEthernetCard" {
        /// `generated`, `assigned` (vCenter) or `manual`.
        address_type: Option<String> = "addressType",
        /// MAC address `00:50:56:aa:bb:cc`.
        mac_address: Option<String> = "macAddress",
        /// Wake on LAN.
        wake_on_lan_enabled: Option<bool> = "wakeOnLanEnabled",
    }

    /// Own members of a serial port.
    SerialMembers = "VirtualSerialPort" {
        /// Yield the CPU while the guest polls.
        yield_on_poll: bool = "yieldOnPoll",
    }

    /// Whether a device is connected.
    VirtualDeviceConnectInfo = "VirtualDeviceConnectInfo" {
        /// Connect it at power-on.
        start_connected: bool = "startConnected",
        /// The guest may connect and disconnect it.
        allow_guest_control: bool = "allowGuestControl",
        /// It is connected now.
        connected: bool = "connected",
        /// `ok`, `untried`, …
        status: Option<String> = "status",
    }

    /// A file on a datastore, behind a CD-ROM or a serial port.
    FileBacking = "VirtualDeviceFileBackingInfo" {
        /// Datastore path.
        file_name: String = "fileName",
        /// The datastore.
        datastore: Option<ManagedObjectReference> = "datastore",
    }

    /// A VMDK.
    DiskBacking = "VirtualDiskFlatVer2BackingInfo" {
        /// Datastore path; empty or just `[datastore]`: the server chooses.
        file_name: String = "fileName",
        /// The datastore.
        datastore: Option<ManagedObjectReference> = "datastore",
        /// `persistent`, `independent_persistent`, `independent_nonpersistent`, …
        disk_mode: String = "diskMode",
        /// Split into 2 GB files.
        split: Option<bool> = "split",
        /// Write through.
        write_through: Option<bool> = "writeThrough",
        /// Thin.
        thin_provisioned: Option<bool> = "thinProvisioned",
        /// Filled with zeros.
        eagerly_scrub: Option<bool> = "eagerlyScrub",
        /// UUID of the disk.
        uuid: Option<String> = "uuid",
        /// Changes with the content.
        content_id: Option<String> = "contentId",
        /// The disk that this is a child of.
        parent: Option<Box<DiskBacking>> = "parent",
    }

    /// A port group.
    NetworkBacking = "VirtualEthernetCardNetworkBackingInfo" {
        /// Name of the network.
        device_name: String = "deviceName",
        /// Choose by itself.
        use_auto_detect: Option<bool> = "useAutoDetect",
        /// The network.
        network: Option<ManagedObjectReference> = "network",
    }

    /// A connection over the network behind a serial port.
    UriBacking = "VirtualSerialPortURIBackingInfo" {
        /// What is asked for, passed to the proxy.
        service_uri: String = "serviceURI",
        /// `client` or `server`.
        direction: String = "direction",
        /// The proxy (vSPC), `telnets://host:port#thumbprint=…`.
        proxy_uri: Option<String> = "proxyURI",
    }
}

string_enum! {
    /// Whether a SCSI bus is shared.
    ScsiSharing = "VirtualSCSISharing" {
        /// It is not.
        NoSharing = "noSharing",
        /// By VMs of one host.
        VirtualSharing = "virtualSharing",
        /// By VMs of several hosts.
        PhysicalSharing = "physicalSharing",
    }
}

/// What is behind a device.
#[derive(Debug, Clone, PartialEq)]
pub enum Backing {
    /// `VirtualDiskFlatVer2BackingInfo`.
    Disk(DiskBacking),
    /// `VirtualCdromIsoBackingInfo`.
    Iso(FileBacking),
    /// `VirtualEthernetCardNetworkBackingInfo`.
    Network(NetworkBacking),
    /// `VirtualSerialPortFileBackingInfo`.
    SerialFile(FileBacking),
    /// `VirtualSerialPortURIBackingInfo`.
    SerialUri(UriBacking),
    /// Any other, as it came.
    Other(Element),
}

const ISO: &str = "VirtualCdromIsoBackingInfo";
const SERIAL_FILE: &str = "VirtualSerialPortFileBackingInfo";

impl Value for Backing {
    const TYPE: &'static str = "VirtualDeviceBackingInfo";
    fn to_element(&self, name: &'static str) -> Element {
        let (kind, mut element) = match self {
            Backing::Disk(b) => (DiskBacking::TYPE, b.to_element(name)),
            Backing::Iso(b) => (ISO, b.to_element(name)),
            Backing::Network(b) => (NetworkBacking::TYPE, b.to_element(name)),
            Backing::SerialFile(b) => (SERIAL_FILE, b.to_element(name)),
            Backing::SerialUri(b) => (UriBacking::TYPE, b.to_element(name)),
            Backing::Other(element) => {
                let mut element = element.clone();
                element.name = Cow::Borrowed(name);
                return element;
            }
        };
        element.xsi_type = Some(Cow::Borrowed(kind));
        element
    }
    fn from_element(element: &Element) -> Result<Self, DecodeError> {
        Ok(match element.xsi_type.as_deref().unwrap_or_default() {
            DiskBacking::TYPE => Backing::Disk(Value::from_element(element)?),
            ISO => Backing::Iso(Value::from_element(element)?),
            NetworkBacking::TYPE => Backing::Network(Value::from_element(element)?),
            SERIAL_FILE => Backing::SerialFile(Value::from_element(element)?),
            UriBacking::TYPE => Backing::SerialUri(Value::from_element(element)?),
            _ => Backing::Other(element.clone()),
        })
    }
    fn property(&self, path: &str) -> Option<Any> {
        match self {
            Backing::Disk(b) => Value::property(b, path),
            Backing::Iso(b) | Backing::SerialFile(b) => Value::property(b, path),
            Backing::Network(b) => Value::property(b, path),
            Backing::SerialUri(b) => Value::property(b, path),
            Backing::Other(_) => None,
        }
    }
}

impl DeviceKind {
    /// The type's name in the API.
    pub fn type_name(&self) -> &str {
        match self {
            DeviceKind::Disk(_) => "VirtualDisk",
            DeviceKind::ParaVirtualScsi(_) => "ParaVirtualSCSIController",
            DeviceKind::Ide(_) => "VirtualIDEController",
            DeviceKind::Ahci(_) => "VirtualAHCIController",
            DeviceKind::Pci(_) => "VirtualPCIController",
            DeviceKind::Sio(_) => "VirtualSIOController",
            DeviceKind::Vmxnet3(_) => "VirtualVmxnet3",
            DeviceKind::Cdrom => "VirtualCdrom",
            DeviceKind::Serial(_) => "VirtualSerialPort",
            DeviceKind::Other(name) => name,
            DeviceKind::Unspecified => "VirtualDevice",
        }
    }

    /// Whether devices can sit on it.
    pub fn is_controller(&self) -> bool {
        matches!(
            self,
            DeviceKind::ParaVirtualScsi(_)
                | DeviceKind::Ide(_)
                | DeviceKind::Ahci(_)
                | DeviceKind::Pci(_)
                | DeviceKind::Sio(_)
        )
    }
}

impl Value for VirtualDevice {
    const TYPE: &'static str = "VirtualDevice";
    fn to_element(&self, name: &'static str) -> Element {
        let mut element = Element::new(name);
        element.xsi_type = Some(Cow::Owned(self.kind.type_name().to_owned()));
        let out = &mut element.children;
        self.key.write("key", out);
        self.device_info.write("deviceInfo", out);
        self.backing.write("backing", out);
        self.connectable.write("connectable", out);
        self.controller_key.write("controllerKey", out);
        self.unit_number.write("unitNumber", out);
        match &self.kind {
            DeviceKind::Disk(m) => m.write_members(out),
            DeviceKind::ParaVirtualScsi(m) => m.write_members(out),
            DeviceKind::Ide(m) | DeviceKind::Ahci(m) | DeviceKind::Pci(m) | DeviceKind::Sio(m) => {
                m.write_members(out);
            }
            DeviceKind::Vmxnet3(m) => m.write_members(out),
            DeviceKind::Serial(m) => m.write_members(out),
            DeviceKind::Cdrom | DeviceKind::Other(_) | DeviceKind::Unspecified => {}
        }
        element
    }
    fn from_element(element: &Element) -> Result<Self, DecodeError> {
        let kind = match element.xsi_type.as_deref() {
            Some("VirtualDisk") => DeviceKind::Disk(Value::from_element(element)?),
            Some("ParaVirtualSCSIController") => {
                DeviceKind::ParaVirtualScsi(Value::from_element(element)?)
            }
            Some("VirtualIDEController") => DeviceKind::Ide(Value::from_element(element)?),
            Some("VirtualAHCIController") => DeviceKind::Ahci(Value::from_element(element)?),
            Some("VirtualPCIController") => DeviceKind::Pci(Value::from_element(element)?),
            Some("VirtualSIOController") => DeviceKind::Sio(Value::from_element(element)?),
            Some("VirtualVmxnet3") => DeviceKind::Vmxnet3(Value::from_element(element)?),
            Some("VirtualCdrom") => DeviceKind::Cdrom,
            Some("VirtualSerialPort") => DeviceKind::Serial(Value::from_element(element)?),
            Some("VirtualDevice") | None => DeviceKind::Unspecified,
            Some(other) => DeviceKind::Other(other.to_owned()),
        };
        Ok(VirtualDevice {
            key: Field::read(element, "key")?,
            device_info: Field::read(element, "deviceInfo")?,
            backing: Field::read(element, "backing")?,
            connectable: Field::read(element, "connectable")?,
            controller_key: Field::read(element, "controllerKey")?,
            unit_number: Field::read(element, "unitNumber")?,
            kind,
        })
    }
}

/// Constructors of the devices that a container VM has.
impl VirtualDevice {
    /// A paravirtual SCSI controller, the VM's `bus`-th.
    pub fn pvscsi(key: i32, bus: i32) -> VirtualDevice {
        let members = ScsiMembers {
            bus_number: bus,
            ..ScsiMembers::default()
        };
        VirtualDevice {
            key,
            kind: DeviceKind::ParaVirtualScsi(members),
            ..VirtualDevice::default()
        }
    }

    /// A disk at `unit` of a controller.
    pub fn disk(
        key: i32,
        controller: i32,
        unit: i32,
        backing: DiskBacking,
        capacity_kib: i64,
    ) -> VirtualDevice {
        let members = DiskMembers {
            capacity_in_kb: capacity_kib,
            capacity_in_bytes: None,
        };
        VirtualDevice {
            key,
            backing: Some(Backing::Disk(backing)),
            controller_key: Some(controller),
            unit_number: Some(unit),
            kind: DeviceKind::Disk(members),
            ..VirtualDevice::default()
        }
    }

    /// A network card on a port group.
    pub fn vmxnet3(
        key: i32,
        network_name: &str,
        network: Option<ManagedObjectReference>,
    ) -> VirtualDevice {
        VirtualDevice {
            key,
            backing: Some(Backing::Network(NetworkBacking {
                device_name: network_name.to_owned(),
                use_auto_detect: None,
                network,
            })),
            connectable: Some(VirtualDeviceConnectInfo::at_power_on()),
            kind: DeviceKind::Vmxnet3(EthernetMembers::default()),
            ..VirtualDevice::default()
        }
    }

    /// A CD-ROM drive with an ISO in it.
    pub fn cdrom(key: i32, controller: i32, unit: i32, iso: &str) -> VirtualDevice {
        let file = FileBacking {
            file_name: iso.to_owned(),
            datastore: None,
        };
        VirtualDevice {
            key,
            backing: Some(Backing::Iso(file)),
            connectable: Some(VirtualDeviceConnectInfo::at_power_on()),
            controller_key: Some(controller),
            unit_number: Some(unit),
            kind: DeviceKind::Cdrom,
            ..VirtualDevice::default()
        }
    }

    /// A serial port that writes into a file on a datastore.
    pub fn serial_file(key: i32, path: &str) -> VirtualDevice {
        let file = FileBacking {
            file_name: path.to_owned(),
            datastore: None,
        };
        VirtualDevice::serial(key, Backing::SerialFile(file))
    }

    /// A serial port that connects to a proxy (vSPC).
    pub fn serial_uri(key: i32, service: &str, proxy: &str) -> VirtualDevice {
        let uri = UriBacking {
            service_uri: service.to_owned(),
            direction: "client".to_owned(),
            proxy_uri: Some(proxy.to_owned()),
        };
        VirtualDevice::serial(key, Backing::SerialUri(uri))
    }

    fn serial(key: i32, backing: Backing) -> VirtualDevice {
        VirtualDevice {
            key,
            backing: Some(backing),
            connectable: Some(VirtualDeviceConnectInfo::at_power_on()),
            kind: DeviceKind::Serial(SerialMembers {
                yield_on_poll: true,
            }),
            ..VirtualDevice::default()
        }
    }

    /// The VMDK behind it, where it is a disk.
    pub fn disk_backing(&self) -> Option<&DiskBacking> {
        match &self.backing {
            Some(Backing::Disk(backing)) => Some(backing),
            _ => None,
        }
    }

    /// Its MAC address, where it is a network card that has one.
    pub fn mac_address(&self) -> Option<&str> {
        match &self.kind {
            DeviceKind::Vmxnet3(members) => members.mac_address.as_deref(),
            _ => None,
        }
    }
}

impl VirtualDeviceConnectInfo {
    /// Connected at power-on, not in the guest's hands.
    pub fn at_power_on() -> VirtualDeviceConnectInfo {
        VirtualDeviceConnectInfo {
            start_connected: true,
            allow_guest_control: false,
            connected: true,
            status: None,
        }
    }
}

impl DiskBacking {
    /// A VMDK that exists or is to be made.
    pub fn new(path: &str) -> DiskBacking {
        DiskBacking {
            file_name: path.to_owned(),
            disk_mode: "persistent".to_owned(),
            thin_provisioned: Some(true),
            ..DiskBacking::default()
        }
    }

    /// A child of another VMDK.
    pub fn child_of(path: &str, parent: DiskBacking) -> DiskBacking {
        DiskBacking {
            parent: Some(Box::new(parent)),
            ..DiskBacking::new(path)
        }
    }
}
