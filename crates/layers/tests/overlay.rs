//! What the kernel's overlayfs shows of random trees, and what is read of the same disks.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;
#[path = "support/ext4.rs"]
mod trees;

use layers::ext4::read::Filesystem;
use layers::ext4::{Kind, Time};
use layers::overlay::{Branch, Layer, Overlay, View};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::run;
use trees::{Content, Record, read_folder};

#[derive(Debug, Clone)]
enum Op {
    Folder(String),
    File(String, usize),
    Append(String),
    Symlink(String, String),
    HardLink(String, String),
    Fifo(String),
    Device(String),
    Mode(String, u32),
    Attribute(String),
    Remove(String),
    Rename(String, String),
}

fn path() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c"), Just("\u{e9} \n")];
    prop::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => path().prop_map(Op::Folder),
        5 => (path(), 0usize..20_000).prop_map(|(p, n)| Op::File(p, n)),
        3 => path().prop_map(Op::Append),
        2 => (path(), path()).prop_map(|(p, t)| Op::Symlink(p, t)),
        3 => (path(), path()).prop_map(|(p, t)| Op::HardLink(p, t)),
        1 => path().prop_map(Op::Fifo),
        1 => path().prop_map(Op::Device),
        2 => (path(), 0u32..0o1000).prop_map(|(p, m)| Op::Mode(p, m)),
        1 => path().prop_map(Op::Attribute),
        5 => path().prop_map(Op::Remove),
        3 => (path(), path()).prop_map(|(p, t)| Op::Rename(p, t)),
    ]
}

/// Writes to a file; a named pipe there is an error, which nobody waits for.
fn write(options: &mut OpenOptions, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let no_waiting = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    options
        .custom_flags(no_waiting)
        .open(path)?
        .write_all(bytes)
}

/// Does it as far as it can be done.
fn act(root: &Path, op: &Op) {
    let at = |path: &String| root.join(path);
    let quiet = |program: &str, args: &[&OsStr]| {
        let _as_far_as_it_goes = Command::new(program).args(args).output().unwrap();
    };
    let _as_far_as_it_goes = match op {
        Op::Folder(path) => fs::create_dir_all(at(path)),
        Op::File(path, size) => write(
            File::options().write(true).create(true).truncate(true),
            &at(path),
            &vec![b'x'; *size],
        ),
        Op::Append(path) => write(File::options().append(true), &at(path), b"more"),
        Op::Symlink(path, to) => std::os::unix::fs::symlink(to, at(path)),
        Op::HardLink(path, to) => fs::hard_link(at(to), at(path)),
        Op::Fifo(path) => {
            quiet("mkfifo", &[at(path).as_os_str()]);
            Ok(())
        }
        Op::Device(path) => {
            let words = ["c", "1", "3"].map(OsStr::new);
            quiet("mknod", &[&[at(path).as_os_str()], &words[..]].concat());
            Ok(())
        }
        Op::Mode(path, mode) => match fs::symlink_metadata(at(path)) {
            Ok(found) if !found.is_symlink() => {
                fs::set_permissions(at(path), fs::Permissions::from_mode(*mode))
            }
            _ => Ok(()),
        },
        Op::Attribute(path) => {
            let flags = rustix::fs::XattrFlags::empty();
            let _as_far_as_it_goes = rustix::fs::setxattr(at(path), c"user.note", b"v", flags);
            Ok(())
        }
        Op::Remove(path) => match fs::symlink_metadata(at(path)) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(at(path)),
            _ => fs::remove_file(at(path)),
        },
        Op::Rename(path, to) => fs::rename(at(path), at(to)),
    };
}

/// The first path of each file that has several.
type Ids = BTreeMap<(u64, u64), Vec<u8>>;

/// What is compared of an entry: the overlay has inode numbers and attributes of its own.
fn told(record: Record, path: &[u8], id: (u64, u64), ids: &mut Ids) -> (Record, Option<Vec<u8>>) {
    let folder = record.kind == Kind::Directory;
    let same = (record.links > 1 && !folder)
        .then(|| ids.entry(id).or_insert_with(|| path.to_vec()).clone());
    let mut xattrs = record.xattrs;
    xattrs.retain(|name, _| name.starts_with(b"user."));
    let record = Record {
        inode: 0,
        links: if folder { 1 } else { record.links },
        ctime: Time::default(),
        atime: Time::default(),
        xattrs,
        ..record
    };
    (record, same)
}

type Shows = BTreeMap<Vec<u8>, (Record, Option<Vec<u8>>)>;

fn of_kernel(root: &Path) -> Shows {
    let mut ids = Ids::new();
    let entries = read_folder(root).into_iter().map(|(path, record)| {
        let found = fs::symlink_metadata(root.join(OsStr::from_bytes(&path))).unwrap();
        let shown = told(record, &path, (found.dev(), found.ino()), &mut ids);
        (path, shown)
    });
    entries.collect()
}

