//! What the folders of a stack of layers look like.
//!
//! A layer that has `usr/bin/x` need not have entries for `usr` and `usr/bin`. overlayfs takes a folder's owner, mode
//! and times from the uppermost layer that has it, so such folders must look in their layer as they do below.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::ext4::{Metadata, Time};

/// Bytes that a decoded list may take; a layer's own limit on metadata is of this order.
const DECODED_MAX: u64 = 1 << 30;

/// The folders that are seen in a stack of layers, with their metadata, by path from the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folders(pub(super) BTreeMap<Vec<u8>, Metadata>);

impl Folders {
    /// A folder's metadata.
    pub fn get(&self, path: &[u8]) -> Option<&Metadata> {
        self.0.get(path)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes away a path and everything below it.
    pub(super) fn remove(&mut self, path: &[u8]) {
        self.0.remove(path);
        let below = [path, b"/"].concat();
        let gone: Vec<Vec<u8>> = self
            .0
            .range(below.clone()..)
            .map(|(p, _)| p)
            .take_while(|p| p.starts_with(&below))
            .cloned()
            .collect();
        for path in gone {
            self.0.remove(&path);
        }
    }

    /// The list as bytes, compressed, to be kept beside the layer.
    ///
    /// # Errors
    /// Of the compressor.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let text = |out: &mut Vec<u8>, bytes: &[u8]| {
            // Paths, names and values are far below 4 GiB: the tar's headers are bounded.
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        for (path, meta) in &self.0 {
            text(&mut out, path);
            out.extend_from_slice(&meta.mode.to_le_bytes());
            for id in [meta.uid, meta.gid] {
                out.extend_from_slice(&id.to_le_bytes());
            }
            for time in [meta.mtime, meta.atime, meta.ctime] {
                out.extend_from_slice(&time.secs.to_le_bytes());
                out.extend_from_slice(&time.nanos.to_le_bytes());
            }
            out.extend_from_slice(&(meta.xattrs.len() as u32).to_le_bytes());
            for (name, value) in &meta.xattrs {
                text(&mut out, name);
                text(&mut out, value);
            }
        }
        zstd::bulk::compress(&out, 3)
    }

    /// Reads what [`Folders::encode`] wrote.
    ///
    /// # Errors
    /// `InvalidData` for anything else.
    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        let mut all = Vec::new();
        zstd::stream::read::Decoder::new(bytes)?
            .take(DECODED_MAX)
            .read_to_end(&mut all)?;
        let mut at = Cursor(&all);
        let mut folders = BTreeMap::new();
        while !at.0.is_empty() {
            let path = at.text()?;
            let mode = u16::from_le_bytes(at.take()?);
            let (uid, gid) = (
                u32::from_le_bytes(at.take()?),
                u32::from_le_bytes(at.take()?),
            );
            let mut time = || {
                Ok::<_, io::Error>(Time {
                    secs: i64::from_le_bytes(at.take()?),
                    nanos: u32::from_le_bytes(at.take()?),
                })
            };
            let (mtime, atime, ctime) = (time()?, time()?, time()?);
            let count = u32::from_le_bytes(at.take()?);
            let mut xattrs = Vec::new();
            for _ in 0..count {
                xattrs.push((at.text()?, at.text()?));
            }
            folders.insert(
                path,
                Metadata {
                    mode,
                    uid,
                    gid,
                    mtime,
                    atime,
                    ctime,
                    xattrs,
                },
            );
        }
        Ok(Folders(folders))
    }
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn short() -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the list of folders is cut short or damaged",
        )
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or_else(Self::short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn text(&mut self) -> io::Result<Vec<u8>> {
        let length = u32::from_le_bytes(self.take()?) as usize;
        let (head, rest) = self.0.split_at_checked(length).ok_or_else(Self::short)?;
        self.0 = rest;
        Ok(head.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Folders {
        let meta = |mode| Metadata {
            xattrs: vec![(b"user.a".to_vec(), b"v".to_vec())],
            uid: 3_000_000_000,
            ..Metadata::new(mode, Time { secs: -5, nanos: 7 })
        };
        Folders(
            ["usr", "usr/bin", "usr-local", "tmp"]
                .iter()
                .map(|p| (p.as_bytes().to_vec(), meta(0o1777)))
                .collect(),
        )
    }

    #[test]
    fn a_list_comes_back_and_a_damaged_one_does_not() {
        let bytes = sample().encode().unwrap();
        assert_eq!(Folders::decode(&bytes).unwrap(), sample());
        for cut in 0..bytes.len() {
            // A cut frame is an error or a shorter list, never a panic.
            let _ = Folders::decode(&bytes[..cut]);
        }
        assert!(Folders::decode(&zstd::bulk::compress(b"\xff\xff\xff\xff", 1).unwrap()).is_err());
    }

    #[test]
    fn a_folder_goes_with_what_is_below_it_only() {
        let mut folders = sample();
        folders.remove(b"usr");
        assert_eq!(
            folders.0.keys().map(Vec::as_slice).collect::<Vec<_>>(),
            [&b"tmp"[..], b"usr-local"]
        );
    }
}
