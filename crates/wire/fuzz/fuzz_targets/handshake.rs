//! Arbitrary bytes as each message of a handshake; nothing may be proved.
#![no_main]
use libfuzzer_sys::fuzz_target;
use wire::handshake::{Credentials, KeyState, Listener};
use wire::keys::{Identity, Key};

fuzz_target!(|data: &[u8]| {
    let identity = Identity {
        container: [1; 32],
        boot: 1,
    };
    let secret = Key::new([2; 32]);
    let mut credentials = Credentials::new(identity, secret.clone());
    let Ok((dialer, hello)) = credentials.dial([3; 32]) else {
        return;
    };
    let _ = Listener::new([4; 32]).hello(data);
    if let Ok((listener, challenge)) = Listener::new([4; 32]).hello(&hello) {
        if let Ok(proving) = listener.proof(data) {
            assert!(proving.verify(Some(&KeyState::Fresh(secret))).is_err());
        }
        if let Ok((proved, _)) = dialer.challenge(&challenge, &mut credentials) {
            assert!(proved.confirm(data, &mut credentials).is_err());
        }
    }
});
