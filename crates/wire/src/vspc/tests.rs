use super::*;
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn identity() -> PortIdentity {
    PortIdentity {
        direction: Direction::Client,
        uri: "mooring:vch:\u{e9}\u{ff}".into(),
        vc_uuid: "50 12".into(),
        name: "web-0123".into(),
        bios_uuid: "42 01".into(),
        location_uuid: "56 4d".into(),
    }
}

/// Carries bytes both ways until both sides are quiet.
fn exchange(client: &mut Client, server: &mut Server) -> (Vec<u8>, Vec<u8>) {
    let (mut to_vm, mut from_vm) = (Vec::new(), Vec::new());
    loop {
        let (a, b) = (client.take_output(), server.take_output());
        if a.is_empty() && b.is_empty() {
            return (to_vm, from_vm);
        }
        server.receive(&a, &mut from_vm).unwrap();
        client.receive(&b, &mut to_vm).unwrap();
    }
}

fn peer_cookie(events: &[ServerEvent]) -> &Cookie {
    for event in events {
        if let ServerEvent::VmotionPeer { cookie } = event {
            return cookie;
        }
    }
    panic!("no peer among {events:?}");
}

fn connected() -> (Client, Server) {
    let (mut client, mut server) = (Client::new(identity()), Server::new());
    exchange(&mut client, &mut server);
    while server.next_event().is_some() {}
    server.answer_proxy(true);
    exchange(&mut client, &mut server);
    assert_eq!(client.next_event(), Some(ClientEvent::Accepted));
    (client, server)
}

#[test]
fn the_concentrator_opens_as_vmware_expects_and_learns_the_port() {
    let (mut client, mut server) = (Client::new(identity()), Server::new());
    let opening = server.take_output();
    assert_eq!(
        opening,
        [
            255, 251, 0, 255, 251, 3, 255, 251, 1, 255, 253, 0, 255, 253, 3, 255, 253, 232
        ]
    );
    client.receive(&opening, &mut Vec::new()).unwrap();
    let (to_vm, from_vm) = exchange(&mut client, &mut server);
    assert!(to_vm.is_empty() && from_vm.is_empty());
    let events: Vec<_> = std::iter::from_fn(|| server.next_event()).collect();
    let uri = identity().uri;
    assert!(events.contains(&ServerEvent::Proxy {
        direction: Direction::Client,
        uri
    }));
    assert!(events.contains(&ServerEvent::VcUuid("50 12".into())));
    assert!(events.contains(&ServerEvent::VmName("web-0123".into())));
    assert!(events.contains(&ServerEvent::BiosUuid("42 01".into())));
}

#[test]
fn nothing_passes_before_the_uri_was_checked() {
    let (mut client, mut server) = (Client::new(identity()), Server::new());
    exchange(&mut client, &mut server);
    client.send(b"early");
    server.send(b"early");
    assert_eq!(exchange(&mut client, &mut server), (vec![], vec![]));
    server.answer_proxy(false);
    exchange(&mut client, &mut server);
    assert_eq!(client.next_event(), Some(ClientEvent::Refused));
    client.send(b"late");
    server.send(b"late");
    assert_eq!(exchange(&mut client, &mut server), (vec![], vec![]));
}

