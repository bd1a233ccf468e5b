//! What a kernel module says of itself: the `.modinfo` section of its ELF file.
//!
//! A distribution's package has no `modules.dep` (depmod writes it at install time), so the
//! dependencies are read where depmod reads them. Format: `key=value` strings, each ended by a
//! NUL (linux/include/linux/moduleparam.h, `__MODULE_INFO`); ELF as in the System V gABI,
//! chapter 4.

use crate::{Error, Result};

/// A module larger than this, unpacked, is refused. The largest in Debian's kernel has 6 MiB.
pub const MAX_MODULE: u64 = 64 << 20;

/// More sections than this in one module are refused.
const MAX_SECTIONS: usize = 1 << 16;

/// What is wanted of a module's `.modinfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModInfo {
    /// `name=`: the module's own name, with underscores. Empty if it says none.
    pub name: String,
    /// `depends=`: modules whose symbols it uses.
    pub depends: Vec<String>,
    /// `softdep=pre: …`: modules that should be there before it, if they exist at all.
    pub softdep_pre: Vec<String>,
    /// `alias=`: patterns of the devices and of the names that ask for it.
    pub aliases: Vec<String>,
    /// `vermagic=`: the kernel that it was built for; its first word is the release.
    pub vermagic: String,
}

/// A module's name as the kernel compares it: `-` and `_` are the same.
pub fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Reads the `.modinfo` of an unpacked module; `what` names the file in errors.
pub fn parse(elf: &[u8], what: &str) -> Result<ModInfo> {
    let section = section(elf, b".modinfo").map_err(|why| Error::format(what, why))?;
    let mut info = ModInfo::default();
    for entry in section.split(|&byte| byte == 0) {
        // A value that is not UTF-8 (an author's name in Latin-1) is none that is wanted.
        let Ok(entry) = std::str::from_utf8(entry) else {
            continue;
        };
        let Some((key, value)) = entry.split_once('=') else {
            continue;
        };
        match key {
            "name" => info.name = canonical(value),
            "depends" => info.depends.extend(
                value
                    .split(',')
                    .map(str::trim)
                    .filter(|n| !n.is_empty())
                    .map(canonical),
            ),
            "softdep" => info.softdep_pre.extend(softdep_pre(value)),
            "alias" => info.aliases.push(value.to_string()),
            "vermagic" => info.vermagic = value.to_string(),
            _ => {}
        }
    }
    Ok(info)
}

/// A module without the signature at its end (linux/scripts/sign-file.c: signature, `struct module_signature`, magic);
/// one without signature as it is.
#[must_use]
pub fn without_signature(module: &[u8]) -> &[u8] {
    const MAGIC: &[u8] = b"~Module signature appended~\n";
    /// Bytes of `struct module_signature`; the last four are the signature's length, big-endian.
    const TRAILER: usize = 12;
    let stripped = || {
        let (rest, trailer) = module.strip_suffix(MAGIC)?.split_last_chunk::<TRAILER>()?;
        let (_, length) = trailer.split_last_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        rest.get(..rest.len().checked_sub(length)?)
    };
    stripped().unwrap_or(module)
}

/// The `pre:` part of `softdep=pre: a b post: c`.
fn softdep_pre(value: &str) -> Vec<String> {
    let mut pre = true;
    let mut names = Vec::new();
    for word in value.split_whitespace() {
        match word {
            "pre:" => pre = true,
            "post:" => pre = false,
            name if pre => names.push(canonical(name)),
            _ => {}
        }
    }
    names
}

