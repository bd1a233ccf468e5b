//! The .vmx file: `key = "value"` lines, as VMware's products write them.
//!
//! Whatever is no key of ours is a VM key (extraConfig). Device keys of the API are not kept: they
//! follow from a device's place, as on ESXi.

use super::config::{IDE_KEY, PCI_KEY, SATA_KEY, SCSI_KEY, SIO_KEY, VmConfig};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use vim::types::*;
use vim::{Any, DatastorePath, DateTime, Fault, FaultKind};

/// Largest .vmx that is read.
pub const SIZE_MAX: usize = 8 << 20;
const SERIALS: i32 = 32;

/// The text of a configuration. `folder` is the VM's own: files in it are named without a path.
pub fn encode(config: &VmConfig, folder: &DatastorePath) -> String {
    let mut keys: Vec<(String, String)> = Vec::new();
    let mut put = |key: &str, value: &str| keys.push((key.to_owned(), value.to_owned()));
    put(".encoding", "UTF-8");
    put("config.version", "8");
    put(
        "virtualHW.version",
        config.version.trim_start_matches("vmx-"),
    );
    put("displayName", &config.name);
    put("guestOS", &config.guest_id);
    put("annotation", &config.annotation);
    put("firmware", &config.firmware);
    put("memSize", &config.memory_mb.to_string());
    put("numvcpus", &config.cpus.to_string());
    put("cpuid.coresPerSocket", &config.cores_per_socket.to_string());
    put("mem.hotadd", flag(config.memory_hot_add));
    put("vcpu.hotadd", flag(config.cpu_hot_add));
    put("uuid.bios", &config.uuid);
    put("vc.uuid", &config.instance_uuid);
    put("vmxstats.created", &config.created.to_string());
    put("vmxstats.modified", &config.modified.to_string());
    put("vmxstats.changes", &config.changes.to_string());
    put(
        "bios.bootDelay",
        &config.boot_options.boot_delay.unwrap_or(0).to_string(),
    );
    if !config.boot_options.boot_order.is_empty() {
        let order = config.boot_options.boot_order.iter().map(boot_device);
        put("bios.bootOrder", &order.collect::<Vec<_>>().join(","));
    }
    for (name, allocation) in [
        ("cpu", &config.cpu_allocation),
        ("mem", &config.memory_allocation),
    ] {
        let Some(allocation) = allocation else {
            continue;
        };
        put(
            &format!("sched.{name}.min"),
            &allocation.reservation.unwrap_or(0).to_string(),
        );
        put(
            &format!("sched.{name}.max"),
            &allocation.limit.unwrap_or(-1).to_string(),
        );
        if let Some(shares) = &allocation.shares {
            put(&format!("sched.{name}.shares"), &shares.shares.to_string());
            put(&format!("sched.{name}.level"), shares.level.as_str());
        }
    }
    for device in &config.devices {
        encode_device(device, folder, &mut put);
    }
    for (key, value) in &config.extra {
        put(key, value);
    }
    let mut text = String::new();
    for (key, value) in keys {
        let _ = writeln!(text, "{key} = \"{}\"", escape(&value));
    }
    text
}

