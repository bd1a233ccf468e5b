//! Where the fields of ext4's structures are, for the writer and the reader alike. Offsets in bytes
//! from a structure's start, numbers little-endian (Documentation/filesystems/ext4).

/// super.rst
pub(super) mod superblock {
    /// From the start of the file system.
    pub const AT: usize = 1024;
    pub const BYTES: usize = 1024;
    pub const INODES: usize = 0x00;
    pub const BLOCKS: usize = 0x04;
    pub const FREE_BLOCKS: usize = 0x0c;
    pub const FREE_INODES: usize = 0x10;
    pub const FIRST_DATA_BLOCK: usize = 0x14;
    pub const LOG_BLOCK_SIZE: usize = 0x18;
    pub const LOG_CLUSTER_SIZE: usize = 0x1c;
    pub const BLOCKS_PER_GROUP: usize = 0x20;
    pub const CLUSTERS_PER_GROUP: usize = 0x24;
    pub const INODES_PER_GROUP: usize = 0x28;
    pub const WRITE_TIME: usize = 0x30;
    pub const MOST_MOUNTS: usize = 0x36;
    pub const MAGIC: usize = 0x38;
    pub const STATE: usize = 0x3a;
    pub const ON_ERRORS: usize = 0x3c;
    pub const CHECK_TIME: usize = 0x40;
    pub const REVISION: usize = 0x4c;
    pub const FIRST_INODE: usize = 0x54;
    pub const INODE_SIZE: usize = 0x58;
    pub const COMPAT: usize = 0x5c;
    pub const INCOMPAT: usize = 0x60;
    pub const RO_COMPAT: usize = 0x64;
    pub const UUID: usize = 0x68;
    pub const LABEL: usize = 0x78;
    pub const JOURNAL_INODE: usize = 0xe0;
    pub const HASH_SEED: usize = 0xec;
    pub const HASH_VERSION: usize = 0xfc;
    pub const JOURNAL_BACKUP: usize = 0xfd;
    pub const DESCRIPTOR_SIZE: usize = 0xfe;
    pub const MAKE_TIME: usize = 0x108;
    pub const JOURNAL_BLOCKS: usize = 0x10c;
    pub const BLOCKS_HIGH: usize = 0x150;
    pub const LEAST_EXTRA: usize = 0x15c;
    pub const WANTED_EXTRA: usize = 0x15e;
    pub const FLAGS: usize = 0x160;
    pub const LOG_FLEX: usize = 0x174;
    pub const CHECKSUM_TYPE: usize = 0x175;
    pub const CHECKSUM_SEED: usize = 0x270;
    pub const CHECKSUM: usize = 0x3fc;

    pub const MAGIC_NUMBER: u16 = 0xef53;
    /// `REVISION`: the fields from `FIRST_INODE` on count.
    pub const DYNAMIC: u32 = 1;
    /// `CHECKSUM_TYPE`
    pub const CRC32C: u8 = 1;
    /// `HASH_VERSION`
    pub const HALF_MD4: u8 = 1;
    /// `FLAGS`: names are hashed as unsigned characters.
    pub const UNSIGNED_HASH: u32 = 2;

    pub const COMPAT_HAS_JOURNAL: u32 = 0x4;
    pub const INCOMPAT_FILETYPE: u32 = 0x2;
    pub const INCOMPAT_RECOVER: u32 = 0x4;
    pub const INCOMPAT_EXTENTS: u32 = 0x40;
    pub const INCOMPAT_64BIT: u32 = 0x80;
    pub const INCOMPAT_FLEX_BG: u32 = 0x200;
    pub const INCOMPAT_CSUM_SEED: u32 = 0x2000;
    pub const INCOMPAT_LARGEDIR: u32 = 0x4000;
    pub const INCOMPAT_INLINE_DATA: u32 = 0x8000;
    pub const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
}

/// group_descr.rst
pub(super) mod group {
    /// Without and with the feature 64bit.
    pub const BYTES: usize = 32;
    pub const BYTES_64BIT: usize = 64;
    pub const BLOCK_BITMAP: usize = 0x00;
    pub const INODE_BITMAP: usize = 0x04;
    pub const INODE_TABLE: usize = 0x08;
    pub const FREE_BLOCKS: usize = 0x0c;
    pub const FREE_INODES: usize = 0x0e;
    pub const DIRECTORIES: usize = 0x10;
    pub const FLAGS: usize = 0x12;
    pub const BLOCK_BITMAP_SUM: usize = 0x18;
    pub const INODE_BITMAP_SUM: usize = 0x1a;
    pub const UNUSED_INODES: usize = 0x1c;
    pub const CHECKSUM: usize = 0x1e;
    pub const INODE_TABLE_HIGH: usize = 0x28;
}

