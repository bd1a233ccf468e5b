//! Arbitrary bytes as control messages of both directions.
#![no_main]
use libfuzzer_sys::fuzz_target;
use wire::message::{ToGuest, ToHost, decode, encode};

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = decode::<ToGuest>(data) {
        let again = encode(&message).expect("was within the limit");
        assert_eq!(decode::<ToGuest>(&again), Ok(message));
    }
    if let Ok(message) = decode::<ToHost>(data) {
        let again = encode(&message).expect("was within the limit");
        assert_eq!(decode::<ToHost>(&again), Ok(message));
    }
});
