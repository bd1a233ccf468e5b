//! Arbitrary frames from a peer within a session.
#![no_main]
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use wire::frame::decode;
use wire::mux::{Mux, Role};

fuzz_target!(|data: &[u8]| {
    for role in [Role::Host, Role::Guest] {
        let mut mux = Mux::new(role, 64 * 1024);
        for id in 0..3 {
            let _ = mux.open(id);
        }
        let mut buffer = BytesMut::from(data);
        while let Ok(Some(frame)) = decode(&mut buffer) {
            if mux.receive(frame).is_err() {
                break;
            }
            while mux.transmit().is_some() {}
        }
    }
});
