//! VMware's sparse virtual disks: *monolithicSparse* VMDKs (VMware, "Virtual Disk Format 5.0"; QEMU, `block/vmdk.c`).
//!
//! Written here are two kinds. A [`body`] is *compact*: it has grain tables only where there is data, is never written
//! to again, and is streamed; a [writable one](writable_body) is streamed with all of its grain tables. A [child](create_child) is what `qemu-img create` makes: all grain tables and their
//! redundant copies are laid out, as holes, so that a hypervisor can write to it. Read are both, as a [`Chain`].

mod body;
mod child;
mod descriptor;
mod header;
mod read;

pub use body::{BodyReader, Piece, VmdkBody, body, writable_body};
pub use child::{create_child, write_child};
pub use descriptor::Parent;
pub use read::{Chain, SparseFile};

use std::io;

use crate::spool::GRAIN;

/// Largest disk: 2 TiB, since a VMDK counts a file's sectors in 32 bits.
pub const MAX_CAPACITY: u64 = 2 << 40;

/// Most VMDKs in a chain that is read. Images are at most 23 deep; the rest is room for snapshots.
pub const MAX_DEPTH: usize = 64;

/// What a VMDK says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the file, without folders; goes into the descriptor's extent line.
    pub name: String,
    /// Size of the virtual disk in bytes, a multiple of 1 MiB, at most [`MAX_CAPACITY`]. A child has its parent's.
    pub capacity: u64,
    /// Content ID. A child records that of its parent, so that a parent that was written to is found out.
    pub cid: u32,
    /// The VMDK below, if any.
    pub parent: Option<Parent>,
}

/// Why a VMDK cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum VmdkError {
    /// The file could not be read or written.
    #[error("cannot read or write the VMDK: {0}")]
    Io(#[from] io::Error),
    /// What is asked for cannot be expressed.
    #[error("cannot make the VMDK {name:?}: {reason}")]
    Unwritable {
        /// The VMDK's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is no VMDK of the kind that is read, or a damaged one.
    #[error("not a sparse VMDK that can be read: {0}")]
    Invalid(String),
    /// The files do not make up a chain.
    #[error("the VMDK chain is broken: {0}")]
    BrokenChain(String),
}

/// Content ID for a VMDK whose content is determined by `seed`. Never one of those that mean "none".
pub fn content_id(seed: &[u8]) -> u32 {
    let digest = crate::Digest::of(seed);
    let bytes = digest.as_bytes();
    // 0 and the two highest values have meanings of their own.
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).clamp(1, 0xFFFF_FFFD)
}

impl Identity {
    /// Refuses what the format cannot hold.
    fn check(&self) -> Result<(), VmdkError> {
        let refuse = |reason: &str| {
            Err(VmdkError::Unwritable {
                name: self.name.clone(),
                reason: reason.into(),
            })
        };
        if self.capacity == 0
            || !self.capacity.is_multiple_of(1 << 20)
            || self.capacity > MAX_CAPACITY
        {
            return refuse("its capacity must be a multiple of 1 MiB from 1 MiB to 2 TiB");
        }
        let quotable = |text: &str| !text.is_empty() && !text.contains(['"', '\n', '\r', '\0']);
        if !quotable(&self.name) || self.name.contains('/') {
            return refuse("its name must not be empty nor hold a quote, a line's end or a slash");
        }
        if self
            .parent
            .as_ref()
            .is_some_and(|parent| !quotable(&parent.hint))
        {
            return refuse("its parent's name must not be empty nor hold a quote or a line's end");
        }
        Ok(())
    }

    /// Grains of the disk.
    fn grains(&self) -> u64 {
        self.capacity / GRAIN
    }
}
