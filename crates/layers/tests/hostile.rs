//! What a hostile layer may take. One test: it measures this process, in which tests run side by side.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use layers::ext4::{BlockTarget, Builder, Metadata, Options, Time};
use std::collections::BTreeMap;

/// Forgets what is written.
struct Nowhere;

impl BlockTarget for Nowhere {
    fn write_at(&mut self, _: u64, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    let kib = line.split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() << 10
}

#[test]
fn the_paths_of_directories_without_an_entry_are_not_held_all_at_once() {
    // 100 entries with a path of some 4,095 bytes: 204,000 directories, whose paths have 420 MB together.
    let mut builder = Builder::new(Nowhere, Options::new([9; 16]));
    let path = |number: u32| format!("{number:04}/{}f", "a/".repeat(2044)).into_bytes();
    let meta = Metadata::new(0o644, Time::from_secs(1));
    for number in 0..100 {
        builder.fifo(&path(number), &meta).unwrap();
    }
    // The layers below have some at the top, and one of the deepest.
    let mut lower: BTreeMap<Vec<u8>, ()> = (0..50)
        .map(|number: u32| (format!("{number:04}").into_bytes(), ()))
        .collect();
    let deepest = path(99)[..path(99).len() - 2].to_vec();
    lower.insert(deepest.clone(), ());
    let before = peak();
    let found = builder.implicit_directories(&lower);
    let grown = peak() - before;
    assert_eq!(found.len(), 51);
    assert_eq!(found[50].0, deepest);
    assert!(grown < 16 << 20, "{grown} bytes more than before");
}
