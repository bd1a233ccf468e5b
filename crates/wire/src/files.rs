//! Files on their way between a container's file tree and the endpoint: what `docker cp`, `diff`, `export` and
//! `commit` are made of.
//!
//! A [`Job`] names a stream. On it go records, each a header of 5 bytes (u32 length of what follows it, little-endian;
//! u8 0: bytes of the file before it, 1: an encoded [`Record`]) and its body. The guest's records end with
//! [`Record::End`] or [`Record::Failed`]: a stream that ends without one was cut.

use crate::message::{MessageError, decode, encode};
use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most bytes of a record's body.
pub const RECORD_MAX: usize = 256 * 1024;
/// Length of a record's header in bytes.
pub const RECORD_HEADER: usize = 5;
/// Most bytes of a file in one record.
pub const PIECE_MAX: usize = 64 * 1024;
/// Longest path or link in bytes (PATH_MAX).
pub const PATH_MAX: usize = 4096;
/// Most bytes of an entry's extended attributes, names and values.
pub const ATTRIBUTES_MAX: usize = 128 * 1024;

/// What is to be done with a container's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// Look at what a path means. Gives [`Record::Found`].
    Stat {
        /// Absolute; a slash or `/.` at its end means what it means to lstat(2).
        path: Vec<u8>,
    },
    /// As `Stat`, then entries of all that is there: the place itself has an empty path.
    Read {
        /// See `Stat`.
        path: Vec<u8>,
    },
    /// Unpack the entries that come on the stream into a folder, until [`Record::End`].
    Write {
        /// The folder; links are followed.
        path: Vec<u8>,
        /// A folder is not to be replaced by what is none, nor the other way round.
        keep_kinds: bool,
        /// Give all to this user (`docker run --user`) with his group; empty: to whom the entries say.
        owner: String,
    },
    /// What the container has changed of its image. Gives [`Record::Changed`].
    Changes,
    /// Entries of the whole root, without volumes and file systems in memory.
    Export,
    /// Entries of what the container has changed, as an image's layer: what was removed is an empty file `.wh.NAME`, and
    /// `.wh..wh..opq` in a folder hides what was below it.
    Layer,
}

impl Job {
    /// Whether it changes anything.
    #[must_use]
    pub fn writes(&self) -> bool {
        matches!(self, Job::Write { .. })
    }
}

/// What a path means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStat {
    /// Size in bytes.
    pub size: u64,
    /// `st_mode`, type and all.
    pub mode: u32,
    /// Last change of the data: s since 1970.
    pub mtime: i64,
    /// And ns.
    pub mtime_ns: u32,
    /// Where a link leads in the end, as far as that exists; empty where it is none.
    pub target: Vec<u8>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file: so many bytes follow, in records of their own.
    File(u64),
    /// A further name of an entry that came before.
    HardLink(Vec<u8>),
    /// A symbolic link to this.
    Symlink(Vec<u8>),
    /// A folder.
    Folder,
    /// A character device: major and minor number.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// A file, folder, link or device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Relative to the place of the job, without `.`, `..` or empty parts; empty: the place itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the data: s since 1970.
    pub mtime: i64,
    /// And ns.
    pub mtime_ns: u32,
    /// Extended attributes: full names and values.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// How a path differs from the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// It is there in the image, too.
    Modified,
    /// It is not there in the image.
    Added,
    /// It is there in the image only.
    Deleted,
}

/// What sort of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// There is nothing at the path.
    NotFound,
    /// The request cannot be right: the message says why.
    Bad,
    /// It went wrong.
    System,
}

/// Why a job has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What sort of failure.
    pub kind: FailureKind,
    /// Docker's words where it has some.
    pub message: String,
}

/// One record, but for the bytes of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// What the path means.
    Found(PathStat),
    /// An entry.
    Entry(Entry),
    /// A change, with its absolute path.
    Changed(Change, Vec<u8>),
    /// All is told.
    End,
    /// It could not be done; nothing more comes.
    Failed(Failure),
}

