//! A container's file tree, told as the records of [`wire::files`]: what `docker cp`, `diff`, `export` and `commit` show
//! is decided here, whoever reads the tree. The tether does while its VM is on, with the kernel's overlay; the endpoint
//! does while the VM is off, from its disk.
#![forbid(unsafe_code)]

mod changes;
mod follow;
mod output;
mod read;

pub use changes::{layer, list};
pub use follow::{Step, follow};
pub use output::Output;
pub use read::{export, read, stat};

use wire::files::{Failure, FailureKind};

/// `S_IFMT` and the types of `st_mode` (inode(7)).
const TYPE: u32 = 0o170_000;
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHAR: u32 = 0o020_000;
const BLOCK: u32 = 0o060_000;
const FIFO: u32 = 0o010_000;

/// What something in a tree is, itself: not what it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// `st_mode`, type and all.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Last change of the data: s since 1970, and ns.
    pub mtime: (i64, u32),
    /// Names that it has.
    pub links: u64,
    /// Two names with the same of these are one file.
    pub id: (u64, u64),
    /// Major and minor number, of a device.
    pub device: (u32, u32),
}

impl Found {
    fn is(&self, kind: u32) -> bool {
        self.mode & TYPE == kind
    }

    /// Whether it is a folder.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.is(FOLDER)
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.is(FILE)
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub fn is_link(&self) -> bool {
        self.is(LINK)
    }

    /// Whether it stands for something that is not there any more (Linux Documentation/filesystems/overlayfs).
    #[must_use]
    pub fn is_whiteout(&self) -> bool {
        self.is(CHAR) && self.device == (0, 0)
    }
}

/// A tree. Paths are relative to its place, clean, and no part of them but the last is a link; the empty one is the place
/// itself. What went since its name was read is `None`: a container's processes may be at work in it.
///
/// The errors of all: what could not be read, in the words of whoever reads.
pub trait Tree {
    /// An open file.
    type File;

    /// Names in a folder, sorted; none where it went.
    fn names(&mut self, folder: &[u8]) -> Result<Vec<Vec<u8>>, Failure>;

    /// What a path is.
    fn look(&mut self, path: &[u8]) -> Result<Option<Found>, Failure>;

    /// Where a link leads.
    fn link(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>, Failure>;

    /// Names of extended attributes.
    fn attribute_names(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>, Failure>;

    /// The value of an extended attribute.
    fn attribute(&mut self, path: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, Failure>;

    /// Opens a regular file; what it is by then.
    fn open(&mut self, path: &[u8]) -> Result<Option<(Self::File, Found)>, Failure>;

    /// Fills the beginning of `buf` with what comes next in a file; 0: there is no more.
    fn next(
        &mut self,
        path: &[u8],
        file: &mut Self::File,
        buf: &mut [u8],
    ) -> Result<usize, Failure>;

    /// A path as messages name it.
    fn shown(&self, path: &[u8]) -> String;
}

/// A failure that is neither the request's fault nor "not found".
pub fn system(message: impl Into<String>) -> Failure {
    Failure {
        kind: FailureKind::System,
        message: message.into(),
    }
}

/// A path below another one, both relative to the tree's place.
#[must_use]
pub fn below(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() {
        return name.to_vec();
    }
    [folder, b"/", name].concat()
}
