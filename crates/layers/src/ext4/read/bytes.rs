//! Numbers in structures whose length has been checked.

/// Fields of a structure at offsets within its length.
pub(super) trait Fields {
    fn le16(&self, at: usize) -> u16;
    fn le32(&self, at: usize) -> u32;
    fn be16(&self, at: usize) -> u16;
    fn be32(&self, at: usize) -> u32;
}

impl Fields for [u8] {
    fn le16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self[at], self[at + 1]])
    }

    fn le32(&self, at: usize) -> u32 {
        u32::from_le_bytes([self[at], self[at + 1], self[at + 2], self[at + 3]])
    }

    fn be16(&self, at: usize) -> u16 {
        self.le16(at).swap_bytes()
    }

    fn be32(&self, at: usize) -> u32 {
        self.le32(at).swap_bytes()
    }
}

/// A number in two halves.
pub(super) fn wide(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}
