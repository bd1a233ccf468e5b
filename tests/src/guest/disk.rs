//! A disk as the endpoint makes them: GPT, layers, ephemeral partition, journal. Made with the
//! distribution's tools, so that nothing of ours tests itself.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;

/// GUID of the test disk.
pub const GUID: &str = "6D6F6F72-696E-4721-8000-000000000001";

/// A folder that becomes a layer.
#[derive(Debug)]
pub struct Layer {
    /// The files.
    pub folder: PathBuf,
    /// Size of its partition in MiB.
    pub mib: u64,
}

/// Where the parts of a disk are, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Start.
    pub offset: u64,
    /// Length.
    pub len: u64,
}

/// A test disk.
#[derive(Debug)]
pub struct Disk {
    /// The raw image.
    pub path: PathBuf,
    /// The journal's place in it.
    pub journal: Span,
    /// Partitions 1 to n are layers; n + 1 is ephemeral, n + 2 the journal.
    pub layers: u32,
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

impl Disk {
    /// Makes a disk of these layers, lowest first.
    ///
    /// # Errors
    /// If a tool fails.
    pub fn make(
        path: &Path,
        layers: &[Layer],
        ephemeral_mib: u64,
        journal_mib: u64,
    ) -> Result<Disk> {
        let sizes: Vec<u64> = layers
            .iter()
            .map(|l| l.mib)
            .chain([ephemeral_mib, journal_mib])
            .collect();
        let total = sizes.iter().sum::<u64>() + 2;
        File::create(path)?.set_len(total * MIB)?;
        let mut table =
            format!("label: gpt\nlabel-id: {GUID}\ntable-length: 256\nfirst-lba: 2048\n");
        let mut start = 1;
        for size in &sizes {
            table += &format!("start={}, size={}\n", start * 2048, size * 2048);
            start += size;
        }
        let mut sfdisk = Command::new("sfdisk")
            .arg("-q")
            .arg(path)
            .stdin(Stdio::piped())
            .spawn()
            .context("starting sfdisk")?;
        sfdisk
            .stdin
            .take()
            .context("sfdisk's stdin")?
            .write_all(table.as_bytes())?;
        if !sfdisk.wait()?.success() {
            bail!("sfdisk failed on:\n{table}");
        }
        let mut start = 1;
        for (index, size) in sizes.iter().enumerate() {
            let image = path.with_extension("part");
            if index + 1 < sizes.len() {
                match layers.get(index) {
                    Some(layer) => ext4(&layer.folder, &image, *size)?,
                    None => run(mkfs().arg(&image).arg(format!("{size}M")))?,
                }
                copy(&image, path, start * MIB)?;
                std::fs::remove_file(&image)?;
            }
            start += size;
        }
        let journal = Span {
            offset: (start - journal_mib) * MIB,
            len: journal_mib * MIB,
        };
        Ok(Disk {
            path: path.to_owned(),
            journal,
            layers: layers.len() as u32,
        })
    }

    /// How the configuration names it.
    #[must_use]
    pub fn config(&self) -> wire::config::Disk {
        wire::config::Disk {
            guid: GUID.to_owned(),
            layers: (1..=self.layers).collect(),
            layer_files: Vec::new(),
            ephemeral: self.layers + 1,
            journal: self.layers + 2,
            read_only: false,
        }
    }
}

/// Gives the root of an ext4 image the look of a folder, which mkfs.ext4 does not in every version.
fn root_like(folder: &Path, image: &Path) -> Result<()> {
    let like = std::fs::metadata(folder)?;
    for (field, value) in [
        ("mode", format!("0{:o}", like.mode())),
        ("uid", like.uid().to_string()),
        ("gid", like.gid().to_string()),
        ("mtime", format!("@{}", like.mtime())),
    ] {
        let request = format!("set_inode_field / {field} {value}");
        run(Command::new("debugfs")
            .args(["-w", "-R", &request])
            .arg(image))?;
    }
    Ok(())
}

fn mkfs() -> Command {
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-F", "-b", "4096", "-E", "root_owner=0:0"]);
    mkfs
}

/// Makes a layer's image (ext4 without a journal) of a folder.
///
/// # Errors
/// If mkfs.ext4 fails.
pub fn ext4(folder: &Path, image: &Path, mib: u64) -> Result<()> {
    let mut mkfs = mkfs();
    mkfs.args(["-O", "^has_journal", "-d"]).arg(folder);
    run(mkfs.arg(image).arg(format!("{mib}M")))?;
    root_like(folder, image)
}

/// Copies what is not zero of a file to an offset of another.
fn copy(from: &Path, to: &Path, offset: u64) -> Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::options().write(true).open(to)?);
    let mut buf = vec![0u8; MIB as usize];
    let mut at = offset;
    loop {
        let got = from.read(&mut buf)?;
        if got == 0 {
            return Ok(());
        }
        if buf[..got].iter().any(|b| *b != 0) {
            to.seek(SeekFrom::Start(at))?;
            to.write_all(&buf[..got])?;
        }
        at += got as u64;
    }
}

/// A layer with busybox and its commands, users and groups, and the prober.
///
/// # Errors
/// Those of the file system, or if the prober does not compile.
pub fn busybox(folder: &Path) -> Result<Layer> {
    for dir in ["bin", "etc", "tmp", "root", "var", "home/app"] {
        std::fs::create_dir_all(folder.join(dir))?;
    }
    std::fs::copy("/bin/busybox", folder.join("bin/busybox"))
        .context("busybox-static is needed")?;
    let list = Command::new("/bin/busybox").arg("--list").output()?.stdout;
    for name in String::from_utf8(list)?.lines().filter(|n| *n != "busybox") {
        std::os::unix::fs::symlink("busybox", folder.join("bin").join(name))?;
    }
    std::fs::write(
        folder.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n",
    )?;
    std::fs::write(
        folder.join("etc/group"),
        "root:x:0:\napp:x:1001:\naudio:x:29:app\n",
    )?;
    std::fs::write(folder.join("etc/plain"), "not a program\n")?;
    super::build::prober(&folder.join("bin"))?;
    Ok(Layer {
        folder: folder.to_owned(),
        mib: 32,
    })
}

/// The journal's bytes within the disk.
#[derive(Debug)]
pub struct JournalPartition {
    file: File,
    span: Span,
}

impl Disk {
    /// The journal partition, to be read while the VM is off.
    ///
    /// # Errors
    /// If the disk cannot be opened.
    pub fn journal(&self) -> Result<JournalPartition> {
        Ok(JournalPartition {
            file: File::open(&self.path)?,
            span: self.journal,
        })
    }
}

impl journal::ReadAt for JournalPartition {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buf, self.span.offset + offset)
    }

    fn size(&self) -> std::io::Result<u64> {
        Ok(self.span.len)
    }
}
