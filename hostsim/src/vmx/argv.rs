//! QEMU's command line for a VM.

use super::spec::{
    DirectBoot, DiskSpec, Firmware, NicBackend, NicSpec, SerialSpec, ShareSpec, VmxSpec, VsockSpec,
};
use super::{files, spec, tuning};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::RawFd;
use std::path::Path;

/// The emulator, found by PATH.
pub(super) const QEMU: &str = "qemu-system-x86_64";
/// Folder of the fw_cfg files in the run folder.
const FW_CFG_FOLDER: &str = "fwcfg";
/// The UEFI variables of this run, in the run folder.
const VARS_FILE: &str = "efivars.fd";
/// The vhost-user socket in the run folder.
pub(super) const VSOCK_SOCKET: &str = "vsock.sock";
/// The guest's context ID on the shim's own vsock device. Every VM has a device of its own, so it
/// need not differ.
pub(super) const GUEST_CID: u32 = 3;
/// The bus of the vNICs. They come and go while the VM runs, which q35's own bus does not allow. One conventional bridge
/// has room for all of them, and is one more device for the guest to find; a root port for each would be ten.
pub(super) const NIC_BUS: &str = "nics";
/// fw_cfg files that QEMU 7.2 has room for beside its own (`FW_CFG_FILE_SLOTS_DFLT`).
const FW_CFG_SLOTS: usize = 0x20;
/// UEFI firmware and its empty variables, as Debian's package `ovmf` has them.
const OVMF: [(&str, &str); 2] = [
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_VARS.fd",
    ),
];

/// The base name of a network-backed serial port's FIFOs in the run folder.
pub(super) fn fifo(number: usize) -> String {
    format!("serial{number}")
}

/// Write the files that QEMU reads besides the VM's own, into the run folder, which is the
/// current one.
///
/// # Errors
/// A sentence that says what is missing.
pub(super) fn prepare(spec: &VmxSpec) -> Result<(), String> {
    for (what, path) in files_of(spec) {
        std::fs::File::open(path).map_err(|e| format!("{what} {}: {e}", path.display()))?;
    }
    let folder = Path::new(FW_CFG_FOLDER);
    let result = match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => std::fs::create_dir(folder),
    };
    result.map_err(|e| format!("{FW_CFG_FOLDER}: {e}"))?;
    for (n, value) in spec.guestinfo.values().enumerate() {
        let path = folder.join(n.to_string());
        files::write_private(&path, value.as_bytes())
            .map_err(|e| format!("{}: {e}", path.display()))?;
    }
    if spec.boot.is_none() && spec.firmware == Firmware::Efi {
        let (_, vars) = ovmf()?;
        let bytes = std::fs::read(vars).map_err(|e| format!("{vars}: {e}"))?;
        files::write_private(Path::new(VARS_FILE), &bytes)
            .map_err(|e| format!("{VARS_FILE}: {e}"))?;
    }
    Ok(())
}

