//! Reading, hashing and inflating, on a thread of its own.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use sha2::Digest as _;

use super::decoder::{Compression, Decoder, Started};
use super::{ConvertError, Expectations, Limits};
use crate::digest::Digest;

/// Bytes handed over at once.
const CHUNK: usize = 256 * 1024;
/// Chunks on their way.
const QUEUE: usize = 8;
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
    let source = Source {
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
    // The bytes alone tell: dockerd, too, takes a layer whose media type says something else.
    let (compression, mut decoder) = Decoder::of(source).map_err(told)?;
    // What was read of the source by then, whatever of it waits in buffers.
    let read =
        |decoder: &Decoder<Started<Source<R, F>>>| decoder.get_ref().get_ref().get_ref().1.count;
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
            let (compressed, total) = (read(&decoder), uncompressed + filled as u64);
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
        let worker = std::thread::Builder::new().spawn_scoped(scope, move || {
            match decompress(reader, expected, limits, progress, &out, &spares) {
                Ok(summary) => Some(summary),
                Err(error) => {
                    // Nobody listens any more where the other side failed first.
                    let _ = out.send(Err(error));
                    None
                }
            }
        });
        let worker = worker.map_err(ConvertError::Read)?;
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
