//! A path below `/v2/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| registry::fuzzing::path(data));
