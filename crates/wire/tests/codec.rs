//! Configuration and messages: round trips, bounds, arbitrary bytes.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;
use std::collections::HashMap;
use wire::config::{
    CONFIG_CHUNK, CONFIG_CHUNKS_KEY, CONFIG_VERSION, ConfigError, Disk, GuestConfig, LinkConfig,
    Process, Restart, Transport, chunk_key, from_chunks, to_chunks,
};
use wire::message::{MESSAGE_MAX, MessageError, ToGuest, ToHost, decode, encode};

fn process(args: Vec<String>) -> Process {
    Process {
        args,
        env: vec!["A=1".into()],
        cwd: String::new(),
        user: "www:data".into(),
        groups: vec![],
        tty: false,
        stdin: true,
        stdin_once: true,
        size: Some((24, 80)),
        cap_add: vec![],
        cap_drop: vec!["ALL".into()],
    }
}

fn config(args: Vec<String>) -> GuestConfig {
    GuestConfig {
        version: 1,
        id: "ab".repeat(32),
        boot: 3,
        hostname: "h".into(),
        domainname: String::new(),
        disk: serde_json::from_value::<Disk>(serde_json::json!({
            "guid": "g", "layers": [1, 2], "ephemeral": 3, "journal": 4
        }))
        .unwrap(),
        link: LinkConfig {
            transport: Transport::Serial {
                device: "ttyS1".into(),
            },
            secret: "00".repeat(32),
        },
        process: process(args),
        init: true,
        networks: vec![],
        dns: vec![],
        dns_search: vec![],
        dns_options: vec![],
        hosts: vec![("10.0.0.1".into(), vec!["a".into(), "b".into()])],
        shm_size: 64 << 20,
        stop_signal: 15,
        stop_timeout: 10,
        clock: 1,
        seed: String::new(),
        restart: Restart::default(),
        health: None,
        seccomp: "BgAAAAAA/38=".into(),
        log_size: 0,
        no_log: false,
        limits: Default::default(),
        tmpfs: Vec::new(),
        mounts: Vec::new(),
        nfs: Vec::new(),
        shares: Vec::new(),
        guards: Vec::new(),
        sctp: false,
        maintenance: None,
    }
}

fn read(keys: &HashMap<String, String>) -> Result<GuestConfig, ConfigError> {
    from_chunks(|key| Ok(keys.get(key).cloned()))
}

proptest! {
    #[test]
    fn a_configuration_comes_back_from_its_chunks(args in proptest::collection::vec(".{0,4000}", 1..12)) {
        let config = config(args);
        let keys = to_chunks(&config).unwrap();
        prop_assert!(keys.iter().all(|(_, value)| value.len() <= CONFIG_CHUNK));
        prop_assert_eq!(read(&keys.into_iter().collect()).unwrap(), config);
    }

    #[test]
    fn arbitrary_chunks_never_panic(count in ".{0,5}", chunk in ".{0,200}") {
        let keys = HashMap::from([(CONFIG_CHUNKS_KEY.to_owned(), count), (chunk_key(0), chunk)]);
        prop_assert!(read(&keys).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_no_message_or_one(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        // The form need not be canonical, but what comes out must go in again.
        if let Ok(message) = decode::<ToGuest>(&bytes) {
            prop_assert_eq!(decode::<ToGuest>(&encode(&message).unwrap()).unwrap(), message);
        }
        if let Ok(message) = decode::<ToHost>(&bytes) {
            prop_assert_eq!(decode::<ToHost>(&encode(&message).unwrap()).unwrap(), message);
        }
    }
}

#[test]
fn what_does_not_fit_guestinfo_is_refused_when_it_is_written() {
    let error = to_chunks(&config(vec!["x".repeat(400_000)])).unwrap_err();
    assert!(matches!(error, ConfigError::TooLarge(_)), "{error}");
}

#[test]
fn missing_and_impossible_chunks_are_named() {
    let mut keys: HashMap<_, _> = to_chunks(&config(vec!["x".repeat(90_000)]))
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(keys[CONFIG_CHUNKS_KEY], "3");
    keys.remove(&chunk_key(1));
    assert!(
        read(&keys)
            .unwrap_err()
            .to_string()
            .contains("config.1 is missing")
    );
    keys.insert(CONFIG_CHUNKS_KEY.into(), "99999999".into());
    assert!(matches!(read(&keys), Err(ConfigError::BadCount(_))));
}

#[test]
fn what_a_tether_does_not_know_is_refused_and_not_left_out() {
    let config = config(vec!["x".into()]);
    let text = serde_json::to_string(&config).unwrap();
    let known: GuestConfig = serde_json::from_str(&text).unwrap();
    assert_eq!(known, config);
    for (place, unknown) in [
        ("{", r#"{"volumes_of_tomorrow":[],"#),
        (r#""disk":{"#, r#""disk":{"encrypted":true,"#),
        (r#""process":{"#, r#""process":{"nice":3,"#),
    ] {
        let newer = text.replacen(place, unknown, 1);
        assert_ne!(newer, text);
        let e = serde_json::from_str::<GuestConfig>(&newer).unwrap_err();
        assert!(e.to_string().contains("unknown field"), "{e}");
    }
}

#[test]
fn a_newer_configuration_is_named_as_such() {
    let mut config = config(vec!["x".into()]);
    let newer = CONFIG_VERSION + 1;
    config.version = newer;
    let keys = to_chunks(&config).unwrap().into_iter().collect();
    assert!(matches!(read(&keys), Err(ConfigError::Version(v)) if v == newer));
}

#[test]
fn messages_are_bounded_and_nothing_may_be_behind_them() {
    let message = ToGuest::Exec {
        request: 1,
        session: wire::message::SessionId(1),
        process: process(vec!["sh".into()]),
        attach: None,
    };
    let mut bytes = encode(&message).unwrap();
    assert_eq!(decode::<ToGuest>(&bytes).unwrap(), message);
    bytes.push(0);
    assert_eq!(decode::<ToGuest>(&bytes), Err(MessageError::Trailing(1)));
    let long = vec![0; MESSAGE_MAX + 1];
    assert_eq!(
        decode::<ToGuest>(&long),
        Err(MessageError::TooLong(MESSAGE_MAX + 1))
    );
    // A sequence of 2^60 rows in ten bytes: Answer, request 0, Processes.
    let bomb = [
        2, 0, 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f,
    ];
    assert!(matches!(
        decode::<ToHost>(&bomb),
        Err(MessageError::Malformed(_))
    ));
}
