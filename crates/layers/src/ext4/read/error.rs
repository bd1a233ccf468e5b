//! What can go wrong while an ext4 is read.

use std::borrow::Cow;
use std::io;

/// Why a file system, or something in it, could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It uses what this reader does not know. A kernel may.
    #[error("the ext4 uses {what}, which is not read here")]
    Unsupported {
        /// The feature, by the name that `mkfs.ext4 -O` or `mount -o` gives it where there is one.
        what: Cow<'static, str>,
    },
    /// It breaks a rule of the format or a checksum.
    #[error("the ext4 is damaged: {what} {reason}")]
    Damaged {
        /// Which structure.
        what: String,
        /// What is wrong with it, as the end of a sentence.
        reason: &'static str,
    },
    /// What was asked for is not what the inode is: entries of a file, a target of a directory.
    #[error("inode {inode} is no {wanted}")]
    WrongKind {
        /// Its number.
        inode: u32,
        /// What it would have to be.
        wanted: &'static str,
    },
    /// The source refused a read.
    #[error("reading {length} bytes at offset {offset} of the ext4 failed: {source}")]
    Io {
        /// Byte offset in the file system.
        offset: u64,
        /// Length of the read in bytes.
        length: usize,
        /// What the source said.
        source: io::Error,
    },
}

pub(super) fn unsupported(what: impl Into<Cow<'static, str>>) -> ReadError {
    ReadError::Unsupported { what: what.into() }
}

pub(super) fn damaged(what: impl Into<String>, reason: &'static str) -> ReadError {
    ReadError::Damaged {
        what: what.into(),
        reason,
    }
}
