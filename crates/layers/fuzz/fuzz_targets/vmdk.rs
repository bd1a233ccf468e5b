//! An arbitrary VMDK: refused, or read with errors at worst.
#![no_main]
use layers::ReadAt;
use layers::vmdk::{Chain, SparseFile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(chain) = SparseFile::open(bytes.to_vec()).and_then(|file| Chain::new(vec![file])) else { return };
    let size = chain.size().expect("an open chain");
    let mut buf = vec![0; size.min(256 << 10) as usize];
    let _ = chain.read_exact_at(0, &mut buf);
    let _ = chain.read_exact_at(size - buf.len() as u64, &mut buf);
});
