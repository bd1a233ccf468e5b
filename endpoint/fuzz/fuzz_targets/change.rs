//! An instruction of `docker commit --change`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| endpoint::fuzzing::change(data));
