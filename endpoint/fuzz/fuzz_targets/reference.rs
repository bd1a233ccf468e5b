//! An image's reference, or a platform.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| endpoint::fuzzing::reference(data));