#[test]
fn a_port_is_taken_over_with_the_cookie_and_only_with_it() {
    let now = Instant::now();
    let mut migrations = Migrations::new(Duration::from_secs(60));
    let (mut source, mut old) = connected();
    source.vmotion_begin(b"seq\xff1");
    exchange(&mut source, &mut old);
    let Some(ServerEvent::VmotionBegin { sequence }) = old.next_event() else {
        panic!()
    };
    let cookie = migrations.begin("vm", &sequence, [0xff; 16], now).unwrap();
    assert_eq!(
        migrations.begin("vm", &sequence, [1; 16], now),
        Err(MigrationError::Busy)
    );
    old.go_ahead(&cookie);
    exchange(&mut source, &mut old);
    let Some(ClientEvent::GoAhead(cookie)) = source.next_event() else {
        panic!()
    };

    let forged = Cookie::new(b"seq\xff1aaaaaaaaaaaaaaaa".to_vec());
    let (mut thief, mut new) = (Client::migrated(identity(), forged), Server::new());
    thief.vmotion_complete(b"seq");
    exchange(&mut thief, &mut new);
    let events: Vec<_> = std::iter::from_fn(|| new.next_event()).collect();
    assert!(
        !events
            .iter()
            .any(|e| matches!(e, ServerEvent::VmotionComplete { .. }))
    );
    let presented = peer_cookie(&events);
    assert_eq!(
        migrations.peer(presented, now),
        Err(MigrationError::Unknown)
    );

    let (mut target, mut new) = (Client::migrated(identity(), cookie), Server::new());
    exchange(&mut target, &mut new);
    let events: Vec<_> = std::iter::from_fn(|| new.next_event()).collect();
    let cookie = peer_cookie(&events);
    assert_eq!(migrations.peer(cookie, now), Ok("vm"));
    assert_eq!(
        migrations.peer(cookie, now),
        Err(MigrationError::Unknown),
        "a cookie serves once"
    );
    new.peer_ok(cookie);
    target.vmotion_complete(b"seq");
    exchange(&mut target, &mut new);
    assert!(matches!(
        new.next_event(),
        Some(ServerEvent::VmotionComplete { .. })
    ));
    target.send(b"out");
    new.send(b"in");
    assert_eq!(
        exchange(&mut target, &mut new),
        (b"in".to_vec(), b"out".to_vec())
    );
}

#[test]
fn a_migration_that_is_never_followed_times_out() {
    let now = Instant::now();
    let mut migrations = Migrations::new(Duration::from_secs(60));
    let cookie = migrations.begin(7, b"s", [1; 16], now).unwrap();
    let seconds = |n| now + Duration::from_secs(n);
    assert_eq!(migrations.until(&7, seconds(59)), Some(seconds(60)));
    assert_eq!(migrations.until(&8, now), None);
    assert_eq!(migrations.until(&7, seconds(60)), None);
    assert_eq!(
        migrations.peer(&cookie, seconds(60)),
        Err(MigrationError::Unknown)
    );
    // Nor is it in the way of the next, whose time is its own; a peer begins that anew.
    let cookie = migrations.begin(7, b"s", [2; 16], seconds(60)).unwrap();
    assert_eq!(migrations.peer(&cookie, seconds(90)), Ok(7));
    assert_eq!(migrations.until(&7, seconds(91)), Some(seconds(150)));
    migrations.end(&7);
    assert_eq!(migrations.until(&7, seconds(91)), None);
}

#[test]
fn an_unknown_port_cannot_begin_a_migration() {
    let (mut client, mut server) = (Client::new(identity()), Server::new());
    exchange(&mut client, &mut server);
    while server.next_event().is_some() {}
    client.vmotion_begin(b"1");
    exchange(&mut client, &mut server);
    assert_eq!(server.next_event(), None);
    assert_eq!(client.next_event(), Some(ClientEvent::NotNow));
}

#[test]
fn an_endless_suboption_is_refused() {
    let mut server = Server::new();
    server.receive(&[255, 250, 232], &mut Vec::new()).unwrap();
    assert_eq!(
        server.receive(&[1; 1025], &mut Vec::new()),
        Err(VspcError::TooLong)
    );
}

#[test]
fn an_unknown_suboption_is_named_as_such() {
    let mut server = Server::new();
    server.take_output();
    server
        .receive(&[255, 250, 232, 99, 255, 240], &mut Vec::new())
        .unwrap();
    assert_eq!(server.take_output(), [255, 250, 232, 2, 99, 255, 240]);
}

proptest! {
    #[test]
    fn data_passes_unchanged_however_it_is_cut(
        data in proptest::collection::vec(prop_oneof![Just(255u8), Just(240), Just(250), any::<u8>()], 0..400),
        cut in 1usize..9,
    ) {
        let (mut client, mut server) = connected();
        client.send(&data);
        server.send(&data);
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for piece in client.take_output().chunks(cut) {
            server.receive(piece, &mut up).unwrap();
        }
        for piece in server.take_output().chunks(cut) {
            client.receive(piece, &mut down).unwrap();
        }
        prop_assert_eq!(&up, &data);
        prop_assert_eq!(&down, &data);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in proptest::collection::vec(prop_oneof![Just(255u8), 238u8.., Just(232), 0u8..90, any::<u8>()], 0..300),
    ) {
        let mut data = Vec::new();
        let _ = Server::new().receive(&bytes, &mut data);
        let _ = Client::new(identity()).receive(&bytes, &mut data);
        prop_assert!(data.len() <= bytes.len());
    }
}
