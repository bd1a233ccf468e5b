//! Which blocks are in use, and one block of a bitmap.

use super::BLOCK_BYTES;

/// A block full of bits, little-endian within bytes.
pub(super) struct Bits(pub Vec<u8>);

impl Bits {
    /// All clear.
    pub fn new() -> Self {
        Bits(vec![0; BLOCK_BYTES])
    }

    /// Sets the bits from `from` up to, not including, `to`.
    pub fn set(&mut self, from: u64, to: u64) {
        self.change(from, to, true);
    }

    /// Clears the bits from `from` up to, not including, `to`.
    pub fn clear(&mut self, from: u64, to: u64) {
        self.change(from, to, false);
    }

    fn change(&mut self, from: u64, to: u64, on: bool) {
        let (mut at, to) = (from as usize, (to as usize).min(BLOCK_BYTES * 8));
        while at < to {
            if at.is_multiple_of(8) && to - at >= 8 {
                self.0[at / 8] = if on { 0xff } else { 0 };
                at += 8;
            } else {
                let mask = 1 << (at % 8);
                if on {
                    self.0[at / 8] |= mask
                } else {
                    self.0[at / 8] &= !mask
                }
                at += 1;
            }
        }
    }

    /// How many of the first `n` bits are clear.
    pub fn free(&self, n: u64) -> u64 {
        let n = n as usize;
        let whole: u32 = self.0[..n / 8].iter().map(|b| b.count_zeros()).sum();
        let rest = (n / 8 * 8..n)
            .filter(|i| self.0[i / 8] & (1 << (i % 8)) == 0)
            .count();
        u64::from(whole) + rest as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_set_counted_and_cleared() {
        let mut bits = Bits::new();
        bits.set(3, 21);
        assert_eq!(&bits.0[..4], &[0xf8, 0xff, 0x1f, 0]);
        assert_eq!(bits.free(21), 3);
        assert_eq!(bits.free(24), 6);
        bits.clear(8, 10);
        assert_eq!(bits.0[1], 0xfc);
        bits.set(32_760, 1 << 40);
        assert_eq!(bits.0[4095], 0xff);
    }
}