fn encode_device(device: &VirtualDevice, folder: &DatastorePath, put: &mut impl FnMut(&str, &str)) {
    let unit = device.unit_number.unwrap_or(0);
    let slot = match device.controller_key.unwrap_or(0) {
        key if (SCSI_KEY..SCSI_KEY + 4).contains(&key) => format!("scsi{}:{unit}", key - SCSI_KEY),
        key if (SATA_KEY..SATA_KEY + 4).contains(&key) => format!("sata{}:{unit}", key - SATA_KEY),
        key => format!("ide{}:{unit}", key - IDE_KEY),
    };
    let connected = flag(
        device
            .connectable
            .as_ref()
            .is_none_or(|c| c.start_connected),
    );
    match (&device.kind, &device.backing) {
        (DeviceKind::ParaVirtualScsi(m), _) => {
            put(&format!("scsi{}.present", m.bus_number), "TRUE");
            put(&format!("scsi{}.virtualDev", m.bus_number), "pvscsi");
        }
        (DeviceKind::Ahci(m), _) => put(&format!("sata{}.present", m.bus_number), "TRUE"),
        (DeviceKind::Disk(_), Some(Backing::Disk(backing))) => {
            put(&format!("{slot}.present"), "TRUE");
            put(&format!("{slot}.deviceType"), "scsi-hardDisk");
            put(
                &format!("{slot}.fileName"),
                &file_name(&backing.file_name, folder),
            );
            put(&format!("{slot}.mode"), &backing.disk_mode);
        }
        (DeviceKind::Cdrom, Some(Backing::Iso(backing))) => {
            put(&format!("{slot}.present"), "TRUE");
            put(&format!("{slot}.deviceType"), "cdrom-image");
            put(
                &format!("{slot}.fileName"),
                &file_name(&backing.file_name, folder),
            );
            put(&format!("{slot}.startConnected"), connected);
        }
        (DeviceKind::Vmxnet3(m), Some(Backing::Network(backing))) => {
            let name = format!("ethernet{}", device.key - 4000);
            put(&format!("{name}.present"), "TRUE");
            put(&format!("{name}.virtualDev"), "vmxnet3");
            put(&format!("{name}.networkName"), &backing.device_name);
            put(
                &format!("{name}.addressType"),
                m.address_type.as_deref().unwrap_or("generated"),
            );
            put(
                &format!("{name}.address"),
                m.mac_address.as_deref().unwrap_or(""),
            );
            put(&format!("{name}.startConnected"), connected);
        }
        (DeviceKind::Serial(m), Some(backing)) => {
            let name = format!("serial{unit}");
            put(&format!("{name}.present"), "TRUE");
            put(&format!("{name}.yieldOnMsrRead"), flag(m.yield_on_poll));
            put(&format!("{name}.startConnected"), connected);
            match backing {
                Backing::SerialFile(file) => {
                    put(&format!("{name}.fileType"), "file");
                    put(
                        &format!("{name}.fileName"),
                        &file_name(&file.file_name, folder),
                    );
                }
                Backing::SerialUri(uri) => {
                    put(&format!("{name}.fileType"), "network");
                    put(&format!("{name}.fileName"), &uri.service_uri);
                    put(&format!("{name}.network.endPoint"), &uri.direction);
                    put(
                        &format!("{name}.vspc"),
                        uri.proxy_uri.as_deref().unwrap_or(""),
                    );
                }
                _ => {}
            }
        }
        _ => {}
    }
}

/// A configuration from its text.
///
/// # Errors
/// `GenericVmConfigFault` (its kind is `InvalidArgument` on no path) where a line or number is wrong.
pub fn decode(text: &str, folder: &DatastorePath) -> Result<VmConfig, Fault> {
    let mut keys = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line
            .split_once('=')
            .and_then(|(k, v)| Some((k.trim(), v.trim().strip_prefix('"')?.strip_suffix('"')?)))
            .ok_or_else(|| {
                bad(format!(
                    "line {}: `key = \"value\"` is expected",
                    number + 1
                ))
            })?;
        keys.insert(key.to_owned(), unescape(value));
    }
    let mut keys = Keys(keys);
    let mut config = VmConfig {
        version: format!(
            "vmx-{}",
            keys.take("virtualHW.version")
                .unwrap_or_else(|| "19".into())
        ),
        name: keys.take("displayName").unwrap_or_default(),
        guest_id: keys.take("guestOS").unwrap_or_default(),
        annotation: keys.take("annotation").unwrap_or_default(),
        firmware: keys.take("firmware").unwrap_or_else(|| "bios".into()),
        memory_mb: keys.number("memSize", 128)?,
        cpus: keys.number("numvcpus", 1)?,
        cores_per_socket: keys.number("cpuid.coresPerSocket", 1)?,
        memory_hot_add: keys.flag("mem.hotadd"),
        cpu_hot_add: keys.flag("vcpu.hotadd"),
        uuid: keys.take("uuid.bios").unwrap_or_default(),
        instance_uuid: keys.take("vc.uuid").unwrap_or_default(),
        created: keys.date("vmxstats.created"),
        modified: keys.date("vmxstats.modified"),
        changes: keys.number("vmxstats.changes", 0)?,
        ..VmConfig::default()
    };
    keys.take(".encoding");
    keys.take("config.version");
    config.boot_options.boot_delay = Some(keys.number("bios.bootDelay", 0)?);
    let order = keys.take("bios.bootOrder").unwrap_or_default();
    config.boot_options.boot_order = order.split(',').filter_map(bootable).collect();
    config.cpu_allocation = keys.allocation("cpu")?;
    config.memory_allocation = keys.allocation("mem")?;
    keys.devices(folder, &mut config.devices)?;
    config.extra = keys.0;
    Ok(config)
}

