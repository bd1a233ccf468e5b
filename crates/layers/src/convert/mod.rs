//! One layer, in one pass: compressed stream → digest → decompression → diff ID → tar → ext4 → spool.
//!
//! [`convert`] blocks and is run on a thread of its own; several run side by side. It takes one more thread, which reads,
//! hashes and inflates, while the caller's parses the tar and writes the image. On an error nothing is left behind: what
//! was spooled has no name and is given back.
//!
//! What becomes of a layer's odd parts:
//! - `.wh.` entries and character devices 0:0 become overlayfs whiteouts; where this layer has a directory of that name
//!   itself, that directory becomes opaque, whichever came first (a whiteout is about lower layers only).
//! - `.wh..wh..opq` makes its directory opaque. In the root it cannot: [`ConvertedLayer::hides_lower_layers`] tells it,
//!   and lower layers must then not be mounted. Other `.wh..wh.` entries (AUFS's own) are dropped.
//! - Extended attributes `trusted.overlay.*` are dropped: an image must not steer the overlay. So are namespaces that
//!   Linux's ext4 does not have (as `com.apple.*`), and `user.*` on what is neither file nor directory.
//! - A hard link may come before its target; a target that is not in the layer refuses the layer.

mod apply;
mod decoder;
mod decompress;
mod error;
mod folders;

use std::io::{self, Read};
use std::sync::Arc;

use crate::digest::Digest;
use crate::ext4::Options;
use crate::io::ReadAt;
use crate::recipe::RecipeWriter;
use crate::spool::{Blob, GrainImage, Spool};
use crate::tar::{Reader, TarLimits};

pub use decoder::{Compression, Decoder, Started};
pub use error::ConvertError;
pub use folders::Folders;

/// What is known of a layer beforehand. What is `None` is not checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expectations {
    /// Digest of the compressed stream (the manifest's descriptor).
    pub digest: Option<Digest>,
    /// Bytes of the compressed stream.
    pub size: Option<u64>,
    /// Digest of the tar (the image configuration's `diff_ids`). Give it where it is known: the partition's file
    /// system UUID is made from it, so that the same tar gives the same partition.
    pub diff_id: Option<Digest>,
}

/// What a layer may take. A layer that takes more is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the compressed stream. Default 32 GiB.
    pub compressed: u64,
    /// Bytes of the tar. Default 64 GiB.
    pub uncompressed: u64,
    /// Bytes of tar for each compressed byte, once the tar is larger than [`Limits::ratio_from`]. Default 200.
    pub ratio: u64,
    /// Bytes of tar up to which any ratio is allowed. Default 64 MiB.
    pub ratio_from: u64,
    /// Entries of the tar. Default 1,000,000.
    pub entries: u64,
    /// Bytes of the tar's headers, extended ones included; about what the conversion takes in memory. Default 1 GiB.
    pub metadata: u64,
    /// Bytes of the tar that are neither headers nor a file's: padding, data of entries that are dropped, what follows
    /// the end. They are kept in the recipe as they are. Blocks of zeros do not count. Default 64 MiB.
    pub rest: u64,
    /// Bytes of memory for the folders of this layer and all below it. Default 512 MiB.
    pub folders: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            compressed: 32 << 30,
            uncompressed: 64 << 30,
            ratio: 200,
            ratio_from: 64 << 20,
            entries: 1_000_000,
            metadata: 1 << 30,
            rest: 64 << 20,
            folders: 512 << 20,
        }
    }
}

/// A converted layer, in the spool.
#[derive(Debug, Clone)]
pub struct ConvertedLayer {
    /// Digest of the compressed stream.
    pub digest: Digest,
    /// Bytes of the compressed stream.
    pub size: u64,
    /// Digest of the tar.
    pub diff_id: Digest,
    /// Bytes of the tar.
    pub tar_size: u64,
    /// How the stream was compressed.
    pub compression: Compression,
    /// The ext4 partition.
    pub image: GrainImage,
    /// What rebuilds the tar, together with the partition: see [`crate::recipe::Rebuild`].
    pub recipe: Blob,
    /// Entries of the tar.
    pub entries: u64,
    /// Bytes of file data.
    pub file_bytes: u64,
    /// The folders of this layer and those below it, for the layer above.
    pub folders: Arc<Folders>,
    /// The layer's root is opaque: lower layers must not be mounted below it.
    pub hides_lower_layers: bool,
}

