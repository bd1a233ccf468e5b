//! OCI layer → ext4 partition image → VMDK chain. Mounts nothing, unpacks nothing, needs no root.
//!
//! The course of a pull:
//!
//! 1. [`convert::convert`] reads a layer's compressed stream once and gives a [`convert::ConvertedLayer`]: the ext4
//!    partition as grains in a bounded [`spool::Spool`], and the [`recipe`] that rebuilds the layer's tar byte for byte.
//! 2. [`chain::plan`] decides, from the layers' diff IDs and partition sizes, which VMDKs the image consists of,
//!    their names, parents and partition tables.
//! 3. [`chain::VmdkPlan::body`] renders one of them as a stream of known length for a [`chain::BlockSink`];
//!    [`chain::place`] puts those that are missing.
//! 4. [`vmdk::create_child`] makes a container's own disk, and [`vmdk::Chain`] with [`gpt::Table`] reads partitions back.
//!
//! And of a container that is stopped: [`ext4::read::Filesystem`] reads the files of a partition where it lies.
#![forbid(unsafe_code)]

pub mod chain;
pub mod convert;
pub mod digest;
pub mod ext4;
pub mod gpt;
pub mod io;
pub mod overlay;
pub mod recipe;
pub mod spool;
pub mod tar;
pub mod vmdk;

pub use digest::{Digest, chain_id};
pub use io::ReadAt;
