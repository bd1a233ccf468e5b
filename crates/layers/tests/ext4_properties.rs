//! Random entries, repeated and in any order, against a tree in memory: what the builder accepts,
//! what it refuses, and what the kernel then reads.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/ext4.rs"]
mod ext4;

use ext4::{Mount, alone, assert_same, read_folder, read_image};
use layers::ext4::read::Filesystem;
use layers::ext4::{Builder, Error, Metadata, Options, Time};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

#[derive(Debug, Clone)]
enum Op {
    Directory(Vec<u8>, Given),
    /// Runs of data (true) and holes, by length.
    File(Vec<u8>, Given, Vec<(bool, u32)>),
    Symlink(Vec<u8>, Given, usize),
    Fifo(Vec<u8>, Given),
    HardLink(Vec<u8>, Vec<u8>),
    Whiteout(Vec<u8>),
    Opaque(Vec<u8>),
    /// A file that is begun and given up.
    Abandoned(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq)]
struct Given {
    mode: u16,
    uid: u32,
    secs: i64,
    nanos: u32,
    xattr: usize,
}

impl Given {
    fn metadata(&self) -> Metadata {
        let time = Time {
            secs: self.secs,
            nanos: self.nanos,
        };
        let xattrs = match self.xattr {
            0 => Vec::new(),
            n => vec![
                (b"user.first".to_vec(), vec![b'x'; n]),
                (b"trusted.second\xff".to_vec(), vec![0, b'\n', b'y']),
            ],
        };
        Metadata {
            uid: self.uid,
            gid: self.uid / 2,
            xattrs,
            ..Metadata::new(self.mode, time)
        }
    }
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        4 => Just(b"a".to_vec()),
        4 => Just(b"b".to_vec()),
        2 => Just(b"\xff\n".to_vec()),
        1 => Just(vec![b'n'; 255]),
    ];
    prop::collection::vec(name, 1..4).prop_map(|parts| parts.join(&b'/'))
}

fn given() -> impl Strategy<Value = Given> {
    (
        0u16..0o10000,
        prop_oneof![Just(0u32), any::<u32>().prop_map(|u| u & !0 >> 1)],
        -2_147_483_648i64..10_000_000_000,
        0u32..1_000_000_000,
        prop_oneof![3 => Just(0usize), 1 => 1usize..60, 1 => 60usize..3700],
    )
        .prop_map(|(mode, uid, secs, nanos, xattr)| Given {
            mode,
            uid,
            secs,
            nanos,
            xattr,
        })
}

fn op() -> impl Strategy<Value = Op> {
    let runs = prop::collection::vec((any::<bool>(), 1u32..20_000), 0..8);
    prop_oneof![
        3 => (path(), given()).prop_map(|(p, g)| Op::Directory(p, g)),
        4 => (path(), given(), runs).prop_map(|(p, g, r)| Op::File(p, g, r)),
        2 => (path(), given(), prop_oneof![1usize..59, Just(59), Just(60), 60usize..4096])
            .prop_map(|(p, g, n)| Op::Symlink(p, g, n)),
        1 => (path(), given()).prop_map(|(p, g)| Op::Fifo(p, g)),
        4 => (path(), path()).prop_map(|(p, t)| Op::HardLink(p, t)),
        2 => path().prop_map(Op::Whiteout),
        1 => path().prop_map(Op::Opaque),
        1 => path().prop_map(Op::Abandoned),
    ]
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    Directory { opaque: bool },
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Fifo,
    Whiteout,
}

/// The oracle: paths to inodes, and nothing clever.
#[derive(Default)]
struct Oracle {
    names: BTreeMap<Vec<u8>, usize>,
    inodes: Vec<(What, Option<Given>)>,
}

fn below(path: &[u8], of: &[u8]) -> bool {
    path.len() > of.len() && path.starts_with(of) && path[of.len()] == b'/'
}

impl Oracle {
    fn what(&self, path: &[u8]) -> Option<&What> {
        self.names.get(path).map(|i| &self.inodes[*i].0)
    }

    fn insert(&mut self, path: &[u8], what: What, given: Option<Given>) {
        self.inodes.push((what, given));
        self.names.insert(path.to_vec(), self.inodes.len() - 1);
    }

