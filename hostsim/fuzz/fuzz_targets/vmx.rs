//! A .vmx file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| hostsim::fuzzing::vmx(data));
