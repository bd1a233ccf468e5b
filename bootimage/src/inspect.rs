//! What is inside an initramfs, an ISO, a kernel or a kernel package.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;

use crate::compress::{self, Compression, read_bounded};
use crate::package::{KernelPackage, PackageKind};
use crate::{Error, Result, cpio, iso, modinfo, order, vmlinux};

/// A file to inspect, at most; an ISO or an initramfs is held in memory.
const MAX_FILE: u64 = 2 << 30;
/// An initramfs unpacked, at most.
const MAX_INITRAMFS: u64 = 512 << 20;
/// A text file inside one, at most.
const MAX_TEXT: u64 = 16 << 20;

/// What a file turned out to be.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Report {
    /// A cpio archive that a kernel takes as initramfs.
    Initramfs(Initramfs),
    /// An ISO 9660 image.
    Iso(Iso),
    /// A bzImage or an ELF kernel.
    Kernel(Kernel),
    /// A kernel package or folder.
    Package(Package),
}

/// An initramfs.
#[derive(Debug, Serialize)]
pub struct Initramfs {
    /// Bytes as it is.
    pub size: u64,
    /// Bytes unpacked.
    pub unpacked: u64,
    /// How it is compressed.
    pub compression: Compression,
    /// All entries, in the archive's order.
    pub entries: Vec<Entry>,
    /// Lines of `modules/order`, where there is one.
    pub modules: Vec<order::Line>,
}

/// An entry of an initramfs.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Its path.
    pub path: String,
    /// Type and permissions in octal, as in `st_mode`.
    pub mode: String,
    /// Bytes.
    pub size: u64,
    /// For a module, the kernel that it was built for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vermagic: Option<String>,
}

/// An ISO, with what is known of the kernel and initramfs on it.
#[derive(Debug, Serialize)]
pub struct Iso {
    /// Bytes.
    pub size: u64,
    /// Label, files and boot entries.
    pub volume: iso::Volume,
    /// The kernel command line that isolinux passes.
    pub cmdline: Option<String>,
    /// The kernel on it.
    pub kernel: Option<Kernel>,
    /// The initramfs on it.
    pub initramfs: Option<Initramfs>,
}

/// A kernel.
#[derive(Debug, Serialize)]
pub struct Kernel {
    /// Bytes.
    pub size: u64,
    /// Its release; unknown for a bare ELF kernel.
    pub release: Option<String>,
    /// Bytes of the ELF kernel in it.
    pub unpacked: Option<u64>,
    /// Whether QEMU can start the ELF kernel directly.
    pub pvh: bool,
}

/// A kernel package.
#[derive(Debug, Serialize)]
pub struct Package {
    /// What it came in.
    pub package: PackageKind,
    /// Name and version.
    pub label: String,
    /// The kernel in it.
    pub kernel: Kernel,
    /// Names of its modules.
    pub modules: Vec<String>,
}

/// Finds out what a file is and looks into it.
///
/// # Errors
/// If it is none of the kinds, or damaged.
pub fn inspect(path: &Path) -> Result<Report> {
    if path.is_dir() {
        return package(path);
    }
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut magic = [0; 8];
    let len = file.read(&mut magic).map_err(Error::io("read", path))?;
    if magic[..len].starts_with(b"!<arch>\n") || magic[..len].starts_with(&[0xed, 0xab, 0xee, 0xdb])
    {
        return package(path);
    }
    let file = File::open(path).map_err(Error::io("open", path))?;
    let what = path.display().to_string();
    let bytes = read_bounded(file, &what, "boot image", MAX_FILE)?;
    inspect_bytes(&bytes, &what)
}

/// Looks into a file's bytes; `what` names it in errors. Packages are not for this function.
///
/// # Errors
/// If it is none of the kinds, or damaged.
pub fn inspect_bytes(bytes: &[u8], what: &str) -> Result<Report> {
    if bytes.get(0x8001..0x8006) == Some(b"CD001") {
        return Ok(Report::Iso(of_iso(bytes)?));
    }
    if bytes.get(0x202..0x206) == Some(b"HdrS") || bytes.starts_with(b"\x7fELF") {
        return Ok(Report::Kernel(of_kernel(bytes, what)));
    }
    let is_archive = |head: &[u8]| head.starts_with(b"07070");
    if is_archive(bytes) || Compression::detect(bytes) != Compression::None {
        return Ok(Report::Initramfs(of_initramfs(bytes, what)?));
    }
    Err(Error::format(
        what,
        "is no initramfs, ISO, kernel (bzImage, ELF) or kernel package",
    ))
}

fn package(path: &Path) -> Result<Report> {
    let package = KernelPackage::open(path)?;
    let mut kernel = of_kernel(&package.kernel_image()?, "kernel image");
    kernel.release = Some(package.version().into());
    Ok(Report::Package(Package {
        package: package.kind(),
        label: package.label().into(),
        kernel,
        modules: package.modules().into_keys().collect(),
    }))
}

fn of_kernel(bytes: &[u8], what: &str) -> Kernel {
    let unpacked = vmlinux::extract(bytes, what).ok();
    let elf = match &unpacked {
        Some(elf) => Some(elf.as_slice()),
        None => bytes.starts_with(b"\x7fELF").then_some(bytes),
    };
    Kernel {
        size: bytes.len() as u64,
        release: vmlinux::release(bytes),
        unpacked: elf.map(|elf| elf.len() as u64),
        pvh: elf.is_some_and(vmlinux::has_pvh_entry),
    }
}