    /// Makes missing parents; false if one is no directory.
    fn parents(&mut self, path: &[u8]) -> bool {
        for end in (0..path.len()).filter(|i| path[*i] == b'/') {
            match self.what(&path[..end]) {
                Some(What::Directory { .. }) => {}
                None => self.insert(&path[..end], What::Directory { opaque: false }, None),
                Some(What::Whiteout) => {
                    self.insert(&path[..end], What::Directory { opaque: true }, None);
                }
                Some(_) => return false,
            }
        }
        true
    }

    fn put(&mut self, path: &[u8], what: What, given: Option<Given>) -> bool {
        if !self.parents(path) {
            return false;
        }
        let what = match (what, self.what(path)) {
            (What::Directory { opaque: a }, Some(What::Directory { opaque: b })) => {
                let id = self.names[path];
                self.inodes[id] = (What::Directory { opaque: a | *b }, given);
                return true;
            }
            (What::Whiteout, Some(What::Directory { .. })) => {
                let id = self.names[path];
                self.inodes[id].0 = What::Directory { opaque: true };
                return true;
            }
            (What::Whiteout, Some(_)) => return true,
            (What::Directory { .. }, Some(What::Whiteout)) => What::Directory { opaque: true },
            (what, _) => what,
        };
        self.names.retain(|p, _| !below(p, path));
        self.insert(path, what, given);
        true
    }

    fn apply(&mut self, op: &Op) -> bool {
        match op {
            Op::Directory(p, g) => self.put(p, What::Directory { opaque: false }, Some(g.clone())),
            Op::File(p, g, runs) => self.put(p, What::File(content(runs)), Some(g.clone())),
            Op::Symlink(p, g, n) => self.put(p, What::Symlink(vec![b't'; *n]), Some(g.clone())),
            Op::Fifo(p, g) => self.put(p, What::Fifo, Some(g.clone())),
            Op::Whiteout(p) => self.put(p, What::Whiteout, None),
            Op::Opaque(p) => match self.what(p) {
                Some(What::Directory { .. }) => {
                    let id = self.names[p];
                    self.inodes[id].0 = What::Directory { opaque: true };
                    true
                }
                Some(What::Whiteout) | None => self.put(p, What::Directory { opaque: true }, None),
                Some(_) => false,
            },
            Op::HardLink(p, t) => {
                let Some(&id) = self.names.get(t) else {
                    return false;
                };
                if matches!(self.inodes[id].0, What::Directory { .. } | What::Whiteout)
                    || !self.parents(p)
                {
                    return false;
                }
                self.names.retain(|name, _| !below(name, p));
                self.names.insert(p.clone(), id);
                true
            }
            Op::Abandoned(_) => true,
        }
    }
}

fn content(runs: &[(bool, u32)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (data, length) in runs {
        let byte = if *data {
            1 + (out.len() % 251) as u8
        } else {
            0
        };
        out.resize(out.len() + *length as usize, byte);
    }
    out
}

fn build<T: layers::ext4::BlockTarget>(b: &mut Builder<T>, op: &Op) -> Result<(), Error> {
    match op {
        Op::Directory(p, g) => b.directory(p, &g.metadata()),
        Op::File(p, g, runs) => {
            let data = content(runs);
            let mut at = 0;
            let mut f = b.file(p, &g.metadata())?;
            for (real, length) in runs {
                let end = at + *length as usize;
                if *real {
                    f.write(&data[at..end])?;
                } else {
                    f.skip(u64::from(*length))?;
                }
                at = end;
            }
            f.finish().map(|_| ())
        }
        Op::Symlink(p, g, n) => b.symlink(p, &vec![b't'; *n], &g.metadata()),
        Op::Fifo(p, g) => b.fifo(p, &g.metadata()),
        Op::HardLink(p, t) => b.hard_link(p, t),
        Op::Whiteout(p) => b.whiteout(p),
        Op::Opaque(p) => b.opaque(p),
        Op::Abandoned(p) => {
            // Whether it may be begun is the file's own matter; nothing may be left of it.
            if let Ok(mut f) = b.file(p, &Metadata::default()) {
                f.write(&[7; 9_000])?;
            }
            Ok(())
        }
    }
}

fn xattr(path: &Path, name: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0; 8192];
    let length = rustix::fs::lgetxattr(path, name, &mut out[..]).ok()?;
    out.truncate(length);
    Some(out)
}

