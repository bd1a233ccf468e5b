//! The ext4 writer against e2fsck, debugfs and the kernel.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/ext4.rs"]
mod ext4;

use ext4::{Mount, alone};
use layers::ext4::{Builder, DeviceKind, EmptyOptions, Metadata, Options, Time, format_empty};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

fn e2fsck(image: &Path) {
    let out = Command::new("e2fsck")
        .arg("-fn")
        .arg(image)
        .output()
        .expect("e2fsck (Debian package e2fsprogs)");
    let text =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "e2fsck -fn: {text}");
    for word in ["Padding", "differ", "should be", "invalid", "wrong"] {
        assert!(!text.contains(word), "{text}");
    }
}

fn at(secs: i64, nanos: u32) -> Time {
    Time { secs, nanos }
}

#[test]
fn every_kind_of_entry_is_read_back_by_the_kernel() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let mut b = Builder::new(File::create(&image).unwrap(), Options::new([7; 16]));
    let m = |mode| Metadata::new(mode, at(1_700_000_000, 123_456_789));
    b.directory(b"etc", &m(0o755)).unwrap();
    let mut f = b
        .file(
            b"etc/passwd",
            &Metadata {
                uid: 70_000,
                gid: 3_000_000_000,
                ..m(0o4755)
            },
        )
        .unwrap();
    f.write(b"root:x:0:0").unwrap();
    f.write(&[b'a'; 10_000]).unwrap();
    let places = f.finish().unwrap();
    assert_eq!(places.iter().map(|p| p.length).sum::<u64>(), 10_010);
    let mut f = b.file(b"sparse", &m(0o600)).unwrap();
    f.write(b"start").unwrap();
    f.skip(5 << 30).unwrap();
    f.write(b"end").unwrap();
    f.finish().unwrap();
    b.symlink(b"short", b"etc/passwd", &m(0)).unwrap();
    b.symlink(b"long", "x/".repeat(1000).as_bytes(), &m(0))
        .unwrap();
    b.device(b"null", DeviceKind::Char, 1, 3, &m(0o666))
        .unwrap();
    b.device(b"big", DeviceKind::Block, 259, 70_000, &m(0o660))
        .unwrap();
    b.fifo(b"fifo", &m(0o622)).unwrap();
    b.socket(b"socket", &m(0o700)).unwrap();
    b.hard_link(b"other/place/link", b"etc/passwd").unwrap();
    b.whiteout(b"gone").unwrap();
    b.opaque(b"opaque").unwrap();
    b.directory(b"opaque", &m(0o711)).unwrap();
    let name = b"\xff\xfe not utf-8 \n";
    b.fifo(name, &m(0o600)).unwrap();
    b.fifo(&[b'n'; 255], &m(0o600)).unwrap();
    let capability =
        b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
            .to_vec();
    let acl = [
        &2u32.to_le_bytes()[..],
        &acl(&[
            (1, 6, !0),
            (2, 4, 1234),
            (4, 4, !0),
            (0x10, 4, !0),
            (0x20, 0, !0),
        ]),
    ]
    .concat();
    let xattrs = vec![
        (b"user.plain".to_vec(), b"value".to_vec()),
        (b"user.long".to_vec(), vec![b'v'; 2000]),
        (b"security.capability".to_vec(), capability.clone()),
        (b"system.posix_acl_access".to_vec(), acl.clone()),
        (b"user.empty".to_vec(), Vec::new()),
    ];
    let mut f = b
        .file(
            b"xattr",
            &Metadata {
                xattrs: xattrs.clone(),
                ..m(0o640)
            },
        )
        .unwrap();
    f.write(b"x").unwrap();
    f.finish().unwrap();
    b.directory(b"old", &Metadata::new(0o700, at(-86_401, 750_000_000)))
        .unwrap();
    b.directory(b"new", &Metadata::new(0o700, at(4_102_444_800, 1)))
        .unwrap();
    // What replaces what.
    b.directory(b"replaced/by/a", &m(0o755)).unwrap();
    let mut f = b.file(b"replaced/file", &m(0o644)).unwrap();
    f.write(&[1; 50_000]).unwrap();
    f.finish().unwrap();
    b.fifo(b"replaced", &m(0o600)).unwrap();
    let summary = b.finish().unwrap();
    assert_eq!(std::fs::metadata(&image).unwrap().len(), summary.bytes);
    e2fsck(&image);

    let Some(mount) = Mount::new(&image, "ro") else {
        return;
    };
    let stat = |p: &str| {
        mount
            .0
            .join(p)
            .symlink_metadata()
            .unwrap_or_else(|e| panic!("{p}: {e}"))
    };
    let s = stat("etc/passwd");
    assert_eq!(
        (s.mode(), s.uid(), s.gid(), s.size(), s.nlink()),
        (0o104_755, 70_000, 3_000_000_000, 10_010, 2)
    );
    assert_eq!((s.mtime(), s.mtime_nsec()), (1_700_000_000, 123_456_789));
    assert_eq!(stat("other/place/link").ino(), s.ino());
    assert_eq!(stat("sparse").size(), (5 << 30) + 8);
    assert!(stat("sparse").blocks() < 100);
    let sparse = File::open(mount.0.join("sparse")).unwrap();
    let mut end = [0; 5];
    std::os::unix::fs::FileExt::read_exact_at(&sparse, &mut end, (5 << 30) + 3).unwrap();
    assert_eq!(&end, b"\0\0end");
    assert_eq!(
        std::fs::read_link(mount.0.join("short")).unwrap(),
        Path::new("etc/passwd")
    );
    assert_eq!(
        std::fs::read_link(mount.0.join("long"))
            .unwrap()
            .as_os_str()
            .len(),
        2000
    );
    assert_eq!(stat("null").rdev(), libc_dev(1, 3));
    assert_eq!(stat("big").rdev(), libc_dev(259, 70_000));
    assert!(stat("fifo").file_type().is_fifo() && stat("socket").file_type().is_socket());
    assert!(stat("gone").file_type().is_char_device() && stat("gone").rdev() == 0);
    assert_eq!(stat("opaque").mode() & 0o7777, 0o711);
    assert!(
        mount
            .0
            .join(std::ffi::OsStr::from_bytes(name))
            .symlink_metadata()
            .is_ok()
    );
    assert_eq!(
        (stat("old").mtime(), stat("old").mtime_nsec()),
        (-86_401, 750_000_000)
    );
    assert_eq!(stat("new").mtime(), 4_102_444_800);
    assert!(stat("replaced").file_type().is_fifo());
    let get = |p: &str, n: &str| {
        let out = Command::new("getfattr")
            .args(["--absolute-names", "-h", "--only-values", "-n", n])
            .arg(mount.0.join(p))
            .output();
        match out {
            Ok(out) => Some(out.stdout),
            Err(e) => {
                println!("attributes were not compared: getfattr: {e}");
                None
            }
        }
    };
    for (name, value) in &xattrs {
        if let Some(got) = get("xattr", std::str::from_utf8(name).unwrap()) {
            assert_eq!(&got, value, "{}", String::from_utf8_lossy(name));
        }
    }
    if let Some(got) = get("opaque", "trusted.overlay.opaque") {
        assert_eq!(got, b"y");
    }
}

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    entries
        .iter()
        .flat_map(|(t, p, i)| [&t.to_le_bytes()[..], &p.to_le_bytes(), &i.to_le_bytes()].concat())
        .collect()
}

