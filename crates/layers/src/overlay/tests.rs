use super::*;
use crate::ext4::read::Filesystem;
use crate::ext4::{Builder, Metadata, Options};
use std::collections::HashMap;
use std::fs::File;

/// A layer out of entries: folders end with a slash, `-` before a name is a whiteout, `!` makes a folder opaque.
fn layer(entries: &[&str]) -> Filesystem<File> {
    let image = tempfile::tempfile().unwrap();
    let mut made = Builder::new(image.try_clone().unwrap(), Options::new([7; 16]));
    let meta = Metadata::new(0o644, Time::from_secs(1));
    for entry in entries {
        let (mark, rest) = entry.split_at(1);
        match (mark, rest.as_bytes()) {
            ("-", path) => made.whiteout(path).unwrap(),
            ("!", path) => made.opaque(path).unwrap(),
            _ => match entry.strip_suffix('/') {
                Some(folder) => made.directory(folder.as_bytes(), &meta).unwrap(),
                None => {
                    let file = made.file(entry.as_bytes(), &meta);
                    file.unwrap().finish().unwrap();
                }
            },
        }
    }
    image.set_len(made.finish().unwrap().bytes).unwrap();
    Filesystem::open(image).unwrap()
}

/// The topmost first.
fn over(layers: &[&[&str]]) -> Overlay<'static> {
    let layers = layers
        .iter()
        .map(|entries| Box::new(Branch::whole(layer(entries)).unwrap()) as Box<dyn Layer>);
    Overlay::new(layers.collect()).unwrap()
}

fn walked(view: &mut View<'_>, folder: &str) -> Result<Vec<String>, ReadError> {
    let mut all = Vec::new();
    for name in view.walk(folder.as_bytes())?.unwrap_or_default() {
        let own = format!("{folder}/{}", String::from_utf8(name).unwrap());
        let own = own.trim_start_matches('/');
        all.push(own.to_owned());
        all.extend(walked(view, own)?);
    }
    Ok(all)
}

#[test]
fn what_is_hidden_stays_hidden_however_deep_it_is() {
    let overlay = over(&[
        &["a/", "a/top", "-gone", "k", "o/", "!o", "o/new"],
        &[
            "a/",
            "a/middle",
            "gone/",
            "gone/x",
            "k/",
            "k/y",
            "o/",
            "o/old",
            "a/-not-one",
            "w/",
        ],
        &[
            "a/", "a/low", "gone/", "k/", "k/z", "o/", "o/older", "w/", "w/v",
        ],
        &["a", "w/", "w/u"],
        &["a/", "a/lowest"],
    ]);
    let all = walked(&mut View::new(&overlay), "").unwrap();
    let should = [
        "a",
        "a/-not-one",
        "a/low",
        "a/middle",
        "a/top",
        "k",
        "o",
        "o/new",
        "w",
        "w/u",
        "w/v",
    ];
    assert_eq!(all, should);
    let mut view = View::new(&overlay);
    for (path, there) in [
        ("a/low", true),
        ("gone", false),
        ("gone/x", false),
        ("k/y", false),
        ("nope/x", false),
    ] {
        assert_eq!(
            view.place(path.as_bytes()).unwrap().is_some(),
            there,
            "{path}"
        );
    }
}

#[test]
fn a_layer_alone_shows_its_whiteouts() {
    let plain = Overlay::plain(Box::new(Branch::whole(layer(&["-gone"])).unwrap()));
    let place = View::new(&plain).place(b"gone").unwrap().unwrap();
    let node = plain.node(&place).unwrap();
    assert_eq!((node.kind, node.device), (Kind::Whiteout, (0, 0)));
}

#[test]
fn no_layers_have_nothing_in_them() {
    let none = Overlay::new(Vec::new()).unwrap();
    let mut view = View::new(&none);
    assert_eq!(view.walk(b"").unwrap(), None);
    assert_eq!(view.place(b"a").unwrap(), None);
}

/// A layer whose folders are what a test says: number to entries.
#[derive(Default)]
struct Odd {
    folders: HashMap<u32, Vec<(&'static str, u32, Kind)>>,
    attributes: HashMap<u32, Attributes>,
}

impl Layer for Odd {
    fn top(&self) -> u32 {
        2
    }

