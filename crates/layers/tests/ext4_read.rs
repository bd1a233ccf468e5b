//! The ext4 reader against Linux and e2fsprogs: what they wrote is read as they read it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/ext4.rs"]
mod ext4;

use ext4::{Mount, alone, assert_same, read_folder, read_image};
use layers::ext4::read::Filesystem;
use layers::ext4::{Builder, EmptyOptions, Metadata, Options, Time, format_empty};
use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, Timespec, Timestamps};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

fn mkfs(image: &Path, size: &str, options: &[&str]) {
    let out = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-E", "nodiscard"])
        .args(options)
        .arg(image)
        .arg(size)
        .output()
        .expect("mkfs.ext4 (Debian package e2fsprogs)");
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "mkfs.ext4 {options:?}: {text}");
}

fn open(image: &Path) -> Filesystem<File> {
    Filesystem::open(File::open(image).unwrap()).unwrap()
}

fn set_times(path: &Path, secs: i64, nanos: i64) {
    let time = Timespec {
        tv_sec: secs,
        tv_nsec: nanos as _,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn xattr(path: &Path, name: &str, value: &[u8]) -> bool {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).is_ok()
}

/// One of everything that Linux can put into a folder.
fn fill(root: &Path) {
    let at = |name: &str| root.join(name);
    for size in [0, 1, 59, 60, 61, 150, 1023, 1024, 4095, 4096, 4097, 70_000] {
        std::fs::write(at(&format!("size-{size}")), vec![size as u8 | 1; size]).unwrap();
    }
    std::fs::create_dir(at("folder")).unwrap();
    std::fs::create_dir(at("empty")).unwrap();
    for depth in 1..20 {
        std::fs::create_dir_all(root.join("deep").join("d/".repeat(depth))).unwrap();
    }
    std::fs::write(at("folder/a name\nof two lines"), "x").unwrap();
    std::fs::write(root.join("folder").join("n".repeat(255)), "y").unwrap();
    std::fs::hard_link(at("size-1024"), at("folder/link")).unwrap();
    for length in [1, 58, 59, 60, 61, 155, 156, 1022, 1023] {
        symlink("t".repeat(length), at(&format!("to-{length}"))).unwrap();
    }
    let _ = symlink("t".repeat(4095), at("to-4095"));
    // Odd pieces, so that there are many extents; most of them freed again below.
    let pieces = File::create(at("pieces")).unwrap();
    for i in 0..500u32 {
        pieces
            .write_all_at(&[i as u8 | 1; 4096], u64::from(i) * 8192)
            .unwrap();
    }
    let holes = File::create(at("holes")).unwrap();
    holes.write_all_at(b"after a hole", 300_000).unwrap();
    holes.set_len(1_000_001).unwrap();
    let far = File::create(at("far")).unwrap();
    far.write_all_at(b"far", 12_000_000).unwrap();
    // What was asked for and never written reads as zeros.
    let asked = File::create(at("asked")).unwrap();
    if rustix::fs::fallocate(&asked, FallocateFlags::empty(), 0, 200_000).is_ok() {
        asked.write_all_at(b"in the middle", 100_000).unwrap();
    }
    std::fs::create_dir(at("many")).unwrap();
    for i in 0..1000 {
        File::create(
            root.join("many")
                .join(format!("a name that is not short {i}")),
        )
        .unwrap();
    }
    for i in (0..1000).step_by(3) {
        std::fs::remove_file(
            root.join("many")
                .join(format!("a name that is not short {i}")),
        )
        .unwrap();
    }
    // Blocks without any name in the middle of a folder.
    std::fs::create_dir(at("hollow")).unwrap();
    for i in 0..400 {
        symlink("x", root.join("hollow").join(format!("{i:0150}"))).unwrap();
    }
    for i in 3..399 {
        std::fs::remove_file(root.join("hollow").join(format!("{i:0150}"))).unwrap();
    }
    for (name, kind, device) in [
        ("null", FileType::CharacterDevice, (1, 3)),
        ("large", FileType::BlockDevice, (259, 70_000)),
        ("largest", FileType::CharacterDevice, (4095, 1_048_575)),
        ("major", FileType::BlockDevice, (255, 255)),
        ("whiteout", FileType::CharacterDevice, (0, 0)),
        ("minor", FileType::CharacterDevice, (0, 7)),
        ("pipe", FileType::Fifo, (0, 0)),
        ("socket", FileType::Socket, (0, 0)),
    ] {
        let device = rustix::fs::makedev(device.0, device.1);
        rustix::fs::mknodat(rustix::fs::CWD, at(name), kind, Mode::from(0o640), device).unwrap();
    }
    rustix::fs::chownat(
        rustix::fs::CWD,
        at("size-1"),
        Some(rustix::fs::Uid::from_raw(70_000)),
        Some(rustix::fs::Gid::from_raw(3_000_000_000)),
        AtFlags::empty(),
    )
    .unwrap();
    std::fs::set_permissions(
        at("size-0"),
        std::os::unix::fs::PermissionsExt::from_mode(0o6711),
    )
    .unwrap();
    for (name, secs, nanos) in [
        ("size-59", -1, 999_999_999),
        ("size-60", -2_000_000_000, 1),
        ("size-61", 4_102_444_800, 123_456_789),
        ("size-150", 15_032_385_535, 0),
        ("to-60", 1, 2),
    ] {
        set_times(&at(name), secs, nanos);
    }
    for (name, key, value) in [
        ("size-1", "user.short", &b"1"[..]),
        ("size-1", "user.empty", b""),
        ("size-1023", "user.block", &[7; 900]),
        ("size-1023", "user.other", b"in the inode"),
        ("size-0", "security.capability", &CAPABILITY),
        ("folder", "trusted.overlay.opaque", b"y"),
        ("to-58", "trusted.of.a.link", b"\0\xff"),
    ] {
        assert!(xattr(&at(name), key, value), "{name} {key}");
    }
    xattr(&at("size-4096"), "user.large", &[9; 3000]);
    // user::rw- user:1234:r-- group::r-- mask::r-- other::---
    let acl = [
        (1u16, 6u16, !0u32),
        (2, 4, 1234),
        (4, 4, !0),
        (0x10, 4, !0),
        (0x20, 0, !0),
    ]
    .iter()
    .fold(2u32.to_le_bytes().to_vec(), |mut out, (tag, perm, id)| {
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&perm.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
        out
    });
    assert!(xattr(&at("size-4097"), "system.posix_acl_access", &acl));
    assert!(xattr(&at("folder"), "system.posix_acl_default", &acl));
}

const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Fills a file system of these features by way of Linux, and reads it.
fn round(options: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    mkfs(&image, "64M", options);
    let Some(mount) = Mount::new(&image, "loop") else {
        return;
    };
    fill(&mount.0);
    drop(mount);
    let ours = read_image(&open(&image)).unwrap();
    let mount = Mount::new(&image, "loop,ro").unwrap();
    assert_same(&ours, &read_folder(&mount.0), &format!("{options:?}"));
    assert!(ours.len() > 700, "{}", ours.len());
}

#[test]
fn what_linux_writes_is_read_whole_with_the_features_of_today() {
    let _alone = alone();
    round(&["-O", "metadata_csum_seed,orphan_file,large_dir"]);
    // Where the superblock's block is not the first one of data.
    round(&["-b", "1024", "-O", "bigalloc,^has_journal"]);
}

#[test]
fn what_linux_writes_is_read_whole_without_checksums_and_with_small_inodes() {
    let _alone = alone();
    round(&["-b", "2048", "-O", "^metadata_csum,^64bit,^resize_inode"]);
}

#[test]
fn what_linux_writes_is_read_whole_from_inline_data() {
    let _alone = alone();
    round(&["-b", "4096", "-O", "inline_data"]);
    round(&["-b", "1024", "-I", "1024", "-O", "inline_data"]);
}

#[test]
fn what_linux_writes_is_read_whole_from_lists_of_blocks() {
    let _alone = alone();
    round(&[
        "-b",
        "1024",
        "-O",
        "^extents,^metadata_csum,^64bit,^dir_index",
    ]);
}

#[test]
fn a_folder_that_mkfs_copied_is_read_as_it_was() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (image, from) = (dir.path().join("image"), dir.path().join("from"));
    std::fs::create_dir(&from).unwrap();
    std::fs::create_dir(from.join("many")).unwrap();
    for i in 0..3000 {
        std::fs::write(from.join(format!("many/{i}")), format!("{i}")).unwrap();
    }
    std::fs::write(from.join("large"), vec![3; 3_000_000]).unwrap();
    symlink("x".repeat(300), from.join("link")).unwrap();
    mkfs(&image, "64M", &["-d", from.to_str().unwrap()]);
    let fs = open(&image);
    let (mut ours, theirs) = (read_image(&fs).unwrap(), read_folder(&from));
    assert!(ours.remove(&b"lost+found"[..]).is_some());
    let names = |tree: &ext4::Tree| -> Vec<_> {
        tree.iter()
            .map(|(path, r)| {
                (
                    path.clone(),
                    r.kind,
                    r.mode,
                    r.content.clone(),
                    r.mtime.secs,
                )
            })
            .skip(1)
            .collect()
    };
    assert!(names(&ours) == names(&theirs));
    let many = fs.lookup(&fs.root().unwrap(), b"many").unwrap().unwrap();
    let many = fs.inode(many.inode).unwrap();
    let found = fs.lookup(&many, b"2999").unwrap().unwrap();
    assert_eq!(found.inode, ours[&b"many/2999"[..]].inode);
    assert_eq!(fs.lookup(&many, b"3000").unwrap(), None);
    assert_eq!(from.join("many").metadata().unwrap().nlink(), 2);
}