/// What comes out of a stream of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A record.
    Record(Record),
    /// Bytes of the file whose entry came last; at most [`PIECE_MAX`].
    Bytes(Bytes),
}

/// Not a stream of records.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FilesError {
    /// A length out of its bounds.
    #[error("a record of {0} bytes; at most {RECORD_MAX} are allowed")]
    Length(u32),
    /// Its kind is none.
    #[error("a record of kind {0}; only 0 (bytes) and 1 (a record) are allowed")]
    Kind(u8),
    /// Its body is none.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A path that could lead elsewhere.
    #[error("a path that is not relative and clean: {0:?}")]
    Path(String),
    /// Bytes that no entry announced, or another entry before all of them.
    #[error("the bytes of a file do not fit its size")]
    Size,
}

/// Whether a path is relative, without `.`, `..`, empty parts and NUL, and not too long; the empty one is.
#[must_use]
pub fn is_clean(path: &[u8]) -> bool {
    path.is_empty()
        || path.len() < PATH_MAX
            && !path.contains(&0)
            && path
                .split(|b| *b == b'/')
                .all(|part| !matches!(part, b"" | b"." | b".."))
}

impl Entry {
    /// Whether it can be what it says: its paths are clean, its link is no longer than one can be.
    ///
    /// # Errors
    /// The path that is not.
    pub fn check(&self) -> Result<(), FilesError> {
        let (paths, link) = match &self.kind {
            Kind::HardLink(to) => ([&self.path, to], true),
            _ => ([&self.path, &self.path], false),
        };
        let bad = paths.into_iter().find(|path| !is_clean(path));
        let long = match &self.kind {
            Kind::Symlink(to) => Some(to).filter(|to| to.len() >= PATH_MAX || to.contains(&0)),
            _ => None,
        };
        match bad.or(long) {
            Some(path) => Err(FilesError::Path(String::from_utf8_lossy(path).into_owned())),
            None if link && self.path.is_empty() => Err(FilesError::Path(String::new())),
            None => Ok(()),
        }
    }
}

/// Appends a record to `out`.
///
/// # Errors
/// Where it is too long.
pub fn put(record: &Record, out: &mut Vec<u8>) -> Result<(), FilesError> {
    let body = encode(record)?;
    if body.len() > RECORD_MAX {
        return Err(FilesError::Length(body.len() as u32));
    }
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.push(1);
    out.extend_from_slice(&body);
    Ok(())
}

/// The header of `length` bytes of a file (at most [`PIECE_MAX`]), for writers that have the bytes elsewhere.
#[must_use]
pub fn piece_header(length: usize) -> [u8; RECORD_HEADER] {
    let mut header = [0; RECORD_HEADER];
    header[..4].copy_from_slice(&(length as u32).to_le_bytes());
    header
}

