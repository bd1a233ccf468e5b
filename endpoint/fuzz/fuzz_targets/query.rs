//! A request's query: filters, times, signals.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &str| endpoint::fuzzing::query(data));
