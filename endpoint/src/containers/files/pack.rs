//! Entries as a tar in PAX format, as Docker's own writer makes it: whole seconds, attributes as `SCHILY.xattr.*`
//! (POSIX.1-2017 `pax`, "ustar Interchange Format" and "pax Extended Header").

use super::{JobError, Running};
use crate::errors::Error;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use std::io;
use wire::files::{Entry, Item, Kind, Record};

const BLOCK: usize = 512;
static ZEROS: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
/// The largest number in a field of eight bytes: seven octal digits.
const OCTAL_7: u64 = 0o777_7777;
/// The largest number in a field of twelve bytes.
const OCTAL_11: u64 = 0o777_7777_7777;

/// A tar of what a job tells.
#[derive(Debug)]
pub struct Packer {
    running: Running,
    base: Vec<u8>,
    /// Size of the present file, and how much of it is still to come.
    file: (u64, u64),
    /// What follows the piece before it.
    after: Option<Bytes>,
    over: bool,
}

impl Packer {
    /// `base` is the name of the job's place in the tar; empty: the names in it begin below the place.
    pub fn new(running: Running, base: Vec<u8>) -> Self {
        Self {
            running,
            base,
            file: (0, 0),
            after: None,
            over: false,
        }
    }

    /// The next piece of the tar; `None` behind its end.
    ///
    /// # Errors
    /// As [`Running::next`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, JobError> {
        loop {
            if let Some(piece) = self.after.take() {
                return Ok(Some(piece));
            }
            if self.over {
                return Ok(None);
            }
            match self.running.next().await? {
                None => {
                    self.over = true;
                    return Ok(Some(Bytes::from_static(&ZEROS)));
                }
                Some(Item::Bytes(bytes)) => {
                    let (size, left) = &mut self.file;
                    // The decoder counts them, too.
                    *left = left.saturating_sub(bytes.len() as u64);
                    if *left == 0 {
                        let padding = size.wrapping_neg() as usize % BLOCK;
                        self.after = Some(Bytes::from_static(&ZEROS[..padding]));
                    }
                    return Ok(Some(bytes));
                }
                Some(Item::Record(Record::Entry(entry))) => {
                    if let Kind::File(size) = entry.kind {
                        self.file = (size, size);
                    }
                    let base = if self.base == b"/" {
                        &[]
                    } else {
                        &self.base[..]
                    };
                    let full = |path: &[u8]| match (path, base) {
                        (b"", _) => self.base.clone(),
                        (_, b"") if self.base.is_empty() => path.to_vec(),
                        _ => [base, b"/", path].concat(),
                    };
                    return Ok(Some(head(&entry, full).into()));
                }
                Some(Item::Record(_)) => {}
            }
        }
    }

    /// Pieces of 64 KiB and more, but for the last one: an archive of small files has many headers.
    async fn batch(&mut self) -> Result<Option<Bytes>, JobError> {
        const ENOUGH: usize = 64 << 10;
        let mut batch = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if batch.is_empty() && piece.len() >= ENOUGH {
                return Ok(Some(piece));
            }
            batch.extend_from_slice(&piece);
            if batch.len() >= ENOUGH {
                break;
            }
        }
        Ok(Some(batch.freeze()).filter(|batch| !batch.is_empty()))
    }

    /// The tar as a stream. Where it fails it breaks off with an error.
    pub fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::unfold(Some(self), |packer| async move {
            let mut packer = packer?;
            match packer.batch().await {
                Ok(piece) => piece.map(|piece| (Ok(piece), Some(packer))),
                Err(error) => {
                    let error = Error::from(error);
                    tracing::warn!(%error, "an archive of a container's files was cut");
                    Some((Err(io::Error::other(error.message)), None))
                }
            }
        })
    }
}

/// The headers of an entry, whose name and whose hard link's target `full` completes.
fn head(entry: &Entry, full: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut name = full(&entry.path);
    let mut link = Vec::new();
    let (mut size, mut device) = (0, (0, 0));
    let kind = match &entry.kind {
        Kind::File(bytes) => {
            size = *bytes;
            b'0'
        }
        Kind::HardLink(first) => {
            link = full(first);
            b'1'
        }
        Kind::Symlink(target) => {
            link.clone_from(target);
            b'2'
        }
        Kind::Char(major, minor) => {
            device = (*major, *minor);
            b'3'
        }
        Kind::Block(major, minor) => {
            device = (*major, *minor);
            b'4'
        }
        Kind::Folder => {
            if !name.ends_with(b"/") {
                name.push(b'/');
            }
            b'5'
        }
        Kind::Fifo => b'6',
    };
    let mut records = Vec::new();
    let fits = |text: &[u8]| text.len() <= 100 && text.is_ascii();
    for (key, text) in [("path", &name), ("linkpath", &link)] {
        if !fits(text) {
            record(&mut records, key.as_bytes(), text);
        }
    }
    let mtime = u64::try_from(entry.mtime).unwrap_or(u64::MAX);
    for (key, value, most, text) in [
        ("size", size, OCTAL_11, size.to_string()),
        ("uid", entry.uid.into(), OCTAL_7, entry.uid.to_string()),
        ("gid", entry.gid.into(), OCTAL_7, entry.gid.to_string()),
        ("mtime", mtime, OCTAL_11, entry.mtime.to_string()),
    ] {
        if value > most {
            record(&mut records, key.as_bytes(), text.as_bytes());
        }
    }
    for (key, value) in &entry.attributes {
        record(&mut records, &[b"SCHILY.xattr.", &key[..]].concat(), value);
    }
    let mut out = Vec::new();
    if !records.is_empty() {
        let header = Header {
            name: b"PaxHeaders.0/entry",
            link: b"",
            kind: b'x',
            mode: 0o644,
            ids: (0, 0),
            size: records.len() as u64,
            mtime: 0,
            device: (0, 0),
        };
        out.extend_from_slice(&header.block());
        let padding = records.len().wrapping_neg() % BLOCK;
        out.append(&mut records);
        out.extend_from_slice(&ZEROS[..padding]);
    }
    let header = Header {
        name: &name,
        link: &link,
        kind,
        mode: entry.mode & 0o7777,
        ids: (entry.uid, entry.gid),
        size,
        mtime,
        device,
    };
    out.extend_from_slice(&header.block());
    out
}

