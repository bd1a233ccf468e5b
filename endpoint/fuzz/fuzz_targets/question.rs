//! A question to the name server.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| endpoint::fuzzing::question(data));
