//! oras for Python: files as artifacts.

use super::{Shop, output};
use crate::harness::*;
use std::path::PathBuf;

const SCRIPT: &str = include_str!("oras.py");

#[test]
fn oras_pushes_lists_pulls_copies_and_deletes_artifacts() {
    let python = PathBuf::from(concat!(
        env!("CARGO_TARGET_TMPDIR"),
        "/../clients/bin/python"
    ));
    let shop = Shop::open();
    std::fs::write(shop.path("file.txt"), "a file as an artifact").unwrap();
    let mut c = shop.command(python.to_str().unwrap());
    c.current_dir(shop.work.path())
        .env("REQUESTS_CA_BUNDLE", shop.ca())
        .env("HOST", &shop.host)
        .env("PASSWORD", PASSWORD)
        .args(["-c", SCRIPT]);
    let Some((good, text)) = output(c) else {
        return;
    };
    if text.contains("No module named 'oras'") {
        eprintln!("skipped: oras is not installed (make clients)");
        return;
    }
    assert!(good, "{text}");
    assert!(text.contains("oras: all good"), "{text}");
}