impl ConvertedLayer {
    /// Bytes of the partition image; what [`crate::chain::LayerInput::size`] takes.
    pub fn partition_size(&self) -> u64 {
        // The size of an image in the spool is known without reading.
        self.image.size().unwrap_or(0)
    }
}

/// Converts one layer; blocks until it is done. `progress` is called with the compressed bytes read so far, from another
/// thread. To give up, let `reader` return an error.
pub fn convert(
    reader: impl Read + Send,
    expected: &Expectations,
    spool: &Spool,
    limits: &Limits,
    progress: impl Fn(u64) + Send,
) -> Result<ConvertedLayer, ConvertError> {
    convert_above(
        reader,
        expected,
        spool,
        limits,
        || Ok(Arc::default()),
        progress,
    )
}

/// As [`convert`], for a layer above others. `lower` gives the folders of those below; it is called once the layer was
/// read, and may block until they are converted. An error of it refuses this layer, too.
pub fn convert_above(
    reader: impl Read + Send,
    expected: &Expectations,
    spool: &Spool,
    limits: &Limits,
    lower: impl FnOnce() -> io::Result<Arc<Folders>>,
    progress: impl Fn(u64) + Send,
) -> Result<ConvertedLayer, ConvertError> {
    let blob = spool.blob().map_err(ConvertError::Spool)?;
    let mut writer = RecipeWriter::new(blob).map_err(ConvertError::Spool)?;
    let mut options = Options::new(file_system_uuid(expected));
    options.limits.inodes = limits.entries.saturating_mul(4).max(1000);
    options.limits.memory = limits.metadata.saturating_mul(2).max(1 << 20);
    let image = spool.image().map_err(ConvertError::Spool)?;

    let (stream, tar, applied) =
        decompress::with_stream(reader, *expected, *limits, progress, |input| {
            let tar_limits = TarLimits {
                entries: limits.entries,
                metadata: limits.metadata,
                rest: limits.rest,
            };
            let mut tar = Reader::new(&mut *input, tar_limits);
            let mut layer = apply::Layer::new(image, options);
            while let Some(entry) = tar.next_entry(&mut writer)? {
                layer.entry(&entry, &mut tar, &mut writer)?;
            }
            tar.finish(&mut writer)?;
            layer.finish(lower().map_err(ConvertError::Read)?, limits.folders)
        })?;

    check(expected.size, stream.size, |expected, found| {
        ConvertError::WrongSize { expected, found }
    })?;
    check(expected.digest, stream.digest, |expected, found| {
        ConvertError::WrongDigest { expected, found }
    })?;
    check(expected.diff_id, tar.digest, |expected, found| {
        ConvertError::WrongDiffId { expected, found }
    })?;
    let recipe = writer
        .finish(&tar.digest)
        .map_err(ConvertError::Spool)?
        .finish();
    Ok(ConvertedLayer {
        digest: stream.digest,
        size: stream.size,
        diff_id: tar.digest,
        tar_size: tar.size,
        compression: stream.compression,
        image: applied.image,
        recipe,
        entries: applied.entries,
        file_bytes: applied.file_bytes,
        folders: Arc::new(applied.folders),
        hides_lower_layers: applied.hides_lower_layers,
    })
}

fn check<T: PartialEq>(
    expected: Option<T>,
    found: T,
    error: impl Fn(T, T) -> ConvertError,
) -> Result<(), ConvertError> {
    match expected {
        Some(expected) if expected != found => Err(error(expected, found)),
        _ => Ok(()),
    }
}

/// From the diff ID, so that the same tar gives the same partition however it was compressed.
fn file_system_uuid(expected: &Expectations) -> [u8; 16] {
    let seed = expected
        .diff_id
        .or(expected.digest)
        .unwrap_or_else(|| Digest::of(b"layer"));
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&seed.as_bytes()[..16]);
    uuid::Builder::from_custom_bytes(uuid)
        .into_uuid()
        .into_bytes()
}
