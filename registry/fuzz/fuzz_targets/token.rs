//! A token that was made up, or its claims.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| registry::fuzzing::token(data));
