//! Journals that `debugfs` wrote as it was told, against what `e2fsck` replays.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::super::Filesystem;
use super::super::blocks::Blocks;
use crate::ext4::layout::superblock;
use proptest::prelude::*;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Blocks that the journals here change; nothing else is in them.
const FROM: u64 = 6000;
const COUNT: u64 = 8;
const SIZE: usize = 1024;

/// A transaction: blocks that it writes and those that it revokes, and whether it is committed.
#[derive(Debug, Clone)]
struct Transaction {
    writes: Vec<u64>,
    escaped: bool,
    revokes: Vec<u64>,
    committed: bool,
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let blocks = |most| prop::collection::btree_set(FROM..FROM + COUNT, 0..most);
    (blocks(6), any::<bool>(), blocks(4), 0..12).prop_map(|(writes, escaped, revokes, chance)| {
        Transaction {
            writes: writes.into_iter().collect(),
            escaped,
            revokes: revokes.into_iter().collect(),
            committed: chance > 0,
        }
    })
}

fn run(program: &str, args: &[&str], image: &Path, input: &str) -> String {
    let mut child = Command::new(program)
        .args(args)
        .arg(image)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("Debian package e2fsprogs");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let out = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn numbers(list: &[u64]) -> String {
    let all: Vec<String> = list.iter().map(u64::to_string).collect();
    all.join(",")
}

/// An image of these features with such a journal.
fn write(image: &Path, features: &str, open: &str, log: &[Transaction]) {
    let args = ["-q", "-F", "-b", "1024", "-J", "size=1", "-O", features];
    File::create(image).unwrap().set_len(8 << 20).unwrap();
    run("mkfs.ext4", &args, image, "");
    let dir = image.parent().unwrap();
    let mut script = format!("jo {open}\n");
    for (number, one) in log.iter().enumerate() {
        let data = dir.join(format!("data{number}"));
        let mut bytes = vec![number as u8 + 1; SIZE * one.writes.len()];
        for (i, block) in bytes.chunks_mut(SIZE).enumerate() {
            block[SIZE - 1] = i as u8;
            if one.escaped {
                block[..4].copy_from_slice(&0xc03b_3998u32.to_be_bytes());
            }
        }
        std::fs::write(&data, bytes).unwrap();
        let mut line = "jw".to_owned();
        if !one.committed {
            line += " -c";
        }
        if !one.revokes.is_empty() {
            line += &format!(" -r {}", numbers(&one.revokes));
        }
        if !one.writes.is_empty() {
            line += &format!(" -b {} {}", numbers(&one.writes), data.display());
        }
        script += &line;
        script.push('\n');
    }
    script += "jc\n";
    run("debugfs", &["-w", "-f", "-"], image, &script);
}

fn changed<S: crate::ReadAt>(blocks: &Blocks<S>) -> Vec<u8> {
    let mut bytes = vec![0; SIZE * COUNT as usize];
    blocks.read(FROM, 0, &mut bytes).unwrap();
    bytes
}

fn check(features: &str, open: &str, log: &[Transaction]) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    write(&image, features, open, log);
    let ours = Filesystem::open(File::open(&image).unwrap()).unwrap();
    let ours = changed(&ours.blocks);
    let said = run("e2fsck", &["-y", "-E", "journal_only"], &image, "");
    let replayed = File::open(&image).unwrap();
    let mut theirs = vec![0; ours.len()];
    replayed
        .read_exact_at(&mut theirs, FROM * SIZE as u64)
        .unwrap();
    assert!(ours == theirs, "{features} {open} {log:?}: {said}");
    assert!(
        !Filesystem::open(replayed).unwrap().sb.needs_recovery(),
        "{said}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 100, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_journal_is_replayed_as_e2fsck_does(
        form in 0..4usize,
        log in prop::collection::vec(transaction(), 1..12),
    ) {
        let forms = [
            ("metadata_csum,64bit", "-c -v 3"),
            ("metadata_csum,^64bit", "-c -v 2"),
            ("^metadata_csum,64bit", ""),
            ("^metadata_csum,^64bit", ""),
        ];
        check(forms[form].0, forms[form].1, &log);
    }
}

#[test]
fn a_block_revoked_later_is_not_replayed_and_one_written_again_is() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let one = |writes: &[u64], revokes: &[u64]| Transaction {
        writes: writes.to_vec(),
        escaped: false,
        revokes: revokes.to_vec(),
        committed: true,
    };
    let log = [
        one(&[FROM, FROM + 1, FROM + 2], &[]),
        one(&[], &[FROM + 1, FROM + 2]),
        one(&[FROM + 2], &[]),
    ];
    write(&image, "metadata_csum,64bit", "-c -v 3", &log);
    let fs = Filesystem::open(File::open(&image).unwrap()).unwrap();
    let bytes = changed(&fs.blocks);
    let first: Vec<u8> = bytes.chunks(SIZE).map(|block| block[0]).collect();
    assert_eq!(first, [1, 0, 3, 0, 0, 0, 0, 0]);
}

#[test]
fn what_a_damaged_copy_holds_is_not_taken_for_the_block() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let log = [Transaction {
        writes: vec![FROM],
        escaped: false,
        revokes: vec![],
        committed: true,
    }];
    write(&image, "metadata_csum,64bit", "-c -v 3", &log);
    let file = File::options().read(true).write(true).open(&image).unwrap();
    let fs = Filesystem::open(&file).unwrap();
    let at = fs.blocks.logged[&FROM].physical * SIZE as u64;
    file.write_all_at(b"?", at + 100).unwrap();
    let refused = fs.blocks.read(FROM, 0, &mut [0; 8]).unwrap_err();
    assert!(refused.to_string().contains("checksum"), "{refused}");
    assert!(superblock::INCOMPAT_RECOVER & fs.sb.incompat != 0);
}
