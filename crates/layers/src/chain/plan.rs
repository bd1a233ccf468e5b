//! From layers to VMDKs, partitions and names.

use std::fmt::Write as _;

use uuid::Uuid;

use super::{MAX_LAYERS, SINGLE_LAYERS};
use crate::digest::{Digest, chain_id};
use crate::ext4::{self, EmptyOptions, format_empty};
use crate::gpt::{ALIGNMENT, GptError, LINUX_DATA, Partition, Table};
use crate::spool::{GRAIN, GrainImage, ImageWriter};
use crate::vmdk::{self, Identity, MAX_CAPACITY, Parent, Piece, VmdkBody, VmdkError, content_id};

/// Part of every name and content ID: to be raised when the same layers would give other bytes.
const LAYOUT: u32 = 1;

/// Smallest ephemeral partition in bytes.
const MIN_EPHEMERAL: u64 = 64 << 20;

/// A layer of the image, lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerInput {
    /// Digest of the layer's tar.
    pub diff_id: Digest,
    /// Size of its partition image in bytes (`ConvertedLayer::partition_size`), also where the
    /// layer is on the datastore already.
    pub size: u64,
}

/// What all images of a store have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Size of the virtual disk in bytes (`--base-image-size`), a multiple of 1 MiB. Default 64 GiB.
    pub capacity: u64,
    /// Size of the journal partition in bytes, a multiple of 1 MiB. Default 1 GiB. Takes no room until written to.
    pub journal: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            capacity: 64 << 30,
            journal: 1 << 30,
        }
    }
}

/// Why an image cannot be laid out or rendered.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// More layers than partitions.
    #[error(
        "the image has {0} layers; a disk has room for {MAX_LAYERS}. Rebuild it with fewer (squash) ones"
    )]
    TooManyLayers(usize),
    /// The disk is too small.
    #[error(
        "the image's layers take {layers} bytes; with a journal of {journal} bytes and at least 64 MiB for the \
         container they do not fit a disk of {capacity} bytes. Use a store with a larger base image size"
    )]
    TooLarge {
        /// Sum of the partitions of all layers, in bytes.
        layers: u64,
        /// Size of the journal partition in bytes.
        journal: u64,
        /// Size of the disk in bytes.
        capacity: u64,
    },
    /// The parameters are no good.
    #[error(
        "base image size {capacity} and journal size {journal} must be multiples of 1 MiB (1048576), not 0, and at most 2 TiB"
    )]
    Unaligned {
        /// Size of the disk in bytes.
        capacity: u64,
        /// Size of the journal partition in bytes.
        journal: u64,
    },
    /// A VMDK was to be rendered without one of its layers.
    #[error("layer {0} (from 0) is needed for the VMDK, but was not converted")]
    MissingLayer(usize),
    /// The VMDK could not be rendered.
    #[error(transparent)]
    Vmdk(#[from] VmdkError),
    /// The partition table could not be rendered.
    #[error(transparent)]
    Gpt(#[from] GptError),
    /// The ephemeral file system could not be formatted.
    #[error("cannot format the ephemeral partition: {0}")]
    Format(#[from] ext4::Error),
    /// An image could not be read or written.
    #[error("cannot render the VMDK: {0}")]
    Io(#[from] std::io::Error),
}

/// What a VMDK is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One layer.
    Layer,
    /// All layers from the 21st on.
    Group,
    /// Table, ephemeral and journal partition.
    Seal,
    /// An empty child of another VMDK.
    Guard,
}

/// One VMDK of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmdkPlan {
    /// What it is for.
    pub kind: Kind,
    /// Its file name, parent and content ID. All VMDKs of a store are in one folder, so a parent's path is its name.
    pub identity: Identity,
    /// The partition table that it holds; `None` for a guard.
    pub table: Option<Table>,
    /// Layers that it holds, as (index from 0, start in bytes).
    pub layers: Vec<(usize, u64)>,
}

/// All of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePlan {
    /// The VMDKs in the order in which they are to be put, each after its parent, each guard after what it guards.
    pub vmdks: Vec<VmdkPlan>,
    /// The seal's table: partition k (from 1) is layer k; then the ephemeral partition; then the journal.
    pub table: Table,
    /// Number of the ephemeral partition.
    pub ephemeral: u32,
    /// Number of the journal partition.
    pub journal: u32,
}

