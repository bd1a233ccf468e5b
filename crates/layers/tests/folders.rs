//! Folders that a layer has no entry for look as they do below.

use layers::convert::{Expectations, Limits, convert, convert_above};
use layers::spool::Spool;
use std::sync::Arc;

fn tar(entries: &[(&str, u32, u64)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, mtime) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(if path.ends_with('/') {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(*mode);
        header.set_mtime(*mtime);
        header.set_uid(7);
        header.set_gid(8);
        header.set_size(0);
        header.set_path(path).expect("a path that fits");
        header.set_cksum();
        builder
            .append(&header, &b""[..])
            .expect("a write to memory");
    }
    builder.into_inner().expect("a write to memory")
}

#[test]
fn a_parent_without_an_entry_is_not_reset_to_root_0755() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::new(dir.path(), 1 << 30).unwrap();
    let (expected, limits) = (Expectations::default(), Limits::default());
    let lower = convert(
        &tar(&[
            ("./", 0o711, 10),
            ("tmp/", 0o1777, 11),
            ("gone/", 0o700, 12),
            ("gone/in/", 0o711, 13),
        ])[..],
        &expected,
        &spool,
        &limits,
        |_| {},
    )
    .unwrap();
    let upper = tar(&[
        ("tmp/x", 0o644, 21),
        ("gone/in/x", 0o644, 22),
        (".wh.gone", 0o644, 23),
        ("new/y", 0o644, 24),
    ]);
    let below = lower.folders.clone();
    let upper =
        convert_above(&upper[..], &expected, &spool, &limits, || Ok(below), |_| {}).unwrap();
    let tmp = upper.folders.get(b"tmp").expect("tmp is seen");
    assert_eq!(
        (tmp.mode & 0o7777, tmp.uid, tmp.gid, tmp.mtime.secs),
        (0o1777, 7, 8, 11)
    );
    assert!(
        upper.folders.get(b"new").is_none(),
        "nothing is known of a folder that no layer has an entry for"
    );

    // The image says so, too.
    let image = dir.path().join("image");
    let mut out = std::fs::File::create(&image).unwrap();
    std::io::copy(
        &mut layers::io::Stream::new(&upper.image).unwrap(),
        &mut out,
    )
    .unwrap();
    // Of the root, too: a container's root is made like the topmost layer's.
    for (path, mode) in [("tmp", "Mode:  01777"), ("/", "Mode:  0711")] {
        let shown = std::process::Command::new("debugfs")
            .args(["-R", &format!("stat {path}")])
            .arg(&image)
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(
            shown.contains(mode) && shown.contains("User:     7"),
            "{shown}"
        );
    }
}

#[test]
fn a_layer_above_one_that_failed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::new(dir.path(), 1 << 30).unwrap();
    let lower = || Err::<Arc<_>, _>(std::io::Error::other("the one below failed"));
    let error = convert_above(
        &tar(&[("a/b", 0o644, 1)])[..],
        &Expectations::default(),
        &spool,
        &Limits::default(),
        lower,
        |_| {},
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("the one below failed"),
        "{error}"
    );
    assert_eq!(spool.used(), 0);
}
