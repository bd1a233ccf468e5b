//! The handshake that opens each session of the link (0001-boundaries.md, "The link's course").
//!
//! The tether dials, the endpoint listens; four messages, each the payload of one frame:
//!
//! 1. *hello*, dialer: versions it speaks, identity, session number, nonce.
//! 2. *challenge*, listener: the version chosen, nonce. The same whoever calls.
//! 3. *proof*, dialer: HMAC over the transcript of 1 and 2.
//! 4. *confirm*, listener: HMAC over the transcript of 1 to 3; or *refused*, which says nothing.
//!
//! Session 1 of a boot is keyed by the per-boot secret, which is never sent and of no use
//! afterwards; both sides derive the *resume key* from it and the transcript. Sessions from 2 on
//! are keyed by the resume key and must have a number higher than the last. The listener stores
//! resume key and session number before it confirms, so an endpoint that was restarted at any
//! moment still refuses what it refused before. A dialer that sent its proof and heard nothing
//! cannot know whether the key was stored: [`Credentials`] keeps the candidates and tries them
//! in turn.

use crate::keys::{Identity, Key, transcript};
use crate::version::Version;
use hmac::Mac;
use thiserror::Error;

/// First bytes of a hello.
pub const MAGIC: [u8; 8] = *b"MOORING\0";
/// Length of a nonce in bytes.
pub const NONCE: usize = 32;
/// The number of the first session of a boot, the one that the secret keys.
pub const FIRST_SESSION: u64 = 1;
/// Length of the longest handshake message in bytes.
pub const MESSAGE_MAX: usize = HELLO;

const HELLO: usize = 1 + 8 + 2 + 2 + 32 + 8 + 8 + NONCE;
const CHALLENGE: usize = 1 + 2 + NONCE;
const PROOF: usize = 1 + 32;

const TAG_HELLO: u8 = 1;
const TAG_CHALLENGE: u8 = 2;
const TAG_PROOF: u8 = 3;
const TAG_CONFIRM: u8 = 4;
const TAG_REFUSED: u8 = 5;

const LABEL_PROOF: &[u8] = b"mooring v1 dialer proof\0";
const LABEL_CONFIRM: &[u8] = b"mooring v1 listener confirm\0";
const LABEL_RESUME: &[u8] = b"mooring v1 resume key\0";

/// Unconfirmed resume keys that a dialer keeps. One is made only where the connection broke
/// between proof and confirm, and at most one of them can have been stored.
const CANDIDATES: usize = 4;

/// Why a handshake ended without a session.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HandshakeError {
    /// Not the message that this step needs.
    #[error(
        "the peer does not speak the link protocol: expected a {expected}, got {len} bytes that are none"
    )]
    Malformed {
        /// The message that was due.
        expected: &'static str,
        /// Length of what came.
        len: usize,
    },
    /// Nothing in common.
    #[error("no common protocol version: the peer speaks {min} to {max}, this build {} to {}; use a boot image and an endpoint of the same release", Version::MIN.number(), Version::MAX.number())]
    Version {
        /// The peer's lowest.
        min: u16,
        /// The peer's highest.
        max: u16,
    },
    /// The listener did not take the proof. It says no more on purpose.
    #[error("the endpoint refused this session")]
    Refused,
    /// The listener could not prove itself.
    #[error("the peer that answered is not this VM's endpoint: its confirmation is wrong")]
    NotTheEndpoint,
    /// The dialer could not prove itself. Logged by the endpoint, never told to the peer.
    #[error("session {session} of {identity:?} refused: {reason}")]
    Unproven {
        /// Who the peer claimed to be.
        identity: Identity,
        /// The session number it claimed.
        session: u64,
        /// What was wrong.
        reason: &'static str,
    },
    /// There is nothing left to dial with.
    #[error("no session number is left for this boot")]
    Exhausted,
}

// ---- the dialer ---------------------------------------------------------------------------

