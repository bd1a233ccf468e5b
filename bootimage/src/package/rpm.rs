//! RPM packages: lead, signature header, header, then a compressed cpio archive.
//!
//! Read here rather than by the crate `rpm` (0.30): that indexes and multiplies with the header's
//! own numbers unchecked, so a damaged package makes it panic or allocate gigabytes, and it holds
//! the payload in memory whole. What is needed of the header is three strings.
//! Format: rpm.org, "RPM V4 package format".

use std::io::Read;

use super::Collector;
use crate::compress::read_bounded;
use crate::{Error, Result, compress, cpio};

/// Bytes of one header, at most; linux-esx's has about 1 MiB (a line a file).
const MAX_HEADER: u32 = 64 << 20;
/// Bytes of a string that is wanted, at most.
const MAX_STRING: usize = 256;
const ENTRY: usize = 16;
const TYPE_STRING: u32 = 6;

/// Reads a package front to back; returns its name and version.
pub(super) fn read(mut input: impl Read, what: &str, collector: &mut Collector) -> Result<String> {
    let mut lead = [0; 96];
    input.read_exact(&mut lead).map_err(Error::stream(what))?;
    let signature = Header::read(&mut input, what)?;
    // The signature header is padded to 8 bytes, the main one is not.
    let padding = signature.store.len().next_multiple_of(8) - signature.store.len();
    input
        .read_exact(&mut [0; 8][..padding])
        .map_err(Error::stream(what))?;
    let header = Header::read(&mut input, what)?;
    let label = match (
        header.string(1000),
        header.string(1001),
        header.string(1002),
    ) {
        (Some(name), Some(version), Some(release)) => format!("{name} {version}-{release}"),
        _ => {
            return Err(Error::format(
                what,
                "has no name and version in its RPM header",
            ));
        }
    };
    let (_, payload) = compress::decoder(input, what)?;
    cpio::read(payload, what, |entry, content| {
        if entry.is_file() && entry.size > 0 {
            collector.take(&entry.name, content)?;
        }
        Ok(())
    })?;
    Ok(label)
}

struct Header {
    index: Vec<u8>,
    store: Vec<u8>,
}

impl Header {
    fn read(input: &mut impl Read, what: &str) -> Result<Self> {
        let mut intro = [0; 16];
        input.read_exact(&mut intro).map_err(Error::stream(what))?;
        if intro[..4] != [0x8e, 0xad, 0xe8, 1] {
            return Err(Error::format(
                what,
                "has a damaged RPM header (wrong magic)",
            ));
        }
        let (entries, store) = (word(&intro, 8), word(&intro, 12));
        let (Some(entries), Some(store)) = (entries, store) else {
            return Err(Error::format(what, "has a damaged RPM header"));
        };
        let index = entries
            .checked_mul(ENTRY as u32)
            .filter(|&len| len <= MAX_HEADER);
        let (Some(index), true) = (index, store <= MAX_HEADER) else {
            return Err(Error::TooLarge {
                what: what.into(),
                limit: MAX_HEADER.into(),
                kind: "RPM header",
            });
        };
        let mut part = |len: u32| {
            let bytes = read_bounded(
                input.by_ref().take(len.into()),
                what,
                "RPM header",
                MAX_HEADER.into(),
            )?;
            if bytes.len() < len as usize {
                return Err(Error::format(what, "ends within its RPM header"));
            }
            Ok(bytes)
        };
        Ok(Self {
            index: part(index)?,
            store: part(store)?,
        })
    }

    fn string(&self, tag: u32) -> Option<&str> {
        let entry = self
            .index
            .chunks_exact(ENTRY)
            .find(|entry| word(entry, 0) == Some(tag) && word(entry, 4) == Some(TYPE_STRING))?;
        let bytes = self.store.get(word(entry, 8)? as usize..)?;
        let end = bytes.iter().take(MAX_STRING).position(|&byte| byte == 0)?;
        std::str::from_utf8(&bytes[..end]).ok()
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