fn of_initramfs(bytes: &[u8], what: &str) -> Result<Initramfs> {
    let (compression, reader) = compress::decoder(bytes, what)?;
    let archive = read_bounded(reader, what, "initramfs", MAX_INITRAMFS)?;
    let mut entries = Vec::new();
    let mut modules = Vec::new();
    cpio::read(archive.as_slice(), what, |entry, content| {
        let mut vermagic = None;
        if entry.name == "modules/order" {
            let text = read_bounded(content, &entry.name, "module list", MAX_TEXT)?;
            modules = order::parse(&String::from_utf8_lossy(&text))?;
        } else if entry.is_file() && entry.name.ends_with(".ko") {
            let elf = read_bounded(content, &entry.name, "kernel module", modinfo::MAX_MODULE)?;
            vermagic = Some(modinfo::parse(&elf, &entry.name)?.vermagic);
        }
        entries.push(Entry {
            path: entry.name.clone(),
            mode: format!("{:06o}", entry.mode),
            size: entry.size,
            vermagic,
        });
        Ok(())
    })?;
    let (size, unpacked) = (bytes.len() as u64, archive.len() as u64);
    Ok(Initramfs {
        size,
        unpacked,
        compression,
        entries,
        modules,
    })
}

fn of_iso(bytes: &[u8]) -> Result<Iso> {
    let volume = iso::read(bytes)?;
    let file = |name: &str| {
        let file = volume
            .files
            .iter()
            .find(|file| file.path.eq_ignore_ascii_case(name))?;
        bytes.get(file.offset as usize..(file.offset + file.size) as usize)
    };
    let cmdline = file("isolinux.cfg").and_then(|text| {
        let text = String::from_utf8_lossy(text);
        text.lines()
            .find_map(|line| Some(line.trim().strip_prefix("APPEND ")?.to_string()))
    });
    let kernel = file("vmlinuz").map(|kernel| of_kernel(kernel, "VMLINUZ"));
    let initramfs = match file("initrd.img") {
        Some(initrd) => Some(of_initramfs(initrd, "INITRD.IMG")?),
        None => None,
    };
    Ok(Iso {
        size: bytes.len() as u64,
        volume,
        cmdline,
        kernel,
        initramfs,
    })
}

impl Report {
    /// The report for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Initramfs(initramfs) => write_initramfs(&mut out, initramfs),
            Self::Iso(iso) => write_iso(&mut out, iso),
            Self::Kernel(kernel) => write_kernel(&mut out, kernel),
            Self::Package(package) => write_package(&mut out, package),
        };
        out
    }
}

fn write_kernel(out: &mut String, kernel: &Kernel) -> std::fmt::Result {
    let release = kernel.release.as_deref().unwrap_or("of unknown release");
    write!(out, "kernel {release}, {} bytes", kernel.size)?;
    match kernel.unpacked {
        Some(unpacked) => write!(out, ", unpacked {unpacked}")?,
        None => write!(out, ", cannot be unpacked here")?,
    }
    writeln!(
        out,
        ", PVH entry: {}",
        if kernel.pvh { "yes" } else { "no" }
    )
}

fn write_initramfs(out: &mut String, initramfs: &Initramfs) -> std::fmt::Result {
    writeln!(
        out,
        "initramfs, {} bytes ({}), unpacked {}, {} entries, {} modules",
        initramfs.size,
        initramfs.compression.name(),
        initramfs.unpacked,
        initramfs.entries.len(),
        initramfs.modules.len(),
    )?;
    for entry in &initramfs.entries {
        let file = entry.path.strip_prefix("modules/").unwrap_or_default();
        let line = initramfs.modules.iter().find(|line| line.file == file);
        let group = line
            .map(|line| format!("  [{}]", line.group))
            .unwrap_or_default();
        let kernel = entry
            .vermagic
            .as_deref()
            .and_then(|text| text.split(' ').next())
            .unwrap_or_default();
        let row = format!(
            "  {} {:>10}  {}{group}  {kernel}",
            entry.mode, entry.size, entry.path
        );
        writeln!(out, "{}", row.trim_end())?;
    }
    Ok(())
}

fn write_iso(out: &mut String, iso: &Iso) -> std::fmt::Result {
    writeln!(out, "ISO 9660 `{}`, {} bytes", iso.volume.name, iso.size)?;
    for entry in &iso.volume.boot {
        writeln!(
            out,
            "  boots by {} from byte {}",
            entry.platform, entry.offset
        )?;
    }
    for file in &iso.volume.files {
        writeln!(out, "  {:>10}  {}", file.size, file.path)?;
    }
    if let Some(cmdline) = &iso.cmdline {
        writeln!(out, "command line: {cmdline}")?;
    }
    if let Some(kernel) = &iso.kernel {
        write_kernel(out, kernel)?;
    }
    match &iso.initramfs {
        Some(initramfs) => write_initramfs(out, initramfs),
        None => Ok(()),
    }
}

fn write_package(out: &mut String, package: &Package) -> std::fmt::Result {
    writeln!(out, "{:?} package {}", package.package, package.label)?;
    write_kernel(out, &package.kernel)?;
    writeln!(
        out,
        "{} modules: {}",
        package.modules.len(),
        package.modules.join(" ")
    )
}