/// inodes.rst
pub(super) mod inode {
    /// Without the fields from `EXTRA` on.
    pub const LEAST_BYTES: usize = 128;
    pub const MODE: usize = 0x00;
    pub const UID: usize = 0x02;
    pub const SIZE: usize = 0x04;
    pub const ATIME: usize = 0x08;
    pub const CTIME: usize = 0x0c;
    pub const MTIME: usize = 0x10;
    pub const GID: usize = 0x18;
    pub const LINKS: usize = 0x1a;
    pub const SECTORS: usize = 0x1c;
    pub const FLAGS: usize = 0x20;
    pub const BLOCK: usize = 0x28;
    pub const BLOCK_BYTES: usize = 60;
    pub const GENERATION: usize = 0x64;
    pub const ACL: usize = 0x68;
    pub const SIZE_HIGH: usize = 0x6c;
    pub const SECTORS_HIGH: usize = 0x74;
    pub const ACL_HIGH: usize = 0x76;
    pub const UID_HIGH: usize = 0x78;
    pub const GID_HIGH: usize = 0x7a;
    pub const CHECKSUM: usize = 0x7c;
    /// Bytes of the fields from here on.
    pub const EXTRA: usize = 0x80;
    pub const CHECKSUM_HIGH: usize = 0x82;
    pub const CTIME_EXTRA: usize = 0x84;
    pub const MTIME_EXTRA: usize = 0x88;
    pub const ATIME_EXTRA: usize = 0x8c;
    pub const CRTIME: usize = 0x90;
    pub const CRTIME_EXTRA: usize = 0x94;

    /// The directory has a hash tree.
    pub const FLAG_INDEX: u32 = 0x1000;
    /// The inode's data is described by extents.
    pub const FLAG_EXTENTS: u32 = 0x8_0000;
    pub const FLAG_INLINE_DATA: u32 = 0x1000_0000;
}

/// ifork.rst
pub(super) mod extent {
    /// Of the header and of each entry.
    pub const BYTES: usize = 12;
    pub const MAGIC_NUMBER: u16 = 0xf30a;
    /// The header.
    pub const MAGIC: usize = 0;
    pub const ENTRIES: usize = 2;
    pub const MOST: usize = 4;
    pub const DEPTH: usize = 6;
    /// An entry of either kind.
    pub const LOGICAL: usize = 0;
    /// An entry of a leaf.
    pub const LENGTH: usize = 4;
    pub const PHYSICAL_HIGH: usize = 6;
    pub const PHYSICAL: usize = 8;
    /// An entry above the leaves.
    pub const CHILD: usize = 4;
    pub const CHILD_HIGH: usize = 8;
    /// The checksum of a node that is a block, after the room for its entries.
    pub const TAIL_BYTES: usize = 4;
    /// Longest initialised extent, in blocks. What is above is not written yet, and that much shorter.
    pub const MAX_LENGTH: u16 = 32_768;
}

/// directory.rst
pub(super) mod entry {
    pub const INODE: usize = 0;
    pub const LENGTH: usize = 4;
    pub const NAME_LENGTH: usize = 6;
    pub const KIND: usize = 7;
    pub const NAME: usize = 8;
    /// The checksum at the end of a block looks like an entry without inode and name.
    pub const TAIL_BYTES: usize = 12;
    pub const TAIL_KIND: u8 = 0xde;
    pub const TAIL_CHECKSUM: usize = 8;
    /// The hash tree's root: after the entries of `.` and `..`.
    pub const ROOT_HASH: usize = 28;
    pub const ROOT_LENGTH: usize = 29;
    pub const ROOT_LEVELS: usize = 30;
    /// Length of the root's own information.
    pub const ROOT_BYTES: usize = 8;
    /// Where the entries of the tree's root and of a node below it begin. Limit and count (16 bits each) take the place of the first one's hash.
    pub const ROOT_INDEX: usize = 32;
    pub const NODE_INDEX: usize = 8;
    pub const INDEX_BYTES: usize = 8;
    /// The child's block, after its lowest hash.
    pub const INDEX_CHILD: usize = 4;
    /// dx_tail: four reserved bytes, then the checksum.
    pub const INDEX_TAIL: usize = 8;
}

