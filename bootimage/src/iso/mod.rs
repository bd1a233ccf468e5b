//! The boot ISO: isolinux for BIOS, GRUB for UEFI, one kernel and one initramfs for both.
//!
//! Names are ISO 9660 level 1 (`VMLINUZ`), which firmware, both loaders and Linux all read.
//! Formats: ECMA-119; "El Torito" Bootable CD-ROM Format Specification 1.0.

mod volume;

use std::io::Cursor;
use std::num::NonZeroU16;
use std::path::Path;

use hadris_iso::boot::options::{BootEntryOptions, BootOptions, BootSectionOptions};
use hadris_iso::boot::{EmulationType, PlatformId};
use hadris_iso::read::PathSeparator;
use hadris_iso::write::options::{BaseIsoLevel, CreationFeatures, IsoFormatOptions};
use hadris_iso::write::{InputEntry, InputTree, IsoImageWriter};

pub use volume::{BootEntry, File, Volume, read};

use crate::{Error, Result, efi};

/// The kernel's command line on the ISO.
pub const DEFAULT_CMDLINE: &str = wire::config::KERNEL_CMDLINE;

/// Bytes of a command line, at most (COMMAND_LINE_SIZE of x86).
const MAX_CMDLINE: usize = 2047;

const ISOLINUX: &str = "/usr/lib/ISOLINUX/isolinux.bin";
const LDLINUX: &str = "/usr/lib/syslinux/modules/bios/ldlinux.c32";

/// Makes the ISO's bytes: the same kernel, initramfs, command line and loaders give the same ones.
///
/// # Errors
/// A command line that does not fit in one line, a loader that is not installed.
pub fn build(kernel: Vec<u8>, initrd: Vec<u8>, cmdline: &str) -> Result<Vec<u8>> {
    check_cmdline(cmdline)?;
    let isolinux_cfg = format!(
        "DEFAULT boot\nPROMPT 0\nTIMEOUT 0\nLABEL boot\n  KERNEL /vmlinuz\n  INITRD /initrd.img\n  APPEND {cmdline}\n"
    );
    let efi_image = efi::fat_image(&efi::grub(cmdline)?)?;
    assemble(vec![
        InputEntry::file("EFI.IMG", efi_image),
        InputEntry::file("INITRD.IMG", initrd),
        InputEntry::file("ISOLINUX.BIN", efi::loader_file(Path::new(ISOLINUX))?),
        InputEntry::file("ISOLINUX.CFG", isolinux_cfg.into_bytes()),
        InputEntry::file("LDLINUX.C32", efi::loader_file(Path::new(LDLINUX))?),
        InputEntry::file("VMLINUZ", kernel),
    ])
}

/// Writes the volume; `entries` hold the two boot images that [`format_options`] names.
fn assemble(entries: Vec<InputEntry>) -> Result<Vec<u8>> {
    let tree = InputTree {
        path_separator: PathSeparator::ForwardSlash,
        entries,
    };
    let mut image = Cursor::new(Vec::new());
    IsoImageWriter::create(&mut image, tree, format_options())
        .map_err(|error| Error::Iso(error.to_string()))?;
    let mut image = image.into_inner();
    volume::settle(&mut image)?;
    Ok(image)
}

fn check_cmdline(cmdline: &str) -> Result<()> {
    let wrong = if cmdline.len() > MAX_CMDLINE {
        format!(
            "has {} bytes; the kernel takes {MAX_CMDLINE}",
            cmdline.len()
        )
    } else if let Some(odd) = cmdline
        .chars()
        .find(|&c| !c.is_ascii() || c.is_ascii_control())
    {
        format!("has {odd:?} in it; only printable ASCII reaches the kernel")
    } else if cmdline.contains(['$', '\\', ';', '#', '{', '}', '\'', '"', '|', '&', '<', '>']) {
        "has a character that GRUB reads as its own (one of $ \\ ; # { } ' \" | & < >)".into()
    } else {
        return Ok(());
    };
    Err(Error::format("the kernel command line", wrong))
}