/// What the tether dials with: identity, secret, and what it learned in earlier sessions.
#[derive(Debug)]
pub struct Credentials {
    identity: Identity,
    /// Until the first session is confirmed.
    secret: Option<Key>,
    /// The resume key, confirmed.
    resume: Option<Key>,
    /// Resume keys whose confirm was not heard, oldest first.
    candidates: Vec<Key>,
    /// Which of secret and candidates is next.
    turn: usize,
    /// The highest session number used.
    session: u64,
}

impl Credentials {
    /// For the first session of a boot.
    pub fn new(identity: Identity, secret: Key) -> Credentials {
        Credentials {
            identity,
            secret: Some(secret),
            resume: None,
            candidates: Vec::new(),
            turn: 0,
            session: 0,
        }
    }

    /// Who dials.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The number of the last session that was tried; 0: none yet.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// True once a session was confirmed.
    pub fn is_established(&self) -> bool {
        self.resume.is_some()
    }

    /// Begins a session: the machine and the hello to send. `nonce` is fresh random bytes.
    pub fn dial(&mut self, nonce: [u8; NONCE]) -> Result<(Dialer, Vec<u8>), HandshakeError> {
        // The unconfirmed: newest candidate first, the secret after the oldest, and again.
        let (key, first) = match (&self.resume, &self.secret) {
            (Some(key), _) => (key.clone(), false),
            (None, secret) => {
                let turn =
                    self.turn % (self.candidates.len() + usize::from(secret.is_some())).max(1);
                self.turn = turn + 1;
                match self.candidates.iter().rev().nth(turn).or(secret.as_ref()) {
                    Some(key) => (key.clone(), turn >= self.candidates.len()),
                    None => return Err(HandshakeError::Exhausted),
                }
            }
        };
        let session = if first {
            FIRST_SESSION
        } else {
            self.session
                .checked_add(1)
                .ok_or(HandshakeError::Exhausted)?
                .max(FIRST_SESSION + 1)
        };
        self.session = self.session.max(session);
        let mut hello = Vec::with_capacity(HELLO);
        hello.push(TAG_HELLO);
        hello.extend_from_slice(&MAGIC);
        hello.extend_from_slice(&Version::MIN.number().to_le_bytes());
        hello.extend_from_slice(&Version::MAX.number().to_le_bytes());
        hello.extend_from_slice(&self.identity.container);
        hello.extend_from_slice(&self.identity.boot.to_le_bytes());
        hello.extend_from_slice(&session.to_le_bytes());
        hello.extend_from_slice(&nonce);
        Ok((
            Dialer {
                key,
                first,
                hello: hello.clone(),
            },
            hello,
        ))
    }
}

/// The dialer after its hello.
#[derive(Debug)]
pub struct Dialer {
    key: Key,
    first: bool,
    hello: Vec<u8>,
}

impl Dialer {
    /// Takes the challenge; gives the machine's next step and the proof to send.
    pub fn challenge(
        self,
        message: &[u8],
        credentials: &mut Credentials,
    ) -> Result<(ProvedDialer, Vec<u8>), HandshakeError> {
        if message == [TAG_REFUSED] {
            return Err(HandshakeError::Refused);
        }
        let body = expect(message, TAG_CHALLENGE, CHALLENGE, "challenge")?;
        let number = u16::from_le_bytes([body[0], body[1]]);
        let version = Version::from_number(number).ok_or(HandshakeError::Version {
            min: number,
            max: number,
        })?;
        let hash = transcript(&[&self.hello, message]);
        let resume = if self.first {
            self.key.derive(LABEL_RESUME, &hash)
        } else {
            self.key.clone()
        };
        if self.first {
            if credentials.candidates.len() == CANDIDATES {
                credentials.candidates.remove(0);
            }
            credentials.candidates.push(resume.clone());
            credentials.turn = 0;
        }
        let mut proof = Vec::with_capacity(PROOF);
        proof.push(TAG_PROOF);
        proof.extend_from_slice(&self.key.mac(LABEL_PROOF, &hash).finalize().into_bytes());
        let hash = transcript(&[&self.hello, message, &proof]);
        Ok((
            ProvedDialer {
                key: self.key,
                resume,
                version,
                hash,
            },
            proof,
        ))
    }
}