fn walk(root: &Path, at: &Path, found: &mut BTreeSet<Vec<u8>>) {
    for entry in std::fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        found.insert(
            path.strip_prefix(root)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec(),
        );
        if path.symlink_metadata().unwrap().is_dir() {
            walk(root, &path, found);
        }
    }
}

fn compare(root: &Path, oracle: &Oracle) {
    let mut found = BTreeSet::new();
    walk(root, root, &mut found);
    assert_eq!(found, oracle.names.keys().cloned().collect());
    let mut numbers: BTreeMap<usize, u64> = BTreeMap::new();
    for (name, id) in &oracle.names {
        let path = root.join(OsStr::from_bytes(name));
        let stat = path.symlink_metadata().unwrap();
        let shown = path.display();
        let (what, given) = &oracle.inodes[*id];
        match what {
            What::Directory { opaque } => {
                assert!(stat.is_dir(), "{shown}");
                let mark = xattr(&path, b"trusted.overlay.opaque");
                assert_eq!(mark, opaque.then(|| b"y".to_vec()), "{shown}");
                let inside = oracle.names.iter().filter(|(p, i)| {
                    below(p, name)
                        && !p[name.len() + 1..].contains(&b'/')
                        && matches!(oracle.inodes[**i].0, What::Directory { .. })
                });
                assert_eq!(stat.nlink(), 2 + inside.count() as u64, "{shown}");
            }
            What::File(data) => {
                assert!(stat.is_file(), "{shown}");
                assert!(std::fs::read(&path).unwrap() == *data, "{shown}");
            }
            What::Symlink(target) => {
                let read = std::fs::read_link(&path).unwrap();
                assert_eq!(read.as_os_str().as_bytes(), target, "{shown}");
            }
            What::Fifo => assert!(stat.file_type().is_fifo(), "{shown}"),
            What::Whiteout => {
                assert!(
                    stat.file_type().is_char_device() && stat.rdev() == 0,
                    "{shown}"
                );
            }
        }
        if !matches!(what, What::Directory { .. }) {
            let links = oracle.names.values().filter(|i| *i == id).count();
            assert_eq!(stat.nlink(), links as u64, "{shown}");
            assert_eq!(
                *numbers.entry(*id).or_insert(stat.ino()),
                stat.ino(),
                "{shown}"
            );
        }
        if let Some(given) = given {
            if !matches!(what, What::Symlink(_)) {
                assert_eq!(stat.mode() & 0o7777, u32::from(given.mode), "{shown}");
            }
            assert_eq!(
                (stat.uid(), stat.gid()),
                (given.uid, given.uid / 2),
                "{shown}"
            );
            let time = (given.secs, i64::from(given.nanos));
            assert_eq!((stat.mtime(), stat.mtime_nsec()), time, "{shown}");
            // user.* belongs to files and directories only; the rest is for all.
            if matches!(what, What::File(_) | What::Directory { .. }) {
                let first = (given.xattr > 0).then(|| vec![b'x'; given.xattr]);
                assert_eq!(xattr(&path, b"user.first"), first, "{shown}");
            }
            let second = (given.xattr > 0).then(|| vec![0, b'\n', b'y']);
            assert_eq!(xattr(&path, b"trusted.second\xff"), second, "{shown}");
        } else if matches!(what, What::Directory { .. }) {
            assert_eq!((stat.mode() & 0o7777, stat.uid()), (0o755, 0), "{shown}");
        }
    }
    // Different inodes, different numbers.
    let distinct: BTreeSet<u64> = numbers.values().copied().collect();
    assert_eq!(distinct.len(), numbers.len());
}

