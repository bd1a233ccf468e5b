//! An arbitrary layer stream: refused, or rebuilt as it was.
#![no_main]
use std::io::Read;
use std::sync::LazyLock;

use layers::convert::{Compression, Expectations, Limits, convert};
use layers::io::Stream;
use layers::recipe::Rebuild;
use layers::spool::Spool;
use libfuzzer_sys::fuzz_target;

static SPOOL: LazyLock<Spool> =
    LazyLock::new(|| Spool::new(std::env::temp_dir(), 1 << 30).expect("a folder for temporary files"));

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { uncompressed: 16 << 20, entries: 10_000, metadata: 1 << 20, ..Limits::default() };
    let Ok(layer) = convert(bytes, &Expectations::default(), &SPOOL, &limits, |_| {}) else { return };
    let mut tar = Vec::new();
    let recipe = Stream::new(layer.recipe.clone()).expect("a spooled file");
    let mut rebuild = Rebuild::new(recipe, layer.image.clone(), 16 << 20).expect("a recipe of ours");
    rebuild.read_to_end(&mut tar).expect("the recipe rebuilds");
    assert!(layer.compression != Compression::None || tar == bytes);
});