fn format_options() -> IsoFormatOptions {
    let entry = |path: &str, load_size: u16, boot_info_table: bool| BootEntryOptions {
        load_size: NonZeroU16::new(load_size),
        boot_image_path: path.into(),
        boot_info_table,
        grub2_boot_info: false,
        emulation: EmulationType::NoEmulation,
    };
    let el_torito = BootOptions {
        write_boot_catalog: true,
        default: entry("ISOLINUX.BIN", 4, true),
        // UEFI takes the whole image whatever is said; no size at all truncates large ones.
        entries: vec![(
            BootSectionOptions {
                platform: PlatformId::UEFI,
            },
            entry("EFI.IMG", 1, false),
        )],
    };
    IsoFormatOptions {
        volume_name: "MOORING".into(),
        system_id: None,
        volume_set_id: None,
        publisher_id: None,
        preparer_id: None,
        application_id: None,
        sector_size: 2048,
        features: CreationFeatures {
            filenames: BaseIsoLevel::Level1 {
                supports_lowercase: false,
                supports_rrip: false,
            },
            el_torito: Some(el_torito),
            ..CreationFeatures::default()
        },
        path_separator: PathSeparator::ForwardSlash,
        strict_charset: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A small ISO whose loaders are no real ones.
    fn sample() -> Vec<u8> {
        let entry = |name: &str, len: usize| InputEntry::file(name, vec![0x90; len]);
        assemble(vec![
            entry("EFI.IMG", 5000),
            entry("INITRD.IMG", 10),
            entry("ISOLINUX.BIN", 3000),
            InputEntry::directory("DOCS", vec![entry("README", 1)]),
        ])
        .unwrap()
    }

    #[test]
    fn files_and_boot_entries_are_read_back() {
        let image = sample();
        let volume = read(&image).unwrap();
        assert_eq!(volume.size, image.len() as u64);
        assert_eq!(volume.name, "MOORING");
        let sizes: Vec<_> = volume
            .files
            .iter()
            .map(|f| (f.path.as_str(), f.size))
            .collect();
        let expected = [
            ("BOOT.CAT", 2048),
            ("DOCS/README", 1),
            ("EFI.IMG", 5000),
            ("INITRD.IMG", 10),
            ("ISOLINUX.BIN", 3000),
        ];
        assert_eq!(sizes, expected);
        let boot: Vec<_> = volume
            .boot
            .iter()
            .map(|b| (b.platform.as_str(), b.sectors))
            .collect();
        assert_eq!(boot, [("bios", 4), ("uefi", 1)]);
        let efi = volume.files.iter().find(|f| f.path == "EFI.IMG").unwrap();
        assert_eq!(volume.boot[1].offset, efi.offset);
    }

    #[test]
    fn no_clock_is_in_it() {
        let image = sample();
        // The year of any time that the writer could have taken, as text and as a record has it.
        let primary = &image[16 * 2048..17 * 2048];
        assert_eq!(&primary[813..830], b"1980010100000000\0");
        assert_eq!(&primary[830..847], b"1980010100000000\0");
        assert_eq!(primary[156 + 18], 80);
    }

    proptest! {
        #[test]
        fn a_damaged_iso_never_panics(
            damage in proptest::collection::vec((16 * 2048_usize..26 * 2048, any::<u8>()), 1..40),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut image = sample();
            for (at, byte) in damage {
                if let Some(place) = image.get_mut(at) {
                    *place = byte;
                }
            }
            let _ = crate::inspect::inspect_bytes(&image, "damaged");
            image.truncate(cut.index(image.len()));
            let _ = read(&image);
            let _ = volume::settle(&mut image);
        }
    }

    #[test]
    fn a_command_line_that_a_loader_would_misread_is_refused() {
        check_cmdline(DEFAULT_CMDLINE).unwrap();
        for bad in ["a\nb", "x=\u{e9}", "a;b", "$root", &"x".repeat(2048)] {
            check_cmdline(bad).unwrap_err();
        }
    }
}
