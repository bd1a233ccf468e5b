//! A kernel as it is shipped: an `.rpm`, a `.deb`, or a folder.
//!
//! A package is read once, front to back; what a boot image can need of it (kernel, configuration,
//! module lists, modules) goes into an anonymous temporary file and is indexed by its path. So
//! memory does not grow with the package, and nothing is left behind.

mod deb;
mod rpm;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::compress::{self, read_bounded};
use crate::{Error, Result};

/// All that is kept of one package, at most: more is no kernel package.
const MAX_PACKAGE: u64 = 4 << 30;
/// Files in one package or folder, at most.
const MAX_FILES: usize = 100_000;
/// A kernel image or a vmlinux, at most.
const MAX_KERNEL: u64 = 512 << 20;
/// A kernel configuration or a module list, at most.
const MAX_TEXT: u64 = 16 << 20;

/// What kind of container a kernel came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PackageKind {
    /// RPM, as Photon ships linux-esx.
    Rpm,
    /// Debian's.
    Deb,
    /// An unpacked package, or what `bootimage kernel` made.
    Folder,
}

/// Where the bytes of one file of the package are.
#[derive(Debug)]
enum Place {
    /// In the spool, from an offset on.
    Spool(u64, u64),
    /// A file of its own.
    File(PathBuf),
}

/// A kernel package, opened: which kernel it is, and its files.
#[derive(Debug)]
pub struct KernelPackage {
    path: PathBuf,
    kind: PackageKind,
    /// Name and version of the package, where it has some.
    label: String,
    version: String,
    files: BTreeMap<String, Place>,
    spool: File,
}

/// What the formats' readers hand their files to.
pub(crate) struct Collector {
    files: BTreeMap<String, Place>,
    spool: File,
    used: u64,
}

impl Collector {
    /// Takes a regular file of the package, if a boot image can need it.
    pub(crate) fn take(&mut self, path: &str, mut content: impl Read) -> Result<()> {
        let Some(path) = relative(path) else {
            return Ok(());
        };
        if !is_wanted(&path) {
            return Ok(());
        }
        if self.files.len() >= MAX_FILES {
            return Err(Error::TooLarge {
                what: path,
                limit: MAX_FILES as u64,
                kind: "file count",
            });
        }
        let mut limited = content.by_ref().take(MAX_PACKAGE - self.used + 1);
        let len = std::io::copy(&mut limited, &mut self.spool).map_err(Error::stream(&path))?;
        if self.used + len > MAX_PACKAGE {
            return Err(Error::TooLarge {
                what: path,
                limit: MAX_PACKAGE,
                kind: "kernel package",
            });
        }
        self.files.insert(path, Place::Spool(self.used, len));
        self.used += len;
        Ok(())
    }
}

/// `./usr/lib/x` and `/lib/x` as `lib/x`; nothing for a path with `..` in it.
///
/// `/usr/lib` and `/lib` are one folder on merged-/usr systems, and packages use either.
fn relative(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return None,
            part => parts.push(part),
        }
    }
    if parts.first() == Some(&"usr") && parts.get(1) == Some(&"lib") {
        parts.remove(0);
    }
    Some(parts.join("/"))
}

/// Whether a boot image can need the file.
fn is_wanted(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let kernel = ["vmlinuz", "vmlinux", "config", "bzImage"];
    match path.split_once('/') {
        Some(("boot", name)) => kernel.iter().any(|k| name.starts_with(k)),
        Some(("lib", rest)) if rest.starts_with("modules/") => {
            module_name(name).is_some()
                || name == "modules.builtin"
                || name == "vmlinuz"
                || name == "config"
        }
        // What `bootimage kernel` makes has no folders.
        None => {
            kernel.iter().any(|k| path.starts_with(k))
                || path == "modules.builtin"
                || path == "release"
        }
        _ => false,
    }
}

/// The module's name if the file is one (`vmxnet3.ko.xz`, but not `vmxnet3.ko.debug`).
pub(crate) fn module_name(file: &str) -> Option<String> {
    let stem = file.strip_suffix(".ko").or_else(|| {
        let (stem, extension) = file.rsplit_once('.')?;
        matches!(extension, "xz" | "gz" | "zst")
            .then(|| stem.strip_suffix(".ko"))
            .flatten()
    })?;
    Some(crate::modinfo::canonical(stem))
}

