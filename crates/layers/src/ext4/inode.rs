//! One inode of 256 bytes (Documentation/filesystems/ext4/inodes.rst).

use super::layout::inode as at;
use super::xattr::Attributes;
use super::{BLOCK, INODE_BYTES, Kind, Time, checksum};

/// Bytes of the fields beyond the first 128.
pub(super) const EXTRA: usize = 32;

/// What an inode holds, ready to be encoded.
pub(super) struct Inode<'a> {
    pub kind: Kind,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub times: [Time; 3], // access, change, modification
    pub links: u32,
    /// Blocks of data, tree nodes and attributes.
    pub blocks: u64,
    pub flags: u32,
    /// The 60 bytes of `i_block`.
    pub block: [u8; at::BLOCK_BYTES],
    /// Block of attributes; 0 for none.
    pub acl: u64,
    pub attributes: Option<&'a Attributes>,
}

impl Inode<'_> {
    /// The on-disk form; `seed` is the inode's checksum seed.
    pub fn encode(&self, seed: u32) -> [u8; INODE_BYTES] {
        let mut out = [0u8; INODE_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        let times = self.times.map(Time::encode);
        put(
            at::MODE,
            &(self.kind.mode_bits() | (self.mode & 0o7777)).to_le_bytes(),
        );
        put(at::UID, &(self.uid as u16).to_le_bytes());
        put(at::SIZE, &(self.size as u32).to_le_bytes());
        for (i, time) in times.iter().enumerate() {
            put(at::ATIME + 4 * i, &time.0.to_le_bytes());
        }
        put(at::GID, &(self.gid as u16).to_le_bytes());
        // A directory with more than 65,000 links says 1 (dir_nlink).
        let links = if self.links > 65_000 {
            1
        } else {
            self.links as u16
        };
        put(at::LINKS, &links.to_le_bytes());
        let sectors = self.blocks * (BLOCK / 512);
        put(at::SECTORS, &(sectors as u32).to_le_bytes());
        put(at::FLAGS, &self.flags.to_le_bytes());
        put(at::BLOCK, &self.block);
        put(at::ACL, &(self.acl as u32).to_le_bytes());
        put(at::SIZE_HIGH, &((self.size >> 32) as u32).to_le_bytes());
        put(at::SECTORS_HIGH, &((sectors >> 32) as u16).to_le_bytes());
        put(at::ACL_HIGH, &((self.acl >> 32) as u16).to_le_bytes());
        put(at::UID_HIGH, &((self.uid >> 16) as u16).to_le_bytes());
        put(at::GID_HIGH, &((self.gid >> 16) as u16).to_le_bytes());
        put(at::EXTRA, &(EXTRA as u16).to_le_bytes());
        put(at::CTIME_EXTRA, &times[1].1.to_le_bytes());
        put(at::MTIME_EXTRA, &times[2].1.to_le_bytes());
        put(at::ATIME_EXTRA, &times[0].1.to_le_bytes());
        put(at::CRTIME, &times[2].0.to_le_bytes());
        put(at::CRTIME_EXTRA, &times[2].1.to_le_bytes());
        if let Some(attributes) = self.attributes {
            attributes.write_inode(&mut out[at::LEAST_BYTES + EXTRA..]);
        }
        seal(&mut out, seed);
        out
    }
}

/// Sets the checksum of an encoded inode.
fn seal(out: &mut [u8; INODE_BYTES], seed: u32) {
    let sum = checksum::update(seed, out);
    out[at::CHECKSUM..at::CHECKSUM + 2].copy_from_slice(&(sum as u16).to_le_bytes());
    out[at::CHECKSUM_HIGH..at::CHECKSUM_HIGH + 2]
        .copy_from_slice(&((sum >> 16) as u16).to_le_bytes());
}

/// `i_block` of a device: the old encoding where both numbers fit in a byte, else the new one (include/linux/kdev_t.h).
pub(super) fn device_block(major: u32, minor: u32) -> [u8; at::BLOCK_BYTES] {
    let mut out = [0u8; at::BLOCK_BYTES];
    if major < 256 && minor < 256 {
        out[0..4].copy_from_slice(&(major << 8 | minor).to_le_bytes());
    } else {
        let new = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
        out[4..8].copy_from_slice(&new.to_le_bytes());
    }
    out
}

/// Major and minor number that [`device_block`] stored.
pub(super) fn device_of(block: &[u8; at::BLOCK_BYTES]) -> (u32, u32) {
    let word =
        |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    match word(0) {
        0 => {
            let new = word(4);
            ((new >> 8) & 0xfff, (new & 0xff) | ((new >> 12) & 0xfff00))
        }
        old => ((old >> 8) & 0xff, old & 0xff),
    }
}