/// The bytes of the section `name` of an ELF file of either class, little endian.
pub(crate) fn section<'a>(elf: &'a [u8], name: &[u8]) -> Result<&'a [u8], String> {
    let elf64 = match elf.get(..6) {
        Some([0x7f, b'E', b'L', b'F', 2, 1]) => true,
        Some([0x7f, b'E', b'L', b'F', 1, 1]) => false,
        Some([0x7f, b'E', b'L', b'F', ..]) => {
            return Err(
                "is a big-endian ELF file; only x86 and arm64 modules are supported".into(),
            );
        }
        _ => return Err("is not an ELF file".into()),
    };
    let (table, entry_size, count, names) = if elf64 {
        (
            word64(elf, 0x28)?,
            half(elf, 0x3a)?,
            half(elf, 0x3c)?,
            half(elf, 0x3e)?,
        )
    } else {
        (
            word32(elf, 0x20)?,
            half(elf, 0x2e)?,
            half(elf, 0x30)?,
            half(elf, 0x32)?,
        )
    };
    let wanted = if elf64 { 64 } else { 40 };
    if entry_size != wanted {
        return Err(format!(
            "has section headers of {entry_size} bytes in place of {wanted}"
        ));
    }
    if count > MAX_SECTIONS {
        return Err(format!(
            "has {count} sections; at most {MAX_SECTIONS} are allowed"
        ));
    }
    let header = |index: usize| slice(elf, table.saturating_add(index * wanted), wanted);
    let body = |header: &[u8]| {
        let (offset, size) = if elf64 {
            (word64(header, 0x18)?, word64(header, 0x20)?)
        } else {
            (word32(header, 0x10)?, word32(header, 0x14)?)
        };
        slice(elf, offset, size)
    };
    let names = body(header(names)?)?;
    for index in 0..count {
        let header = header(index)?;
        let at = word32(header, 0)?;
        let found = names
            .get(at..)
            .and_then(|rest| rest.split(|&byte| byte == 0).next());
        if found == Some(name) {
            return body(header);
        }
    }
    Err(format!("has no section {}", String::from_utf8_lossy(name)))
}

fn slice(bytes: &[u8], offset: usize, len: usize) -> Result<&[u8], String> {
    offset
        .checked_add(len)
        .and_then(|end| bytes.get(offset..end))
        .ok_or_else(|| format!("points to {len} bytes at {offset}, beyond its end"))
}

fn half(bytes: &[u8], at: usize) -> Result<usize, String> {
    let bytes = slice(bytes, at, 2)?;
    Ok(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
}

fn word32(bytes: &[u8], at: usize) -> Result<usize, String> {
    let bytes = slice(bytes, at, 4)?;
    Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
}

fn word64(bytes: &[u8], at: usize) -> Result<usize, String> {
    let low = word32(bytes, at)?;
    let high = word32(bytes, at.saturating_add(4))?;
    if high != 0 {
        return Err(format!("points beyond 4 GiB at {at}"));
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_damaged_module_never_panics(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        ) {
            let mut elf = module(b"depends=a,b\0softdep=pre: c\0alias=x\0");
            for (at, byte) in damage {
                let place = at.index(elf.len());
                elf[place] = byte;
            }
            let _ = parse(&elf, "damaged");
        }
    }

    #[test]
    fn a_signature_is_taken_off() {
        let bare = module(b"name=x\0");
        let mut signed = bare.clone();
        signed.extend([7; 300]);
        signed.extend([0; 8]);
        signed.extend(300_u32.to_be_bytes());
        signed.extend(b"~Module signature appended~\n");
        assert_eq!(without_signature(&signed), bare);
        assert_eq!(without_signature(&bare), bare);
        // One that claims to be longer than the file is none.
        let mut wrong = signed.clone();
        let length = wrong.len() - 32;
        wrong[length] = 0xff;
        assert_eq!(without_signature(&wrong), wrong);
    }

    /// The smallest ELF64 file with one `.modinfo` section.
    fn module(modinfo: &[u8]) -> Vec<u8> {
        crate::testing::elf_module(modinfo)
    }

    #[test]
    fn wanted_keys_are_read_and_others_skipped() {
        let elf = module(
            b"license=GPL\0alias=pci:v000015ADd*\0softdep=pre: crc32c-generic foo post: bar\0\
              depends=scsi-mod,virtio\0name=vmw-pvscsi\0author=J\xf6rg\0vermagic=6.1.0 SMP\0",
        );
        let info = parse(&elf, "x.ko").unwrap();
        assert_eq!(info.name, "vmw_pvscsi");
        assert_eq!(info.depends, ["scsi_mod", "virtio"]);
        assert_eq!(info.softdep_pre, ["crc32c_generic", "foo"]);
        assert_eq!(info.aliases, ["pci:v000015ADd*"]);
        assert_eq!(info.vermagic, "6.1.0 SMP");
    }

    #[test]
    fn no_dependencies_is_an_empty_value() {
        assert_eq!(
            parse(&module(b"depends=\0"), "x.ko").unwrap().depends,
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error_that_names_it() {
        let elf = module(b"depends=\0name=x\0");
        for len in 0..elf.len() {
            let error = parse(&elf[..len], "cut.ko").unwrap_err().to_string();
            assert!(error.starts_with("cut.ko: "), "{error}");
        }
    }
}