/// Plans an image of these layers, lowest first. The same input gives the same names and bytes, everywhere.
pub fn plan(layers: &[LayerInput], params: &Params) -> Result<ImagePlan, PlanError> {
    let Params { capacity, journal } = *params;
    if !capacity.is_multiple_of(ALIGNMENT)
        || !journal.is_multiple_of(ALIGNMENT)
        || capacity > MAX_CAPACITY
    {
        return Err(PlanError::Unaligned { capacity, journal });
    }
    if layers.len() > MAX_LAYERS {
        return Err(PlanError::TooManyLayers(layers.len()));
    }
    let sizes: Vec<u64> = layers
        .iter()
        .map(|layer| {
            layer
                .size
                .max(1)
                .checked_next_multiple_of(ALIGNMENT)
                .unwrap_or(u64::MAX)
        })
        .collect();
    let total = sizes
        .iter()
        .fold(0u64, |sum, size| sum.saturating_add(*size));
    let needed = [2 * ALIGNMENT, MIN_EPHEMERAL, journal]
        .iter()
        .fold(total, |sum, size| sum.saturating_add(*size));
    if needed > capacity {
        return Err(PlanError::TooLarge {
            layers: total,
            journal,
            capacity,
        });
    }

    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
    let mut partitions = Vec::with_capacity(layers.len() + 2);
    let mut vmdks: Vec<VmdkPlan> = Vec::new();
    let mut start = ALIGNMENT;
    let mut pending = Vec::new();
    let mut below: Option<Parent> = None;
    for (index, size) in sizes.iter().enumerate() {
        // A chain of at least one layer has an ID.
        let chain = chain_id(&diff_ids[..=index]).unwrap_or_else(|| unreachable!());
        let label = format!("layer {}", index + 1);
        partitions.push(partition(
            format!("{} partition", chain),
            label,
            start,
            *size,
        ));
        pending.push((index, start));
        start += size;
        let last = index + 1 == layers.len();
        if index >= SINGLE_LAYERS && !last {
            continue;
        }
        let kind = if index < SINGLE_LAYERS {
            Kind::Layer
        } else {
            Kind::Group
        };
        let seed = seed(chain.hex(), params, "layer");
        let name = format!("{}-{}m", chain.hex(), capacity >> 20);
        let table = Table {
            disk_guid: guid(&format!("{seed} disk")),
            capacity,
            partitions: partitions.clone(),
        };
        below = Some(push(
            &mut vmdks,
            kind,
            &name,
            &seed,
            below,
            table,
            std::mem::take(&mut pending),
        ));
    }

    let top = chain_id(&diff_ids).map_or("scratch".to_owned(), |chain| chain.hex());
    let seed = format!("{} journal {journal}", seed(top.clone(), params, "seal"));
    let end = capacity - ALIGNMENT;
    partitions.push(partition(
        format!("{seed} ephemeral"),
        "ephemeral".into(),
        start,
        end - journal - start,
    ));
    partitions.push(partition(
        format!("{seed} journal"),
        "journal".into(),
        end - journal,
        journal,
    ));
    let table = Table {
        disk_guid: guid(&format!("{seed} disk")),
        capacity,
        partitions,
    };
    let name = format!("{top}-{}m-{}m-seal", capacity >> 20, journal >> 20);
    push(
        &mut vmdks,
        Kind::Seal,
        &name,
        &seed,
        below,
        table.clone(),
        Vec::new(),
    );
    // At most 256 partitions.
    let ephemeral = layers.len() as u32 + 1;
    Ok(ImagePlan {
        vmdks,
        table,
        ephemeral,
        journal: ephemeral + 1,
    })
}