struct Keys(BTreeMap<String, String>);

impl Keys {
    fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    fn flag(&mut self, key: &str) -> bool {
        self.take(key)
            .is_some_and(|v| v.eq_ignore_ascii_case("TRUE"))
    }

    fn number<T: std::str::FromStr>(&mut self, key: &str, default: T) -> Result<T, Fault> {
        match self.take(key) {
            Some(text) => text
                .parse()
                .map_err(|_| bad(format!("{key}: {text:?} is no number that is possible"))),
            None => Ok(default),
        }
    }

    fn date(&mut self, key: &str) -> DateTime {
        self.take(key)
            .and_then(|text| Any::from(text).get().ok())
            .unwrap_or_default()
    }

    fn allocation(&mut self, name: &str) -> Result<Option<ResourceAllocationInfo>, Fault> {
        let Some(limit) = self.take(&format!("sched.{name}.max")) else {
            return Ok(None);
        };
        let level = self.take(&format!("sched.{name}.level"));
        let shares: i32 = self.number(&format!("sched.{name}.shares"), 0)?;
        Ok(Some(ResourceAllocationInfo {
            reservation: Some(self.number(&format!("sched.{name}.min"), 0)?),
            expandable_reservation: None,
            limit: Some(limit.parse().unwrap_or(-1)),
            shares: level
                .and_then(|l| Any::from(l).get().ok())
                .map(|level| SharesInfo { shares, level }),
        }))
    }

    fn devices(
        &mut self,
        folder: &DatastorePath,
        devices: &mut Vec<VirtualDevice>,
    ) -> Result<(), Fault> {
        for bus in 0..4 {
            if self.flag(&format!("scsi{bus}.present")) {
                self.take(&format!("scsi{bus}.virtualDev"));
                devices.push(on_pci(pvscsi(bus)));
            }
            if self.flag(&format!("sata{bus}.present")) {
                let members = ControllerMembers {
                    bus_number: bus,
                    device: Vec::new(),
                };
                let kind = DeviceKind::Ahci(members);
                devices.push(on_pci(VirtualDevice {
                    key: SATA_KEY + bus,
                    kind,
                    ..VirtualDevice::default()
                }));
            }
        }
        for (bus_name, controller, buses, units) in [
            ("scsi", SCSI_KEY, 4, 16),
            ("sata", SATA_KEY, 4, 30),
            ("ide", IDE_KEY, 2, 2),
        ] {
            for bus in 0..buses {
                for unit in 0..units {
                    let slot = format!("{bus_name}{bus}:{unit}");
                    if self.flag(&format!("{slot}.present")) {
                        devices.extend(self.drive(&slot, controller + bus, unit, folder)?);
                    }
                }
            }
        }
        for number in 0..i32::try_from(super::config::NICS_MAX).unwrap_or(10) {
            let name = format!("ethernet{number}");
            if self.flag(&format!("{name}.present")) {
                self.take(&format!("{name}.virtualDev"));
                let network = self
                    .take(&format!("{name}.networkName"))
                    .unwrap_or_default();
                let mut card = VirtualDevice::vmxnet3(4000 + number, &network, None);
                card.kind = DeviceKind::Vmxnet3(EthernetMembers {
                    address_type: self.take(&format!("{name}.addressType")),
                    mac_address: self.take(&format!("{name}.address")),
                    wake_on_lan_enabled: Some(false),
                });
                card.unit_number = Some(7 + number);
                connect(&mut card, self.flag(&format!("{name}.startConnected")));
                devices.push(on_pci(card));
            }
        }
        for number in 0..SERIALS {
            let name = format!("serial{number}");
            if self.flag(&format!("{name}.present")) {
                let file = self.take(&format!("{name}.fileName")).unwrap_or_default();
                let mut port = match self.take(&format!("{name}.fileType")).as_deref() {
                    Some("network") => {
                        let proxy = self.take(&format!("{name}.vspc")).unwrap_or_default();
                        let mut port = VirtualDevice::serial_uri(9000 + number, &file, &proxy);
                        if let Some(Backing::SerialUri(uri)) = &mut port.backing {
                            uri.direction = self
                                .take(&format!("{name}.network.endPoint"))
                                .unwrap_or_default();
                            uri.proxy_uri = Some(proxy).filter(|p| !p.is_empty());
                        }
                        port
                    }
                    _ => VirtualDevice::serial_file(9000 + number, &full_name(&file, folder)?),
                };
                let yield_on_poll = self.flag(&format!("{name}.yieldOnMsrRead"));
                port.kind = DeviceKind::Serial(SerialMembers { yield_on_poll });
                port.controller_key = Some(SIO_KEY);
                port.unit_number = Some(number);
                connect(&mut port, self.flag(&format!("{name}.startConnected")));
                devices.push(port);
            }
        }
        Ok(())
    }