fn libc_dev(major: u64, minor: u64) -> u64 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

#[test]
fn a_folder_of_100_000_files_is_found_by_name() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let mut b = Builder::new(File::create(&image).unwrap(), Options::new([9; 16]));
    let meta = Metadata::new(0o644, at(1, 0));
    for i in 0..100_000 {
        let mut f = b
            .file(
                format!("many/a-file-with-a-long-name-{i:06}").as_bytes(),
                &meta,
            )
            .unwrap();
        if i % 10 == 0 {
            f.write(format!("{i}").as_bytes()).unwrap();
        }
        f.finish().unwrap();
    }
    b.finish().unwrap();
    e2fsck(&image);
    let Some(mount) = Mount::new(&image, "ro") else {
        return;
    };
    for i in [0, 10, 49_990, 99_990] {
        assert_eq!(
            std::fs::read_to_string(mount.0.join(format!("many/a-file-with-a-long-name-{i:06}")))
                .unwrap(),
            i.to_string()
        );
    }
    assert_eq!(
        std::fs::read_dir(mount.0.join("many")).unwrap().count(),
        100_000
    );
}

#[test]
fn a_file_in_many_pieces_has_a_deep_tree() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let mut b = Builder::new(File::create(&image).unwrap(), Options::new([3; 16]));
    let mut f = b.file(b"pieces", &Metadata::new(0o644, at(1, 0))).unwrap();
    for i in 0..3000u32 {
        f.write(&[i as u8; 4096]).unwrap();
        f.skip(4096).unwrap();
    }
    f.finish().unwrap();
    b.finish().unwrap();
    e2fsck(&image);
    let Some(mount) = Mount::new(&image, "ro") else {
        return;
    };
    let data = std::fs::read(mount.0.join("pieces")).unwrap();
    assert_eq!(data.len(), 3000 * 8192);
    assert!(
        data.chunks(8192)
            .enumerate()
            .all(|(i, c)| c[..4096].iter().all(|b| *b == i as u8)
                && c[4096..].iter().all(|b| *b == 0))
    );
}

