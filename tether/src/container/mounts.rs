//! The container's file trees: made in its own mount namespace, in its own root, so that no link
//! in the image can lead out of it.

use super::StartError;
use crate::sys::fs::{IN_ROOT, NO_MAGICLINKS, openat2};
use crate::sys::mount::{attach_tree, clone_at, clone_tree, pivot_here};
use filetree::Step;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use wire::limits::Tmpfs;
use wire::masks::{MASKED, READ_ONLY};

/// Files of the tether that are bound over the image's: (in the tether's root, in the container).
pub const FILES: [(&str, &str); 3] = [
    ("/f/hosts", "/etc/hosts"),
    ("/f/hostname", "/etc/hostname"),
    ("/f/resolv.conf", "/etc/resolv.conf"),
];

/// Where the overlay is mounted in the tether's root.
pub const OVERLAY: &str = "/c";

/// How to build the tree.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Size of /dev/shm in bytes.
    pub shm_size: u64,
    /// The root is read-only.
    pub read_only: bool,
    /// The working directory, to be made where it does not exist; empty: none.
    pub cwd: String,
    /// File systems in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// Volumes, sorted by target.
    pub mounts: Vec<VolumeMount>,
}

/// A volume, or a part of it, to be mounted.
#[derive(Debug, Clone)]
pub struct VolumeMount {
    /// The volume's root in the tether's file tree.
    pub root: String,
    /// Which part of it; empty: all.
    pub subpath: String,
    /// Where in the container.
    pub target: String,
    /// Only to read.
    pub read_only: bool,
}

const SAFE: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

fn fail(what: &str, on: &str) -> impl Fn(nix::Error) -> StartError {
    move |e| StartError::system(what, on, &e.into())
}

fn mount_at(kind: &str, target: &str, flags: MsFlags, data: &str) -> Result<(), StartError> {
    mount(Some(kind), target, Some(kind), flags, Some(data))
        .map_err(fail(&format!("mount {kind} on"), target))
}

/// Makes the container's root the root of this process, which is in a mount namespace of its own,
/// and mounts everything below it. The old root is gone afterwards.
///
/// # Errors
/// Names the mount that failed.
pub fn enter(plan: &Plan) -> Result<(), StartError> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(fail("make private", "/"))?;
    let mut files: Vec<(OwnedFd, &str)> = Vec::new();
    for (source, target) in FILES {
        let path = CString::new(source).map_err(|_| StartError::other("a path with NUL"))?;
        files.push((
            clone_tree(&path).map_err(|e| StartError::system("clone mount", source, &e))?,
            target,
        ));
    }
    let volumes: Vec<_> = plan
        .mounts
        .iter()
        .map(|mount| Ok((volume_tree(mount)?, mount)))
        .collect::<Result<_, StartError>>()?;
    nix::unistd::chdir(OVERLAY).map_err(fail("chdir to", OVERLAY))?;
    pivot_here().map_err(|e| StartError::system("pivot_root to", OVERLAY, &e))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(fail("detach", "the old root"))?;
    nix::unistd::chdir("/").map_err(fail("chdir to", "/"))?;

    for folder in ["/proc", "/sys", "/dev", "/etc"] {
        make_folder(folder)?;
    }
    // What is made here is no change by the container (`docker diff`).
    let etc = std::fs::metadata("/etc").and_then(|m| m.modified());
    mount_at("proc", "/proc", SAFE, "")?;
    mount_at("sysfs", "/sys", SAFE | MsFlags::MS_RDONLY, "")?;
    mount_at("cgroup2", "/sys/fs/cgroup", SAFE | MsFlags::MS_RDONLY, "")?;
    devices(plan.shm_size)?;
    for (target, over) in in_order(&files, &volumes, &plan.tmpfs) {
        over.mount(target)?;
    }
    if let (Ok(time), Ok(folder)) = (etc, File::open("/etc")) {
        // On a folder that cannot be changed nothing was.
        let _ = folder.set_modified(time);
    }
    if !plan.cwd.is_empty() {
        make_folder(&plan.cwd)?;
    }
    for path in READ_ONLY {
        read_only(path)?;
    }
    for path in MASKED {
        mask(path)?;
    }
    if plan.read_only {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
        mount(none, "/", none, flags, none).map_err(fail("remount read-only", "/"))?;
    }
    Ok(())
}