impl KernelPackage {
    /// Opens a package or folder and finds out which kernel it is.
    ///
    /// # Errors
    /// If it is none of the formats, is damaged, or holds no kernel or more than one.
    pub fn open(path: &Path) -> Result<Self> {
        let spool = tempfile::tempfile().map_err(Error::io("create a temporary file for", path))?;
        let mut collector = Collector {
            files: BTreeMap::new(),
            spool,
            used: 0,
        };
        let meta = std::fs::metadata(path).map_err(Error::io("open", path))?;
        let (kind, label) = if meta.is_dir() {
            collect_folder(path, path, &mut collector.files, 0)?;
            (PackageKind::Folder, String::new())
        } else {
            let file = File::open(path).map_err(Error::io("open", path))?;
            read_package(path, file, &mut collector)?
        };
        collector.spool.flush().map_err(Error::io("spool", path))?;
        let version = find_version(path, &collector)?;
        let Collector { files, spool, .. } = collector;
        Ok(Self {
            path: path.to_path_buf(),
            kind,
            label,
            version,
            files,
            spool,
        })
    }

    /// The file or folder that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it came in.
    pub fn kind(&self) -> PackageKind {
        self.kind
    }

    /// Name and version of the package (`linux-esx 6.1.79-1.ph5`); empty for a folder.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The kernel's release, as `uname -r` will say.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The bootable image (bzImage).
    pub fn kernel_image(&self) -> Result<Vec<u8>> {
        let path = self
            .kernel_path()
            .ok_or_else(|| self.lacks("kernel image"))?;
        self.read(&path, "kernel image", MAX_KERNEL)
    }

    /// The uncompressed ELF kernel, where the package ships one.
    pub fn vmlinux(&self) -> Result<Option<Vec<u8>>> {
        let names = [
            "vmlinux".to_string(),
            format!("boot/vmlinux-{}", self.version),
        ];
        match names.iter().find(|name| self.files.contains_key(*name)) {
            Some(name) => self.read(name, "kernel", MAX_KERNEL).map(Some),
            None => Ok(None),
        }
    }

    /// The kernel's configuration, where the package ships it.
    pub fn config(&self) -> Result<Option<String>> {
        let names = [
            format!("boot/config-{}", self.version),
            format!("lib/modules/{}/config", self.version),
            "config".to_string(),
        ];
        self.text(&names)
    }

    /// The list of what is built in (`kernel/fs/ext4/ext4.ko`, one a line), where there is one.
    pub fn modules_builtin(&self) -> Result<Option<String>> {
        self.text(&[
            format!("lib/modules/{}/modules.builtin", self.version),
            "modules.builtin".to_string(),
        ])
    }

    /// Modules by name, with the paths of their files; the first of two files of one name wins.
    pub fn modules(&self) -> BTreeMap<String, &str> {
        let prefix = format!("lib/modules/{}/", self.version);
        let mut modules = BTreeMap::new();
        for path in self.files.keys().filter(|path| path.starts_with(&prefix)) {
            let file = path.rsplit('/').next().unwrap_or_default();
            if let Some(name) = module_name(file) {
                modules.entry(name).or_insert(path.as_str());
            }
        }
        modules
    }

    /// A module's bytes, unpacked; `path` is one that [`Self::modules`] names.
    pub fn module(&self, path: &str) -> Result<Vec<u8>> {
        let packed = self.read(path, "kernel module", crate::modinfo::MAX_MODULE)?;
        compress::decompress(&packed, path, "kernel module", crate::modinfo::MAX_MODULE)
    }

    fn text(&self, names: &[String]) -> Result<Option<String>> {
        let Some(name) = names.iter().find(|name| self.files.contains_key(*name)) else {
            return Ok(None);
        };
        let bytes = self.read(name, "text file", MAX_TEXT)?;
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Error::format(name, "is not UTF-8 text"))
    }

    fn kernel_path(&self) -> Option<String> {
        kernel_paths(&self.files)
            .into_iter()
            .map(|(path, _)| path)
            .find(|path| path.ends_with(&self.version) || !path.starts_with("boot/"))
    }

    fn lacks(&self, missing: &str) -> Error {
        Error::Incomplete {
            path: self.path.clone(),
            missing: missing.into(),
            hint: LAYOUT.into(),
        }
    }

    fn read(&self, name: &str, kind: &'static str, limit: u64) -> Result<Vec<u8>> {
        read_place(&self.files, &self.spool, name, kind, limit)
    }
}

const LAYOUT: &str = "a kernel package has boot/vmlinuz-<release> and lib/modules/<release>/, \
                      a folder made by `bootimage kernel` has bzImage and release";

