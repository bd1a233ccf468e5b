//! Reading by position.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A source of bytes that can be read at any position: a file, a partition, a VMDK chain, an HTTP resource by ranges.
pub trait ReadAt: Send + Sync {
    /// Fills `buf` from `offset` (bytes). Fails with `UnexpectedEof` where the source ends earlier.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Size in bytes.
    fn size(&self) -> io::Result<u64>;
}

impl ReadAt for std::fs::File {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        FileExt::read_exact_at(self, buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..))
            .and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(from.ok_or_else(|| past_end(offset, buf.len(), self.len() as u64))?);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_exact_at(offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_exact_at(offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Arc<T> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_exact_at(offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Box<T> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_exact_at(offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }
}

/// A part of a source: a partition of a disk.
#[derive(Debug, Clone)]
pub struct Window<S> {
    source: S,
    start: u64,
    size: u64,
}

impl<S: ReadAt> Window<S> {
    /// The `size` bytes of `source` from `start`. Fails with `UnexpectedEof` if they are not all inside.
    pub fn new(source: S, start: u64, size: u64) -> io::Result<Self> {
        let whole = source.size()?;
        if start.checked_add(size).is_none_or(|end| end > whole) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("a part of {size} bytes at {start} is not inside a disk of {whole} bytes"),
            ));
        }
        Ok(Self {
            source,
            start,
            size,
        })
    }
}

impl<S: ReadAt> ReadAt for Window<S> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > self.size)
        {
            return Err(past_end(offset, buf.len(), self.size));
        }
        self.source.read_exact_at(self.start + offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}

/// Reads a [`ReadAt`] from its start to its end as a stream.
#[derive(Debug)]
pub struct Stream<S> {
    source: S,
    at: u64,
    size: u64,
}

impl<S: ReadAt> Stream<S> {
    /// A stream over the whole of `source`.
    pub fn new(source: S) -> io::Result<Self> {
        let size = source.size()?;
        Ok(Self {
            source,
            at: 0,
            size,
        })
    }
}

impl<S: ReadAt> io::Read for Stream<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = (buf.len() as u64).min(self.size - self.at) as usize;
        self.source.read_exact_at(self.at, &mut buf[..count])?;
        self.at += count as u64;
        Ok(count)
    }
}

/// The error for a read that goes past the end of a source of `size` bytes.
pub(crate) fn past_end(offset: u64, len: usize, size: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("{len} bytes at {offset} reach past the end of {size} bytes"),
    )
}

/// Whether all bytes are zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Folding whole chunks lets the compiler use vector registers.
    let chunks = bytes.chunks_exact(64);
    let rest = chunks.remainder();
    rest.iter().all(|byte| *byte == 0)
        && chunks
            .into_iter()
            .all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_does_not_reach_past_its_end() {
        let window = Window::new(vec![1u8; 100], 10, 20).unwrap();
        let mut buf = [0; 8];
        window.read_exact_at(12, &mut buf).unwrap();
        assert_eq!(buf, [1; 8]);
        assert_eq!(
            window.read_exact_at(13, &mut buf).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert!(window.read_exact_at(u64::MAX, &mut buf).is_err());
        assert!(Window::new(vec![1u8; 100], 90, 11).is_err());
        assert!(Window::new(vec![1u8; 100], u64::MAX, 2).is_err());
    }

    #[test]
    fn zero_is_told_from_nearly_zero() {
        let mut bytes = vec![0; 1000];
        assert!(is_zero(&bytes));
        for at in [0, 63, 64, 511, 999] {
            bytes[at] = 1;
            assert!(!is_zero(&bytes));
            bytes[at] = 0;
        }
    }
}
