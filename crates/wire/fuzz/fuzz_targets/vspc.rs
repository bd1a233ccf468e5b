//! Arbitrary bytes from the peer, on both sides of a concentrator's connection.
#![no_main]
use libfuzzer_sys::fuzz_target;
use wire::vspc::{Client, Direction, PortIdentity, Server};

fuzz_target!(|data: &[u8]| {
    let identity = PortIdentity {
        direction: Direction::Client,
        uri: "mooring:a:b".into(),
        vc_uuid: "u".into(),
        name: "n".into(),
        bios_uuid: "b".into(),
        location_uuid: "l".into(),
    };
    let mut out = Vec::new();
    let mut server = Server::new();
    server.answer_proxy(true);
    let mut client = Client::new(identity);
    for piece in data.chunks(61) {
        let _ = server.receive(piece, &mut out);
        let _ = client.receive(piece, &mut out);
    }
    assert!(out.len() <= 2 * data.len());
});