/// The dialer after its proof.
#[derive(Debug)]
pub struct ProvedDialer {
    key: Key,
    resume: Key,
    version: Version,
    hash: [u8; 32],
}

impl ProvedDialer {
    /// Takes the confirm. From here on the secret is forgotten and the session stands.
    pub fn confirm(
        self,
        message: &[u8],
        credentials: &mut Credentials,
    ) -> Result<Version, HandshakeError> {
        if message == [TAG_REFUSED] {
            return Err(HandshakeError::Refused);
        }
        let body = expect(message, TAG_CONFIRM, PROOF, "confirm")?;
        if self
            .key
            .mac(LABEL_CONFIRM, &self.hash)
            .verify_slice(body)
            .is_err()
        {
            return Err(HandshakeError::NotTheEndpoint);
        }
        credentials.secret = None;
        credentials.candidates.clear();
        credentials.resume = Some(self.resume);
        Ok(self.version)
    }
}

// ---- the listener -------------------------------------------------------------------------

/// What the endpoint knows of one boot of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyState {
    /// No session yet: the per-boot secret.
    Fresh(Key),
    /// A session was confirmed, or may have been.
    Resume {
        /// The resume key.
        key: Key,
        /// The highest session number stored.
        session: u64,
    },
}

/// A session that has proved itself and waits to be stored and confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Whose it is.
    pub identity: Identity,
    /// The resume key from now on.
    pub key: Key,
    /// Its number.
    pub session: u64,
}

impl KeyState {
    /// Whether `new` may replace this state. A store checks this in the same step in which it
    /// writes, since two handshakes for one VM may run side by side.
    pub fn admits(&self, new: &NewSession) -> bool {
        match self {
            KeyState::Fresh(_) => new.session == FIRST_SESSION,
            KeyState::Resume { key, session } => new.session > *session && *key == new.key,
        }
    }

    /// The state once `new` is stored.
    pub fn after(new: &NewSession) -> KeyState {
        KeyState::Resume {
            key: new.key.clone(),
            session: new.session,
        }
    }
}

/// The listener before a hello.
#[derive(Debug)]
pub struct Listener {
    nonce: [u8; NONCE],
}

impl Listener {
    /// A listener for one connection. `nonce` is fresh random bytes.
    pub fn new(nonce: [u8; NONCE]) -> Listener {
        Listener { nonce }
    }

    /// Takes the hello; gives the next step and the challenge to send.
    pub fn hello(self, message: &[u8]) -> Result<(ChallengedListener, Vec<u8>), HandshakeError> {
        let body = expect(message, TAG_HELLO, HELLO, "hello")?;
        let (magic, body) = body.split_at(8);
        if magic != MAGIC {
            return Err(HandshakeError::Malformed {
                expected: "hello",
                len: message.len(),
            });
        }
        let (min, max) = (
            u16::from_le_bytes([body[0], body[1]]),
            u16::from_le_bytes([body[2], body[3]]),
        );
        let version = Version::negotiate(min, max).ok_or(HandshakeError::Version { min, max })?;
        let mut container = [0; 32];
        container.copy_from_slice(&body[4..36]);
        let identity = Identity {
            container,
            boot: le64(&body[36..44]),
        };
        let session = le64(&body[44..52]);
        let mut challenge = Vec::with_capacity(CHALLENGE);
        challenge.push(TAG_CHALLENGE);
        challenge.extend_from_slice(&version.number().to_le_bytes());
        challenge.extend_from_slice(&self.nonce);
        let next = ChallengedListener {
            identity,
            session,
            version,
            hello: message.to_vec(),
            challenge: challenge.clone(),
        };
        Ok((next, challenge))
    }
}

