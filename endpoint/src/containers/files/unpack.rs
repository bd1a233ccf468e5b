//! A client's tar, compressed or not, as entries for the guest.

use crate::errors::Error;
use layers::convert::Decoder;
use layers::tar::{self, Reader, TarLimits, path::clean};
use std::io::{self, Read};
use wire::files::{Entry, Kind, PIECE_MAX, Record, piece_header, put};

/// Entries of one archive, and bytes of its headers, at most.
const LIMITS: TarLimits = TarLimits {
    entries: 10_000_000,
    metadata: 4 << 30,
    // They are not kept.
    rest: u64::MAX,
};

fn broken(reason: impl std::fmt::Display) -> Error {
    Error::bad(format!("the archive cannot be unpacked: {reason}"))
}

/// Reads a tar to its end and gives its entries, encoded, to `send`; the last piece is the end's. `folder` is where it is
/// unpacked, for messages. Blocks.
///
/// # Errors
/// 400 for what is no tar or leads out of the folder; `send`'s own.
pub fn unpack(
    input: impl Read,
    folder: &str,
    mut send: impl FnMut(Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut tar = Reader::new(plain(input)?, LIMITS);
    let mut buffer = vec![0; PIECE_MAX];
    let mut out = Vec::new();
    loop {
        let mut raw = Nothing;
        let Some(found) = tar.next_entry(&mut raw).map_err(broken)? else {
            break;
        };
        let (entry, map) = convert(found, folder)?;
        let size = match entry.kind {
            Kind::File(size) => size,
            _ => 0,
        };
        put(&Record::Entry(entry), &mut out).map_err(broken)?;
        let mut at = 0;
        for (offset, length) in map.into_iter().chain([(size, 0)]) {
            while at < offset {
                let count = usize::try_from(offset - at).unwrap_or(PIECE_MAX);
                let count = count.min(PIECE_MAX);
                out.extend_from_slice(&piece_header(count));
                out.resize(out.len() + count, 0);
                at += count as u64;
                full(&mut out, &mut send)?;
            }
            while at < offset + length {
                let most = usize::try_from(offset + length - at).unwrap_or(PIECE_MAX);
                let most = most.min(PIECE_MAX);
                let count = tar.read_data(&mut buffer[..most]).map_err(broken)?;
                if count == 0 {
                    return Err(broken("a file in it is shorter than its header says"));
                }
                out.extend_from_slice(&piece_header(count));
                out.extend_from_slice(&buffer[..count]);
                at += count as u64;
                full(&mut out, &mut send)?;
            }
        }
        full(&mut out, &mut send)?;
    }
    put(&Record::End, &mut out).map_err(broken)?;
    send(out)
}

/// Sends what there is, once that is worth it.
fn full(
    out: &mut Vec<u8>,
    send: &mut impl FnMut(Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    if out.len() < PIECE_MAX {
        return Ok(());
    }
    send(std::mem::take(out))
}

/// Headers of an archive are not kept.
struct Nothing;

impl tar::RawSink for Nothing {
    fn raw(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// An entry, and where the data of its file belongs.
fn convert(found: tar::Entry, folder: &str) -> Result<(Entry, Vec<(u64, u64)>), Error> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let outside = |_| Error::internal(format!("{:?} is outside of {folder:?}", text(&found.path)));
    let path = clean(&found.path).map_err(outside)?;
    let mut map = Vec::new();
    let kind = match found.kind {
        tar::Kind::File => {
            map = found.sparse.unwrap_or_else(|| vec![(0, found.data)]);
            Kind::File(found.size)
        }
        tar::Kind::HardLink => Kind::HardLink(clean(&found.link).map_err(|_| {
            Error::internal(format!(
                "invalid hardlink {:?} -> {:?}",
                text(&found.path),
                text(&found.link)
            ))
        })?),
        tar::Kind::Symlink => {
            // As Docker: relative to the folder that it is unpacked in, and an absolute one counts as below that.
            let parent = path.rsplitn(2, |b| *b == b'/').nth(1).unwrap_or_default();
            if clean(&[parent, b"/", &found.link].concat()).is_err() {
                return Err(Error::internal(format!(
                    "invalid symlink {:?} -> {:?}",
                    text(&found.path),
                    text(&found.link)
                )));
            }
            Kind::Symlink(found.link)
        }
        tar::Kind::Directory => Kind::Folder,
        tar::Kind::Char => Kind::Char(found.device.0, found.device.1),
        tar::Kind::Block => Kind::Block(found.device.0, found.device.1),
        tar::Kind::Fifo => Kind::Fifo,
    };
    let entry = Entry {
        path,
        kind,
        mode: found.mode.into(),
        uid: found.uid,
        gid: found.gid,
        mtime: found.mtime.secs,
        mtime_ns: found.mtime.nanos,
        attributes: found.xattrs,
    };
    entry.check().map_err(broken)?;
    Ok((entry, map))
}

/// The archive without its compression.
fn plain(input: impl Read) -> Result<impl Read, Error> {
    Ok(Decoder::of(input).map_err(broken)?.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::tar::{Builder, EntryType, Header};
    use wire::files::{Decoder, Item};

    fn unpacked(bytes: &[u8]) -> Result<Vec<Item>, Error> {
        let (mut decoder, mut items) = (Decoder::new(), Vec::new());
        unpack(bytes, "/there", |piece| {
            decoder.push(&piece);
            while let Some(item) = decoder.next_item().map_err(broken)? {
                items.push(item);
            }
            Ok(())
        })?;
        assert_eq!(items.pop(), Some(Item::Record(Record::End)));
        Ok(items)
    }

    /// One entry, whose name and link no well-meaning writer would take.
    fn one(kind: EntryType, name: &str, link: &str) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(0);
        let raw = header.as_old_mut();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        let mut out = header.as_bytes().to_vec();
        out.resize(1536, 0);
        out
    }

    #[test]
    fn an_entry_that_leads_out_of_the_folder_must_not_pass() {
        use EntryType::{Link, Regular, Symlink};
        for (kind, name, link, words) in [
            (Regular, "../x", "", "is outside of \"/there\""),
            (Regular, "a/../../x", "", "is outside of"),
            (Link, "a", "../etc/shadow", "invalid hardlink \"a\""),
            (Symlink, "a", "../x", "invalid symlink \"a\" -> \"../x\""),
            (Symlink, "a/b", "../../x", "invalid symlink"),
            (Link, ".", "a", "a path that is not relative and clean"),
        ] {
            let error = unpacked(&one(kind, name, link)).unwrap_err();
            assert!(error.message.contains(words), "{}", error.message);
        }
        for (kind, name, link) in [
            (Symlink, "a/b", "../x"),
            (Symlink, "a", "/etc/passwd"),
            (Link, "a", "/etc/passwd"),
            (Regular, "/a/./b/../c", ""),
        ] {
            assert_eq!(unpacked(&one(kind, name, link)).unwrap().len(), 1);
        }
    }

    #[test]
    fn compressed_or_not_files_come_whole() {
        let content = vec![7; PIECE_MAX + 3];
        let mut tar = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, "f", &content[..]).unwrap();
        let plain = tar.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &plain).unwrap();
        for bytes in [
            &plain,
            &gzip.finish().unwrap(),
            &zstd::encode_all(&plain[..], 1).unwrap(),
        ] {
            let items = unpacked(bytes).unwrap();
            let pieces = items[1..].iter().map(|item| match item {
                Item::Bytes(bytes) => bytes.to_vec(),
                Item::Record(_) => Vec::new(),
            });
            assert_eq!(pieces.collect::<Vec<_>>().concat(), content);
        }
        let cut = unpacked(&plain[..700]).unwrap_err();
        assert!(cut.message.contains("truncated"), "{}", cut.message);
    }
}
