//! Layers of any shape over each other, folders that contain themselves among them: refused, or walked to an end.
#![no_main]
use layers::ext4::read::{Entry, ReadError};
use layers::ext4::{Kind, Time};
use layers::overlay::{Attributes, Content, Layer, Node, Overlay, View};
use libfuzzer_sys::fuzz_target;

const NODES: u8 = 16;
const KINDS: [Kind; 8] = [
    Kind::Directory, Kind::Directory, Kind::Directory, Kind::File,
    Kind::Symlink, Kind::CharDevice, Kind::Whiteout, Kind::Fifo,
];

/// A layer: each entry is a folder's number, a name, the number of what has it, and what the entry says that this is.
struct Made<'a> {
    kinds: &'a [u8],
    entries: &'a [[u8; 4]],
}

impl Made<'_> {
    fn kind(&self, number: u32) -> Kind {
        let byte = self.kinds.get(number as usize).copied().unwrap_or(0);
        KINDS[usize::from(byte % 8)]
    }
}

struct Nothing;

impl Content for Nothing {
    fn read_at(&mut self, _: u64, _: &mut [u8]) -> Result<usize, ReadError> {
        Ok(0)
    }
}

impl Layer for Made<'_> {
    fn top(&self) -> u32 {
        0
    }

    fn node(&self, number: u32) -> Result<Node, ReadError> {
        let time = Time::from_secs(0);
        let kind = self.kind(number);
        Ok(Node { kind, mode: 0, uid: 0, gid: 0, size: 0, links: 1, mtime: time, device: (0, 0) })
    }

    fn each(&self, folder: u32, show: &mut dyn FnMut(Entry) -> Result<(), ReadError>) -> Result<(), ReadError> {
        for [of, name, inode, told] in self.entries {
            if u32::from(of % NODES) == folder {
                let inode = u32::from(inode % NODES);
                let kind = match told % 4 {
                    0 => None,
                    1 => Some(KINDS[usize::from(told / 4 % 8)]),
                    _ => Some(self.kind(inode)),
                };
                show(Entry { name: vec![b'a' + name % 8], inode, kind })?;
            }
        }
        Ok(())
    }

    fn open(&self, _: u32) -> Result<Box<dyn Content + '_>, ReadError> {
        Ok(Box::new(Nothing))
    }

    fn link(&self, _: u32) -> Result<Vec<u8>, ReadError> {
        Ok(Vec::new())
    }

    fn attributes(&self, number: u32) -> Result<Attributes, ReadError> {
        let of = self.kinds.get(number as usize).copied().unwrap_or(0) / 8;
        let name = match of % 16 {
            1..=4 => "trusted.overlay.opaque",
            5 => "trusted.overlay.redirect",
            6 => "trusted.overlay.metacopy",
            _ => return Ok(Vec::new()),
        };
        let value = if of % 16 == 4 { b"x" } else { b"y" };
        Ok(vec![(name.into(), value.to_vec())])
    }
}

fuzz_target!(|bytes: &[u8]| {
    let layers: Vec<Made<'_>> = bytes
        .chunks(80)
        .take(4)
        .map(|own| own.split_at(own.len().min(usize::from(NODES))))
        .map(|(kinds, entries)| Made { kinds, entries: entries.as_chunks().0 })
        .collect();
    let mut boxed: Vec<Box<dyn Layer + '_>> = Vec::new();
    for layer in &layers {
        boxed.push(Box::new(Made { ..*layer }));
    }
    let Ok(overlay) = Overlay::new(boxed) else { return };
    let mut view = View::new(&overlay);
    let mut other = View::new(&overlay);
    let mut todo = vec![Vec::new()];
    let mut folders = 0;
    while let Some(path) = todo.pop() {
        let Ok(Some(names)) = view.walk(&path) else { continue };
        folders += 1;
        // Each can be walked once.
        assert!(folders <= layers.len() * usize::from(NODES));
        assert!(names.is_sorted());
        for name in names {
            let own = if path.is_empty() { name } else { [&path[..], b"/", &name].concat() };
            // What a folder shows is there for who asks for it alone.
            let place = other.place(&own).expect("it was listed").expect("it was listed");
            let _ = (overlay.node(&place), overlay.open(&place), overlay.attributes(&place));
            if place.is_folder() {
                todo.push(own);
            }
        }
    }
});
