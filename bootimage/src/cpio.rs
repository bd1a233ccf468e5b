//! Archives in newc form: what the kernel unpacks as initramfs, and what is inside an RPM.
//!
//! The crate `cpio` codes the entries; here is the order of things. An initramfs is written
//! reproducibly: entries sorted by name, inode numbers in that order, no time, root's own.
//! Format: linux/Documentation/driver-api/early-userspace/buffer-format.rst.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use ::cpio::newc;

use crate::{Error, Result};

/// Entries in one archive, at most.
const MAX_ENTRIES: usize = 1_000_000;
/// Bytes of one name, at most (PATH_MAX).
const MAX_NAME: usize = 4096;

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path without a leading slash or `./`.
    pub name: String,
    /// File type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Bytes of content.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: u32,
}

impl Entry {
    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & S_IFMT == S_IFREG
    }

    /// Whether it is a folder.
    pub fn is_dir(&self) -> bool {
        self.mode & S_IFMT == S_IFDIR
    }
}

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFLNK: u32 = 0o120_000;

/// Reads one archive up to its trailer, handing each entry and its content to `visit`.
/// What `visit` leaves of the content is skipped.
pub fn read<R: Read>(
    mut input: R,
    what: &str,
    mut visit: impl FnMut(&Entry, &mut dyn Read) -> Result<()>,
) -> Result<R> {
    for _ in 0..MAX_ENTRIES {
        let mut reader = newc::Reader::new(input).map_err(Error::stream(what))?;
        let entry = reader.entry();
        if entry.is_trailer() {
            return reader.finish().map_err(Error::stream(what));
        }
        if entry.name().len() > MAX_NAME {
            return Err(Error::TooLarge {
                what: format!("a name in {what}"),
                limit: MAX_NAME as u64,
                kind: "path",
            });
        }
        let entry = Entry {
            name: entry
                .name()
                .trim_start_matches("./")
                .trim_start_matches('/')
                .to_string(),
            mode: entry.mode(),
            size: u64::from(entry.file_size()),
            mtime: entry.mtime(),
        };
        visit(&entry, &mut reader)?;
        input = reader.finish().map_err(Error::stream(what))?;
    }
    Err(Error::format(
        what,
        format!("has more than {MAX_ENTRIES} entries"),
    ))
}

/// What an initramfs is made of, by path.
#[derive(Debug, Default)]
pub struct Archive {
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug)]
enum Node {
    Folder(u32),
    File(u32, Vec<u8>),
    Link(String),
    CharDevice(u32, u32, u32),
}

impl Archive {
    /// An archive with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder with these permissions.
    pub fn folder(&mut self, path: &str, mode: u32) {
        self.nodes.insert(path.into(), Node::Folder(mode));
    }

    /// Adds a file with these permissions. Its folder has to be added, too.
    pub fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        self.nodes.insert(path.into(), Node::File(mode, content));
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.nodes.insert(path.into(), Node::Link(target.into()));
    }

    /// Adds a character device.
    pub fn char_device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.nodes
            .insert(path.into(), Node::CharDevice(mode, major, minor));
    }

    /// The archive's bytes: the same for the same nodes, in whatever order they were added.
    ///
    /// # Errors
    /// If a file has 4 GiB or more, which the format cannot say.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut inode = 0;
        for (path, node) in &self.nodes {
            inode += 1;
            let (mode, content): (u32, &[u8]) = match node {
                Node::Folder(mode) => (S_IFDIR | mode, &[]),
                Node::File(mode, content) => (S_IFREG | mode, content),
                Node::Link(target) => (S_IFLNK | 0o777, target.as_bytes()),
                Node::CharDevice(mode, ..) => (S_IFCHR | mode, &[]),
            };
            let size = u32::try_from(content.len()).map_err(|_| Error::TooLarge {
                what: path.clone(),
                limit: u64::from(u32::MAX),
                kind: "file in an initramfs",
            })?;
            let links = if matches!(node, Node::Folder(_)) {
                2
            } else {
                1
            };
            let mut entry = newc::Builder::new(path)
                .ino(inode)
                .mode(mode)
                .nlink(links)
                .mtime(0);
            if let Node::CharDevice(_, major, minor) = node {
                entry = entry.rdev_major(*major).rdev_minor(*minor);
            }
            let mut writer = entry.write(out, size);
            writer.write_all(content).map_err(Error::stream(path))?;
            out = writer.finish().map_err(Error::stream(path))?;
        }
        newc::trailer(out).map_err(Error::stream("the archive's end"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Archive {
        let mut archive = Archive::new();
        archive.file("init", 0o755, b"#!tether".to_vec());
        archive.folder("dev", 0o755);
        archive.char_device("dev/console", 0o600, 5, 1);
        archive.link("sbin", "bin");
        archive
    }

    #[test]
    fn order_of_adding_does_not_matter() {
        let mut other = Archive::new();
        other.link("sbin", "bin");
        other.char_device("dev/console", 0o600, 5, 1);
        other.folder("dev", 0o755);
        other.file("init", 0o755, b"#!tether".to_vec());
        assert_eq!(sample().to_bytes().unwrap(), other.to_bytes().unwrap());
    }

    #[test]
    fn what_is_written_is_read_back_sorted() {
        let bytes = sample().to_bytes().unwrap();
        let mut seen = Vec::new();
        read(&bytes[..], "test", |entry, content| {
            let mut text = String::new();
            content
                .read_to_string(&mut text)
                .map_err(Error::stream("test"))?;
            seen.push((entry.name.clone(), entry.mode, text));
            Ok(())
        })
        .unwrap();
        let expected = [
            ("dev", 0o040_755, ""),
            ("dev/console", 0o020_600, ""),
            ("init", 0o100_755, "#!tether"),
            ("sbin", 0o120_777, "bin"),
        ];
        assert_eq!(
            seen,
            expected.map(|(n, m, t)| (n.to_string(), m, t.to_string()))
        );
    }

    #[test]
    fn a_cut_archive_is_an_error() {
        let bytes = sample().to_bytes().unwrap();
        for len in 0..bytes.len() - 4 {
            read(&bytes[..len], "cut", |_, _| Ok(()))
                .map(|_| ())
                .unwrap_err();
        }
    }
}
