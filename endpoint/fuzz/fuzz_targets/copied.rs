//! An archive of `docker cp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| endpoint::fuzzing::copied(data));
