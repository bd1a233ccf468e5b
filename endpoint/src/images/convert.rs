//! One layer's conversion, as this module uses it.

use super::progress::{Meter, Progress};
use layers::Digest;
use layers::convert::{ConvertError, Expectations, Folders, Limits};
use layers::spool::{Blob, GrainImage, Spool};
use std::io::{self, Read};

/// A layer that was converted and is not yet on the datastore.
#[derive(Debug, Clone)]
pub(super) struct Converted {
    /// Digest of its blob.
    pub digest: Digest,
    /// Size of its blob, in bytes.
    pub compressed: u64,
    /// Its partition.
    pub image: GrainImage,
    /// Size of the partition, in bytes.
    pub partition: u64,
    /// Size of the tar, in bytes.
    pub unpacked: u64,
    /// Bytes of its files.
    pub content: u64,
    /// What rebuilds the tar.
    pub recipe: Blob,
    /// Lower layers must not be seen below it.
    pub hides_lower_layers: bool,
    /// The folders of this layer and those below it.
    pub folders: std::sync::Arc<Folders>,
}

/// What is known of a layer beforehand.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    /// Digest of the blob.
    pub digest: Option<Digest>,
    /// Size of the blob.
    pub size: Option<u64>,
    /// Digest of the tar.
    pub diff_id: Digest,
}

/// A reader that fails once the client has gone.
struct Watched<R> {
    inner: R,
    progress: Progress,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.progress.is_closed() {
            return Err(io::Error::other("the client has gone"));
        }
        self.inner.read(buf)
    }
}

/// What a layer above one that was refused is refused with.
pub(super) const LOWER_FAILED: &str = "a layer below it could not be converted";

/// Converts a layer above others, whose folders `lower` gives; blocks.
///
/// # Errors
/// [`ConvertError`]; nothing is left behind.
pub(super) fn convert(
    reader: impl Read + Send,
    expected: &Expected,
    spool: &Spool,
    lower: impl FnOnce() -> io::Result<std::sync::Arc<Folders>>,
    progress: &Progress,
    meter: Option<Meter>,
) -> Result<Converted, ConvertError> {
    let expectations = Expectations {
        digest: expected.digest,
        size: expected.size,
        diff_id: Some(expected.diff_id),
    };
    let reader = Watched {
        inner: reader,
        progress: progress.clone(),
    };
    let meter = std::sync::Mutex::new(meter);
    let layer = layers::convert::convert_above(
        reader,
        &expectations,
        spool,
        &Limits::default(),
        lower,
        move |bytes| {
            if let Ok(mut meter) = meter.lock()
                && let Some(meter) = meter.as_mut()
            {
                meter.at(bytes);
            }
        },
    )?;
    Ok(Converted {
        digest: layer.digest,
        compressed: layer.size,
        partition: layer.partition_size(),
        unpacked: layer.tar_size,
        content: layer.file_bytes,
        recipe: layer.recipe,
        hides_lower_layers: layer.hides_lower_layers,
        folders: layer.folders,
        image: layer.image,
    })
}
