//! The initramfs: the tether as `/init`, the modules, and the folders that a boot mounts on.

use crate::compress::{self, Compression};
use crate::cpio::Archive;
use crate::modules::Selection;
use crate::{Error, Result, order};

/// Folders that are there, empty, for the tether to mount on.
const FOLDERS: [&str; 7] = ["dev", "mnt", "modules", "proc", "root", "run", "sys"];

/// Makes the archive, not yet compressed: the same parts give the same bytes.
///
/// It holds `/init`, `/modules/order` ([`crate::order`]), `/modules/NNN-name.ko`, empty folders,
/// and `/dev/console`, without which the kernel starts init with no stdout.
///
/// # Errors
/// If `init` is no static x86-64 program: the kernel could not start it.
pub fn build(init: Vec<u8>, selection: &Selection) -> Result<Vec<u8>> {
    check_static(&init)?;
    let mut archive = Archive::new();
    for folder in FOLDERS {
        archive.folder(folder, 0o755);
    }
    archive.folder("tmp", 0o1777);
    archive.char_device("dev/console", 0o600, 5, 1);
    archive.char_device("dev/null", 0o666, 1, 3);
    archive.file("init", 0o755, init);
    let lines = order::lines(&selection.modules);
    archive.file("modules/order", 0o644, order::format(&lines).into_bytes());
    for (line, module) in lines.iter().zip(&selection.modules) {
        archive.file(
            &format!("modules/{}", line.file),
            0o644,
            module.content.clone(),
        );
    }
    archive.to_bytes()
}

/// Refuses an init that needs a dynamic loader, which is not in the archive.
fn check_static(elf: &[u8]) -> Result<()> {
    const PT_INTERP: u32 = 3;
    let wrong = |why: &str| {
        Err(Error::format(
            "the init program",
            format!(
                "{why}; give a static x86-64 ELF program (for the tether: -C target-feature=+crt-static)"
            ),
        ))
    };
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
    if elf.get(..6) != Some(&[0x7f, b'E', b'L', b'F', 2, 1]) || half(18) != Some(62) {
        return wrong("is not an x86-64 ELF file");
    }
    let (Some(table), Some(count)) = (word(32), half(56)) else {
        return wrong("is cut short");
    };
    for index in 0..usize::from(count) {
        match word(table as usize + index * 56) {
            Some(PT_INTERP) => return wrong("is linked dynamically"),
            Some(_) => {}
            None => return wrong("is cut short"),
        }
    }
    Ok(())
}

/// Which compression to take with a kernel of this configuration.
///
/// None of them changed the boot time measurably under emulation, and small matters on
/// datastores and over slow emulated drives, so: zstd, else lz4, else gzip, else none. Without a
/// known configuration it is gzip, which every distribution's kernel reads.
pub fn choose(config: Option<&str>) -> Compression {
    let Some(config) = config else {
        return Compression::Gzip;
    };
    [Compression::Zstd, Compression::Lz4Legacy, Compression::Gzip]
        .into_iter()
        .find(|&kind| can_read(config, kind))
        .unwrap_or(Compression::None)
}

/// Whether a kernel of this configuration unpacks an initramfs in this form.
pub fn can_read(config: &str, kind: Compression) -> bool {
    let Some(option) = kind.kernel_option() else {
        return true;
    };
    config
        .lines()
        .any(|line| line.strip_prefix(option) == Some("=y"))
}

/// Compresses the archive.
///
/// # Errors
/// If the kernel's configuration is known and says that it cannot read this form.
pub fn pack(archive: &[u8], kind: Compression, config: Option<&str>) -> Result<Vec<u8>> {
    if let (Some(config), Some(option)) = (config, kind.kernel_option())
        && !can_read(config, kind)
    {
        return Err(Error::format(
            "initramfs compression",
            format!(
                "this kernel cannot read {} ({option} is not set); take another, or `auto`",
                kind.name()
            ),
        ));
    }
    compress::compress(kind, archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compression_is_one_that_the_kernel_reads() {
        assert_eq!(
            choose(Some("CONFIG_RD_GZIP=y\nCONFIG_RD_ZSTD=y\n")),
            Compression::Zstd
        );
        assert_eq!(
            choose(Some("CONFIG_RD_GZIP=y\n# CONFIG_RD_ZSTD is not set\n")),
            Compression::Gzip
        );
        assert_eq!(choose(Some("")), Compression::None);
        assert_eq!(choose(None), Compression::Gzip);
        let error = pack(b"x", Compression::Zstd, Some("CONFIG_RD_GZIP=y")).unwrap_err();
        assert!(
            error.to_string().contains("CONFIG_RD_ZSTD is not set"),
            "{error}"
        );
    }

    #[test]
    fn an_init_that_needs_a_loader_is_refused() {
        let error = build(b"#!/bin/sh".to_vec(), &Selection::default()).unwrap_err();
        assert!(
            error.to_string().contains("is not an x86-64 ELF file"),
            "{error}"
        );
        // The test program itself is linked dynamically.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = build(own, &Selection::default()).unwrap_err();
        assert!(
            error.to_string().contains("is linked dynamically"),
            "{error}"
        );
    }
}
