//! Damaged and hostile disks: the ext4 reader refuses or reads, within bounds, and never panics.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use layers::ReadAt;
use layers::ext4::read::{Filesystem, Inode, ReadError};
use layers::ext4::{Builder, Kind, Metadata, Options, Time};
use proptest::prelude::*;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most entries that are looked at in one disk.
const ENTRIES: u64 = 3000;

/// A disk that counts the bytes read of it.
struct Counted<'a>(&'a [u8], AtomicU64);

impl ReadAt for Counted<'_> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.0.read_exact_at(offset, buf)
    }

    fn size(&self) -> std::io::Result<u64> {
        self.0.size()
    }
}

/// Looks at everything; gives the number of entries. Errors end a step, not the walk.
fn crawl<S: ReadAt>(fs: &Filesystem<S>) -> Result<u64, ReadError> {
    let mut seen = 0;
    let mut todo = vec![(0, fs.root()?)];
    while let Some((depth, inode)) = todo.pop() {
        let _ = look(fs, &inode);
        if depth == 12 || inode.kind != Kind::Directory {
            continue;
        }
        let Ok(entries) = fs.entries(&inode) else {
            continue;
        };
        for entry in entries {
            let Ok(entry) = entry else { break };
            seen += 1;
            if seen == ENTRIES {
                return Ok(seen);
            }
            assert!((1..=255).contains(&entry.name.len()));
            assert!(!matches!(&entry.name[..], b"." | b".."));
            if seen % 16 == 0
                && let Ok(found) = fs.lookup(&inode, &entry.name)
            {
                assert!(found.is_none_or(|found| found.name == entry.name));
            }
            if let Ok(inode) = fs.inode(entry.inode) {
                todo.push((depth + 1, inode));
            }
        }
    }
    Ok(seen)
}

/// Looks at one inode, of a file at its first and last 64 KiB.
fn look<S: ReadAt>(fs: &Filesystem<S>, inode: &Inode) -> Result<(), ReadError> {
    if let Ok(all) = fs.attributes(inode) {
        assert!(all.len() < 1024);
    }
    match inode.kind {
        Kind::Symlink => assert!((1..=4096).contains(&fs.link(inode)?.len())),
        Kind::File => {
            let mut file = fs.file(inode)?;
            let mut buf = vec![0; 65_536];
            for offset in [0, inode.size.saturating_sub(65_536)] {
                let count = file.read_at(offset, &mut buf)?;
                assert_eq!(count as u64, (inode.size - offset).min(65_536));
            }
        }
        _ => {}
    }
    Ok(())
}

fn run(program: &str, args: &[&str], input: &str) {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Debian package e2fsprogs");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    // e2fsck says 1 where it changed something.
    assert!(
        matches!(out.status.code(), Some(0 | 1)),
        "{program} {args:?}: {said}"
    );
}

/// A disk with a bit of everything, of these features; with a journal it was cut off.
fn disk(features: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (image, from) = (dir.path().join("image"), dir.path().join("from"));
    let image = image.to_str().unwrap();
    std::fs::create_dir_all(from.join("folder/in a folder")).unwrap();
    for i in 0..90 {
        std::fs::write(from.join(format!("folder/file {i}")), vec![7; i * 40]).unwrap();
    }
    let pieces = std::fs::File::create(from.join("pieces")).unwrap();
    for i in 0..40 {
        pieces.write_all_at(&[9; 1024], i * 4096).unwrap();
    }
    for length in [30, 100, 900] {
        let link = from.join(format!("link{length}"));
        std::os::unix::fs::symlink("t".repeat(length), link).unwrap();
    }
    for (name, length) in [("pieces", 30), ("folder", 700)] {
        // Where the folder for temporary files has no attributes, the disk has none.
        let _ = rustix::fs::lsetxattr(
            from.join(name),
            "user.name",
            &vec![1; length],
            rustix::fs::XattrFlags::empty(),
        );
    }
    let features = format!("^resize_inode,{features}");
    let args = [
        "-q",
        "-F",
        "-b",
        "1024",
        "-I",
        "256",
        "-N",
        "160",
        "-J",
        "size=1",
        "-O",
        &features,
        "-d",
        from.to_str().unwrap(),
        image,
        "3M",
    ];
    // A size of the journal is refused where there is none.
    let skip = if features.contains("^has_journal") {
        2
    } else {
        0
    };
    let args: Vec<&str> = args
        .iter()
        .enumerate()
        .filter(|(i, _)| skip == 0 || ![8, 9].contains(i))
        .map(|(_, a)| *a)
        .collect();
    run("mkfs.ext4", &args, "");
    // mkfs.ext4 leaves folders without their hash trees.
    run("e2fsck", &["-fyD", image], "");
    if skip == 0 {
        let data = dir.path().join("data");
        let bytes = std::fs::read(image).unwrap();
        std::fs::write(&data, &bytes[1024..5 * 1024]).unwrap();
        let data = data.display();
        let script = format!("jo\njw -b 1,2,3,4 {data}\njw -r 2\njw -b 3 {data}\njc\n");
        run("debugfs", &["-w", "-f", "-", image], &script);
    }
    let mut bytes = std::fs::read(image).unwrap();
    // Hashes of unsigned characters, which are looked up here; the names are of ASCII.
    bytes[1024 + 0x160] = 2;
    bytes
}

