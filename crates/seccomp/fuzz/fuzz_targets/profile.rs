//! A seccomp profile of a client's.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| seccomp::fuzzing::profile(text));