/// Cuts the bytes of a stream into records, and checks what they say.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// Bytes of the last entry's file that are still to come.
    left: u64,
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Takes the next bytes of the stream. Call [`Decoder::next_item`] until it gives `None` after each, so that no
    /// more than one record is ever kept here.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole item, if there is one.
    ///
    /// # Errors
    /// Where the stream is none of records.
    pub fn next_item(&mut self) -> Result<Option<Item>, FilesError> {
        let Some((header, _)) = self.buffer.split_first_chunk::<RECORD_HEADER>() else {
            return Ok(None);
        };
        let [a, b, c, d, kind] = *header;
        let told = u32::from_le_bytes([a, b, c, d]);
        let length = told as usize;
        let most = match kind {
            0 => PIECE_MAX,
            1 => RECORD_MAX,
            other => return Err(FilesError::Kind(other)),
        };
        if length > most {
            return Err(FilesError::Length(told));
        }
        if self.buffer.len() < RECORD_HEADER + length {
            self.buffer
                .reserve(RECORD_HEADER + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(RECORD_HEADER);
        let body = self.buffer.split_to(length).freeze();
        if kind == 0 {
            self.left = self
                .left
                .checked_sub(length as u64)
                .ok_or(FilesError::Size)?;
            return Ok(Some(Item::Bytes(body)));
        }
        let record: Record = decode(&body)?;
        if self.left != 0 && !matches!(record, Record::Failed(_)) {
            return Err(FilesError::Size);
        }
        if let Record::Entry(entry) = &record {
            entry.check()?;
            if let Kind::File(size) = entry.kind {
                self.left = size;
            }
        }
        Ok(Some(Item::Record(record)))
    }

    /// Bytes of an unfinished record; not 0 at the end of a stream means that it was cut.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(path: &str, size: u64) -> Entry {
        Entry {
            path: path.into(),
            kind: Kind::File(size),
            mode: 0o644,
            uid: 1,
            gid: 2,
            mtime: -3,
            mtime_ns: 4,
            attributes: vec![(b"user.a".to_vec(), vec![0, 10, 255])],
        }
    }

    fn items(bytes: &[u8], step: usize) -> Result<Vec<Item>, FilesError> {
        let (mut decoder, mut out) = (Decoder::new(), Vec::new());
        for piece in bytes.chunks(step) {
            decoder.push(piece);
            while let Some(item) = decoder.next_item()? {
                out.push(item);
            }
        }
        Ok(out)
    }

    #[test]
    fn what_was_put_comes_out_however_it_is_cut() {
        let mut bytes = Vec::new();
        put(&Record::Entry(file("a/b", 3)), &mut bytes).unwrap();
        bytes.extend_from_slice(&piece_header(3));
        bytes.extend_from_slice(b"xyz");
        put(&Record::End, &mut bytes).unwrap();
        for step in 1..bytes.len() {
            assert_eq!(
                items(&bytes, step).unwrap(),
                [
                    Item::Record(Record::Entry(file("a/b", 3))),
                    Item::Bytes(Bytes::from_static(b"xyz")),
                    Item::Record(Record::End),
                ]
            );
        }
    }

    #[test]
    fn a_path_that_could_lead_out_must_not_pass() {
        for path in ["/a", "a/../b", "..", ".", "a//b", "a/", "a\0b"] {
            let mut bytes = Vec::new();
            put(&Record::Entry(file(path, 0)), &mut bytes).unwrap();
            assert!(
                matches!(items(&bytes, 64), Err(FilesError::Path(_))),
                "{path:?}"
            );
            let mut link = file("fine", 0);
            link.kind = Kind::HardLink(path.into());
            let mut bytes = Vec::new();
            put(&Record::Entry(link), &mut bytes).unwrap();
            assert!(items(&bytes, 64).is_err(), "{path:?}");
        }
        for path in ["", "a", ".a/..b/...", "a b"] {
            assert!(is_clean(path.as_bytes()), "{path:?}");
        }
    }

    #[test]
    fn bytes_that_do_not_fit_the_size_must_not_pass() {
        let mut more = Vec::new();
        put(&Record::Entry(file("a", 2)), &mut more).unwrap();
        more.extend_from_slice(&piece_header(3));
        more.extend_from_slice(b"xyz");
        assert_eq!(items(&more, 64), Err(FilesError::Size));
        let mut less = Vec::new();
        put(&Record::Entry(file("a", 2)), &mut less).unwrap();
        put(&Record::End, &mut less).unwrap();
        assert_eq!(items(&less, 64), Err(FilesError::Size));
    }

    #[test]
    fn a_length_is_refused_before_it_is_allocated() {
        for (kind, length) in [(0, PIECE_MAX + 1), (1, RECORD_MAX + 1)] {
            let mut header = piece_header(length);
            header[4] = kind;
            assert!(matches!(items(&header, 9), Err(FilesError::Length(_))));
        }
        assert_eq!(items(&[0, 0, 0, 0, 7], 9), Err(FilesError::Kind(7)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = items(&bytes, 37);
        }
    }
}
