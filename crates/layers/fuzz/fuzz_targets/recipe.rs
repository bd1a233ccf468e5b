//! An arbitrary recipe: an error, or a tar within the limit.
#![no_main]
use std::io::{Read, sink};

use layers::recipe::Rebuild;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(rebuild) = Rebuild::new(bytes, vec![7u8; 4096], 1 << 20) {
        let read = std::io::copy(&mut rebuild.take(2 << 20), &mut sink());
        assert!(read.is_err() || read.is_ok_and(|count| count <= 1 << 20));
    }
});
