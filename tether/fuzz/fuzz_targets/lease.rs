//! A DHCP server's packet, and an ARP packet behind it: read within bounds, or passed over.
#![no_main]
use std::net::Ipv4Addr;
use tether::net::dhcp::{Client, claims, read};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let client = Client {
        mac: [0, 0x50, 0x56, 1, 2, 3],
        hostname: String::new(),
    };
    if let Some(answer) = read(data, &client, 7) {
        assert!(answer.prefix <= 32 && answer.dns.len() <= 16 && answer.routes.len() <= 16);
        assert!(answer.routes.iter().all(|(_, prefix, _)| *prefix <= 32));
        assert!(!answer.domain.contains(|c: char| c.is_whitespace() || c.is_control()));
    }
    let _ = claims(data, client.mac, Ipv4Addr::new(10, 1, 2, 3));
});
