//! A SOAP call, and what a configuration in it makes of a VM.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostsim::fuzzing::call(data));
