//! An archive of `docker load`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| endpoint::fuzzing::archive(data));
