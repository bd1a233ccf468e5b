//! One inode of 256 bytes (Documentation/filesystems/ext4/inodes.rst).

use super::xattr::Attributes;
use super::{BLOCK, INODE_BYTES, Kind, Time, checksum};

/// The inode's data is described by extents.
pub(super) const EXTENTS_FLAG: u32 = 0x8_0000;
/// The directory has a hash tree.
pub(super) const INDEX_FLAG: u32 = 0x1000;

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
    pub block: [u8; 60],
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
            0x00,
            &(self.kind.mode_bits() | (self.mode & 0o7777)).to_le_bytes(),
        );
        put(0x02, &(self.uid as u16).to_le_bytes());
        put(0x04, &(self.size as u32).to_le_bytes());
        for (i, time) in times.iter().enumerate() {
            put(0x08 + 4 * i, &time.0.to_le_bytes());
        }
        put(0x18, &(self.gid as u16).to_le_bytes());
        // A directory with more than 65,000 links says 1 (dir_nlink).
        let links = if self.links > 65_000 {
            1
        } else {
            self.links as u16
        };
        put(0x1a, &links.to_le_bytes());
        let sectors = self.blocks * (BLOCK / 512);
        put(0x1c, &(sectors as u32).to_le_bytes());
        put(0x20, &self.flags.to_le_bytes());
        put(0x28, &self.block);
        put(0x68, &(self.acl as u32).to_le_bytes());
        put(0x6c, &((self.size >> 32) as u32).to_le_bytes());
        put(0x74, &((sectors >> 32) as u16).to_le_bytes());
        put(0x76, &((self.acl >> 32) as u16).to_le_bytes());
        put(0x78, &((self.uid >> 16) as u16).to_le_bytes());
        put(0x7a, &((self.gid >> 16) as u16).to_le_bytes());
        put(0x80, &32u16.to_le_bytes());
        put(0x84, &times[1].1.to_le_bytes());
        put(0x88, &times[2].1.to_le_bytes());
        put(0x8c, &times[0].1.to_le_bytes());
        put(0x90, &times[2].0.to_le_bytes());
        put(0x94, &times[2].1.to_le_bytes());
        if let Some(attributes) = self.attributes {
            attributes.write_inode(&mut out[0xa0..]);
        }
        seal(&mut out, seed);
        out
    }
}

/// Sets the checksum of an encoded inode.
fn seal(out: &mut [u8; INODE_BYTES], seed: u32) {
    let sum = checksum::update(seed, out);
    out[0x7c..0x7e].copy_from_slice(&(sum as u16).to_le_bytes());
    out[0x82..0x84].copy_from_slice(&((sum >> 16) as u16).to_le_bytes());
}

/// `i_block` of a device: the old encoding where both numbers fit in a byte, else the new one (include/linux/kdev_t.h).
pub(super) fn device_block(major: u32, minor: u32) -> [u8; 60] {
    let mut out = [0u8; 60];
    if major < 256 && minor < 256 {
        out[0..4].copy_from_slice(&(major << 8 | minor).to_le_bytes());
    } else {
        let new = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
        out[4..8].copy_from_slice(&new.to_le_bytes());
    }
    out
}

/// Major and minor number that [`device_block`] stored.
pub(super) fn device_of(block: &[u8; 60]) -> (u32, u32) {
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
