//! What a registry asks for: `WWW-Authenticate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| endpoint::fuzzing::challenge(data));