/// A record of an extended header: its own length, a space, `key=value`, a line's end.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        out.extend_from_slice(part);
    }
}

struct Header<'a> {
    name: &'a [u8],
    link: &'a [u8],
    kind: u8,
    mode: u32,
    ids: (u32, u32),
    size: u64,
    mtime: u64,
    device: (u32, u32),
}

impl Header<'_> {
    /// What does not fit is in the extended header before it.
    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8], most: usize| {
            let bytes = &bytes[..bytes.len().min(most)];
            block[at..at + bytes.len()].copy_from_slice(bytes);
        };
        let octal = |value: u64, most: u64, width: usize| {
            let value = if value > most { 0 } else { value };
            format!("{value:0width$o}").into_bytes()
        };
        put(0, self.name, 100);
        put(100, &octal(self.mode.into(), OCTAL_7, 7), 7);
        put(108, &octal(self.ids.0.into(), OCTAL_7, 7), 7);
        put(116, &octal(self.ids.1.into(), OCTAL_7, 7), 7);
        put(124, &octal(self.size, OCTAL_11, 11), 11);
        put(136, &octal(self.mtime, OCTAL_11, 11), 11);
        put(148, b"        ", 8);
        put(156, &[self.kind], 1);
        put(157, self.link, 100);
        put(257, b"ustar\x0000", 8);
        put(329, &octal(self.device.0.into(), OCTAL_7, 7), 7);
        put(337, &octal(self.device.1.into(), OCTAL_7, 7), 7);
        let sum: u32 = block.iter().copied().map(u32::from).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use layers::tar::{self, Reader, TarLimits};

    fn entry(path: &[u8], kind: Kind) -> Entry {
        Entry {
            path: path.to_vec(),
            kind,
            mode: 0o4755,
            uid: 3_000_000,
            gid: 7,
            mtime: 1_700_000_000,
            mtime_ns: 5,
            attributes: vec![(b"user.note".to_vec(), b"a\nb=\0".to_vec())],
        }
    }

    fn read(bytes: &[u8]) -> tar::Entry {
        let limits = TarLimits {
            entries: 10,
            metadata: 1 << 20,
            rest: 0,
        };
        let mut raw = Vec::new();
        Reader::new(bytes, limits)
            .next_entry(&mut raw)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn what_is_packed_is_read_again() {
        let long = [b"d/".repeat(120), "\u{e4}".into()].concat();
        for (path, kind) in [
            (&b"a/b"[..], Kind::File(0)),
            (&long, Kind::File(0)),
            (b"dev", Kind::Char(1, 3)),
            (b"dir", Kind::Folder),
            (b"fifo", Kind::Fifo),
            (b"link", Kind::Symlink(b"../".repeat(50))),
            (b"hard", Kind::HardLink(long.clone())),
        ] {
            let packed = head(&entry(path, kind.clone()), |p| [b"base/", p].concat());
            let found = read(&packed);
            let slash: &[u8] = if kind == Kind::Folder { b"/" } else { b"" };
            assert_eq!(found.path, [b"base/", path, slash].concat());
            assert_eq!((found.mode, found.uid, found.gid), (0o4755, 3_000_000, 7));
            assert_eq!((found.mtime.secs, found.mtime.nanos), (1_700_000_000, 0));
            assert_eq!(found.xattrs, entry(b"", Kind::Fifo).attributes);
            match kind {
                Kind::Symlink(target) => assert_eq!(found.link, target),
                Kind::HardLink(first) => assert_eq!(found.link, [b"base/", &first[..]].concat()),
                Kind::Char(..) => assert_eq!(found.device, (1, 3)),
                _ => {}
            }
        }
    }

    #[test]
    fn a_record_counts_its_own_digits() {
        for length in [1, 90, 95, 96, 97, 990, 1000] {
            let mut out = Vec::new();
            record(&mut out, b"k", &vec![b'v'; length]);
            let told = out.split(|b| *b == b' ').next().unwrap();
            assert_eq!(String::from_utf8_lossy(told), out.len().to_string());
        }
    }
}
