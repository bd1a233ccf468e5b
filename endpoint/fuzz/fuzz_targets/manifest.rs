//! A registry's manifest, index or configuration.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| endpoint::fuzzing::manifest(data));
