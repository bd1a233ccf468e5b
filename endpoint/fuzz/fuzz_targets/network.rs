//! The body of networks/create and of networks/{id}/connect.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| endpoint::fuzzing::network(data));