/// A disk that counts the reads of it.
struct Counted(File, AtomicU64);

impl layers::ReadAt for Counted {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        FileExt::read_exact_at(&self.0, buf, offset)
    }

    fn size(&self) -> std::io::Result<u64> {
        layers::ReadAt::size(&self.0)
    }
}

#[test]
fn names_are_found_by_their_hashes_in_folders_of_linux_and_of_ours() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (image, layer) = (dir.path().join("image"), dir.path().join("layer"));
    let name = |i: u32| format!("a name that fills the folder's blocks {i:06}");
    let mut images = vec![&layer];
    let mut b = Builder::new(File::create(&layer).unwrap(), Options::new([9; 16]));
    for i in 0..4000 {
        let path = format!("many/{}", name(i));
        b.fifo(path.as_bytes(), &Metadata::new(0o644, Time::default()))
            .unwrap();
    }
    b.finish().unwrap();
    let mut file = File::create(&image).unwrap();
    file.set_len(80 << 20).unwrap();
    format_empty(&mut file, 80 << 20, &EmptyOptions::new([5; 16])).unwrap();
    if let Some(mount) = Mount::new(&image, "loop") {
        std::fs::create_dir(mount.0.join("many")).unwrap();
        for i in 0..4000 {
            let path = mount.0.join("many").join(name(i));
            rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::from(0o640), 0)
                .unwrap();
        }
        images.push(&image);
    }
    for image in images {
        let fs = Filesystem::open(Counted(File::open(image).unwrap(), AtomicU64::new(0))).unwrap();
        let many = fs.lookup(&fs.root().unwrap(), b"many").unwrap().unwrap();
        let many = fs.inode(many.inode).unwrap();
        let all: Vec<_> = fs.entries(&many).unwrap().map(Result::unwrap).collect();
        assert_eq!(all.len(), 4000);
        for entry in &all {
            assert_eq!(fs.lookup(&many, &entry.name).unwrap().as_ref(), Some(entry));
        }
        for i in 4000..4500 {
            assert_eq!(fs.lookup(&many, name(i).as_bytes()).unwrap(), None);
        }
        // A look-up in a fresh one: the superblock, root and folder with their inodes, tree and leaf.
        let fs = Filesystem::open(Counted(File::open(image).unwrap(), AtomicU64::new(0))).unwrap();
        fs.lookup(&many, &all[2000].name).unwrap().unwrap();
        let reads = fs.source().1.load(Ordering::Relaxed);
        assert!(reads <= 5, "{reads} reads");
    }
}