#[test]
fn a_symlinked_parent_is_not_followed() {
    let mut b = Builder::new(layers::ext4::Recording::default(), Options::new([1; 16]));
    let meta = Metadata::new(0o644, at(1, 0));
    b.symlink(b"out", b"/etc", &meta).unwrap();
    for error in [
        b.fifo(b"out/x", &meta).unwrap_err(),
        b.file(b"out/x", &meta).map(|_| ()).unwrap_err(),
        b.hard_link(b"out/y", b"out").unwrap_err(),
    ] {
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }
    for bad in [&b"../x"[..], b"a/../b", b"a//b", b"./a", b"a\0b"] {
        assert!(b.fifo(bad, &meta).is_err());
    }
    assert!(b.hard_link(b"x", b"missing").is_err());
}

#[test]
fn the_same_entries_give_the_same_bytes() {
    let _alone = alone();
    let make = || {
        let mut b = Builder::new(layers::ext4::Recording::default(), Options::new([1; 16]));
        for i in 0..500 {
            let mut f = b
                .file(format!("d/{i}").as_bytes(), &Metadata::new(0o644, at(i, 0)))
                .unwrap();
            f.write(&[i as u8; 5000]).unwrap();
            f.finish().unwrap();
        }
        b.finish_into().unwrap().1
    };
    assert!(make() == make());
}

#[test]
fn an_empty_file_system_is_clean_small_and_usable() {
    let _alone = alone();
    for size in [16u64 << 20, 100 << 20, 1 << 30, 61 << 30] {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        let mut file = File::create(&image).unwrap();
        file.set_len(size).unwrap();
        format_empty(&mut file, size, &EmptyOptions::new([5; 16])).unwrap();
        assert!(
            file.metadata().unwrap().blocks() * 512 < 2 << 20,
            "{} bytes written",
            file.metadata().unwrap().blocks() * 512
        );
        e2fsck(&image);
        let Some(mount) = Mount::new(&image, "rw,loop") else {
            return;
        };
        std::fs::create_dir(mount.0.join("upper")).unwrap();
        std::fs::write(mount.0.join("upper/file"), vec![7u8; 1 << 20]).unwrap();
        drop(mount);
        e2fsck(&image);
    }
    assert!(
        format_empty(
            &mut layers::ext4::Recording::default(),
            1 << 20,
            &EmptyOptions::new([5; 16])
        )
        .is_err()
    );
}
