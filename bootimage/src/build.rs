//! The whole way: kernel package and init to a folder with everything a VM boots from.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::compress::Compression;
use crate::modules::{self, Selection, Wanted};
use crate::package::{KernelPackage, PackageKind};
use crate::{Error, Result, initramfs, iso, order, vmlinux};

/// An init larger than this is refused.
const MAX_INIT: u64 = 256 << 20;

/// What to build, from what.
#[derive(Debug, Clone)]
pub struct Options {
    /// Kernel package (.rpm, .deb) or folder.
    pub kernel: PathBuf,
    /// Static program that becomes `/init`.
    pub init: PathBuf,
    /// Where the images go; made if it is not there.
    pub out: PathBuf,
    /// Modules to include.
    pub modules: Vec<Wanted>,
    /// Compression of `initrd.img`; `None` takes the best that the kernel reads.
    pub compression: Option<Compression>,
    /// Kernel command line of the ISO; `None` makes no ISO.
    pub iso: Option<String>,
}

/// One file that was written.
#[derive(Debug, Clone, Serialize)]
pub struct Written {
    /// Its name in the output folder.
    pub file: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 in hex.
    pub sha256: String,
}

/// What was built; also written as `manifest.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Manifest {
    /// Version of the program that built it.
    pub bootimage: String,
    /// The kernel.
    pub kernel: Kernel,
    /// Size and checksum of the init that went in.
    pub init: Written,
    /// How the initramfs is compressed.
    pub compression: Compression,
    /// Bytes of the initramfs before compression.
    pub initramfs_unpacked: u64,
    /// Modules in load order.
    pub modules: Vec<order::Line>,
    /// Wanted modules that are built into the kernel.
    pub builtin: Vec<String>,
    /// Optional modules that the kernel does not have.
    pub absent: Vec<String>,
    /// The files beside this one.
    pub files: Vec<Written>,
}

/// The kernel of a [`Manifest`].
#[derive(Debug, Clone, Serialize)]
pub struct Kernel {
    /// Its release, as `uname -r` says.
    pub release: String,
    /// What it came in.
    pub package: PackageKind,
    /// Name and version of the package; empty for a folder.
    pub label: String,
    /// Whether `vmlinux` is there and QEMU can start it directly (PVH).
    pub pvh: bool,
}

/// Builds the images and writes them to the output folder.
///
/// `vmlinuz`, `vmlinux` (where one can be had and has a PVH entry), `initrd.cpio` and `initrd.img` (the same
/// initramfs, for a direct boot and for the ISO: what lies in the host's page cache needs no unpacking),
/// `boot.iso` and `manifest.json`, each first under another name and then renamed. An earlier build's files are touched
/// only once there is all of the new ones; its manifest goes first, and the new one comes last.
///
/// # Errors
/// A package that is damaged or lacks something, a required module that does not exist, an init
/// that cannot run, or a file that cannot be read or written.
pub fn build(options: &Options, note: &mut dyn FnMut(&str)) -> Result<Manifest> {
    note("reading the kernel package");
    let kernel = KernelPackage::open(&options.kernel)?;
    let init = read_init(&options.init)?;

    note("choosing modules");
    let selection = modules::select(&kernel, &options.modules)?;

    note("unpacking the kernel");
    let image = kernel.kernel_image()?;
    let elf = match kernel.vmlinux()? {
        Some(elf) => Some(elf),
        None => vmlinux::extract(&image, "vmlinuz").ok(),
    };
    // Without PVH entry nothing starts it, so it is not worth its space.
    let pvh = elf.filter(|elf| vmlinux::has_pvh_entry(elf));

    note("packing the initramfs");
    let config = kernel.config()?;
    let init_written = described("init", &init);
    let archive = initramfs::build(init, &selection)?;
    let compression = options
        .compression
        .unwrap_or_else(|| initramfs::choose(config.as_deref()));
    let initrd = initramfs::pack(&archive, compression, config.as_deref())?;
    let iso = match &options.iso {
        Some(cmdline) => {
            note("making the ISO");
            Some(iso::build(image.clone(), initrd.clone(), cmdline)?)
        }
        None => None,
    };

    note("writing");
    let mut out = Output::new(&options.out)?;
    // While it is away, the folder is a mixture: `vch up` takes none without it.
    out.remove("manifest.json")?;
    out.replace("vmlinuz", Some(&image))?;
    out.replace("vmlinux", pvh.as_deref())?;
    out.replace("initrd.img", Some(&initrd))?;
    out.replace("initrd.cpio", Some(&archive))?;
    out.replace("boot.iso", iso.as_deref())?;

    let Selection {
        modules,
        builtin,
        absent,
    } = selection;
    let manifest = Manifest {
        bootimage: env!("CARGO_PKG_VERSION").into(),
        kernel: Kernel {
            release: kernel.version().into(),
            package: kernel.kind(),
            label: kernel.label().into(),
            pvh: pvh.is_some(),
        },
        init: init_written,
        compression,
        initramfs_unpacked: archive.len() as u64,
        modules: order::lines(&modules),
        builtin,
        absent,
        files: out.written.clone(),
    };
    let text = serde_json::to_string_pretty(&manifest)
        .map_err(|error| Error::format("manifest.json", error.to_string()))?;
    out.write("manifest.json", format!("{text}\n").as_bytes())?;
    Ok(manifest)
}

fn read_init(path: &Path) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    crate::compress::read_bounded(file, &path.display().to_string(), "init program", MAX_INIT)
}

fn described(file: &str, content: &[u8]) -> Written {
    Written {
        file: file.into(),
        size: content.len() as u64,
        sha256: hex::encode(Sha256::digest(content)),
    }
}

/// The output folder: files appear in it whole or not at all.
struct Output {
    folder: PathBuf,
    written: Vec<Written>,
}

impl Output {
    fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        Ok(Self {
            folder: folder.to_path_buf(),
            written: Vec::new(),
        })
    }

    fn write(&mut self, name: &str, content: &[u8]) -> Result<()> {
        use std::io::Write;
        let path = self.folder.join(name);
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)
            .map_err(Error::io("create a file in", &self.folder))?;
        file.write_all(content).map_err(Error::io("write", &path))?;
        // Others read them too: hostsim may run as another user.
        use std::os::unix::fs::PermissionsExt;
        file.as_file()
            .set_permissions(std::fs::Permissions::from_mode(0o644))
            .map_err(Error::io("set the mode of", &path))?;
        file.as_file()
            .sync_all()
            .map_err(Error::io("write", &path))?;
        file.persist(&path)
            .map_err(|error| Error::io("rename to", &path)(error.error))?;
        self.sync()?;
        self.written.push(described(name, content));
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        std::fs::File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(Error::io("sync", &self.folder))
    }

    /// Writes a file, or removes what an earlier build left and this one does not have.
    fn replace(&mut self, name: &str, content: Option<&[u8]>) -> Result<()> {
        match content {
            Some(content) => self.write(name, content),
            None => self.remove(name),
        }
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        match std::fs::remove_file(&path) {
            Ok(()) => self.sync(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("remove", &path)(error)),
        }
    }
}
