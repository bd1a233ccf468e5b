//! Compressions that kernels, modules and packages come in.

use std::io::{BufRead, BufReader, Chain, Cursor, Read, Write};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How bytes are compressed, told from their first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// The .xz container.
    Xz,
    /// The older .lzma container, which kernels may still be in.
    Lzma,
    /// RFC 8878.
    Zstd,
    /// LZ4's frame format.
    Lz4,
    /// LZ4's legacy frame, the one that the kernel reads and its build writes.
    Lz4Legacy,
}

/// Bytes of input that [`Compression::detect`] looks at.
pub const MAGIC_LEN: usize = 6;

impl Compression {
    /// Tells the compression from the first bytes; anything unknown counts as `None`.
    pub fn detect(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x5d, 0, 0, ..] => Self::Lzma,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Lz4,
            [0x02, 0x21, 0x4c, 0x18, ..] => Self::Lz4Legacy,
            _ => Self::None,
        }
    }

    /// The kernel's option that lets it unpack an initramfs in this form; `None` needs none.
    pub fn kernel_option(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("CONFIG_RD_GZIP"),
            Self::Xz => Some("CONFIG_RD_XZ"),
            Self::Lzma => Some("CONFIG_RD_LZMA"),
            Self::Zstd => Some("CONFIG_RD_ZSTD"),
            Self::Lz4 | Self::Lz4Legacy => Some("CONFIG_RD_LZ4"),
        }
    }

    /// The name as users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4-frame",
            Self::Lz4Legacy => "lz4",
        }
    }
}

type Peeked<R> = Chain<Cursor<Vec<u8>>, R>;

/// A reader of what is inside `input`, whatever its compression. `what` names it in errors.
///
/// Nothing is bounded here but the decoders' own windows (zstd: 128 MiB, xz: 256 MiB);
/// callers bound what they take out.
pub fn decoder<'a, R: Read + 'a>(
    mut input: R,
    what: &str,
) -> Result<(Compression, Box<dyn Read + 'a>)> {
    let mut head = Vec::with_capacity(MAGIC_LEN);
    input
        .by_ref()
        .take(MAGIC_LEN as u64)
        .read_to_end(&mut head)
        .map_err(Error::stream(what))?;
    let kind = Compression::detect(&head);
    let input: BufReader<Peeked<R>> =
        BufReader::with_capacity(1 << 16, Cursor::new(head).chain(input));
    Ok((kind, decoder_of(kind, input, what)?))
}

/// A reader of what is inside `input`, which is compressed as `kind`.
fn decoder_of<'a>(
    kind: Compression,
    input: impl BufRead + 'a,
    what: &str,
) -> Result<Box<dyn Read + 'a>> {
    /// A decoder that wants more memory than this is refused before it gets it.
    const MEMORY: u64 = 256 << 20;
    Ok(match kind {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Xz | Compression::Lzma => {
            let stream =
                liblzma::stream::Stream::new_auto_decoder(MEMORY, liblzma::stream::CONCATENATED)
                    .map_err(|e| Error::stream(what)(e.into()))?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        Compression::Zstd => {
            let mut reader =
                zstd::stream::read::Decoder::with_buffer(input).map_err(Error::stream(what))?;
            reader.window_log_max(27).map_err(Error::stream(what))?;
            Box::new(reader)
        }
        Compression::Lz4 | Compression::Lz4Legacy => {
            Box::new(lz4_flex::frame::FrameDecoder::new(input))
        }
    })
}

/// Unpacks `input` whole, at most `limit` bytes of it.
pub fn decompress(input: &[u8], what: &str, kind: &'static str, limit: u64) -> Result<Vec<u8>> {
    let (_, reader) = decoder(input, what)?;
    read_bounded(reader, what, kind, limit)
}

/// Reads `reader` to its end, or refuses once there are more than `limit` bytes.
pub fn read_bounded(
    reader: impl Read,
    what: &str,
    kind: &'static str,
    limit: u64,
) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    reader
        .take(limit.saturating_add(1))
        .read_to_end(&mut out)
        .map_err(Error::stream(what))?;
    if out.len() as u64 > limit {
        return Err(Error::TooLarge {
            what: what.into(),
            limit,
            kind,
        });
    }
    Ok(out)
}

/// Compresses `input`; the same input gives the same bytes.
pub fn compress(kind: Compression, input: &[u8]) -> Result<Vec<u8>> {
    let error = || Error::stream("the archive to compress");
    Ok(match kind {
        Compression::None => input.to_vec(),
        Compression::Gzip => {
            // GzBuilder's default header has no name and no time.
            let mut out = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::best());
            out.write_all(input).map_err(error())?;
            out.finish().map_err(error())?
        }
        Compression::Zstd => {
            // Level 19 takes 4 s in place of 0.5 s on Debian's modules, for 5 % less.
            let mut out = zstd::stream::write::Encoder::new(Vec::new(), 12).map_err(error())?;
            out.include_checksum(true).map_err(error())?;
            out.write_all(input).map_err(error())?;
            out.finish().map_err(error())?
        }
        Compression::Lz4Legacy => {
            // Magic, then blocks of at most 8 MiB, each after its packed size (LZ4 frame format,
            // "Legacy frame"). lz4_flex reads these frames but does not write them.
            let mut out = vec![0x02, 0x21, 0x4c, 0x18];
            for block in input.chunks(8 << 20) {
                let packed = lz4_flex::block::compress(block);
                // A block of 8 MiB grows by less than 1 %, so its size fits.
                out.extend((packed.len() as u32).to_le_bytes());
                out.extend(packed);
            }
            out
        }
        Compression::Xz | Compression::Lzma | Compression::Lz4 => {
            return Err(Error::format(
                "initramfs compression",
                format!(
                    "{} is only read, not written; take none, gzip, zstd or lz4",
                    kind.name()
                ),
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_unpacks_to_the_same_bytes() {
        let input: Vec<u8> = (0..100_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        for kind in [
            Compression::None,
            Compression::Gzip,
            Compression::Zstd,
            Compression::Lz4Legacy,
        ] {
            let packed = compress(kind, &input).unwrap();
            assert_eq!(Compression::detect(&packed), kind);
            assert_eq!(
                packed,
                compress(kind, &input).unwrap(),
                "{kind:?} is not reproducible"
            );
            assert_eq!(
                decompress(&packed, "test", "test", 1 << 20).unwrap(),
                input,
                "{kind:?}"
            );
        }
    }

    #[test]
    fn a_bomb_is_refused() {
        let packed = compress(Compression::Zstd, &vec![0; 1 << 20]).unwrap();
        let error = decompress(&packed, "bomb.zst", "module", 1000).unwrap_err();
        assert_eq!(
            error.to_string(),
            "bomb.zst is larger than 1000 bytes, which no module is; refused"
        );
    }

    #[test]
    fn a_truncated_stream_is_an_error_not_a_short_file() {
        for kind in [Compression::Gzip, Compression::Zstd] {
            let packed = compress(kind, &[7; 5000]).unwrap();
            let cut = &packed[..packed.len() - 3];
            decompress(cut, "cut", "test", 1 << 20).unwrap_err();
        }
    }
}
