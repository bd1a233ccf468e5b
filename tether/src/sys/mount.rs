//! Mount calls that move file trees by descriptor (open_tree(2), move_mount(2)) and pivot_root(2).

use super::check;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Clones the mount at `path` (not what is mounted below it) into a detached tree.
///
/// # Errors
/// Those of open_tree(2).
pub fn clone_tree(path: &CStr) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: u32 = 1;
    const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC as u32;
    // SAFETY: `path` is NUL-terminated; flags are plain numbers.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            libc::AT_FDCWD,
            path.as_ptr(),
            OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC,
        )
    })?;
    // SAFETY: the kernel just returned this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Clones the mount that `place` is on into a detached tree with `place` as its root, without devices.
///
/// # Errors
/// Those of open_tree(2) and mount_setattr(2).
pub fn clone_at(place: BorrowedFd<'_>, read_only: bool) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: i32 = 1;
    const MOUNT_ATTR_RDONLY: u64 = 1;
    const MOUNT_ATTR_NODEV: u64 = 4;
    /// `struct mount_attr`, linux/mount.h.
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    // SAFETY: the path is a NUL-terminated literal; the descriptor is borrowed for the call.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            place.as_raw_fd(),
            c"".as_ptr(),
            OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_EMPTY_PATH,
        )
    })?;
    // SAFETY: the kernel just returned this descriptor; nobody else owns it.
    let tree = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let attributes = MountAttr {
        set: MOUNT_ATTR_NODEV | if read_only { MOUNT_ATTR_RDONLY } else { 0 },
        clear: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: `attributes` is a live `struct mount_attr` of the size given, which the kernel reads.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    })?;
    Ok(tree)
}

/// Attaches a detached tree at `target`.
///
/// # Errors
/// Those of move_mount(2).
pub fn attach_tree(tree: BorrowedFd<'_>, target: &CStr) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
    // MOVE_MOUNT_T_SYMLINKS: a link in the image is followed, inside the container's own root.
    const MOVE_MOUNT_T_SYMLINKS: u32 = 0x10;
    // SAFETY: both paths are NUL-terminated; the descriptor is borrowed for the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS,
        )
    })
    .map(drop)
}

/// pivot_root(".", "."): the working directory becomes the root and the old root is stacked on it.
///
/// # Errors
/// Those of pivot_root(2).
pub fn pivot_here() -> io::Result<()> {
    // SAFETY: both paths are NUL-terminated literals.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}
