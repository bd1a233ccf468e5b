//! What rebuilds a layer's tar byte for byte: all that is not file data, and where in the partition the data is.
//!
//! A recipe is the magic, then frames. A frame is three little-endian 32-bit numbers (length unpacked, length packed,
//! CRC-32C of the packed bytes) and the packed bytes (zstd). Unpacked, a frame holds whole operations: a byte that says
//! which, and its fields, little-endian:
//!
//! | byte | operation | fields |
//! | --- | --- | --- |
//! | 0 | these bytes | length (32 bits), the bytes |
//! | 1 | zeros | length (64 bits) |
//! | 2 | bytes of the partition | offset, length (64 bits each) |
//! | 3 | the end | length of the tar (64 bits), its SHA-256 (the diff ID) |

mod read;
mod write;

pub use read::Rebuild;
pub use write::RecipeWriter;

const MAGIC: &[u8; 8] = b"MOORTAR\x01";
/// Most bytes of a frame unpacked.
const FRAME: usize = 256 * 1024;
/// Most bytes of a frame packed: what zstd cannot pack grows by less than this.
const PACKED: usize = FRAME + FRAME / 128 + 1024;

const LITERAL: u8 = 0;
const ZEROS: u8 = 1;
const EXTENT: u8 = 2;
const END: u8 = 3;
