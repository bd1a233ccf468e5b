//! Reading an ISO 9660 volume, bounded, and taking the clock out of one.

use crate::{Error, Result};

const SECTOR: usize = 2048;
/// Folders and files of one volume, at most.
const MAX_FILES: usize = 100_000;
/// Folders within folders, at most (ECMA-119 6.8.2.1 allows 8).
const MAX_DEPTH: usize = 16;
/// Volume descriptors, at most.
const MAX_DESCRIPTORS: usize = 64;

/// What an ISO holds.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Volume {
    /// The volume identifier.
    pub name: String,
    /// Bytes of the volume, as its descriptor says.
    pub size: u64,
    /// Its regular files, by path.
    pub files: Vec<File>,
    /// How firmware can boot it.
    pub boot: Vec<BootEntry>,
}

/// One file on an ISO.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct File {
    /// Path without leading slash, as recorded, without the version number `;1`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Where it begins, in bytes from the start of the ISO.
    pub offset: u64,
}

/// One entry of the El Torito boot catalog.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BootEntry {
    /// `bios`, `uefi`, or the platform's number.
    pub platform: String,
    /// Where the boot image begins, in bytes from the start of the ISO.
    pub offset: u64,
    /// 512-byte sectors that firmware loads.
    pub sectors: u16,
}

fn bad(why: impl Into<String>) -> Error {
    Error::format("the ISO", why)
}

/// Reads volume descriptor, directory and boot catalog.
///
/// # Errors
/// If it is no ISO 9660 image or points beyond its end.
pub fn read(image: &[u8]) -> Result<Volume> {
    let descriptors = descriptors(image)?;
    let primary = descriptors
        .iter()
        .find(|d| d.kind == 1)
        .ok_or_else(|| bad("has no primary volume descriptor"))?;
    let at = primary.at;
    let mut files = Vec::new();
    let mut visited = 0;
    walk(image, at + 156, "", 0, &mut visited, &mut |record| {
        if let Visit::File(file) = record {
            files.push(file);
        }
    })?;
    let name = String::from_utf8_lossy(&image[at + 40..at + 72])
        .trim_end()
        .to_string();
    let blocks = word(image, at + 80)?;
    let boot = match descriptors.iter().find(|d| d.kind == 0) {
        Some(record) => boot_entries(image, word(image, record.at + 71)? as usize * SECTOR)?,
        None => Vec::new(),
    };
    Ok(Volume {
        name,
        size: u64::from(blocks) * SECTOR as u64,
        files,
        boot,
    })
}

struct Descriptor {
    kind: u8,
    at: usize,
}

/// The volume descriptors (ECMA-119 8.1), each with a whole sector behind it.
fn descriptors(image: &[u8]) -> Result<Vec<Descriptor>> {
    let mut found = Vec::new();
    for index in 16..16 + MAX_DESCRIPTORS {
        let at = index * SECTOR;
        let sector = image
            .get(at..at + SECTOR)
            .ok_or_else(|| bad("ends within its descriptors"))?;
        if &sector[1..6] != b"CD001" {
            return Err(bad("is no ISO 9660 image (no CD001)"));
        }
        if sector[0] == 255 {
            return Ok(found);
        }
        found.push(Descriptor {
            kind: sector[0],
            at,
        });
    }
    Err(bad(format!(
        "has more than {MAX_DESCRIPTORS} volume descriptors"
    )))
}

enum Visit {
    /// A directory record begins at this offset.
    Record(usize),
    /// It is a file's.
    File(File),
}