/// The files that must exist, with what they are.
fn files_of(spec: &VmxSpec) -> Vec<(&'static str, &Path)> {
    let mut files: Vec<(&'static str, &Path)> = Vec::new();
    files.extend(spec.disks.iter().map(|disk| ("disk", disk.path.as_path())));
    files.extend(
        spec.cdrom
            .iter()
            .map(|path| ("CD-ROM image", path.as_path())),
    );
    if let Some(boot) = &spec.boot {
        files.push(("kernel", &boot.kernel));
        files.extend(boot.initrd.iter().map(|path| ("initramfs", path.as_path())));
    }
    files
}

fn ovmf() -> Result<(&'static str, &'static str), String> {
    let found = OVMF.into_iter().find(|(code, _)| Path::new(code).exists());
    found.ok_or_else(|| {
        format!(
            "no UEFI firmware: {} is not there; install the package ovmf",
            OVMF[0].0
        )
    })
}

/// What QEMU inherits.
#[derive(Debug)]
pub(super) struct Inherited {
    /// QMP's socket.
    pub(super) qmp: RawFd,
    /// The taps of those vNICs that have one, by their slots.
    pub(super) taps: BTreeMap<u8, RawFd>,
    /// The shared folders, by their numbers.
    pub(super) shares: BTreeMap<u8, RawFd>,
}

/// The arguments, for a QEMU that runs in the run folder.
///
/// # Errors
/// A sentence that says what is missing.
pub(super) fn build(spec: &VmxSpec, inherited: &Inherited) -> Result<Vec<OsString>, String> {
    let Inherited { qmp, taps, shares } = inherited;
    let mut args = Args::default();
    args.flag("-nodefaults").flag("-no-user-config");
    args.pair("-display", "none");
    args.pair("-name", escape(&spec.name));
    args.pair("-uuid", spec.uuid.to_string());
    // A guest that gets out of QEMU's device models shall not find a shell.
    args.pair(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    // A reset of the guest's own is an end.
    args.pair(
        "-action",
        "reboot=shutdown,shutdown=poweroff,panic=shutdown",
    );
    args.pair("-chardev", format!("socket,id=qmp,fd={qmp}"));
    args.pair("-mon", "chardev=qmp,mode=control");

    let uds = matches!(spec.vsock, Some(VsockSpec::Uds { .. }));
    let machine = format!(
        "q35,usb=off,vmport=off,graphics=off,sata={}{}",
        if spec.cdrom.is_some() { "on" } else { "off" },
        if uds { ",memory-backend=ram0" } else { "" },
    );
    args.pair("-machine", machine);
    args.pair("-accel", tuning::accel(spec.accelerator, spec.cpus));
    args.pair("-cpu", tuning::cpu(spec.accelerator));
    args.pair("-smp", spec.cpus.to_string());
    args.pair("-m", format!("{}M", spec.memory_mib));
    args.pair("-rtc", "base=utc");
    if uds {
        // The vsock device's other end maps the guest's memory.
        args.pair(
            "-object",
            format!(
                "memory-backend-memfd,id=ram0,size={}M,share=on",
                spec.memory_mib
            ),
        );
    }
    match &spec.boot {
        Some(boot) => direct_boot(&mut args, spec, boot)?,
        None if spec.firmware == Firmware::Efi => {
            let (code, _) = ovmf()?;
            let pflash = |unit, rest: &str| format!("if=pflash,format=raw,unit={unit},{rest}");
            args.pair("-drive", pflash(0, &format!("readonly=on,file={code}")));
            args.pair("-drive", pflash(1, &format!("file={VARS_FILE}")));
        }
        None => {}
    }
    disks(&mut args, spec)?;
    if let Some(iso) = &spec.cdrom {
        args.pair("-blockdev", blockdev("cd0", "raw", iso, true)?);
        let order = if spec.cdrom_first { 0 } else { spec::DISKS_MAX };
        args.pair(
            "-device",
            format!("ide-cd,bus=ide.0,drive=cd0,bootindex={order}"),
        );
    }
    args.pair("-device", format!("pcie-pci-bridge,id={NIC_BUS},addr=0x8"));
    // Behind a bridge that is empty at boot the guest leaves no room for what comes later. Nobody
    // drives this device, and the least room that a bridge can have is enough for all vNICs.
    args.pair("-device", format!("pci-testdev,bus={NIC_BUS},addr=0x1f"));
    for nic in &spec.nics {
        vnic(&mut args, nic, taps.get(&nic.slot).copied());
    }
    for (n, serial) in spec.serials.iter().enumerate() {
        let backend = match serial {
            SerialSpec::File { path, append } => format!(
                "file,id=serial{n},path={},append={}",
                escape(&path.to_string_lossy()),
                if *append { "on" } else { "off" }
            ),
            SerialSpec::Uri(_) => format!("pipe,id=serial{n},path={}", fifo(n)),
            SerialSpec::Disconnected => format!("null,id=serial{n}"),
        };
        args.pair("-chardev", backend);
        args.pair("-serial", format!("chardev:serial{n}"));
    }
    match &spec.vsock {
        Some(VsockSpec::Uds { .. }) => {
            args.pair("-chardev", format!("socket,id=vsock0,path={VSOCK_SOCKET}"));
            args.pair("-device", "vhost-user-vsock-pci,chardev=vsock0,addr=0x1d");
        }
        Some(VsockSpec::Kernel { cid }) => {
            args.pair(
                "-device",
                format!("vhost-vsock-pci,guest-cid={cid},addr=0x1d"),
            );
        }
        None => {}
    }
    for (number, share) in &spec.shares {
        if let Some(fd) = shares.get(number) {
            shared_folder(&mut args, *number, share, *fd);
        }
    }
    if spec.guestinfo.len() > FW_CFG_SLOTS / 2 {
        let slots = FW_CFG_SLOTS + spec.guestinfo.len();
        args.pair("-global", format!("fw_cfg_io.x-file-slots={slots}"));
    }
    for (n, key) in spec.guestinfo.keys().enumerate() {
        args.pair(
            "-fw_cfg",
            format!("name=opt/{key},file={FW_CFG_FOLDER}/{n}"),
        );
    }
    Ok(args.0)
}

fn direct_boot(args: &mut Args, spec: &VmxSpec, boot: &DirectBoot) -> Result<(), String> {
    let mut magic = [0u8; 4];
    std::fs::File::open(&boot.kernel)
        .and_then(|mut file| file.read_exact(&mut magic))
        .map_err(|e| format!("kernel {}: {e}", boot.kernel.display()))?;
    if &magic == b"\x7fELF" {
        // An uncompressed kernel is entered by PVH; qboot does that in the least time.
        args.pair("-bios", "qboot.rom");
    }
    args.pair("-kernel", boot.kernel.clone());
    if let Some(initrd) = &boot.initrd {
        args.pair("-initrd", initrd.clone());
    }
    let mut cmdline = boot.cmdline.clone();
    cmdline.push_str(&tuning::kernel_arguments(spec.accelerator, spec.tsc_khz));
    args.pair("-append", cmdline.trim_start());
    Ok(())
}

/// Whether this user namespace has other users than ours (user_namespaces(7): `inside outside count`).
fn others_are_known() -> bool {
    // A kernel without user namespaces knows everybody.
    std::fs::read_to_string("/proc/self/uid_map").map_or(true, |map| {
        map.lines()
            .any(|line| line.split_whitespace().nth(2) != Some("1"))
    })
}

/// A virtio-9p device. The folder is the one that was opened, whatever its path means by now. As root, owners are those
/// that the guest gives; else, and as root of a user namespace that knows nobody else, everything is ours.
fn shared_folder(args: &mut Args, number: u8, share: &ShareSpec, fd: RawFd) {
    let model = if nix::unistd::geteuid().is_root() && others_are_known() {
        "passthrough"
    } else {
        "none"
    };
    args.pair(
        "-fsdev",
        format!(
            "local,id=share{number},path=/proc/self/fd/{fd},security_model={model},multidevs=remap{}",
            if share.read_only { ",readonly=on" } else { "" }
        ),
    );
    args.pair(
        "-device",
        format!(
            "virtio-9p-pci,fsdev=share{number},mount_tag=share{number},addr={:#x}",
            0x10 + number
        ),
    );
}

fn disks(args: &mut Args, spec: &VmxSpec) -> Result<(), String> {
    let disks = &spec.disks;
    for controller in 0..spec::CONTROLLERS_MAX {
        if disks.iter().any(|disk| disk.controller == controller) {
            args.pair(
                "-device",
                format!("pvscsi,id=scsi{controller},addr={:#x}", 2 + controller),
            );
        }
    }
    for (order, disk) in disks.iter().enumerate() {
        let DiskSpec {
            path,
            controller,
            unit,
            read_only,
        } = disk;
        let node = format!("disk{controller}-{unit}");
        args.pair("-blockdev", blockdev(&node, "vmdk", path, *read_only)?);
        let mut device = format!("scsi-hd,bus=scsi{controller}.0,scsi-id={unit},drive={node}");
        if spec.cdrom.is_some() && !spec.cdrom_first {
            // As VMware's firmware has it.
            device += &format!(",bootindex={order}");
        }
        args.pair("-device", device);
    }
    Ok(())
}

/// A block device as JSON: no character of a path means anything else there. QEMU finds the
/// parents of a VMDK by itself.
fn blockdev(node: &str, format: &str, path: &Path, read_only: bool) -> Result<String, String> {
    let path = path
        .to_str()
        .ok_or_else(|| format!("{}: not a UTF-8 path", path.display()))?;
    Ok(serde_json::json!({
        "node-name": node,
        "driver": format,
        "read-only": read_only,
        "file": { "driver": "file", "filename": path, "read-only": read_only },
    })
    .to_string())
}

/// A vNIC's name for QEMU, by its slot.
pub(super) fn nic_id(slot: u8) -> String {
    format!("nic{slot}")
}

/// The name of what is at the other end of its cable.
pub(super) fn netdev_id(slot: u8) -> String {
    format!("net{slot}")
}

/// Its place on [`NIC_BUS`]. Slots rise with the number, so that the guest's order is the
/// specification's; a bridge's slot 0 takes nothing.
pub(super) fn nic_addr(slot: u8) -> String {
    format!("{:#x}", slot.saturating_add(1))
}

fn vnic(args: &mut Args, nic: &NicSpec, tap: Option<RawFd>) {
    let (slot, netdev) = (nic.slot, netdev_id(nic.slot));
    let device = format!(
        "vmxnet3,id={},mac={},romfile=,bus={NIC_BUS},addr={}",
        nic_id(slot),
        nic.mac,
        nic_addr(slot)
    );
    let backend = match (&nic.backend, tap) {
        (NicBackend::User(net), _) if nic.connected => format!(
            "user,id={netdev},net={}/{},host={},dns={},ipv6=off",
            net.network, net.prefix, net.gateway, net.dns
        ),
        (NicBackend::Port(_), Some(fd)) => format!("tap,id={netdev},fd={fd},vhost=off"),
        // Nothing at the other end. QEMU's set_link would be the better way, but its vmxnet3
        // writes the event to guest address 0 while no driver has told it where to; and a hub of
        // its own keeps the guest from booting.
        _ => {
            args.pair("-device", device);
            return;
        }
    };
    args.pair("-netdev", backend);
    args.pair("-device", format!("{device},netdev={netdev}"));
}

/// A value inside one of QEMU's comma-separated options.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

#[derive(Debug, Default)]
struct Args(Vec<OsString>);

impl Args {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.into());
        self
    }

    fn pair(&mut self, option: &str, value: impl Into<OsString>) {
        self.0.push(option.into());
        self.0.push(value.into());
    }
}
