//! Reading, hashing and inflating, on a thread of its own.

use std::fmt;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use sha2::Digest as _;

use super::{ConvertError, Expectations, Limits};
use crate::digest::Digest;

/// Bytes handed over at once.
const CHUNK: usize = 256 * 1024;
/// Chunks on their way.
const QUEUE: usize = 8;
/// Largest zstd window as a power of two: 128 MiB, what zstd itself takes by default.
const ZSTD_WINDOW: u32 = 27;

/// How a layer's stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), of one or more members.
    Gzip,
    /// Zstandard (RFC 8878), of one or more frames.
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "uncompressed tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

impl Compression {
    /// What a layer's media type says, of OCI's kinds and Docker's; `None` for a type that is no layer's.
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => Some(Self::None),
            "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip" => Some(Self::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// What a stream's first bytes say.
    fn of_bytes(bytes: &[u8]) -> Result<Self, ConvertError> {
        match bytes {
            [0x1F, 0x8B, ..] => Ok(Self::Gzip),
            [0x28, 0xB5, 0x2F, 0xFD, ..] | [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => Ok(Self::Zstd),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => {
                Err(ConvertError::UnsupportedCompression("bzip2"))
            }
            [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => {
                Err(ConvertError::UnsupportedCompression("xz"))
            }
            _ => Ok(Self::None),
        }
    }
}

/// What the compressed stream was.
pub(super) struct StreamSummary {
    pub digest: Digest,
    pub size: u64,
    pub compression: Compression,
}

/// What the tar was.
pub(super) struct TarSummary {
    pub digest: Digest,
    pub size: u64,
}

/// Counts and hashes the compressed bytes.
struct Source<R, F> {
    inner: R,
    hash: sha2::Sha256,
    count: u64,
    limit: u64,
    expected: Option<u64>,
    progress: F,
}

impl<R: Read, F: Fn(u64)> Read for Source<R, F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = loop {
            match self.inner.read(buf) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => {
                    break other.map_err(|error| io::Error::other(ConvertError::Read(error)))?;
                }
            }
        };
        self.count += count as u64;
        if self.count > self.limit {
            return Err(io::Error::other(ConvertError::Limit {
                what: "compressed bytes",
                limit: self.limit,
            }));
        }
        if let Some(expected) = self.expected.filter(|expected| self.count > *expected) {
            return Err(io::Error::other(ConvertError::WrongSize {
                expected,
                found: self.count,
            }));
        }
        self.hash.update(&buf[..count]);
        if count > 0 {
            (self.progress)(self.count);
        }
        Ok(count)
    }
}

/// What was read to look at the magic, then the rest.
type Buffered<R, F> = BufReader<Chain<Cursor<Vec<u8>>, Source<R, F>>>;

enum Decoder<R: Read, F: Fn(u64)> {
    None(Box<Buffered<R, F>>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Buffered<R, F>>>),
    Zstd(Box<zstd::Decoder<'static, Buffered<R, F>>>),
}

impl<R: Read, F: Fn(u64)> Decoder<R, F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(reader) => reader.read(buf),
            Self::Gzip(reader) => reader.read(buf),
            Self::Zstd(reader) => reader.read(buf),
        }
    }

    /// Compressed bytes read.
    fn compressed(&self) -> u64 {
        let buffered = match self {
            Self::None(reader) => reader,
            Self::Gzip(reader) => reader.get_ref(),
            Self::Zstd(reader) => reader.get_ref(),
        };
        buffered.get_ref().get_ref().1.count
    }

    fn into_inner(self) -> Buffered<R, F> {
        match self {
            Self::None(reader) => *reader,
            Self::Gzip(reader) => reader.into_inner(),
            Self::Zstd(reader) => reader.finish(),
        }
    }
}

type Chunk = Result<Vec<u8>, ConvertError>;