fn of_disks(view: &mut View<'_>, path: &[u8], all: &mut BTreeMap<Vec<u8>, (Record, (u64, u64))>) {
    let place = view.place(path).unwrap().unwrap();
    let overlay = view.overlay();
    let node = overlay.node(&place).unwrap();
    let mut content = Vec::new();
    match node.kind {
        Kind::Symlink => content = overlay.link(&place).unwrap(),
        Kind::File => {
            content.resize(node.size as usize, 0);
            let mut file = overlay.open(&place).unwrap();
            assert_eq!(file.read_at(0, &mut content).unwrap(), content.len());
        }
        _ => {}
    }
    let device = matches!(node.kind, Kind::CharDevice | Kind::BlockDevice);
    let record = Record {
        inode: 0,
        kind: node.kind,
        mode: node.mode,
        owner: (node.uid, node.gid),
        links: node.links,
        size: match node.kind {
            Kind::Directory => 0,
            _ => node.size,
        },
        mtime: node.mtime,
        ctime: Time::default(),
        atime: Time::default(),
        device: device.then_some(node.device),
        content: Content(content),
        xattrs: overlay.attributes(&place).unwrap().into_iter().collect(),
    };
    all.insert(path.to_vec(), (record, overlay.id(&place)));
    for name in view.walk(path).unwrap().unwrap_or_default() {
        let own = match path {
            b"" => name,
            _ => [path, b"/", &name].concat(),
        };
        of_disks(view, &own, all);
    }
}

/// What is mounted, until this goes; the last one first.
struct Mounted(Vec<PathBuf>);

impl Mounted {
    /// False where this machine does not mount.
    fn add(&mut self, options: &[&str], at: PathBuf) -> bool {
        fs::create_dir_all(&at).unwrap();
        let out = Command::new("mount")
            .args(options)
            .arg(&at)
            .output()
            .unwrap();
        if !out.status.success() {
            println!("not mounted: {}", String::from_utf8_lossy(&out.stderr));
            return false;
        }
        self.0.push(at);
        true
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for at in self.0.iter().rev() {
            let _ = Command::new("umount").arg(at).status();
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Each of these lists makes a layer over those before it. False where this machine does not mount.
fn compare(layers: &[Vec<Op>]) -> bool {
    let _alone = trees::alone();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: String| dir.path().join(name);
    let image = |n: usize| at(format!("image{n}"));
    let upper = |n: usize| at(format!("m{n}/upper"));
    let mut mounted = Mounted(Vec::new());
    let mut kernel = Shows::new();
    for (n, ops) in layers.iter().enumerate() {
        File::create(image(n)).unwrap().set_len(8 << 20).unwrap();
        run("mkfs.ext4", &["-q", text(&image(n))]);
        let holder = at(format!("m{n}"));
        if !mounted.add(&["-o", "loop", text(&image(n))], holder.clone()) {
            return false;
        }
        for name in ["upper", "work", "empty"] {
            fs::create_dir(holder.join(name)).unwrap();
        }
        let mut lower: Vec<_> = (0..n).rev().map(|n| text(&upper(n)).to_owned()).collect();
        lower.push(text(&holder.join("empty")).to_owned());
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off,index=off",
            lower.join(":"),
            text(&upper(n)),
            text(&holder.join("work"))
        );
        let root = at(format!("o{n}"));
        if !mounted.add(&["-t", "overlay", "overlay", "-o", &options], root.clone()) {
            return false;
        }
        ops.iter().for_each(|op| act(&root, op));
        kernel = of_kernel(&root);
        run("umount", &[text(&root)]);
        mounted.0.pop();
    }
    drop(mounted);
    let branches = (0..layers.len()).rev().map(|n| {
        let fs = Filesystem::open(File::open(image(n)).unwrap()).unwrap();
        let branch = Branch::folder(fs, b"upper").unwrap().unwrap();
        Box::new(branch) as Box<dyn Layer>
    });
    let overlay = Overlay::new(branches.collect()).unwrap();
    let mut all = BTreeMap::new();
    of_disks(&mut View::new(&overlay), b"", &mut all);
    assert_eq!(all.len(), kernel.len());
    let mut ids = Ids::new();
    for (path, (record, id)) in all {
        let shown = told(record, &path, id, &mut ids);
        assert_eq!(Some(&shown), kernel.get(&path), "{}", path.escape_ascii());
    }
    true
}

#[test]
fn a_folder_that_replaced_one_and_a_file_that_replaced_a_folder() {
    let folder = |path: &str| Op::Folder(path.into());
    let file = |path: &str| Op::File(path.into(), 3);
    let remove = |path: &str| Op::Remove(path.into());
    compare(&[
        vec![
            file("f"),
            folder("a/b"),
            file("a/b/x"),
            file("a/y"),
            folder("k/l"),
            file("k/l/m"),
        ],
        vec![
            remove("a"),
            folder("a"),
            file("a/z"),
            remove("k"),
            file("k"),
            file("g"),
        ],
        vec![
            remove("g"),
            folder("g"),
            remove("k"),
            folder("k/l"),
            Op::HardLink("h".into(), "a/z".into()),
        ],
    ]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn random_trees_are_read_as_the_kernel_shows_them(
        layers in prop::collection::vec(prop::collection::vec(op(), 5..40), 1..4)
    ) {
        compare(&layers);
    }
}
