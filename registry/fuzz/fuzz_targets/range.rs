//! A `Range` or `Content-Range`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| registry::fuzzing::range(data));
