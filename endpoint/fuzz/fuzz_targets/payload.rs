//! What a signature of an image signs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| endpoint::fuzzing::payload(data));
