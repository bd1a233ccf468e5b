//! Why a layer is refused.

use std::io;

use super::Compression;
use crate::digest::Digest;
use crate::ext4;
use crate::tar::TarError;
use crate::tar::path::BadPath;

/// Why a layer was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The stream could not be read.
    #[error("cannot read the layer: {0}")]
    Read(#[source] io::Error),
    /// The spool could not be written.
    #[error("cannot spool the layer: {0}")]
    Spool(#[source] io::Error),
    /// The stream cannot be decompressed.
    #[error("the layer's {compression} stream is corrupt or truncated: {source}")]
    Corrupt {
        /// What it is compressed by.
        compression: Compression,
        /// What is wrong.
        source: io::Error,
    },
    /// The stream has another size than it should.
    #[error("the layer has {found} bytes in place of {expected}")]
    WrongSize {
        /// Bytes that it should have.
        expected: u64,
        /// Bytes that it has, or had when it was given up.
        found: u64,
    },
    /// The stream has another digest than it should.
    #[error("the layer's digest is {found} in place of {expected}")]
    WrongDigest {
        /// The one it should have.
        expected: Digest,
        /// The one it has.
        found: Digest,
    },
    /// The tar has another digest than it should.
    #[error("the layer's diff ID is {found} in place of {expected}")]
    WrongDiffId {
        /// The one it should have.
        expected: Digest,
        /// The one it has.
        found: Digest,
    },
    /// A limit was reached.
    #[error("the layer holds more than the {limit} {what} that are allowed")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The layer decompresses to far more than it has.
    #[error(
        "the layer looks like a decompression bomb: {compressed} bytes became {uncompressed}; \
         at most {ratio} for one are allowed"
    )]
    Bomb {
        /// Compressed bytes read.
        compressed: u64,
        /// Bytes that they became.
        uncompressed: u64,
        /// The ratio that is allowed.
        ratio: u64,
    },
    /// The tar is no good.
    #[error(transparent)]
    Tar(TarError),
    /// A path in the tar is refused.
    #[error(transparent)]
    Path(#[from] BadPath),
    /// An entry cannot be stored.
    #[error("the layer's tar cannot become a file system: {0}")]
    Ext4(#[source] ext4::Error),
    /// A hard link that cannot be made.
    #[error("the layer's hard link {path:?} is refused: its target {target:?} {reason}")]
    Link {
        /// The link.
        path: String,
        /// Its target.
        target: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl From<TarError> for ConvertError {
    fn from(error: TarError) -> Self {
        match error {
            // What the thread that decompresses had to say came through the reader.
            TarError::Io(error) => error.downcast::<Self>().unwrap_or_else(Self::Spool),
            TarError::Limit { what, limit } => Self::Limit { what, limit },
            other => Self::Tar(other),
        }
    }
}

impl From<ext4::Error> for ConvertError {
    fn from(error: ext4::Error) -> Self {
        match error {
            ext4::Error::Io { source, .. } => Self::Spool(source),
            ext4::Error::Limit { what, limit } => Self::Limit { what, limit },
            other => Self::Ext4(other),
        }
    }
}
