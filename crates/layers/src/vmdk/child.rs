//! Empty, writable children: laid out like `qemu-img create -f vmdk -b`, most of the file being holes.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::header::{FLAG_REDUNDANT, Header, SECTOR, TABLE_ENTRIES, TABLE_SECTORS};
use super::{Identity, VmdkError, descriptor};
use crate::spool::GRAIN;

/// Creates an empty VMDK that a hypervisor can write to, durably: the file and its folder are synced. The file must
/// not exist; nothing is left behind on an error. Takes a few milliseconds whatever the capacity (some 30 KiB are
/// written for 64 GiB).
pub fn create_child(path: &Path, identity: &Identity) -> Result<(), VmdkError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    let made = write_child(&file, identity).and_then(|()| {
        file.sync_all()?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        Ok(File::open(folder)?.sync_all()?)
    });
    if made.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(path);
    }
    made
}

/// Writes an empty VMDK into an empty file, without a sync.
pub fn write_child(file: &File, identity: &Identity) -> Result<(), VmdkError> {
    identity.check()?;
    let tables = identity.grains().div_ceil(TABLE_ENTRIES);
    let directory_sectors = (tables * 4).div_ceil(SECTOR);
    let descriptor_size = (descriptor::SIZE as u64) / SECTOR;
    let redundant = 1 + descriptor_size;
    let directory = redundant + directory_sectors + tables * TABLE_SECTORS;
    let data =
        (directory + directory_sectors + tables * TABLE_SECTORS).next_multiple_of(GRAIN / SECTOR);
    let header = Header {
        flags: FLAG_REDUNDANT,
        capacity: identity.capacity / SECTOR,
        grain: GRAIN / SECTOR,
        descriptor: 1,
        descriptor_size,
        redundant,
        directory,
        data,
    };
    let text = identity.descriptor()?;
    file.set_len(data * SECTOR)?;
    for start in [redundant, directory] {
        let first = start + directory_sectors;
        // Within 32 bits: the tables of the largest capacity take 128 MiB, twice.
        let entries: Vec<u8> = (0..tables)
            .flat_map(|table| ((first + table * TABLE_SECTORS) as u32).to_le_bytes())
            .collect();
        file.write_all_at(&entries, start * SECTOR)?;
    }
    file.write_all_at(&text, SECTOR)?;
    file.write_all_at(&header.render(), 0)?;
    Ok(())
}
