//! A name of a project, repository, tag or user, or a digest.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| registry::fuzzing::name(data));
