//! A disk made of pieces over zeros: refused, or read within bounds. `examples/ext4_pieces.rs` makes seeds.
#![no_main]
use layers::ext4::Kind;
use layers::ext4::read::{Filesystem, Inode};
use libfuzzer_sys::fuzz_target;

const DISK: usize = 3 << 20;
const BLOCK: usize = 1024;

/// The disk: each piece is the number of a block of 1 KiB and a length (16 bits each), and so many bytes.
fn disk(mut pieces: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; DISK];
    while let Some((head, rest)) = pieces.split_first_chunk::<4>() {
        let at = usize::from(u16::from_le_bytes([head[0], head[1]])) * BLOCK % DISK;
        let length = usize::from(u16::from_le_bytes([head[2], head[3]])).min(rest.len()).min(BLOCK);
        disk[at..at + length].copy_from_slice(&rest[..length]);
        pieces = &rest[length..];
    }
    disk
}

fn look(fs: &Filesystem<Vec<u8>>, inode: &Inode) {
    let _ = fs.attributes(inode);
    let _ = fs.link(inode);
    let mut buf = [0; 10_000];
    for offset in [0, 3_000, inode.size.saturating_sub(5_000)] {
        if let Ok(count) = fs.read_at(inode, offset, &mut buf) {
            assert_eq!(count as u64, inode.size.saturating_sub(offset).min(10_000));
        }
    }
}

fuzz_target!(|pieces: &[u8]| {
    let Ok(fs) = Filesystem::open(disk(pieces)) else { return };
    let Ok(root) = fs.root() else { return };
    let (mut seen, mut todo) = (0, vec![(0, root)]);
    while let Some((depth, inode)) = todo.pop() {
        look(&fs, &inode);
        if depth == 8 || inode.kind != Kind::Directory {
            continue;
        }
        for entry in fs.entries(&inode).into_iter().flatten().map_while(Result::ok) {
            seen += 1;
            if seen == 500 {
                return;
            }
            assert!((1..=255).contains(&entry.name.len()) && !entry.name.contains(&b'/'));
            if let Ok(Some(found)) = fs.lookup(&inode, &entry.name) {
                assert_eq!(found.name, entry.name);
            }
            todo.extend(fs.inode(entry.inode).ok().map(|inode| (depth + 1, inode)));
        }
    }
});