/// The thread's work.
fn decompress<R: Read, F: Fn(u64)>(
    reader: R,
    expected: Expectations,
    limits: Limits,
    progress: F,
    out: &SyncSender<Chunk>,
    spare: &Receiver<Vec<u8>>,
) -> Result<StreamSummary, ConvertError> {
    let mut source = Source {
        inner: reader,
        hash: sha2::Sha256::new(),
        count: 0,
        limit: limits.compressed,
        expected: expected.size,
        progress,
    };
    let told = |error: io::Error| {
        error
            .downcast::<ConvertError>()
            .unwrap_or_else(ConvertError::Read)
    };
    // A first read may be short, so this many bytes are asked for.
    let mut start = Vec::new();
    (&mut source)
        .take(6)
        .read_to_end(&mut start)
        .map_err(told)?;
    let compression = Compression::of_bytes(&start)?;
    if let Some(expected) = expected
        .compression
        .filter(|expected| *expected != compression)
    {
        return Err(ConvertError::WrongCompression {
            expected,
            found: compression,
        });
    }
    let buffered = BufReader::with_capacity(CHUNK, Cursor::new(start).chain(source));
    let mut decoder = match compression {
        Compression::None => Decoder::None(Box::new(buffered)),
        Compression::Gzip => {
            Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(buffered)))
        }
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(buffered).map_err(ConvertError::Read)?;
            decoder
                .window_log_max(ZSTD_WINDOW)
                .map_err(ConvertError::Read)?;
            Decoder::Zstd(Box::new(decoder))
        }
    };
    let corrupt = |error: io::Error| {
        error
            .downcast::<ConvertError>()
            .unwrap_or_else(|source| ConvertError::Corrupt {
                compression,
                source,
            })
    };
    let mut uncompressed = 0u64;
    loop {
        let mut chunk = spare.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let mut filled = 0;
        while filled < CHUNK {
            match decoder.read(&mut chunk[filled..]).map_err(corrupt)? {
                0 => break,
                count => filled += count,
            }
            let (compressed, total) = (decoder.compressed(), uncompressed + filled as u64);
            if total > limits.uncompressed {
                return Err(ConvertError::Limit {
                    what: "bytes of tar",
                    limit: limits.uncompressed,
                });
            }
            if total > limits.ratio_from && total / limits.ratio.max(1) > compressed {
                return Err(ConvertError::Bomb {
                    compressed,
                    uncompressed: total,
                    ratio: limits.ratio,
                });
            }
        }
        if filled == 0 {
            break;
        }
        uncompressed += filled as u64;
        chunk.truncate(filled);
        if out.send(Ok(chunk)).is_err() {
            // The other side gave up, and says why.
            return Err(ConvertError::Read(io::ErrorKind::BrokenPipe.into()));
        }
    }
    let mut rest = decoder.into_inner();
    if !rest.fill_buf().map_err(told)?.is_empty() {
        let source = io::Error::new(
            io::ErrorKind::InvalidData,
            "something follows the compressed stream",
        );
        return Err(ConvertError::Corrupt {
            compression,
            source,
        });
    }
    let (_, source) = rest.into_inner().into_inner();
    Ok(StreamSummary {
        digest: Digest::from_bytes(source.hash.finalize().into()),
        size: source.count,
        compression,
    })
}

/// The tar's bytes as they come from the thread.
pub(super) struct TarStream {
    chunks: Receiver<Chunk>,
    spare: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    hash: sha2::Sha256,
    count: u64,
}

impl Read for TarStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            // A thread that is gone without an error has sent everything.
            let Ok(next) = self.chunks.recv() else {
                return Ok(0);
            };
            let used = std::mem::replace(&mut self.chunk, next.map_err(io::Error::other)?);
            self.at = 0;
            self.hash.update(&self.chunk);
            self.count += self.chunk.len() as u64;
            // Where the thread is done it takes none back.
            let _ = self.spare.send(used);
        }
        let count = buf.len().min(self.chunk.len() - self.at);
        buf[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Runs `consume` over the tar in `reader`, while another thread decompresses it. `consume` reads to the end.
pub(super) fn with_stream<T>(
    reader: impl Read + Send,
    expected: Expectations,
    limits: Limits,
    progress: impl Fn(u64) + Send,
    consume: impl FnOnce(&mut TarStream) -> Result<T, ConvertError>,
) -> Result<(StreamSummary, TarSummary, T), ConvertError> {
    let (out, chunks) = sync_channel(QUEUE);
    let (spare, spares) = channel();
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            match decompress(reader, expected, limits, progress, &out, &spares) {
                Ok(summary) => Some(summary),
                Err(error) => {
                    // Nobody listens any more where the other side failed first.
                    let _ = out.send(Err(error));
                    None
                }
            }
        });
        let mut stream = TarStream {
            chunks,
            spare,
            chunk: Vec::new(),
            at: 0,
            hash: sha2::Sha256::new(),
            count: 0,
        };
        let made = consume(&mut stream);
        let tar = TarSummary {
            digest: Digest::from_bytes(stream.hash.clone().finalize().into()),
            size: stream.count,
        };
        drop(stream);
        let summary = worker.join();
        let made = made?;
        match summary {
            Ok(Some(summary)) => Ok((summary, tar, made)),
            // An error was sent and read, unless the thread panicked.
            _ => Err(ConvertError::Read(io::Error::other(
                "the thread that decompresses ended early",
            ))),
        }
    })
}
