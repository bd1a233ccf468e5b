//! What a client asks a token for.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| registry::fuzzing::scopes(data));