/// What is mounted over a place in the container's tree.
#[derive(Debug)]
enum Over<'a> {
    /// One of [`FILES`].
    File(&'a OwnedFd),
    /// A volume, or a part of it; whether it is a folder.
    Volume(&'a OwnedFd, bool),
    /// A file system in memory.
    Tmpfs(&'a Tmpfs),
}

impl Over<'_> {
    fn mount(&self, target: &str) -> Result<(), StartError> {
        match self {
            Over::File(tree) => {
                make_file(target)?;
                let path =
                    CString::new(target).map_err(|_| StartError::other("a path with NUL"))?;
                attach_tree(tree.as_fd(), &path)
                    .map_err(|e| StartError::system("bind on", target, &e))
            }
            Over::Volume(tree, folder) => attach_volume(tree, *folder, target),
            Over::Tmpfs(tmpfs) => {
                make_folder(target)?;
                let flags = MsFlags::from_bits_truncate(tmpfs.flags) | MsFlags::MS_NODEV;
                mount_at("tmpfs", target, flags, &tmpfs.data)
            }
        }
    }
}

/// All that is mounted, with its place: as dockerd has it, an outer one before what is in it, of whatever kind they are,
/// so that none hides another. A volume at the place of one of the files is there in its stead.
fn in_order<'a>(
    files: &'a [(OwnedFd, &'a str)],
    volumes: &'a [((OwnedFd, bool), &'a VolumeMount)],
    tmpfs: &'a [Tmpfs],
) -> Vec<(&'a str, Over<'a>)> {
    let given = |target: &str| volumes.iter().any(|(_, mount)| mount.target == target);
    let of_volumes = volumes
        .iter()
        .map(|((tree, folder), mount)| (mount.target.as_str(), Over::Volume(tree, *folder)));
    let of_files = files.iter().filter(|(_, target)| !given(target));
    let of_files = of_files.map(|(tree, target)| (*target, Over::File(tree)));
    let in_memory = tmpfs
        .iter()
        .map(|one| (one.path.as_str(), Over::Tmpfs(one)));
    let mut all: Vec<_> = of_volumes.chain(of_files).chain(in_memory).collect();
    all.sort_by_key(|(target, _)| Path::new(target).components().count());
    all
}

fn make_folder(path: &str) -> Result<(), StartError> {
    std::fs::create_dir_all(path).map_err(|e| StartError::system("mkdir", path, &e))
}

fn make_file(path: &str) -> Result<(), StartError> {
    if Path::new(path).exists() {
        return Ok(());
    }
    if Path::new(path).is_symlink() {
        // A dangling link (resolv.conf often is one): the file takes its place.
        std::fs::remove_file(path)
            .map_err(|e| StartError::system("replace the dangling link", path, &e))?;
    }
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map(drop)
        .map_err(|e| StartError::system("create", path, &e))
}

/// A volume, or a part of it, as a tree that can be attached; and whether it is a folder.
///
/// # Errors
/// Where the part is not there, or leads out of the volume.
pub fn volume_tree(mount: &VolumeMount) -> Result<(OwnedFd, bool), StartError> {
    let fail = |e: io::Error| StartError::system("cannot access path", &mount.subpath, &e);
    let root = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(&mount.root)
        .map_err(|e| StartError::system("open the volume for", &mount.target, &e))?;
    let place = if mount.subpath.is_empty() {
        root
    } else {
        // The volume is its own root: no link in it leads out.
        let path = CString::new(mount.subpath.as_str()).map_err(|e| fail(e.into()))?;
        let flags = libc::O_PATH;
        let found = openat2(Some(root.as_fd()), &path, flags, IN_ROOT | NO_MAGICLINKS);
        File::from(found.map_err(fail)?)
    };
    let folder = place.metadata().map_err(fail)?.is_dir();
    let tree = clone_at(place.as_fd(), mount.read_only)
        .map_err(|e| StartError::system("clone the volume for", &mount.target, &e))?;
    Ok((tree, folder))
}

/// Attaches a volume's tree at a path in the present root; what is missing of it is made.
///
/// # Errors
/// Names the path.
pub fn attach_volume(tree: &OwnedFd, folder: bool, target: &str) -> Result<(), StartError> {
    let fail =
        |e: io::Error| StartError::system("error mounting the volume to rootfs at", target, &e);
    let place = make_target(Path::new(target), folder).map_err(fail)?;
    let path = CString::new(place.into_os_string().into_encoded_bytes());
    attach_tree(tree.as_fd(), &path.map_err(|e| fail(e.into()))?).map_err(fail)
}

/// Makes what is missing of a path, of which no part is a link then. Links that lead nowhere are followed, too: as
/// Docker does, inside the root.
fn make_target(path: &Path, folder: bool) -> io::Result<PathBuf> {
    follow(path, &mut |missing, last| match last && !folder {
        true => File::create(missing).map(drop),
        false => std::fs::create_dir(missing),
    })
}

