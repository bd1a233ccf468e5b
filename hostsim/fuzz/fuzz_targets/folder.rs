//! A path under /folder, and a range.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| hostsim::fuzzing::folder(data));