fn read_place(
    files: &BTreeMap<String, Place>,
    spool: &File,
    name: &str,
    kind: &'static str,
    limit: u64,
) -> Result<Vec<u8>> {
    match files.get(name) {
        Some(&Place::Spool(offset, len)) if len <= limit => {
            // The length was counted while spooling, so it is backed by bytes that are there.
            let mut bytes = vec![0; len as usize];
            spool
                .read_exact_at(&mut bytes, offset)
                .map_err(Error::stream(name))?;
            Ok(bytes)
        }
        Some(Place::Spool(..)) => Err(Error::TooLarge {
            what: name.into(),
            limit,
            kind,
        }),
        Some(Place::File(path)) => {
            let file = File::open(path).map_err(Error::io("open", path))?;
            read_bounded(file, name, kind, limit)
        }
        None => Err(Error::format(name, "is not in the package")),
    }
}

fn read_package(
    path: &Path,
    mut file: File,
    collector: &mut Collector,
) -> Result<(PackageKind, String)> {
    let mut magic = [0; 8];
    let len = file.read(&mut magic).map_err(Error::io("read", path))?;
    file.seek(SeekFrom::Start(0))
        .map_err(Error::io("read", path))?;
    read_stream(&magic[..len], file, collector, &path.display().to_string())
}

/// Reads a package from a stream whose first bytes are `magic` (they come again from `input`).
fn read_stream(
    magic: &[u8],
    input: impl Read,
    collector: &mut Collector,
    what: &str,
) -> Result<(PackageKind, String)> {
    let input = std::io::BufReader::with_capacity(1 << 16, input);
    match magic {
        [0xed, 0xab, 0xee, 0xdb, ..] => Ok((PackageKind::Rpm, rpm::read(input, what, collector)?)),
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', b'\n', ..] => {
            Ok((PackageKind::Deb, deb::read(input, what, collector)?))
        }
        _ => Err(Error::format(
            what,
            "is no kernel package; an .rpm, a .deb or a folder is",
        )),
    }
}

/// Runs a package's bytes through the readers, for fuzzing: any input, no panic, bounded memory.
#[doc(hidden)]
pub fn read_bytes(bytes: &[u8]) -> Result<usize> {
    let spool = tempfile::tempfile().map_err(Error::io("create", "a temporary file"))?;
    let mut collector = Collector {
        files: BTreeMap::new(),
        spool,
        used: 0,
    };
    read_stream(&bytes[..bytes.len().min(8)], bytes, &mut collector, "input")?;
    Ok(collector.files.len())
}

fn collect_folder(
    root: &Path,
    folder: &Path,
    files: &mut BTreeMap<String, Place>,
    depth: usize,
) -> Result<()> {
    if depth > 32 {
        return Err(Error::format(
            folder.display().to_string(),
            "is nested deeper than 32 folders",
        ));
    }
    let entries = std::fs::read_dir(folder).map_err(Error::io("list", folder))?;
    for entry in entries {
        let entry = entry.map_err(Error::io("list", folder))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io("look at", &path))?;
        // Links are not followed: /lib/modules/X/build leads out of the package.
        if kind.is_dir() {
            collect_folder(root, &path, files, depth + 1)?;
        } else if kind.is_file() {
            let inside = path
                .strip_prefix(root)
                .ok()
                .and_then(Path::to_str)
                .and_then(relative);
            if let Some(inside) = inside.filter(|inside| is_wanted(inside)) {
                files.insert(inside, Place::File(path));
            }
            if files.len() > MAX_FILES {
                return Err(Error::format(
                    root.display().to_string(),
                    format!("has more than {MAX_FILES} files; name the kernel's own folder"),
                ));
            }
        }
    }
    Ok(())
}

/// Kernel images of a package with the release that their path tells, if it does.
fn kernel_paths(files: &BTreeMap<String, Place>) -> Vec<(String, Option<String>)> {
    let release = |path: &str| {
        if let Some(version) = path
            .strip_prefix("boot/vmlinuz-")
            .or(path.strip_prefix("boot/bzImage-"))
        {
            return Some(Some(version.to_string()));
        }
        if let Some(rest) = path.strip_prefix("lib/modules/") {
            return rest
                .strip_suffix("/vmlinuz")
                .map(|version| Some(version.to_string()));
        }
        if let Some(version) = path.strip_prefix("vmlinuz-") {
            return Some(Some(version.to_string()));
        }
        matches!(path, "bzImage" | "vmlinuz").then_some(None)
    };
    files
        .keys()
        .filter_map(|path| Some((path.clone(), release(path)?)))
        .collect()
}

