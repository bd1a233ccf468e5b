//! A layer's, or an archive's, compression: which it is, and its undoing.

use std::fmt;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

/// Largest zstd window as a power of two: 128 MiB, what zstd itself takes by default.
const ZSTD_WINDOW: u32 = 27;
/// What an xz stream's dictionary may take, in KiB: twice what `xz -9` makes.
const XZ_MEMORY: u32 = 128 << 10;

/// Bytes of a stream's start that tell how it is compressed.
const MAGIC: u64 = 6;
/// Bytes that are read at once.
const CHUNK: usize = 256 * 1024;

/// How a stream is compressed: what its first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), of one or more members.
    Gzip,
    /// Zstandard (RFC 8878), of one or more frames.
    Zstd,
    /// bzip2, of one or more streams.
    Bzip2,
    /// xz, of one or more streams.
    Xz,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "uncompressed tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
        })
    }
}

impl Compression {
    /// What a stream's first bytes say, of which there should be six.
    fn of_bytes(bytes: &[u8]) -> Self {
        match bytes {
            [0x1F, 0x8B, ..] => Self::Gzip,
            [0x28, 0xB5, 0x2F, 0xFD, ..] | [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => Self::Bzip2,
            [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// A stream without its compression. What it takes in memory is bounded, whatever the stream says: 128 MiB.
pub struct Decoder<R: BufRead>(Kind<R>);

enum Kind<R: BufRead> {
    None(R),
    Gzip(Box<flate2::bufread::MultiGzDecoder<R>>),
    Zstd(Box<zstd::Decoder<'static, R>>),
    Bzip2(Box<bzip2::bufread::MultiBzDecoder<R>>),
    Xz(Box<lzma_rust2::XzReader<R>>),
}

impl<R: BufRead> fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

/// What was read to look at the magic, then the rest.
pub type Started<T> = BufReader<Chain<Cursor<Vec<u8>>, T>>;

impl<T: Read> Decoder<Started<T>> {
    /// Undoes the compression that a stream's first bytes tell of.
    ///
    /// # Errors
    /// Where these cannot be read, or there is no memory for it.
    pub fn of(mut reader: T) -> io::Result<(Compression, Self)> {
        // A first read may be short, so this many bytes are asked for.
        let mut start = Vec::new();
        (&mut reader).take(MAGIC).read_to_end(&mut start)?;
        let compression = Compression::of_bytes(&start);
        let whole = BufReader::with_capacity(CHUNK, Cursor::new(start).chain(reader));
        Ok((compression, Self::new(compression, whole)?))
    }
}

impl<R: BufRead> Decoder<R> {
    /// Undoes `compression`.
    ///
    /// # Errors
    /// Where there is no memory for it.
    fn new(compression: Compression, reader: R) -> io::Result<Self> {
        Ok(Self(match compression {
            Compression::None => Kind::None(reader),
            Compression::Gzip => Kind::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(reader))),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(reader)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                Kind::Zstd(Box::new(decoder))
            }
            Compression::Bzip2 => {
                Kind::Bzip2(Box::new(bzip2::bufread::MultiBzDecoder::new(reader)))
            }
            Compression::Xz => Kind::Xz(Box::new(lzma_rust2::XzReader::new_mem_limit(
                reader, true, XZ_MEMORY,
            ))),
        }))
    }

    /// What is read from.
    pub fn get_ref(&self) -> &R {
        match &self.0 {
            Kind::None(reader) => reader,
            Kind::Gzip(reader) => reader.get_ref(),
            Kind::Zstd(reader) => reader.get_ref(),
            Kind::Bzip2(reader) => reader.get_ref(),
            Kind::Xz(reader) => reader.inner(),
        }
    }

    /// What was read from; at the end, whatever follows the compressed stream.
    pub fn into_inner(self) -> R {
        match self.0 {
            Kind::None(reader) => reader,
            Kind::Gzip(reader) => reader.into_inner(),
            Kind::Zstd(reader) => reader.finish(),
            Kind::Bzip2(reader) => reader.into_inner(),
            Kind::Xz(reader) => reader.into_inner(),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::None(reader) => reader.read(buf),
            Kind::Gzip(reader) => reader.read(buf),
            Kind::Zstd(reader) => reader.read(buf),
            Kind::Bzip2(reader) => reader.read(buf),
            Kind::Xz(reader) => reader.read(buf),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// `bytes` as the program of the system compresses them.
    fn packed(program: &[&str], bytes: &[u8]) -> Vec<u8> {
        let mut child = Command::new(program[0])
            .args(&program[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut input, bytes) = (child.stdin.take().unwrap(), bytes.to_vec());
        let writing = std::thread::spawn(move || input.write_all(&bytes));
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decoder::of(bytes)?.1.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn what_the_system_s_programs_compress_comes_out_again() {
        let text: Vec<u8> = (0..200_000u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        for program in [
            &["gzip", "-c"][..],
            &["bzip2", "-c"],
            &["xz", "-c"],
            &["xz", "-9ec"],
            &["xz", "-c", "--check=sha256", "--block-size=100000"],
            &["xz", "-c", "--x86", "--lzma2"],
        ] {
            let one = packed(program, &text);
            assert!(unpacked(&one).unwrap() == text, "{program:?}");
            // Two streams are one, as with the programs themselves.
            let two = [one.clone(), one.clone()].concat();
            assert!(
                unpacked(&two).unwrap().len() == 2 * text.len(),
                "{program:?}"
            );
            // What is cut short or changed is told.
            assert!(unpacked(&one[..one.len() - 9]).is_err(), "{program:?}");
            let mut changed = one;
            let middle = changed.len() / 2;
            changed[middle] ^= 1;
            assert!(unpacked(&changed).is_err(), "{program:?}");
        }
    }

    #[test]
    fn a_changed_stream_is_an_error_or_some_bytes_and_no_panic() {
        let text: Vec<u8> = (0..500u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        // Knuth's generator: the same changes each time.
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for program in [&["bzip2", "-c"][..], &["xz", "-c", "--check=none"]] {
            let whole = packed(program, &text);
            for _ in 0..2000 {
                let mut changed = whole.clone();
                for _ in 0..=random(4) {
                    let at = random(changed.len());
                    changed[at] = random(256) as u8;
                }
                changed.truncate(changed.len() - random(2) * random(changed.len()));
                let mut out = Vec::new();
                // Whether it is refused is the format's to say: not every change is seen.
                if let Ok((_, decoder)) = Decoder::of(&changed[..]) {
                    let _refused = decoder.take(1 << 20).read_to_end(&mut out);
                }
                assert!(out.len() <= 1 << 20);
            }
        }
    }

    #[test]
    fn an_xz_stream_cannot_ask_for_more_memory_than_there_is_for_it() {
        let large = packed(&["xz", "-c", "--lzma2=dict=256MiB"], b"small");
        let error = unpacked(&large).unwrap_err();
        assert!(error.to_string().contains("mem"), "{error}");
    }
}