/// attributes.rst
pub(super) mod xattr {
    pub const MAGIC_NUMBER: u32 = 0xea02_0000;
    /// The block's header.
    pub const HEADER_BYTES: usize = 32;
    pub const REFERENCES: usize = 4;
    pub const BLOCKS: usize = 8;
    pub const HASH: usize = 12;
    pub const CHECKSUM: usize = 16;
    /// An entry; its name follows.
    pub const ENTRY_BYTES: usize = 16;
    pub const NAME_LENGTH: usize = 0;
    pub const INDEX: usize = 1;
    pub const VALUE_AT: usize = 2;
    pub const VALUE_INODE: usize = 4;
    pub const VALUE_BYTES: usize = 8;
    pub const ENTRY_HASH: usize = 12;

    pub const ACL_ACCESS: u8 = 2;
    pub const ACL_DEFAULT: u8 = 3;
    pub const USER: u8 = 1;
    pub const TRUSTED: u8 = 4;
    pub const SYSTEM: u8 = 7;
    /// Prefixes of names that are kept as a number.
    pub const PREFIXES: [(u8, &[u8]); 4] = [
        (USER, b"user."),
        (TRUSTED, b"trusted."),
        (6, b"security."),
        (SYSTEM, b"system."),
    ];
    pub const ACL_ACCESS_NAME: &[u8] = b"system.posix_acl_access";
    pub const ACL_DEFAULT_NAME: &[u8] = b"system.posix_acl_default";
}

/// journal.rst; the numbers here are big-endian.
pub(super) mod journal {
    pub const INODE: u32 = 8;
    pub const MAGIC_NUMBER: u32 = 0xc03b_3998;
    /// Of every block that is not a copy.
    pub const MAGIC: usize = 0;
    pub const TYPE: usize = 4;
    pub const SEQUENCE: usize = 8;
    pub const HEADER_BYTES: usize = 12;
    pub const DESCRIPTOR: u32 = 1;
    pub const COMMIT: u32 = 2;
    pub const SUPERBLOCK_V1: u32 = 3;
    pub const SUPERBLOCK: u32 = 4;
    pub const REVOKE: u32 = 5;
    /// The superblock.
    pub const BLOCK_SIZE: usize = 12;
    pub const BLOCKS: usize = 16;
    pub const FIRST: usize = 20;
    pub const NEXT_SEQUENCE: usize = 24;
    pub const START: usize = 28;
    pub const COMPAT: usize = 36;
    pub const INCOMPAT: usize = 40;
    pub const UUID: usize = 0x30;
    pub const USERS: usize = 0x40;
    pub const CHECKSUM_TYPE: usize = 0x50;
    pub const CHECKSUM: usize = 0xfc;
    pub const SUPERBLOCK_BYTES: usize = 1024;
    /// `CHECKSUM_TYPE`
    pub const CRC32C: u8 = 4;
    pub const COMPAT_CHECKSUM: u32 = 1;
    pub const INCOMPAT_REVOKE: u32 = 1;
    pub const INCOMPAT_64BIT: u32 = 2;
    pub const INCOMPAT_ASYNC_COMMIT: u32 = 4;
    pub const INCOMPAT_CSUM_V2: u32 = 8;
    pub const INCOMPAT_CSUM_V3: u32 = 0x10;
    pub const INCOMPAT_FAST_COMMIT: u32 = 0x20;
    /// A tag of a descriptor block.
    pub const TAG_BLOCK: usize = 0;
    pub const TAG_CHECKSUM: usize = 4;
    pub const TAG_FLAGS: usize = 6;
    pub const TAG_BLOCK_HIGH: usize = 8;
    /// The same in the form of checksums of version 3.
    pub const TAG_CHECKSUM_V3: usize = 12;
    pub const TAG_BYTES_V3: usize = 16;
    pub const TAG_ESCAPED: u16 = 1;
    pub const TAG_SAME_UUID: u16 = 2;
    pub const TAG_LAST: u16 = 8;
    pub const TAG_UUID_BYTES: usize = 16;
    /// The checksum at the end of a descriptor or revoke block.
    pub const TAIL_BYTES: usize = 4;
    /// A revoke block.
    pub const REVOKE_BYTES: usize = 12;
    pub const REVOKE_RECORDS: usize = 16;
    /// A commit block.
    pub const COMMIT_CHECKSUM: usize = 16;
    pub const COMMIT_TIME: usize = 48;
}