    fn node(&self, number: u32) -> Result<Node, ReadError> {
        let kind = match self.folders.contains_key(&number) {
            true => Kind::Directory,
            false => Kind::File,
        };
        Ok(Node {
            kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 0,
            links: 1,
            mtime: Time::default(),
            device: (0, 0),
        })
    }

    fn each(
        &self,
        folder: u32,
        show: &mut dyn FnMut(Entry) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        self.folders[&folder]
            .iter()
            .try_for_each(|(name, inode, kind)| {
                show(Entry {
                    name: name.as_bytes().to_vec(),
                    inode: *inode,
                    kind: Some(*kind),
                })
            })
    }

    fn open(&self, _: u32) -> Result<Box<dyn Content + '_>, ReadError> {
        unreachable!("no test reads")
    }

    fn link(&self, _: u32) -> Result<Vec<u8>, ReadError> {
        unreachable!("no test reads links")
    }

    fn attributes(&self, number: u32) -> Result<Attributes, ReadError> {
        Ok(self.attributes.get(&number).cloned().unwrap_or_default())
    }
}

/// Names, numbers and kinds in a folder.
type Entries<'a> = &'a [(&'static str, u32, Kind)];

fn damage(folders: &[(u32, Entries<'_>)]) -> String {
    let folders = folders.iter().map(|(n, entries)| (*n, entries.to_vec()));
    let odd = Odd {
        folders: folders.collect(),
        ..Odd::default()
    };
    let overlay = Overlay::new(vec![Box::new(odd)]).unwrap();
    let mut view = View::new(&overlay);
    let error = walked(&mut view, "").and_then(|all| {
        for path in all {
            let place = view.place(path.as_bytes())?.unwrap();
            overlay.node(&place)?;
        }
        Ok(())
    });
    error.unwrap_err().to_string()
}

#[test]
fn a_folder_that_contains_itself_must_not_be_walked_for_ever() {
    use Kind::Directory;
    let told = damage(&[(2, &[("a", 12, Directory)]), (12, &[("b", 12, Directory)])]);
    assert!(
        told.contains("inode 12 is a directory with two names"),
        "{told}"
    );
    // No circle, but as many paths as 2 to the number of folders.
    let twice = |to| [("x", to, Directory), ("y", to, Directory)];
    let many: Vec<_> = (2..60).map(|n| (n, twice(n + 1))).collect();
    let mut many: Vec<(u32, Entries<'_>)> = many.iter().map(|(n, to)| (*n, &to[..])).collect();
    many.push((60, &[]));
    assert!(damage(&many).contains("two names"));
}

#[test]
fn entries_that_contradict_are_damage() {
    let same = damage(&[(2, &[("a", 12, Kind::File), ("a", 13, Kind::File)])]);
    assert!(same.contains("two entries of one name"), "{same}");
    let other = damage(&[(2, &[("a", 12, Kind::File)]), (12, &[])]);
    assert!(other.contains("is not what its entry says"), "{other}");
}

#[test]
fn more_entries_than_are_kept_are_refused_before_they_are() {
    let overlay = over(&[&["a", "b", "c"]]);
    let root = overlay.root().unwrap();
    assert_eq!(overlay.list(&root, 3).unwrap().len(), 3);
    let error = overlay.list(&root, 2).unwrap_err();
    assert!(matches!(error, ReadError::Unsupported { .. }), "{error}");
}

#[test]
fn what_only_a_kernel_knows_to_follow_is_refused() {
    for (name, value) in [
        ("trusted.overlay.redirect", "elsewhere"),
        ("trusted.overlay.metacopy", ""),
        ("trusted.overlay.opaque", "x"),
    ] {
        let attribute = (name.into(), value.into());
        let odd = Odd {
            folders: HashMap::from([
                (2, vec![("d", 12, Kind::Directory), ("f", 13, Kind::File)]),
                (12, Vec::new()),
            ]),
            attributes: HashMap::from([
                (12, vec![attribute]),
                (13, vec![("trusted.overlay.metacopy".into(), Vec::new())]),
            ]),
        };
        let below = Branch::whole(layer(&["d/", "d/x", "f"])).unwrap();
        let overlay = Overlay::new(vec![Box::new(odd), Box::new(below)]).unwrap();
        let mut view = View::new(&overlay);
        let error = view.walk(b"d").unwrap_err();
        assert!(matches!(error, ReadError::Unsupported { .. }), "{error}");
        let file = view.place(b"f").unwrap().unwrap();
        assert!(overlay.open(&file).is_err());
    }
}
