//! A guest's vsock packets.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostsim::fuzzing::vsock(data));