/// Adds a VMDK and its guard; gives what a child of it needs to know.
fn push(
    vmdks: &mut Vec<VmdkPlan>,
    kind: Kind,
    name: &str,
    seed: &str,
    parent: Option<Parent>,
    table: Table,
    layers: Vec<(usize, u64)>,
) -> Parent {
    let capacity = table.capacity;
    let identity = Identity {
        name: format!("{name}.vmdk"),
        capacity,
        cid: content_id(seed.as_bytes()),
        parent,
    };
    let own = Parent {
        hint: identity.name.clone(),
        cid: identity.cid,
    };
    vmdks.push(VmdkPlan {
        kind,
        identity,
        table: Some(table),
        layers,
    });
    let guard = Identity {
        name: format!("{name}-guard.vmdk"),
        capacity,
        cid: content_id(format!("{seed} guard").as_bytes()),
        parent: Some(own.clone()),
    };
    vmdks.push(VmdkPlan {
        kind: Kind::Guard,
        identity: guard,
        table: None,
        layers: Vec::new(),
    });
    own
}

fn seed(id: String, params: &Params, kind: &str) -> String {
    let mut seed = id;
    // Writing to a string does not fail.
    let _ = write!(seed, " {kind} layout {LAYOUT} capacity {}", params.capacity);
    seed
}

/// A GUID made from a text: as a version 8 UUID (RFC 9562, 5.8), from the text's SHA-256.
fn guid(seed: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Digest::of(seed.as_bytes()).as_bytes()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

fn partition(seed: String, name: String, start: u64, size: u64) -> Partition {
    Partition {
        kind: LINUX_DATA,
        guid: guid(&seed),
        start,
        size,
        name,
    }
}

impl ImagePlan {
    /// The VMDK of which containers' disks are children.
    pub fn seal(&self) -> &VmdkPlan {
        // The plan ends with the seal and its guard.
        &self.vmdks[self.vmdks.len() - 2]
    }
}

impl VmdkPlan {
    /// Renders the VMDK. `layer` gives the converted layers that it holds, by index from 0.
    pub fn body(&self, layer: impl Fn(usize) -> Option<GrainImage>) -> Result<VmdkBody, PlanError> {
        let mut pieces = Vec::with_capacity(self.layers.len() + 3);
        if let Some(table) = &self.table {
            let (primary, backup) = table.render()?;
            pieces.push(Piece {
                start: 0,
                image: in_memory(0, &primary)?,
            });
            let last = table.capacity - GRAIN;
            pieces.push(Piece {
                start: last,
                image: in_memory((GRAIN as usize - backup.len()) as u64, &backup)?,
            });
        }
        for (index, start) in &self.layers {
            pieces.push(Piece {
                start: *start,
                image: layer(*index).ok_or(PlanError::MissingLayer(*index))?,
            });
        }
        if let (Kind::Seal, Some(table)) = (self.kind, &self.table) {
            let partition = &table.partitions[table.partitions.len() - 2];
            pieces.push(Piece {
                start: partition.start,
                image: format_ephemeral(partition)?,
            });
        }
        Ok(vmdk::body(&self.identity, &pieces)?)
    }
}

fn in_memory(offset: u64, bytes: &[u8]) -> std::io::Result<GrainImage> {
    let mut image = ImageWriter::in_memory();
    image.write_at(offset, bytes)?;
    image.finish(GRAIN)
}

fn format_ephemeral(partition: &Partition) -> Result<GrainImage, PlanError> {
    let mut image = ImageWriter::in_memory();
    let options = EmptyOptions {
        label: "ephemeral".into(),
        ..EmptyOptions::new(partition.guid.into_bytes())
    };
    format_empty(&mut image, partition.size, &options)?;
    Ok(image.finish(partition.size)?)
}