fn check(ops: &[Op]) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let mut builder = Builder::new(File::create(&image).unwrap(), Options::new([0x17; 16]));
    let mut oracle = Oracle::default();
    for op in ops {
        let taken = build(&mut builder, op);
        assert_eq!(taken.is_ok(), oracle.apply(op), "{op:?}: {taken:?}");
    }
    let implicit: Vec<Vec<u8>> = std::iter::once(Vec::new())
        .chain(
            oracle
                .names
                .iter()
                .filter_map(|(p, i)| match &oracle.inodes[*i] {
                    (What::Directory { .. }, None) => Some(p.clone()),
                    _ => None,
                }),
        )
        .collect();
    let found = |among: &BTreeMap<Vec<u8>, ()>| -> Vec<Vec<u8>> {
        let found = builder.implicit_directories(among);
        found.iter().map(|(path, ())| path.to_vec()).collect()
    };
    let all: BTreeMap<Vec<u8>, ()> = std::iter::once(Vec::new())
        .chain(oracle.names.keys().cloned())
        .map(|path| (path, ()))
        .collect();
    assert_eq!(found(&all), implicit);
    // Of a part it finds that part: what is left out may be above what is asked for, or below.
    for keep in 0..2 {
        let part: BTreeMap<Vec<u8>, ()> = all.clone().into_iter().skip(keep).step_by(2).collect();
        let mut expected = implicit.clone();
        expected.retain(|path| part.contains_key(path));
        assert_eq!(found(&part), expected);
    }
    let summary = builder.finish().unwrap();
    let inodes: BTreeSet<usize> = oracle.names.values().copied().collect();
    assert_eq!(summary.inodes, 10 + inodes.len() as u64);
    let out = Command::new("e2fsck")
        .arg("-fn")
        .arg(&image)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stdout)
    );
    if let Some(mount) = Mount::new(&image, "ro,loop") {
        compare(&mount.0, &oracle);
        let ours = Filesystem::open(File::open(&image).unwrap()).unwrap();
        let ours = read_image(&ours).unwrap();
        assert_same(&ours, &read_folder(&mount.0), "our reader");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_entries_in_any_order_are_read_back_as_they_were_given(
        ops in prop::collection::vec(op(), 1..60)
    ) {
        let _alone = alone();
        check(&ops);
    }
}

#[test]
fn a_hard_link_over_the_directory_of_its_target_keeps_the_file() {
    let _alone = alone();
    let given = Given {
        mode: 0o644,
        uid: 1,
        secs: 2,
        nanos: 3,
        xattr: 0,
    };
    check(&[
        Op::File(b"a/b/c".to_vec(), given.clone(), vec![(true, 5000)]),
        Op::HardLink(b"a".to_vec(), b"a/b/c".to_vec()),
        Op::HardLink(b"b".to_vec(), b"a".to_vec()),
        Op::HardLink(b"b".to_vec(), b"a/b/c".to_vec()),
    ]);
}

#[test]
fn a_whiteout_hides_lower_layers_only_whatever_its_place_among_the_entries() {
    let _alone = alone();
    let lower = tempfile::tempdir().unwrap();
    let make = |name: &str, fill: &dyn Fn(&mut Builder<File>)| {
        let image = lower.path().join(name);
        let mut b = Builder::new(File::create(&image).unwrap(), Options::new([1; 16]));
        fill(&mut b);
        b.finish().unwrap();
        Mount::new(&image, "ro,loop")
    };
    let m = Metadata::new(0o755, Time::from_secs(1));
    let below = make("below", &|b| {
        for path in [&b"gone"[..], b"kept", b"d/old", b"e/old", b"o/old"] {
            b.fifo(path, &m).unwrap();
        }
    });
    let above = make("above", &|b| {
        b.whiteout(b"gone").unwrap();
        b.fifo(b"d/new", &m).unwrap();
        b.whiteout(b"d").unwrap(); // after what is in it
        b.whiteout(b"e").unwrap(); // before
        b.directory(b"e", &m).unwrap();
        b.fifo(b"e/new", &m).unwrap();
        b.opaque(b"o").unwrap();
    });
    let (Some(below), Some(above)) = (below, above) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let options = format!("ro,lowerdir={}:{}", above.0.display(), below.0.display());
    let out = Command::new("mount")
        .args(["-t", "overlay", "overlay", "-o", &options])
        .arg(dir.path())
        .output()
        .unwrap();
    if !out.status.success() {
        println!("no overlay: {}", String::from_utf8_lossy(&out.stderr));
        return;
    }
    let mut found = BTreeSet::new();
    walk(dir.path(), dir.path(), &mut found);
    let unmounted = Command::new("umount").arg(dir.path()).status();
    assert!(unmounted.unwrap().success());
    let expected = [&b"d"[..], b"d/new", b"e", b"e/new", b"kept", b"o"];
    assert_eq!(found, expected.iter().map(|p| p.to_vec()).collect());
}

