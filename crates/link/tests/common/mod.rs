//! What the link's tests share: keys in memory, and sessions over a pipe.
#![allow(dead_code, reason = "each test program uses a part of it")]

use link::{GuestLink, HostLink, KeyStore, Options, accept, dial};
use std::collections::HashMap;
use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use wire::handshake::{Credentials, KeyState, NewSession};
use wire::keys::{Identity, Key};

/// Keys as the endpoint keeps them, in memory.
#[derive(Debug, Default)]
pub struct Keys(Mutex<HashMap<Identity, KeyState>>);

impl Keys {
    pub fn with(identity: Identity, secret: Key) -> Keys {
        Keys(Mutex::new(HashMap::from([(
            identity,
            KeyState::Fresh(secret),
        )])))
    }
}

impl KeyStore for Keys {
    async fn lookup(&self, identity: Identity) -> Result<Option<KeyState>, String> {
        Ok(self.0.lock().unwrap().get(&identity).cloned())
    }

    async fn store(&self, session: NewSession) -> Result<bool, String> {
        let mut keys = self.0.lock().unwrap();
        let state = keys.get_mut(&session.identity).ok_or("gone")?;
        let admitted = state.admits(&session);
        if admitted {
            *state = KeyState::after(&session);
        }
        Ok(admitted)
    }
}

pub fn identity() -> Identity {
    Identity {
        container: [7; 32],
        boot: 1,
    }
}

pub fn secret() -> Key {
    Key::new([9; 32])
}

/// A first session over two ends of a pipe.
pub async fn session<A, B>(guest: A, host: B, options: Options) -> (GuestLink, HostLink)
where
    A: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let keys = Keys::with(identity(), secret());
    let mut credentials = Credentials::new(identity(), secret());
    let (guest, host) = tokio::join!(
        dial(guest, &mut credentials, options.clone()),
        accept(host, &keys, None, options)
    );
    (guest.unwrap(), host.unwrap().1)
}

/// Nothing here takes longer on any machine; a test that hangs fails.
pub async fn deadline<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(180), what)
        .await
        .expect("the test hangs")
}

/// Bytes that are different at every place, cheaply.
pub fn pattern(offset: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 8);
    let mut word = offset / 8;
    while out.len() < len + 8 {
        out.extend_from_slice(&word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        word += 1;
    }
    let skip = (offset % 8) as usize;
    out[skip..skip + len].to_vec()
}