/// The listener after its challenge.
#[derive(Debug)]
pub struct ChallengedListener {
    identity: Identity,
    session: u64,
    version: Version,
    hello: Vec<u8>,
    challenge: Vec<u8>,
}

impl ChallengedListener {
    /// Takes the proof. The driver then looks the identity up and calls [`ProvingListener::verify`].
    pub fn proof(self, message: &[u8]) -> Result<ProvingListener, HandshakeError> {
        let body = expect(message, TAG_PROOF, PROOF, "proof")?;
        let mut proof = [0; 32];
        proof.copy_from_slice(body);
        Ok(ProvingListener {
            identity: self.identity,
            session: self.session,
            version: self.version,
            hash: transcript(&[&self.hello, &self.challenge]),
            confirm_hash: transcript(&[&self.hello, &self.challenge, message]),
            proof,
        })
    }
}

/// The listener with a proof that is not yet verified.
#[derive(Debug)]
pub struct ProvingListener {
    identity: Identity,
    session: u64,
    version: Version,
    hash: [u8; 32],
    confirm_hash: [u8; 32],
    proof: [u8; 32],
}

impl ProvingListener {
    /// Who the peer claims to be; not proved.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Verifies the proof against what is known of the identity (`None`: nothing). An unknown
    /// identity costs the same work and gets the same answer as a wrong proof.
    pub fn verify(self, known: Option<&KeyState>) -> Result<ProvedListener, HandshakeError> {
        let nobody = Key::new([0; 32]);
        let (key, number_fits, why) = match known {
            Some(KeyState::Fresh(secret)) => (
                secret,
                self.session == FIRST_SESSION,
                "no session was made yet, and this is not the first",
            ),
            Some(KeyState::Resume { key, session }) => (
                key,
                self.session > *session,
                "its session number was used already",
            ),
            None => (
                &nobody,
                false,
                "no such VM, or it is not of this virtual container host",
            ),
        };
        let proved = key
            .mac(LABEL_PROOF, &self.hash)
            .verify_slice(&self.proof)
            .is_ok();
        let unproven = |reason| HandshakeError::Unproven {
            identity: self.identity,
            session: self.session,
            reason,
        };
        if !number_fits {
            return Err(unproven(why));
        }
        if !proved {
            return Err(unproven("its proof is wrong"));
        }
        let resume = match known {
            Some(KeyState::Fresh(secret)) => secret.derive(LABEL_RESUME, &self.hash),
            _ => key.clone(),
        };
        let mut confirm = Vec::with_capacity(PROOF);
        confirm.push(TAG_CONFIRM);
        confirm.extend_from_slice(
            &key.mac(LABEL_CONFIRM, &self.confirm_hash)
                .finalize()
                .into_bytes(),
        );
        Ok(ProvedListener {
            new: NewSession {
                identity: self.identity,
                key: resume,
                session: self.session,
            },
            version: self.version,
            confirm,
        })
    }
}

/// The listener once the peer has proved itself.
#[derive(Debug)]
pub struct ProvedListener {
    new: NewSession,
    version: Version,
    confirm: Vec<u8>,
}

impl ProvedListener {
    /// What must be stored before [`ProvedListener::confirm`].
    pub fn session(&self) -> &NewSession {
        &self.new
    }

    /// The confirm to send, now that the session is stored.
    pub fn confirm(self) -> (Version, Vec<u8>) {
        (self.version, self.confirm)
    }
}

/// The one answer to everything that is not taken.
pub fn refused() -> Vec<u8> {
    vec![TAG_REFUSED]
}

/// The body of a message that must have this tag and length.
fn expect<'a>(
    message: &'a [u8],
    tag: u8,
    length: usize,
    expected: &'static str,
) -> Result<&'a [u8], HandshakeError> {
    match message.split_first() {
        Some((&first, body)) if first == tag && message.len() == length => Ok(body),
        _ => Err(HandshakeError::Malformed {
            expected,
            len: message.len(),
        }),
    }
}

fn le64(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