fn find_version(path: &Path, collector: &Collector) -> Result<String> {
    let files = &collector.files;
    let read = |name: &str| read_place(files, &collector.spool, name, "kernel", MAX_KERNEL);
    let mut versions: Vec<String> = Vec::new();
    let paths = kernel_paths(files);
    for (_, version) in &paths {
        versions.extend(version.clone());
    }
    if versions.is_empty() {
        let (kernel, _) = paths.first().ok_or_else(|| Error::Incomplete {
            path: path.to_path_buf(),
            missing: "kernel image".into(),
            hint: LAYOUT.into(),
        })?;
        let image = read(kernel)?;
        let banner = crate::vmlinux::release(&image).ok_or_else(|| {
            Error::format(
                kernel.clone(),
                "has no release in its header; is it a bzImage?",
            )
        })?;
        versions.push(banner);
    }
    versions.sort();
    versions.dedup();
    match versions.as_slice() {
        [version] => Ok(version.clone()),
        several => Err(Error::format(
            path.display().to_string(),
            format!(
                "holds several kernels ({}); name one package or folder",
                several.join(", ")
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_known_by_their_file_name() {
        assert_eq!(
            module_name("vmw-pvscsi.ko.xz").as_deref(),
            Some("vmw_pvscsi")
        );
        assert_eq!(module_name("ext4.ko").as_deref(), Some("ext4"));
        assert_eq!(module_name("ext4.ko.zst").as_deref(), Some("ext4"));
        assert_eq!(module_name("ext4.ko.debug"), None);
        assert_eq!(module_name("modules.builtin"), None);
    }

    #[test]
    fn a_path_that_climbs_out_is_none_of_the_package() {
        assert_eq!(
            relative("./usr/lib/modules/x"),
            Some("lib/modules/x".into())
        );
        assert_eq!(relative("/lib/modules/../../etc/passwd"), None);
    }

    #[test]
    fn junk_is_refused_with_what_would_be_right() {
        let error = read_bytes(b"PK\x03\x04 a zip file")
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "input: is no kernel package; an .rpm, a .deb or a folder is"
        );
    }

    /// A Debian package with one file in it.
    fn deb() -> Vec<u8> {
        let tar_of = |path: &str, content: &[u8]| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, content).unwrap();
            tar.into_inner().unwrap()
        };
        let mut deb = b"!<arch>\n".to_vec();
        let members = [
            ("debian-binary", b"2.0\n".to_vec()),
            (
                "control.tar",
                tar_of("./control", b"Package: linux-image-x\nVersion: 6.1-2\n"),
            ),
            ("data.tar", tar_of("./boot/vmlinuz-6.1.0-x", b"kernel")),
        ];
        for (name, body) in members {
            deb.extend(
                format!(
                    "{name:<16}0           0     0     100644  {:<10}`\n",
                    body.len()
                )
                .bytes(),
            );
            deb.extend(body);
        }
        deb
    }

    #[test]
    fn a_debian_package_tells_name_version_and_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.deb");
        std::fs::write(&path, deb()).unwrap();
        let package = KernelPackage::open(&path).unwrap();
        assert_eq!(package.label(), "linux-image-x 6.1-2");
        assert_eq!(package.version(), "6.1.0-x");
        assert_eq!(package.kernel_image().unwrap(), b"kernel");
    }

    proptest::proptest! {
        #[test]
        fn a_damaged_package_never_panics(
            damage in proptest::collection::vec(
                (proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()), 1..20),
            cut in proptest::prelude::any::<proptest::sample::Index>(),
        ) {
            let mut bytes = deb();
            for (at, byte) in damage {
                let place = at.index(bytes.len());
                bytes[place] = byte;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            let _ = read_bytes(&bytes);
        }

        #[test]
        fn a_damaged_rpm_header_never_panics(
            words in proptest::collection::vec(proptest::prelude::any::<u32>(), 0..64),
            rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..512),
        ) {
            let mut bytes = vec![0xed, 0xab, 0xee, 0xdb];
            bytes.resize(96, 0);
            bytes.extend([0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0]);
            bytes.extend(words.iter().flat_map(|word| (word % 300).to_be_bytes()));
            bytes.extend(rest);
            let _ = read_bytes(&bytes);
        }
    }
}