/// Follows all links of a path, inside the root; what is missing on the way is shown to `missing`, with whether it is
/// the last part.
///
/// # Errors
/// The system's, `missing`'s, `ELOOP` for more links than the kernel would follow.
pub fn follow(
    path: &Path,
    missing: &mut dyn FnMut(&Path, bool) -> io::Result<()>,
) -> io::Result<PathBuf> {
    let at = |next: &[u8], last: bool| {
        let next = Path::new(OsStr::from_bytes(next));
        match std::fs::symlink_metadata(next) {
            Ok(found) if found.is_symlink() => {
                let link = std::fs::read_link(next)?;
                return Ok(Step::Link(link.into_os_string().into_vec()));
            }
            Ok(_) => {}
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Err(_) => missing(next, last)?,
        }
        Ok(Step::Other)
    };
    let too_many = || io::Error::from_raw_os_error(libc::ELOOP);
    let path = filetree::follow(path.as_os_str().as_bytes(), too_many, at)?;
    Ok(OsString::from_vec(path).into())
}

/// A /dev of its own: the usual nodes on a tmpfs, the only file system that has device nodes.
fn devices(shm_size: u64) -> Result<(), StartError> {
    mount_at(
        "tmpfs",
        "/dev",
        MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME,
        "mode=755,size=65536k",
    )?;
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ] {
        let path = format!("/dev/{name}");
        let mode = Mode::from_bits_truncate(0o666);
        mknod(path.as_str(), SFlag::S_IFCHR, mode, makedev(major, minor))
            .map_err(fail("mknod", &path))?;
        nix::sys::stat::fchmodat(
            nix::fcntl::AT_FDCWD,
            path.as_str(),
            mode,
            nix::sys::stat::FchmodatFlags::FollowSymlink,
        )
        .map_err(fail("chmod", &path))?;
    }
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("pts/ptmx", "/dev/ptmx"),
        ("/proc/kcore", "/dev/core"),
    ] {
        symlink(target, link).map_err(|e| StartError::system("symlink", link, &e))?;
    }
    for folder in ["/dev/pts", "/dev/shm", "/dev/mqueue"] {
        std::fs::create_dir(folder).map_err(|e| StartError::system("mkdir", folder, &e))?;
    }
    mount_at(
        "devpts",
        "/dev/pts",
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
    )?;
    mount_at(
        "tmpfs",
        "/dev/shm",
        SAFE,
        &format!("mode=1777,size={shm_size}"),
    )?;
    match mount(
        Some("mqueue"),
        "/dev/mqueue",
        Some("mqueue"),
        SAFE,
        None::<&str>,
    ) {
        // A kernel without POSIX message queues.
        Ok(()) | Err(nix::Error::ENODEV) => Ok(()),
        Err(e) => Err(fail("mount mqueue on", "/dev/mqueue")(e)),
    }
}

/// Binds the terminal of the container's process over /dev/console.
///
/// # Errors
/// Names what failed.
pub fn console(number: u32) -> Result<(), StartError> {
    make_file("/dev/console")?;
    let source = format!("/dev/pts/{number}");
    mount(
        Some(source.as_str()),
        "/dev/console",
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .map_err(fail("bind on", "/dev/console"))
}

fn read_only(path: &str) -> Result<(), StartError> {
    let none = None::<&str>;
    match mount(
        Some(path),
        path,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    ) {
        Ok(()) => {}
        Err(nix::Error::ENOENT) => return Ok(()),
        Err(e) => return Err(fail("bind", path)(e)),
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | SAFE;
    mount(none, path, none, flags, none).map_err(fail("remount read-only", path))
}

fn mask(path: &str) -> Result<(), StartError> {
    let none = None::<&str>;
    match std::fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(m) if m.is_dir() => mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            SAFE | MsFlags::MS_RDONLY,
            Some("size=0k"),
        )
        .map_err(fail("mask", path)),
        Ok(_) => {
            mount(Some("/dev/null"), path, none, MsFlags::MS_BIND, none).map_err(fail("mask", path))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outer_mount_comes_before_what_is_in_it_of_whatever_kind_they_are() {
        let tree = || OwnedFd::from(File::open("/").unwrap());
        let volume = |target: &str| VolumeMount {
            root: String::new(),
            subpath: String::new(),
            target: target.into(),
            read_only: false,
        };
        let tmpfs = |path: &str| Tmpfs {
            path: path.into(),
            flags: 0,
            data: String::new(),
        };
        let (inner, hosts, outer) = (volume("/data/db"), volume("/etc/hosts"), volume("/run"));
        let volumes = [&inner, &hosts, &outer].map(|mount| ((tree(), true), mount));
        let files = FILES.map(|(_, target)| (tree(), target));
        let memory = ["/run/a/b", "/data/", "/etc"].map(tmpfs);
        let all = in_order(&files, &volumes, &memory);
        let places: Vec<&str> = all.iter().map(|(target, _)| *target).collect();
        assert_eq!(
            places,
            [
                "/run",
                "/data/",
                "/etc",
                "/data/db",
                "/etc/hosts",
                "/etc/hostname",
                "/etc/resolv.conf",
                "/run/a/b"
            ]
        );
        assert!(matches!(all[4].1, Over::Volume(..)), "{:?}", all[4]);
    }
}
