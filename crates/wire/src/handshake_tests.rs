//! Named after what each must stop.

use super::*;
use proptest::prelude::*;

fn identity() -> Identity {
    Identity {
        container: [0x11; 32],
        boot: 2,
    }
}

fn secret() -> Key {
    Key::new([0x22; 32])
}

fn credentials() -> Credentials {
    Credentials::new(identity(), secret())
}

/// What went over the line in one handshake, and the session that it made.
struct Course {
    messages: Vec<Vec<u8>>,
    session: NewSession,
}

/// A whole handshake; `known` is advanced as a store would.
fn course(
    credentials: &mut Credentials,
    known: &mut KeyState,
    nonces: (u8, u8),
) -> Result<Course, HandshakeError> {
    let (dialer, hello) = credentials.dial([nonces.0; NONCE])?;
    let (listener, challenge) = Listener::new([nonces.1; NONCE]).hello(&hello)?;
    let (dialer, proof) = dialer.challenge(&challenge, credentials)?;
    let proved = listener.proof(&proof)?.verify(Some(known))?;
    let session = proved.session().clone();
    assert!(known.admits(&session));
    *known = KeyState::after(&session);
    let (_, confirm) = proved.confirm();
    assert_eq!(dialer.confirm(&confirm, credentials), Ok(Version::V1));
    Ok(Course {
        messages: vec![hello, challenge, proof, confirm],
        session,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// These bytes are the protocol. If this test fails, peers of other releases are shut out: add a
/// version instead.
#[test]
fn the_bytes_of_version_1_are_pinned() {
    let course = course(
        &mut credentials(),
        &mut KeyState::Fresh(secret()),
        (0x33, 0x44),
    )
    .unwrap();
    let [hello, challenge, proof, confirm] = &course.messages[..] else {
        panic!()
    };
    assert_eq!(
        hex(hello),
        [
            "01",
            "4d4f4f52494e4700",
            "0100",
            "0100",
            &"11".repeat(32),
            "0200000000000000",
            "0100000000000000",
            &"33".repeat(32)
        ]
        .concat()
    );
    assert_eq!(hex(challenge), ["02", "0100", &"44".repeat(32)].concat());
    assert_eq!(hex(proof), PROOF_HEX);
    assert_eq!(hex(confirm), CONFIRM_HEX);
    assert_eq!(course.session.key.to_hex(), RESUME_HEX);
}

// Computed by an independent implementation (Python's hmac and hashlib).
const PROOF_HEX: &str = "03aba5f177778058c00eb2e58ea28a8bcd5abfda17e78d17bcb476a0dff52a8c44";
const CONFIRM_HEX: &str = "041004ad3df757caca27e9fbe85433c3a45ea40932177a8072c43c8a5c02e46bae";
const RESUME_HEX: &str = "8e29cd5eee7074da104615254ba7ea3cf361d74b410f4199c1f2cf2781e22935";

#[test]
fn sessions_after_the_first_use_the_resume_key_and_not_the_secret() {
    let (mut credentials, mut known) = (credentials(), KeyState::Fresh(secret()));
    let first = course(&mut credentials, &mut known, (1, 2)).unwrap();
    let second = course(&mut credentials, &mut known, (3, 4)).unwrap();
    assert_eq!((first.session.session, second.session.session), (1, 2));
    assert_eq!(first.session.key, second.session.key);
    assert_ne!(first.session.key, secret());
}

#[test]
fn a_replayed_transcript_is_refused() {
    let (mut credentials, mut known) = (credentials(), KeyState::Fresh(secret()));
    let fresh = known.clone();
    let first = course(&mut credentials, &mut known, (1, 2)).unwrap();
    let second = course(&mut credentials, &mut known, (3, 4)).unwrap();
    for state in [&known, &fresh] {
        for old in [&first, &second] {
            // The listener's nonce is another one each time.
            let (listener, _) = Listener::new([9; NONCE]).hello(&old.messages[0]).unwrap();
            let proving = listener.proof(&old.messages[2]).unwrap();
            assert!(matches!(
                proving.verify(Some(state)),
                Err(HandshakeError::Unproven { .. })
            ));
        }
    }
}

#[test]
fn a_second_first_session_is_refused_even_with_the_secret() {
    let mut known = KeyState::Fresh(secret());
    course(&mut credentials(), &mut known, (1, 2)).unwrap();
    let again = course(&mut credentials(), &mut known, (3, 4)).err();
    assert!(matches!(
        again,
        Some(HandshakeError::Unproven { session: 1, .. })
    ));
}

#[test]
fn two_first_sessions_side_by_side_cannot_both_be_stored() {
    let mut state = KeyState::Fresh(secret());
    let mut proved = Vec::new();
    for nonce in [1, 2] {
        let mut credentials = credentials();
        let (dialer, hello) = credentials.dial([nonce; NONCE]).unwrap();
        let (listener, challenge) = Listener::new([nonce; NONCE]).hello(&hello).unwrap();
        let (_, proof) = dialer.challenge(&challenge, &mut credentials).unwrap();
        proved.push(
            listener
                .proof(&proof)
                .unwrap()
                .verify(Some(&state))
                .unwrap()
                .session()
                .clone(),
        );
    }
    assert!(state.admits(&proved[0]));
    state = KeyState::after(&proved[0]);
    assert!(!state.admits(&proved[1]) && !state.admits(&proved[0]));
}

#[test]
fn a_lower_or_equal_session_number_is_refused() {
    let (mut one, mut known) = (credentials(), KeyState::Fresh(secret()));
    course(&mut one, &mut known, (1, 2)).unwrap();
    // A copy of the VM's memory from before.
    let mut copy = Credentials {
        identity: one.identity,
        secret: None,
        resume: one.resume.clone(),
        candidates: Vec::new(),
        turn: 0,
        session: one.session,
    };
    course(&mut one, &mut known, (3, 4)).unwrap();
    let stale = course(&mut copy, &mut known, (5, 6)).err();
    assert!(matches!(
        stale,
        Some(HandshakeError::Unproven { session: 2, .. })
    ));
}

#[test]
fn a_peer_without_the_secret_learns_nothing_and_not_even_whether_the_vm_exists() {
    let mut thief = Credentials::new(identity(), Key::new([0; 32]));
    let known = KeyState::Fresh(secret());
    for known in [Some(&known), None] {
        let (dialer, hello) = thief.dial([1; NONCE]).unwrap();
        let (listener, challenge) = Listener::new([2; NONCE]).hello(&hello).unwrap();
        // The challenge is the same for all: no lookup was made.
        assert_eq!(challenge, [&[2, 1, 0][..], &[2; 32]].concat());
        let (dialer, proof) = dialer.challenge(&challenge, &mut thief).unwrap();
        let error = listener.proof(&proof).unwrap().verify(known).unwrap_err();
        assert!(matches!(error, HandshakeError::Unproven { .. }));
        assert_eq!(
            dialer.confirm(&refused(), &mut thief),
            Err(HandshakeError::Refused)
        );
        thief = Credentials::new(identity(), Key::new([0; 32]));
    }
}

/// The key that stands for "nobody" must not open anything.
#[test]
fn an_unknown_identity_cannot_be_proved_with_a_key_of_zeros() {
    let mut thief = Credentials::new(identity(), Key::new([0; 32]));
    let (dialer, hello) = thief.dial([1; NONCE]).unwrap();
    let (listener, challenge) = Listener::new([2; NONCE]).hello(&hello).unwrap();
    let (_, proof) = dialer.challenge(&challenge, &mut thief).unwrap();
    assert!(listener.proof(&proof).unwrap().verify(None).is_err());
}

#[test]
fn a_false_endpoint_is_found_out() {
    let mut tether = credentials();
    let (dialer, hello) = tether.dial([1; NONCE]).unwrap();
    let (_, challenge) = Listener::new([2; NONCE]).hello(&hello).unwrap();
    let (dialer, proof) = dialer.challenge(&challenge, &mut tether).unwrap();
    // It sends the proof back, relabelled: the labels differ.
    let mut mirrored = proof;
    mirrored[0] = TAG_CONFIRM;
    assert_eq!(
        dialer.confirm(&mirrored, &mut tether),
        Err(HandshakeError::NotTheEndpoint)
    );
    assert!(!tether.is_established());
}

#[test]
fn a_changed_bit_anywhere_in_the_transcript_is_found_out() {
    // Not the tag, the magic or the version range, which are refused by their form.
    for at in 13..HELLO {
        let mut tether = credentials();
        let (dialer, hello) = tether.dial([1; NONCE]).unwrap();
        let mut changed = hello.clone();
        changed[at] ^= 1;
        let (listener, challenge) = Listener::new([2; NONCE]).hello(&changed).unwrap();
        let (_, proof) = dialer.challenge(&challenge, &mut tether).unwrap();
        let verified = listener
            .proof(&proof)
            .unwrap()
            .verify(Some(&KeyState::Fresh(secret())));
        assert!(verified.is_err(), "byte {at}");
    }
}

#[test]
fn a_downgrade_is_found_out() {
    let mut tether = credentials();
    let (dialer, hello) = tether.dial([1; NONCE]).unwrap();
    let mut lowered = hello;
    lowered[11] = 9; // A peer in the middle changes the highest version offered.
    let (listener, challenge) = Listener::new([2; NONCE]).hello(&lowered).unwrap();
    let (_, proof) = dialer.challenge(&challenge, &mut tether).unwrap();
    assert!(
        listener
            .proof(&proof)
            .unwrap()
            .verify(Some(&KeyState::Fresh(secret())))
            .is_err()
    );
}

#[test]
fn another_version_is_named() {
    let (_, mut hello) = credentials().dial([1; NONCE]).unwrap();
    hello[9] = 7;
    hello[11] = 8;
    let error = Listener::new([2; NONCE]).hello(&hello).unwrap_err();
    assert_eq!(error, HandshakeError::Version { min: 7, max: 8 });
    assert!(error.to_string().contains("7 to 8"));
}

#[test]
fn a_dialer_that_heard_no_confirm_tries_every_key_that_may_be_stored() {
    let (mut tether, mut known) = (credentials(), KeyState::Fresh(secret()));
    for nonce in 0..20u8 {
        let (dialer, hello) = tether.dial([nonce; NONCE]).unwrap();
        let (listener, challenge) = Listener::new([!nonce; NONCE]).hello(&hello).unwrap();
        let (dialer, proof) = dialer.challenge(&challenge, &mut tether).unwrap();
        let Ok(proved) = listener.proof(&proof).unwrap().verify(Some(&known)) else {
            continue;
        };
        // The first two that get as far are stored, but the confirm is lost.
        known = KeyState::after(proved.session());
        if proved.session().session > 1 {
            let (_, confirm) = proved.confirm();
            assert!(dialer.confirm(&confirm, &mut tether).is_ok());
            return;
        }
    }
    panic!("never established");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_never_prove(message in proptest::collection::vec(any::<u8>(), 0..120)) {
        let mut tether = credentials();
        let (dialer, hello) = tether.dial([1; NONCE]).unwrap();
        let _ = Listener::new([2; NONCE]).hello(&message);
        let (listener, challenge) = Listener::new([2; NONCE]).hello(&hello).unwrap();
        if let Ok(proving) = listener.proof(&message) {
            prop_assert!(proving.verify(Some(&KeyState::Fresh(secret()))).is_err());
        }
        let (proved, _) = dialer.challenge(&challenge, &mut tether).unwrap();
        prop_assert!(proved.confirm(&message, &mut tether).is_err());
        let (dialer, _) = credentials().dial([1; NONCE]).unwrap();
        let _ = dialer.challenge(&message, &mut tether);
    }
}
