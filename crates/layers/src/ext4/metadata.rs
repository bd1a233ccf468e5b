//! What an entry carries besides its name and data.

use std::fmt;

/// A point in time as ext4 keeps it: nanoseconds, from 1901-12-13 to 2446-05-10. What lies outside
/// is clamped to the nearer end, as the kernel does. (`e2fsck` takes times from 2310-04-04 on for
/// the mark of an old kernel's bug and offers to correct them; the kernel reads them as they are.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970-01-01T00:00:00Z, rounded towards the past.
    pub secs: i64,
    /// Nanoseconds after `secs`, 0 to 999,999,999 (what is above is clamped).
    pub nanos: u32,
}

impl Time {
    const FIRST: i64 = i32::MIN as i64;
    const LAST: i64 = (3 << 32) + i32::MAX as i64;

    /// The time that many seconds after 1970.
    #[must_use]
    pub fn from_secs(secs: i64) -> Self {
        Self { secs, nanos: 0 }
    }

    /// The two on-disk words: seconds' low 32 bits, and nanoseconds with two further epoch bits.
    pub(super) fn encode(self) -> (u32, u32) {
        let time = if self.secs < Self::FIRST {
            Self {
                secs: Self::FIRST,
                nanos: 0,
            }
        } else if self.secs > Self::LAST {
            Self {
                secs: Self::LAST,
                nanos: 0,
            }
        } else {
            self
        };
        let low = time.secs as i32;
        let epoch = ((time.secs - i64::from(low)) >> 32) as u32 & 3;
        (low as u32, time.nanos.min(999_999_999) << 2 | epoch)
    }

    /// The time of the two words.
    pub(super) fn decode(low: u32, extra: u32) -> Self {
        Self {
            secs: i64::from(low as i32) + (i64::from(extra & 3) << 32),
            nanos: (extra >> 2).min(999_999_999),
        }
    }
}

/// Mode, owner, times and extended attributes of an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits with setuid, setgid and sticky: the low 12 bits count, the type is the call's.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the data.
    pub mtime: Time,
    /// Last access.
    pub atime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Full names (`user.…`, `trusted.…`, `security.…`, `system.posix_acl_access`,
    /// `system.posix_acl_default`) and values, in any order; of two with one name the last one
    /// counts. POSIX ACLs come in the form that `getxattr` gives (version 2) and are turned into
    /// ext4's own. All of an entry's share 4,064 bytes of a block and 92 of the inode, so a value
    /// has 3,789 bytes at most: what is above is refused. `trusted.overlay.*` is refused, since it would steer
    /// overlayfs: see [`super::Builder::opaque`] and [`super::Builder::whiteout`].
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Metadata {
    /// Metadata of root's, with all times the same and no attributes.
    #[must_use]
    pub fn new(mode: u16, time: Time) -> Self {
        Self {
            mode,
            mtime: time,
            atime: time,
            ctime: time,
            ..Self::default()
        }
    }
}

/// The two kinds of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Directory.
    Directory,
    /// Regular file.
    File,
    /// Symbolic link.
    Symlink,
    /// Character device, other than a whiteout.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
    /// overlayfs's whiteout: character device 0:0.
    Whiteout,
}

impl Kind {
    /// Those with numbers of their own; a whiteout is a character device.
    const STORED: [Self; 7] = [
        Self::File,
        Self::Directory,
        Self::CharDevice,
        Self::BlockDevice,
        Self::Fifo,
        Self::Socket,
        Self::Symlink,
    ];

    /// What the type bits of `st_mode` say.
    pub(super) fn of_mode(mode: u16) -> Option<Self> {
        Self::STORED
            .into_iter()
            .find(|kind| kind.mode_bits() == mode & 0o170_000)
    }

    /// What the file type byte of a directory entry says.
    pub(super) fn of_dirent(byte: u8) -> Option<Self> {
        Self::STORED
            .into_iter()
            .find(|kind| kind.dirent_type() == byte)
    }

    /// The type bits of `st_mode`.
    #[must_use]
    pub fn mode_bits(self) -> u16 {
        match self {
            Self::Fifo => 0o010_000,
            Self::CharDevice | Self::Whiteout => 0o020_000,
            Self::Directory => 0o040_000,
            Self::BlockDevice => 0o060_000,
            Self::File => 0o100_000,
            Self::Symlink => 0o120_000,
            Self::Socket => 0o140_000,
        }
    }

    /// The file type byte of a directory entry.
    pub(super) fn dirent_type(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Directory => 2,
            Self::CharDevice | Self::Whiteout => 3,
            Self::BlockDevice => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
            Self::Symlink => 7,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "directory",
            Self::File => "file",
            Self::Symlink => "symbolic link",
            Self::CharDevice => "character device",
            Self::BlockDevice => "block device",
            Self::Fifo => "named pipe",
            Self::Socket => "socket",
            Self::Whiteout => "whiteout",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_take_the_kernels_extra_bits() {
        // Documentation/filesystems/ext4/inodes.rst, "Inode Timestamps": the table of epochs.
        let cases = [
            (-1, (0xffff_ffff, 0)),
            (i64::from(i32::MIN), (0x8000_0000, 0)),
            (0, (0, 0)),
            (0x7fff_ffff, (0x7fff_ffff, 0)),
            (0x8000_0000, (0x8000_0000, 1)),
            (0x1_0000_0000, (0, 1)),
            (0x2_7fff_ffff, (0x7fff_ffff, 2)),
            (0x3_7fff_ffff, (0x7fff_ffff, 3)),
            (i64::MAX, (0x7fff_ffff, 3)),
            (i64::MIN, (0x8000_0000, 0)),
        ];
        for (secs, words) in cases {
            assert_eq!(Time::from_secs(secs).encode(), words, "{secs}");
        }
        let time = Time {
            secs: 5,
            nanos: 999_999_999,
        };
        assert_eq!(time.encode(), (5, 999_999_999 << 2));
    }
}