/// Where a disk is not zero: changes elsewhere are rarely looked at.
fn used(image: &[u8]) -> Vec<usize> {
    image
        .chunks(256)
        .enumerate()
        .filter(|(_, part)| part.iter().any(|byte| *byte != 0))
        .map(|(number, _)| number * 256)
        .collect()
}

fn ours() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let mut b = Builder::new(std::fs::File::create(&path).unwrap(), Options::new([7; 16]));
    let meta = Metadata::new(0o644, Time::from_secs(1));
    for i in 0..500u32 {
        let mut file = b.file(format!("d/{i}").as_bytes(), &meta).unwrap();
        file.write(&vec![1; i as usize]).unwrap();
        file.finish().unwrap();
    }
    b.symlink(b"link", &[b'x'; 300], &meta).unwrap();
    b.finish().unwrap();
    std::fs::read(&path).unwrap()
}

static DISKS: LazyLock<Vec<(Vec<u8>, Vec<usize>)>> = LazyLock::new(|| {
    [
        disk("^metadata_csum,^has_journal"),
        disk("^metadata_csum,^has_journal,^extents,^64bit"),
        disk("^metadata_csum,^has_journal,inline_data"),
        disk("^metadata_csum"),
        ours(),
    ]
    .into_iter()
    .map(|image| {
        let used = used(&image);
        (image, used)
    })
    .collect()
});

#[test]
fn the_disks_are_read_while_they_are_whole() {
    let mut trees = 0;
    for (image, _) in DISKS.iter() {
        let fs = Filesystem::open(&image[..]).unwrap();
        assert!(crawl(&fs).unwrap() > 95);
        for entry in fs.entries(&fs.root().unwrap()).unwrap() {
            let folder = fs.inode(entry.unwrap().inode).unwrap();
            if folder.kind == Kind::Directory && folder.size > 1024 {
                // lost+found has no tree: it is filled without one.
                trees += u32::from(folder.flags & 0x1000 != 0);
                for entry in fs.entries(&folder).unwrap() {
                    let entry = entry.unwrap();
                    assert_eq!(fs.lookup(&folder, &entry.name).unwrap(), Some(entry));
                }
            }
        }
    }
    assert_eq!(trees, DISKS.len() as u32);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn changed_bytes_are_refused_or_read_within_bounds(
        disk in 0..5usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..256usize, prop_oneof![
            3 => any::<u8>(),
            1 => Just(0u8),
            1 => Just(0xff),
        ]), 1..24),
    ) {
        let (image, used) = &DISKS[disk];
        let mut image = image.clone();
        for (place, within, byte) in changes {
            image[used[place.index(used.len())] + within] = byte;
        }
        let counted = Counted(&image, AtomicU64::new(0));
        if let Ok(fs) = Filesystem::open(&counted) {
            let seen = crawl(&fs).unwrap_or_default();
            // An entry's inode, two pieces of 64 KiB, attributes, and a share of looking names up.
            let read = counted.1.load(Ordering::Relaxed);
            prop_assert!(read < (seen + 100) * 400_000, "{read} bytes for {seen} entries");
        }
    }
}

#[test]
fn no_size_of_a_disk_leads_to_reads_beyond_its_end() {
    let (image, _) = &DISKS[3];
    for end in [0, 1023, 1024, 2047, 2048, 100_000, image.len() - 1] {
        let refused = Filesystem::open(&image[..end]).unwrap_err();
        assert!(
            matches!(refused, ReadError::Damaged { .. } | ReadError::Io { .. }),
            "{end}: {refused}"
        );
    }
}

#[test]
fn an_unknown_feature_is_named() {
    let mut image = DISKS[0].0.clone();
    for (bit, name) in [
        (0x10, "meta_bg"),
        (0x400, "ea_inode"),
        (0x1_0000, "encrypt"),
        (1 << 30, "newer"),
    ] {
        let incompat = 1024 + 0x60;
        let before: [u8; 4] = image[incompat..incompat + 4].try_into().unwrap();
        let with = u32::from_le_bytes(before) | bit;
        image[incompat..incompat + 4].copy_from_slice(&with.to_le_bytes());
        let refused = Filesystem::open(&image[..]).unwrap_err();
        assert!(
            matches!(refused, ReadError::Unsupported { .. }),
            "{refused}"
        );
        assert!(refused.to_string().contains(name), "{refused}");
        image[incompat..incompat + 4].copy_from_slice(&before);
    }
}
