//! The kernel image: its release, and the ELF kernel inside a bzImage.
//!
//! QEMU starts an ELF kernel that has a PVH entry without any firmware's help and without
//! decompression; packages ship only the bzImage. Format: linux/Documentation/x86/boot.rst.

use crate::compress::{self, Compression};
use crate::{Error, Result};

/// A kernel larger than this, unpacked, is refused.
const MAX_VMLINUX: u64 = 256 << 20;

/// ELF note type of the 32-bit PVH entry (xen/interface/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY).
const NOTE_PVH: u32 = 18;

/// The release (`uname -r`) that a bzImage's header names; nothing if it is no bzImage.
pub fn release(image: &[u8]) -> Option<String> {
    header(image)?;
    let at = usize::from(half(image, 0x20e)?) + 0x200;
    let text = image.get(at..)?.split(|&byte| byte == 0).next()?;
    let text = std::str::from_utf8(text.get(..text.len().min(256))?).ok()?;
    let release = text.split_whitespace().next()?;
    release
        .starts_with(|c: char| c.is_ascii_digit())
        .then(|| release.to_string())
}

/// The boot protocol's version if it is a bzImage that is new enough to name its payload (2.08).
fn header(image: &[u8]) -> Option<u16> {
    (image.get(0x202..0x206)? == b"HdrS")
        .then(|| half(image, 0x206))?
        .filter(|&v| v >= 0x208)
}

/// Unpacks the ELF kernel out of a bzImage, stripped of all but what is loaded.
///
/// # Errors
/// If it is no bzImage, or its payload is compressed in a way that is not known here.
pub fn extract(image: &[u8], what: &str) -> Result<Vec<u8>> {
    let bad = |why: &str| Error::format(what, why);
    header(image).ok_or_else(|| bad("is no bzImage of boot protocol 2.08 or later"))?;
    let payload = (|| {
        let sectors = match image.get(0x1f1)? {
            0 => 4,
            &sectors => usize::from(sectors),
        };
        let start = (sectors + 1) * 512 + word(image, 0x248)? as usize;
        image.get(start..start.checked_add(word(image, 0x24c)? as usize)?)
    })()
    .ok_or_else(|| bad("names a payload beyond its end"))?;
    let kind = Compression::detect(payload);
    let payload = match kind {
        Compression::None if payload.starts_with(b"\x7fELF") => payload,
        Compression::None => {
            return Err(bad(
                "is compressed in a way that is not known here (bzip2 or lzo?)",
            ));
        }
        // The build appends the unpacked size, which these decoders take for more data.
        Compression::Lz4Legacy | Compression::Zstd | Compression::Xz | Compression::Lzma => payload
            .get(..payload.len().saturating_sub(4))
            .unwrap_or_default(),
        Compression::Gzip | Compression::Lz4 => payload,
    };
    let mut elf = compress::decompress(payload, what, "kernel", MAX_VMLINUX)?;
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return Err(bad("holds no 64-bit ELF kernel"));
    }
    strip(&mut elf).ok_or_else(|| bad("holds a damaged ELF kernel"))?;
    Ok(elf)
}

/// Cuts off what no loader reads: relocations appended by the build, sections and their table.
fn strip(elf: &mut Vec<u8>) -> Option<()> {
    let mut end = 64;
    for header in program_headers(elf)? {
        end = end.max(header.offset.checked_add(header.len)?);
    }
    let table = word(elf, 32)? as usize + usize::from(half(elf, 56)?) * 56;
    let end = end.max(table);
    if end > elf.len() {
        return None;
    }
    elf.truncate(end);
    // No section headers: offset, count and index of names are zero.
    elf.get_mut(40..48)?.fill(0);
    elf.get_mut(60..64)?.fill(0);
    Some(())
}

struct ProgramHeader {
    kind: u32,
    offset: usize,
    len: usize,
}

fn program_headers(elf: &[u8]) -> Option<Vec<ProgramHeader>> {
    let table = usize::try_from(long(elf, 32)?).ok()?;
    (0..usize::from(half(elf, 56)?))
        .map(|index| {
            let at = table.checked_add(index * 56)?;
            Some(ProgramHeader {
                kind: word(elf, at)?,
                offset: usize::try_from(long(elf, at.checked_add(8)?)?).ok()?,
                len: usize::try_from(long(elf, at.checked_add(32)?)?).ok()?,
            })
        })
        .collect()
}

/// Whether an ELF kernel has the entry by which QEMU starts it directly.
pub fn has_pvh_entry(elf: &[u8]) -> bool {
    const PT_NOTE: u32 = 4;
    let headers = program_headers(elf).unwrap_or_default();
    headers
        .iter()
        .filter(|header| header.kind == PT_NOTE)
        .any(|header| {
            header
                .offset
                .checked_add(header.len)
                .and_then(|end| elf.get(header.offset..end))
                .is_some_and(has_pvh_note)
        })
}

fn has_pvh_note(mut notes: &[u8]) -> bool {
    while let (Some(name), Some(len), Some(kind)) = (word(notes, 0), word(notes, 4), word(notes, 8))
    {
        if kind == NOTE_PVH && notes.get(12..16) == Some(b"Xen\0") {
            return true;
        }
        let skip = 12 + (name as usize).next_multiple_of(4) + (len as usize).next_multiple_of(4);
        notes = notes.get(skip..).unwrap_or_default();
    }
    false
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(
        bytes.get(at..at.checked_add(2)?)?.try_into().ok()?,
    ))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(
        bytes.get(at..at.checked_add(8)?)?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A bzImage's header around a payload.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x310].copy_from_slice(b"6.1.0-x (me@here");
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend(payload);
        image
    }

    /// An ELF kernel of one note segment, with a section table to be cut off.
    fn elf(note: u32) -> Vec<u8> {
        let mut elf = vec![0; 64 + 56 + 20 + 100];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = 64;
        elf[40] = 140;
        elf[56] = 1;
        elf[60] = 1;
        elf[64] = 4;
        elf[72] = 120;
        elf[96] = 20;
        elf[120] = 4;
        elf[124] = 4;
        elf[128..132].copy_from_slice(&note.to_le_bytes());
        elf[132..136].copy_from_slice(b"Xen\0");
        elf
    }

    #[test]
    fn the_kernel_is_unpacked_and_stripped() {
        for kind in [Compression::Gzip, Compression::Zstd, Compression::Lz4Legacy] {
            let mut payload = compress::compress(kind, &elf(18)).unwrap();
            if kind != Compression::Gzip {
                payload.extend(240_u32.to_le_bytes());
            }
            let image = image(&payload);
            assert_eq!(release(&image).as_deref(), Some("6.1.0-x"));
            let kernel = extract(&image, "test").unwrap();
            assert_eq!(kernel.len(), 140, "{kind:?}");
            assert!(has_pvh_entry(&kernel));
        }
        assert!(!has_pvh_entry(&elf(17)));
    }

    proptest! {
        #[test]
        fn a_damaged_kernel_never_panics(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        ) {
            let mut kernel = image(&compress::compress(Compression::Gzip, &elf(18)).unwrap());
            let mut unpacked = elf(18);
            for (at, byte) in damage {
                let place = at.index(kernel.len());
                kernel[place] = byte;
                let place = at.index(unpacked.len());
                unpacked[place] = byte;
            }
            let _ = release(&kernel);
            let _ = extract(&kernel, "damaged");
            let _ = has_pvh_entry(&unpacked);
            let _ = strip(&mut unpacked);
        }
    }
}
