//! crc32c as ext4 uses it: chained without the final inversion, seeded by the file system's UUID
//! (Documentation/filesystems/ext4/checksums.rst).

/// Goes on from `seed` over `data`. The crate inverts at both ends; ext4 does at neither.
pub(super) fn update(seed: u32, data: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, data)
}

/// The seed of a file system.
pub(super) fn seed(uuid: &[u8; 16]) -> u32 {
    update(!0, uuid)
}

/// The seed of an inode that is written here, and of the blocks that are its own. Generations are zero.
pub(super) fn inode_seed(fs: u32, number: u32) -> u32 {
    owned_seed(fs, number, 0)
}

/// The same of any inode.
pub(super) fn owned_seed(fs: u32, number: u32, generation: u32) -> u32 {
    update(update(fs, &number.to_le_bytes()), &generation.to_le_bytes())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_chain_is_that_of_the_kernel() {
        // crc32c of "123456789" is 0xe3069283 with inversion at both ends (RFC 3720, B.4).
        assert_eq!(super::update(!0, b"123456789"), !0xe306_9283);
        assert_eq!(
            super::update(super::update(!0, b"1234"), b"56789"),
            !0xe306_9283
        );
    }
}
