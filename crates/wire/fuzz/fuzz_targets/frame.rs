//! Arbitrary bytes as a stream of frames; what is decoded must encode to the same frame.
#![no_main]
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use wire::frame::decode;

fuzz_target!(|data: &[u8]| {
    let mut buffer = BytesMut::from(data);
    while let Ok(Some(frame)) = decode(&mut buffer) {
        let mut again = BytesMut::new();
        frame.clone().encode(&mut again);
        assert_eq!(decode(&mut again), Ok(Some(frame)));
    }
});
