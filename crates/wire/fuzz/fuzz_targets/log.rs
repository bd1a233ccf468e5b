//! Arbitrary bytes as a stream of log records.
#![no_main]
use libfuzzer_sys::fuzz_target;
use wire::log::LogDecoder;

fuzz_target!(|data: &[u8]| {
    let mut decoder = LogDecoder::new();
    for piece in data.chunks(97) {
        decoder.push(piece);
        while let Ok(Some(_)) = decoder.next_record() {}
    }
});