/// Walks all directory records (ECMA-119 9.1) below the one at `record`, itself included.
fn walk(
    image: &[u8],
    record: usize,
    path: &str,
    depth: usize,
    visited: &mut usize,
    visit: &mut dyn FnMut(Visit),
) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(bad(format!("has folders nested deeper than {MAX_DEPTH}")));
    }
    visit(Visit::Record(record));
    let start = word(image, record + 2)? as usize * SECTOR;
    let len = word(image, record + 10)? as usize;
    let end = start
        .checked_add(len)
        .filter(|&end| end <= image.len())
        .ok_or_else(|| bad("has a folder beyond its end"))?;
    let mut at = start;
    while at < end {
        let size = usize::from(image[at]);
        if size == 0 {
            // Records do not cross sectors; the rest of this one is empty.
            at = (at / SECTOR + 1) * SECTOR;
            continue;
        }
        *visited += 1;
        if *visited > MAX_FILES {
            return Err(bad(format!("has more than {MAX_FILES} files")));
        }
        let row = image
            .get(at..at + size)
            .filter(|row| row.len() >= 34)
            .ok_or_else(|| bad("has a damaged folder"))?;
        let name = row
            .get(33..33 + usize::from(row[32]))
            .ok_or_else(|| bad("has a damaged name"))?;
        let is_folder = row[25] & 2 != 0;
        let text = String::from_utf8_lossy(name);
        let text = text.split(';').next().unwrap_or_default();
        let child = if path.is_empty() {
            text.to_string()
        } else {
            format!("{path}/{text}")
        };
        if name == [0] || name == [1] {
            visit(Visit::Record(at));
        } else if is_folder {
            walk(image, at, &child, depth + 1, visited, visit)?;
        } else {
            visit(Visit::Record(at));
            let offset = u64::from(word(image, at + 2)?) * SECTOR as u64;
            let size = u64::from(word(image, at + 10)?);
            if offset + size > image.len() as u64 {
                return Err(bad(format!(
                    "is cut short: {child} ends at {} and the ISO at {}",
                    offset + size,
                    image.len()
                )));
            }
            visit(Visit::File(File {
                path: child,
                size,
                offset,
            }));
        }
        at += size;
    }
    Ok(())
}

/// The boot catalog (El Torito, 2.0): validation entry, default entry, sections.
fn boot_entries(image: &[u8], catalog: usize) -> Result<Vec<BootEntry>> {
    let rows = image
        .get(catalog..catalog.saturating_add(SECTOR))
        .ok_or_else(|| bad("has its boot catalog beyond its end"))?;
    let mut rows = rows.chunks_exact(32);
    let entry = |platform: u8, row: &[u8]| BootEntry {
        platform: match platform {
            0 => "bios".into(),
            0xef => "uefi".into(),
            other => format!("platform {other}"),
        },
        offset: u64::from(u32::from_le_bytes([row[8], row[9], row[10], row[11]])) * SECTOR as u64,
        sectors: u16::from_le_bytes([row[6], row[7]]),
    };
    let validation = rows
        .next()
        .filter(|row| row[0] == 1 && row[30..] == [0x55, 0xaa]);
    let (Some(validation), Some(first)) = (validation, rows.next()) else {
        return Err(bad("has a damaged boot catalog"));
    };
    let mut entries = Vec::new();
    if first[0] == 0x88 {
        entries.push(entry(validation[1], first));
    }
    while let Some(header) = rows.next().filter(|row| matches!(row[0], 0x90 | 0x91)) {
        for _ in 0..u16::from_le_bytes([header[2], header[3]]) {
            match rows.next() {
                Some(row) if row[0] == 0x88 => entries.push(entry(header[1], row)),
                Some(_) => {}
                None => return Ok(entries),
            }
        }
    }
    Ok(entries)
}

/// Sets all times of a volume to 1980-01-01 00:00 UTC and cuts off what is behind its end: the
/// writer takes the clock's time, and an image is to be reproducible.
pub(super) fn settle(image: &mut Vec<u8>) -> Result<()> {
    /// 9.1.5: years since 1900, month, day, hour, minute, second, offset.
    const RECORD: [u8; 7] = [80, 1, 1, 0, 0, 0, 0];
    /// 8.4.26.1: digits, hundredths, offset.
    const VOLUME: [u8; 17] = *b"1980010100000000\0";
    let descriptors = descriptors(image)?;
    let mut records = Vec::new();
    for descriptor in descriptors.iter().filter(|d| matches!(d.kind, 1 | 2)) {
        walk(image, descriptor.at + 156, "", 0, &mut 0, &mut |found| {
            if let Visit::Record(at) = found {
                records.push(at);
            }
        })?;
        // 8.4.26 to 8.4.29: creation and modification; expiration and effect stay unset.
        for at in [descriptor.at + 813, descriptor.at + 830] {
            image[at..at + VOLUME.len()].copy_from_slice(&VOLUME);
        }
    }
    for record in records {
        image[record + 18..record + 25].copy_from_slice(&RECORD);
    }
    let size = usize::try_from(read(image)?.size).unwrap_or(usize::MAX);
    if size > image.len() {
        return Err(bad(format!(
            "says that it has {size} bytes, and has {}",
            image.len()
        )));
    }
    image.truncate(size);
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    bytes
        .get(at..at.saturating_add(4))
        .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .ok_or_else(|| bad("points beyond its end"))
}
