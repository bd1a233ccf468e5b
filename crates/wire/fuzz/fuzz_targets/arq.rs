//! Arbitrary bytes on both sides of a serial pipe.
#![no_main]
use libfuzzer_sys::fuzz_target;
use std::time::Instant;
use wire::arq::{Arq, Name};

fuzz_target!(|data: &[u8]| {
    let now = Instant::now();
    for mut arq in [Arq::dialer(Name::new([1; Name::BYTES]), now), Arq::listener(now)] {
        let mut out = Vec::new();
        for piece in data.chunks(61) {
            arq.write(b"some output");
            arq.receive(piece, now);
            while arq.transmit(now, &mut out) {}
        }
    }
});
