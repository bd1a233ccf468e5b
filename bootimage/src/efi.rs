//! The EFI boot image of the ISO: a small FAT file system with GRUB as `EFI/BOOT/BOOTX64.EFI`.
//!
//! GRUB rather than a unified kernel image, so that the ISO holds the kernel once. It reads kernel
//! and initramfs from the ISO's own file system; its configuration is embedded.

use std::io::{Cursor, Write};
use std::path::Path;
use std::process::Command;

use crate::{Error, Result};

/// Just what the embedded configuration uses.
const GRUB_MODULES: [&str; 3] = ["iso9660", "linux", "search_fs_file"];

/// Makes GRUB's EFI program with the boot commands in it, with Debian's `grub-mkimage`.
///
/// # Errors
/// If `grub-mkimage` or its x86_64-efi modules are not installed, or fail.
pub fn grub(cmdline: &str) -> Result<Vec<u8>> {
    let folder =
        tempfile::tempdir().map_err(Error::io("create a folder in", "the temporary folder"))?;
    let config = folder.path().join("grub.cfg");
    let output = folder.path().join("grub.efi");
    let text =
        format!("search.file /vmlinuz root\nlinux /vmlinuz {cmdline}\ninitrd /initrd.img\nboot\n");
    std::fs::write(&config, text).map_err(Error::io("write", &config))?;
    run(Command::new("grub-mkimage")
        .args(["--format", "x86_64-efi", "--prefix", "/", "--config"])
        .arg(&config)
        .arg("--output")
        .arg(&output)
        .args(GRUB_MODULES))?;
    std::fs::read(&output).map_err(Error::io("read", &output))
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let hint = "the ISO's UEFI part needs Debian's packages grub-common and grub-efi-amd64-bin";
    let failed = |why: String| Error::Program {
        program: program.clone(),
        why,
        hint: hint.into(),
    };
    let output = command
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("{}: {}", output.status, words.trim())))
}

/// Makes the FAT image around the EFI program: no time stamps, a fixed serial number.
///
/// # Errors
/// If the file system cannot hold the program, which its size is made for.
pub fn fat_image(program: &[u8]) -> Result<Vec<u8>> {
    // FAT12: room for the program, two tables and three folders, in whole 32 KiB.
    let size = (program.len() + (64 << 10)).next_multiple_of(32 << 10);
    let mut image = Cursor::new(vec![0; size]);
    let failed = || Error::stream("the EFI boot image");
    let options = fatfs::FormatVolumeOptions::new()
        .fat_type(fatfs::FatType::Fat12)
        .bytes_per_cluster(2048)
        .volume_id(0x4d4f_4f52)
        .volume_label(*b"MOORING EFI");
    fatfs::format_volume(&mut image, options).map_err(failed())?;
    {
        let fs = fatfs::FileSystem::new(
            &mut image,
            fatfs::FsOptions::new().update_accessed_date(false),
        )
        .map_err(failed())?;
        let boot = fs
            .root_dir()
            .create_dir("EFI")
            .and_then(|efi| efi.create_dir("BOOT"))
            .map_err(failed())?;
        let mut file = boot.create_file("BOOTX64.EFI").map_err(failed())?;
        file.write_all(program).map_err(failed())?;
        file.flush().map_err(failed())?;
        drop(file);
        drop(boot);
        fs.unmount().map_err(failed())?;
    }
    Ok(image.into_inner())
}

/// Whether a file that a boot loader brings is there; its bytes, or what to install.
pub(crate) fn loader_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::Program {
        program: path.display().to_string(),
        why: error.to_string(),
        hint: "the ISO's BIOS part needs Debian's packages isolinux and syslinux-common".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_image_holds_the_program_and_is_reproducible() {
        let program: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let image = fat_image(&program).unwrap();
        assert_eq!(image, fat_image(&program).unwrap());
        let fs = fatfs::FileSystem::new(Cursor::new(image), fatfs::FsOptions::new()).unwrap();
        let mut back = Vec::new();
        let mut file = fs.root_dir().open_file("EFI/BOOT/BOOTX64.EFI").unwrap();
        file.read_to_end(&mut back).unwrap();
        assert_eq!(back, program);
    }
}