    fn drive(
        &mut self,
        slot: &str,
        controller: i32,
        unit: i32,
        folder: &DatastorePath,
    ) -> Result<Option<VirtualDevice>, Fault> {
        let Some(file) = self.take(&format!("{slot}.fileName")) else {
            return Ok(None);
        };
        let file = full_name(&file, folder)?;
        let key = drive_key(controller, unit);
        if self.take(&format!("{slot}.deviceType")).as_deref() == Some("cdrom-image") {
            let mut drive = VirtualDevice::cdrom(key, controller, unit, &file);
            connect(&mut drive, self.flag(&format!("{slot}.startConnected")));
            return Ok(Some(drive));
        }
        let mut backing = DiskBacking::new(&file);
        backing.disk_mode = self
            .take(&format!("{slot}.mode"))
            .unwrap_or_else(|| "persistent".into());
        let disk = VirtualDevice::disk(key, controller, unit, backing, 0);
        Ok(Some(disk))
    }
}

/// Key of a disk or CD-ROM drive by its place, as ESXi numbers them.
pub fn drive_key(controller: i32, unit: i32) -> i32 {
    match controller {
        c if (SCSI_KEY..SCSI_KEY + 4).contains(&c) => 2000 + (c - SCSI_KEY) * 16 + unit,
        c if (SATA_KEY..SATA_KEY + 4).contains(&c) => 16000 + (c - SATA_KEY) * 30 + unit,
        c => 3000 + (c - IDE_KEY) * 2 + unit,
    }
}

/// The SCSI controller of a bus as it is once it is there.
fn pvscsi(bus: i32) -> VirtualDevice {
    let members = ScsiMembers {
        bus_number: bus,
        hot_add_remove: Some(true),
        scsi_ctlr_unit_number: Some(7),
        ..ScsiMembers::default()
    };
    VirtualDevice {
        key: SCSI_KEY + bus,
        kind: DeviceKind::ParaVirtualScsi(members),
        ..VirtualDevice::default()
    }
}

fn on_pci(mut device: VirtualDevice) -> VirtualDevice {
    device.controller_key = Some(PCI_KEY);
    device
}

fn connect(device: &mut VirtualDevice, at_power_on: bool) {
    if let Some(info) = &mut device.connectable {
        info.start_connected = at_power_on;
        info.connected = at_power_on;
    }
}

fn flag(value: bool) -> &'static str {
    if value { "TRUE" } else { "FALSE" }
}

fn bad(reason: String) -> Fault {
    let message = format!("The virtual machine's configuration file is not valid: {reason}");
    Fault::new(FaultKind::GenericVmConfigFault { reason }, message)
}

/// `disk.vmdk` for a file in the VM's own folder, else the path as the host's shell would have it.
fn file_name(path: &str, folder: &DatastorePath) -> String {
    match path.parse::<DatastorePath>() {
        Ok(path) if path.parent().as_ref() == Some(folder) => path.file_name().to_owned(),
        Ok(path) => format!("/vmfs/volumes/{}/{}", path.datastore, path.path),
        Err(_) => path.to_owned(),
    }
}

