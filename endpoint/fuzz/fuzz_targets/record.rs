//! A generation-numbered record on the datastore.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| endpoint::fuzzing::record(data));
