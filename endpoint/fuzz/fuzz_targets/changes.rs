//! What `docker import --change` is given.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| endpoint::fuzzing::changes(data));
