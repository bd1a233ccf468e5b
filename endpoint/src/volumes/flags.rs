//! Options of mount(8) that are flags of mount(2).

/// Flags of mount(2), linux/mount.h.
pub(crate) const RDONLY: u64 = 1;
pub(crate) const NOSUID: u64 = 2;
pub(crate) const NODEV: u64 = 4;
pub(crate) const NOEXEC: u64 = 8;
const SYNCHRONOUS: u64 = 16;
const DIRSYNC: u64 = 128;
const NOATIME: u64 = 1024;
const NODIRATIME: u64 = 2048;
const RELATIME: u64 = 1 << 21;
const STRICTATIME: u64 = 1 << 24;

/// The flags that an option sets and clears; `None` for one that is no flag. `dev` is none: nothing has devices here.
pub(crate) fn of(option: &str) -> Option<(u64, u64)> {
    Some(match option {
        "ro" => (RDONLY, 0),
        "rw" => (0, RDONLY),
        "noexec" => (NOEXEC, 0),
        "exec" => (0, NOEXEC),
        "nosuid" => (NOSUID, 0),
        "suid" => (0, NOSUID),
        "sync" => (SYNCHRONOUS, 0),
        "async" => (0, SYNCHRONOUS),
        "dirsync" => (DIRSYNC, 0),
        "noatime" => (NOATIME, 0),
        "atime" => (0, NOATIME),
        "nodiratime" => (NODIRATIME, 0),
        "diratime" => (0, NODIRATIME),
        "relatime" => (RELATIME, 0),
        "norelatime" => (0, RELATIME),
        "strictatime" => (STRICTATIME, 0),
        "nostrictatime" => (0, STRICTATIME),
        "nodev" | "defaults" => (0, 0),
        _ => return None,
    })
}
