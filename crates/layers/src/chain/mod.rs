//! Which VMDKs an image consists of (docs/decisions/0001-boundaries.md, "Disks").
//!
//! The first [`SINGLE_LAYERS`] layers get a VMDK each, all further ones are partitions of one more; on top comes the
//! *seal*, with the final partition table, the formatted ephemeral partition and the (empty) journal partition. A
//! layer VMDK is named by the chain ID of the layers up to it, so images with the same lower layers share them. Every
//! VMDK has a *guard*, an empty child that keeps an administrator's "delete from disk" from taking it along.

mod place;
mod plan;

pub use place::{BlockSink, FolderSink, PlaceError, Placed, place};
pub use plan::{ImagePlan, Kind, LayerInput, Params, PlanError, VmdkPlan, plan};

/// Layers that get a VMDK of their own.
pub const SINGLE_LAYERS: usize = 20;

/// Most layers of an image: the table has 256 entries, two of which are the ephemeral and the journal partition.
pub const MAX_LAYERS: usize = crate::gpt::ENTRIES - 2;