fn full_name(name: &str, folder: &DatastorePath) -> Result<String, Fault> {
    let path = match name
        .strip_prefix("/vmfs/volumes/")
        .and_then(|rest| rest.split_once('/'))
    {
        Some((datastore, path)) => DatastorePath::new(datastore, path),
        None => folder.join(name),
    };
    let text = path.to_string();
    match text.parse() {
        Ok(same) if path == same => Ok(text),
        _ => Err(bad(format!("{name:?} cannot be the name of a file"))),
    }
}

/// VMware's escapes: `|` and two hex digits for what a line cannot hold.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '"' | '|' | '#' | '\0'..='\u{1f}' | '\u{7f}' => {
                let _ = write!(out, "|{:02X}", c as u32);
            }
            _ => out.push(c),
        }
    }
    out
}

fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('|') {
        out.push_str(before);
        let code = after
            .get(..2)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(code) => {
                out.push(code.into());
                rest = &after[2..];
            }
            None => {
                out.push('|');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// As `bios.bootOrder` has it; disks and vNICs with their device keys behind, which follow from their places.
fn boot_device(device: &BootDevice) -> String {
    match device {
        BootDevice::Cdrom => "cdrom".to_owned(),
        BootDevice::Floppy => "floppy".to_owned(),
        BootDevice::Disk(key) => format!("hdd:{key}"),
        BootDevice::Ethernet(key) => format!("ethernet:{key}"),
    }
}

fn bootable(text: &str) -> Option<BootDevice> {
    match text.split_once(':') {
        None if text == "cdrom" => Some(BootDevice::Cdrom),
        None if text == "floppy" => Some(BootDevice::Floppy),
        Some(("hdd", key)) => key.parse().ok().map(BootDevice::Disk),
        Some(("ethernet", key)) => key.parse().ok().map(BootDevice::Ethernet),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_as_it_was_written() {
        let folder = DatastorePath::new("datastore1", "web");
        let mut config = VmConfig {
            name: "we\"b|\n#1 ü".into(),
            uuid: "u".into(),
            instance_uuid: "i".into(),
            version: "vmx-19".into(),
            guest_id: "otherLinux64Guest".into(),
            firmware: "efi".into(),
            cpus: 2,
            cores_per_socket: 1,
            memory_mb: 256,
            changes: 3,
            created: DateTime::now(),
            ..VmConfig::default()
        };
        config.boot_options.boot_delay = Some(5);
        config.boot_options.boot_order = vec![BootDevice::Cdrom, BootDevice::Disk(2000)];
        config.extra.insert("mooring.id".into(), "abc".into());
        config
            .extra
            .insert("serial1.hardwareFlowControl".into(), "TRUE".into());
        config.devices.push(on_pci(pvscsi(0)));
        config.devices.push(VirtualDevice::disk(
            2000,
            1000,
            0,
            DiskBacking::new("[datastore1] web/web.vmdk"),
            0,
        ));
        config.devices.push(VirtualDevice::cdrom(
            3000,
            200,
            0,
            "[datastore1] iso/boot.iso",
        ));
        let mut card = on_pci(VirtualDevice::vmxnet3(4000, "VM Network", None));
        card.unit_number = Some(7);
        card.kind = DeviceKind::Vmxnet3(EthernetMembers {
            address_type: Some("manual".into()),
            mac_address: Some("00:50:56:00:00:01".into()),
            wake_on_lan_enabled: Some(false),
        });
        config.devices.push(card);
        let mut ports = vec![
            VirtualDevice::serial_file(9000, "[datastore1] web/console.log"),
            VirtualDevice::serial_uri(9001, "mooring:a:b", "telnets://h:1#thumbprint=AA"),
        ];
        for (n, port) in ports.iter_mut().enumerate() {
            port.controller_key = Some(SIO_KEY);
            port.unit_number = Some(n as i32);
        }
        config.devices.append(&mut ports);
        assert_eq!(decode(&encode(&config, &folder), &folder).unwrap(), config);
    }

    #[test]
    fn what_cannot_be_a_files_name_is_refused() {
        // Found by fuzzing: each reading put the folder before such a name once more.
        for name in ["|00.vmdk", "a/../b.vmdk", "/vmfs/volumes//a", " "] {
            let text = format!("scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"{name}\"\n");
            assert!(
                decode(&text, &DatastorePath::new("ds", "vm")).is_err(),
                "{name}"
            );
        }
    }
}