#[test]
fn too_many_or_too_long_attributes_are_refused_at_once() {
    let mut b = Builder::new(layers::ext4::Recording::default(), Options::new([1; 16]));
    let with = |xattrs| Metadata {
        xattrs,
        ..Metadata::new(0o600, Time::from_secs(0))
    };
    let many = (0..100_000)
        .map(|i| (format!("user.{i}").into_bytes(), Vec::new()))
        .collect();
    assert!(matches!(
        b.fifo(b"x", &with(many)),
        Err(Error::TooManyXattrs { .. })
    ));
    let long = vec![(b"user.long".to_vec(), vec![1; 4000])];
    let refused = b.fifo(b"x", &with(long)).unwrap_err().to_string();
    assert!(
        refused.contains("user.long") && refused.contains("4000") && refused.contains("3789"),
        "{refused}"
    );
    let steering = vec![(b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec())];
    assert!(matches!(
        b.fifo(b"x", &with(steering)),
        Err(Error::BadXattr { .. })
    ));
    assert_eq!(b.kind(b"x"), None);
}

#[test]
fn an_ephemeral_file_system_survives_a_killed_machine() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (image, copy) = (dir.path().join("image"), dir.path().join("copy"));
    let size = 1 << 30;
    let mut file = File::create(&image).unwrap();
    file.set_len(size).unwrap();
    layers::ext4::format_empty(&mut file, size, &layers::ext4::EmptyOptions::new([5; 16])).unwrap();
    drop(file);
    let folder = dir.path().join("mount");
    std::fs::create_dir(&folder).unwrap();
    let mount = |image: &Path| {
        let out = Command::new("mount")
            .args(["-o", "loop"])
            .arg(image)
            .arg(&folder)
            .output()
            .unwrap();
        let ok = out.status.success();
        if !ok {
            println!("not mounted: {}", String::from_utf8_lossy(&out.stderr));
        }
        ok
    };
    let umount = || {
        assert!(
            Command::new("umount")
                .arg(&folder)
                .status()
                .unwrap()
                .success()
        )
    };
    if !mount(&image) {
        return;
    }
    // As overlayfs wants them: siblings on one file system.
    std::fs::create_dir(folder.join("upper")).unwrap();
    std::fs::create_dir(folder.join("work")).unwrap();
    for i in 0..200 {
        std::fs::write(folder.join(format!("upper/{i}")), vec![i as u8; 10_000]).unwrap();
    }
    File::open(folder.join("upper/199"))
        .unwrap()
        .sync_all()
        .unwrap();
    File::open(folder.join("upper"))
        .unwrap()
        .sync_all()
        .unwrap();
    let busy = File::open(&image).unwrap();
    rustix::fs::fsync(&busy).unwrap();
    // What a killed machine leaves: the disk as it is while mounted.
    let copied = Command::new("cp")
        .args(["--sparse=always"])
        .arg(&image)
        .arg(&copy)
        .status();
    umount();
    assert!(copied.unwrap().success());
    let state = Command::new("dumpe2fs")
        .arg("-h")
        .arg(&copy)
        .output()
        .unwrap();
    let state = String::from_utf8_lossy(&state.stdout).into_owned();
    assert!(
        state.contains("needs_recovery"),
        "the copy has a journal to replay: {state}"
    );
    let cut = Filesystem::open(File::open(&copy).unwrap()).unwrap();
    let cut = read_image(&cut).unwrap();
    assert!(mount(&copy));
    assert_same(&cut, &read_folder(&folder), "what the journal holds");
    let last = std::fs::read(folder.join("upper/199"));
    umount();
    assert_eq!(last.unwrap(), vec![199; 10_000]);
    for image in [&image, &copy] {
        let out = Command::new("e2fsck")
            .arg("-fn")
            .arg(image)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stdout)
        );
    }
}