#[test]
fn a_file_in_many_pieces_is_read_in_order_with_its_tree_once() {
    let mut image = Vec::new();
    let pieces = 3000u32;
    let mut b = Builder::new(layers::ext4::Recording::default(), Options::new([3; 16]));
    let mut file = b
        .file(b"pieces", &Metadata::new(0o644, Time::default()))
        .unwrap();
    for i in 0..pieces {
        file.write(&[i as u8 | 1; 4096]).unwrap();
        file.skip(4096).unwrap();
    }
    file.finish().unwrap();
    let (summary, recording) = b.finish_into().unwrap();
    image.resize(summary.bytes as usize, 0);
    for (at, bytes) in recording.writes {
        image[at as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("image"), &image).unwrap();
    let counted = Counted(
        File::open(dir.path().join("image")).unwrap(),
        AtomicU64::new(0),
    );
    let fs = Filesystem::open(counted).unwrap();
    let entry = fs.lookup(&fs.root().unwrap(), b"pieces").unwrap().unwrap();
    let inode = fs.inode(entry.inode).unwrap();
    let before = fs.source().1.load(Ordering::Relaxed);
    let mut file = fs.file(&inode).unwrap();
    let (mut offset, mut buf) = (0, vec![0; 65_536]);
    while offset < inode.size {
        let count = file.read_at(offset, &mut buf).unwrap();
        for (i, half) in buf[..count].chunks(4096).enumerate() {
            let number = offset / 4096 + i as u64;
            let byte = if number.is_multiple_of(2) {
                (number / 2) as u8 | 1
            } else {
                0
            };
            assert!(half.iter().all(|b| *b == byte), "block {number}");
        }
        offset += count as u64;
    }
    assert_eq!(offset, u64::from(pieces) * 8192);
    // 340 extents are in a leaf; one node is above them.
    let reads = fs.source().1.load(Ordering::Relaxed) - before;
    assert_eq!(reads, u64::from(pieces + pieces.div_ceil(340) + 1));
}

/// The disk as it is while it is mounted: what a killed VM leaves. `seed` chooses what is done before.
struct Cut {
    /// Deleted while it is open: an orphan.
    open: Option<File>,
    mount: Option<Mount>,
    dir: tempfile::TempDir,
    random: u64,
    names: u64,
}

impl Cut {
    fn new(options: &[&str], how: &str, seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        mkfs(&image, "48M", options);
        // Only what is asked for is committed, so that the disk is still while it is copied.
        let mount = Mount::new(&image, &format!("loop,commit=300,{how}"));
        Self {
            open: None,
            mount,
            dir,
            random: seed,
            names: 0,
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % end
    }

    /// One change: folders whose blocks are given to files later (revoked), files cut and grown.
    fn change(&mut self, root: &Path) {
        let folder = root.join(format!("f{}", self.below(6)));
        match self.below(8) {
            0 => drop(std::fs::remove_dir_all(&folder)),
            1 | 2 => {
                let _ = std::fs::create_dir(&folder);
                for _ in 0..self.below(300) {
                    self.names += 1;
                    let _ = File::create(folder.join(format!("{:0200}", self.names)));
                }
            }
            3..=5 => {
                let _ = std::fs::create_dir(&folder);
                let size = self.below(200_000) as usize;
                // The journal's own magic number at a block's start: it is escaped where data is journaled.
                let data = [&[0xc0, 0x3b, 0x39, 0x98][..], &vec![self.names as u8; 4092]].concat();
                let data: Vec<u8> = data.into_iter().cycle().take(size).collect();
                self.names += 1;
                std::fs::write(folder.join(format!("data{}", self.below(9))), data).unwrap();
            }
            6 => {
                let name = folder.join(format!("data{}", self.below(9)));
                let size = self.below(300_000);
                if let Ok(file) = File::options().write(true).open(&name) {
                    file.set_len(size).unwrap();
                    xattr(&name, "user.size", &vec![1; self.below(3000) as usize]);
                }
            }
            _ => {
                let _ = std::fs::rename(folder, root.join(format!("f{}", self.below(6))));
            }
        }
    }

    /// Changes, commits some of them, and copies the disk; gives the copy.
    fn cut(&mut self, changes: u32) -> Option<std::path::PathBuf> {
        let root = self.mount.as_ref()?.0.clone();
        for _ in 0..changes {
            self.change(&root);
        }
        let orphan = root.join("orphan");
        std::fs::write(&orphan, vec![5; 100_000]).unwrap();
        self.open = Some(File::open(&orphan).unwrap());
        std::fs::remove_file(&orphan).unwrap();
        let root = File::open(&root).unwrap();
        rustix::fs::fsync(&root).unwrap();
        let copy = self.dir.path().join("copy");
        let status = Command::new("cp")
            .arg("--sparse=always")
            .arg(self.dir.path().join("image"))
            .arg(&copy)
            .status();
        assert!(status.unwrap().success());
        Some(copy)
    }
}

fn dirty(image: &Path) -> bool {
    let mut word = [0; 4];
    File::open(image)
        .unwrap()
        .read_exact_at(&mut word, 1024 + 0x60)
        .unwrap();
    u32::from_le_bytes(word) & 4 != 0
}

/// Reads disks that were cut off by their journals, and has Linux replay the same ones.
fn cuts(options: &[&str], how: &str, seed: u64, rounds: u32) {
    let mut cut = Cut::new(options, how, seed);
    for round in 0..rounds {
        let Some(copy) = cut.cut(40) else {
            return;
        };
        let what = format!("{options:?}, seed {seed}, round {round}");
        assert!(dirty(&copy), "{what}");
        let ours = read_image(&open(&copy)).unwrap_or_else(|error| panic!("{what}: {error}"));
        let mount = Mount::new(&copy, "loop,noatime").unwrap();
        assert_same(&ours, &read_folder(&mount.0), &what);
        drop(mount);
        assert!(!dirty(&copy), "{what}: Linux replayed it");
        // And once it is replayed, reading it plainly gives the same.
        assert_same(&ours, &read_image(&open(&copy)).unwrap(), &what);
    }
}

#[test]
fn a_disk_that_was_cut_off_is_read_as_linux_replays_it() {
    let _alone = alone();
    cuts(&["-J", "size=4", "-O", "orphan_file"], "data=ordered", 1, 4);
}

#[test]
fn a_disk_that_was_cut_off_is_read_without_checksums() {
    let _alone = alone();
    cuts(
        &["-b", "1024", "-J", "size=1", "-O", "^metadata_csum,^64bit"],
        "data=ordered",
        2,
        4,
    );
}

#[test]
fn a_disk_that_was_cut_off_is_read_with_its_data_in_the_journal() {
    let _alone = alone();
    cuts(&["-J", "size=8"], "data=journal", 3, 3);
}
