//! From a request's `Authorization` header to a principal.

use super::attempts::Attempts;
use super::hashing::{Busy, Hashing, network};
use super::tokens::{TokenError, Tokens};
use super::{Principal, password, secret};
use crate::audit::{Audit, Source};
use crate::metadata::{self, Metadata, now};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a password that was verified, or used again since, is not hashed again.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);
/// How long at most, however often it is used.
const REMEMBERED_AT_MOST: Duration = Duration::from_secs(8 * 3600);
/// Most of these; more are forgotten all at once.
const MOST_REMEMBERED: usize = 4096;

/// Why nobody could be made of the credentials.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// Wrong user, wrong password, or a header that is no credentials: not told apart.
    #[error("the user name or the password is wrong")]
    Wrong,
    /// Too many wrong passwords; whether there is such a user is not told.
    #[error("too many failed sign-ins with this name; try again in {0} seconds")]
    Locked(u64),
    /// Too many sign in at once.
    #[error("too many sign in at this moment; try again in a second")]
    Busy,
    /// A password that cannot be kept.
    #[error(transparent)]
    Password(#[from] password::PasswordError),
    /// A token that is not good.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The users could not be looked up.
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
}

/// Verifies credentials.
#[derive(Debug)]
pub struct Credentials {
    metadata: Arc<Metadata>,
    tokens: Arc<Tokens>,
    /// What to hash for a user that does not exist, so that the answer takes as long.
    nobody: String,
    /// Keyed hashes of what was verified lately. They contain the kept hash, so a changed password is not remembered.
    remembered: Mutex<HashMap<[u8; 32], Remembered>>,
    attempts: Arc<Mutex<Attempts>>,
    audit: Arc<Audit>,
    key: [u8; 32],
    /// Turns at hashing.
    pub hashing: Hashing,
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    proved: Instant,
    used: Instant,
}

impl Remembered {
    fn is_good(&self, now: Instant) -> bool {
        now.duration_since(self.used) < REMEMBERED
            && now.duration_since(self.proved) < REMEMBERED_AT_MOST
    }
}

impl Credentials {
    /// Over these users and tokens.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(
        metadata: Arc<Metadata>,
        tokens: Arc<Tokens>,
        audit: Arc<Audit>,
    ) -> Result<Self, password::PasswordError> {
        Ok(Credentials {
            metadata,
            tokens,
            nobody: password::hash(&password::generate()?)?,
            remembered: Mutex::default(),
            attempts: Arc::default(),
            audit,
            key: secret::random().map_err(|e| password::PasswordError::Hash(e.to_string()))?,
            hashing: Hashing::new(),
        })
    }

    /// Who sends a request, and from where. Whom the listener knows, as on the socket of its own command line, it has put
    /// there itself; everybody else proves who he is.
    ///
    /// # Errors
    /// Those of [`Credentials::authenticate`], beside the source.
    pub async fn identify(
        &self,
        extensions: &Extensions,
        headers: &HeaderMap,
    ) -> (Result<Principal, SignInError>, Source) {
        let source = extensions.get::<Source>().cloned().unwrap_or_default();
        let principal = match extensions.get::<Principal>() {
            Some(principal) => Ok(principal.clone()),
            None => self.authenticate(headers, &source).await,
        };
        (principal, source)
    }

    /// Who sent this request: with a password (`Basic`) or a token (`Bearer`).
    ///
    /// # Errors
    /// When it carries credentials that are not right; without any it is anonymous.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        source: &Source,
    ) -> Result<Principal, SignInError> {
        let Some(header) = headers.get(AUTHORIZATION) else {
            return Ok(Principal::Anonymous);
        };
        let text = header.to_str().map_err(|_| SignInError::Wrong)?;
        let (scheme, value) = text.split_once(' ').ok_or(SignInError::Wrong)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(self.tokens.verify(value.trim())?);
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(SignInError::Wrong);
        }
        let decoded = STANDARD
            .decode(value.trim())
            .map_err(|_| SignInError::Wrong)?;
        let decoded = String::from_utf8(decoded).map_err(|_| SignInError::Wrong)?;
        let (name, password) = decoded.split_once(':').ok_or(SignInError::Wrong)?;
        if name.is_empty() && password.is_empty() {
            // What skopeo sends when it has no credentials.
            return Ok(Principal::Anonymous);
        }
        self.sign_in(name, password, source).await
    }

    /// Verifies a user's password, or a robot's secret (its name has a `+`).
    ///
    /// # Errors
    /// When it is wrong, or there is no such user, or the name is slowed down.
    pub async fn sign_in(
        &self,
        name: &str,
        password: &str,
        source: &Source,
    ) -> Result<Principal, SignInError> {
        if password.len() > password::MAX_LENGTH || name.len() > crate::names::MAX_REPOSITORY {
            return Err(SignInError::Wrong);
        }
        match name.split_once('+') {
            Some((project, robot)) => self.robot(project, robot, password),
            None => self.user(name, password, source).await,
        }
    }

    /// Hashes a password for keeping, when it is its turn.
    ///
    /// # Errors
    /// When too many wait, or it cannot be kept.
    pub async fn hash(&self, password: &str, source: &Source) -> Result<String, SignInError> {
        let password = password.to_owned();
        let turn = self.hashing.turn(&source.0).await?;
        let hash = turn.run(move || password::hash(&password)).await;
        let broken = || password::PasswordError::Hash("it panicked".into());
        Ok(hash.ok_or_else(broken)??)
    }

    async fn user(
        &self,
        name: &str,
        password: &str,
        source: &Source,
    ) -> Result<Principal, SignInError> {
        let look = || {
            let found = self.metadata.read(|db| db.user(name))?;
            Ok::<_, metadata::Error>(found.filter(|u| !u.disabled))
        };
        let mut user = look()?;
        let kept = user.as_ref().map_or(&self.nobody, |u| &u.password).clone();
        let proof = self.proof(name, password, &kept);
        // Who had the right password lately is not slowed down by somebody who guesses.
        if !self.is_remembered(&proof) {
            let exists = user.is_some();
            self.prove(name, password, kept.clone(), source, exists)
                .await?;
            // It waited for its turn: what was proved has to be the password of now.
            user = look()?.filter(|u| u.password == kept);
        }
        let user = user.ok_or(SignInError::Wrong)?;
        self.remember(proof);
        Ok(Principal::User {
            id: user.id,
            name: user.name,
            generation: user.generation,
        })
    }

    /// Hashes, within the bounds of memory and of attempts. The hash counts as an attempt even when the client has gone.
    async fn prove(
        &self,
        name: &str,
        password: &str,
        kept: String,
        source: &Source,
        exists: bool,
    ) -> Result<(), SignInError> {
        let turn = self.hashing.turn(&source.0).await?;
        let network = network(&source.0);
        // Looked at when its turn has come: what failed while it waited counts.
        let admitted = lock(&self.attempts).admit(name, &network, Instant::now());
        if let Err(left) = admitted {
            return Err(SignInError::Locked(left.as_secs() + 1));
        }
        let (name, password, source) = (name.to_owned(), password.to_owned(), source.clone());
        let (attempts, audit) = (self.attempts.clone(), self.audit.clone());
        let right = turn.run(move || {
            if password::verify(&password, &kept) {
                lock(&attempts).succeeded(&name, &network);
                return true;
            }
            let slowed = lock(&attempts).failed(&name, &network, Instant::now());
            if slowed {
                tracing::warn!("too many failed sign-ins as {name:?}: few are let through now");
            }
            // Names that nobody has would let anybody fill the audit log.
            if slowed && exists {
                audit.note("system", &source, "sign-in.slow", Some(&name), None);
            }
            false
        });
        match right.await {
            Some(true) => Ok(()),
            _ => Err(SignInError::Wrong),
        }
    }

    fn robot(&self, project: &str, robot: &str, given: &str) -> Result<Principal, SignInError> {
        let found = self.metadata.read(|db| db.robot(project, robot))?;
        // Something is compared in any case.
        let kept = found.as_ref().map_or(&[0; 32][..], |r| &r.secret);
        let right = secret::verify(given, kept);
        let robot = found
            .filter(|r| right && r.is_good(now()))
            .ok_or(SignInError::Wrong)?;
        Ok(robot.into())
    }

    /// Forgets the failed sign-ins that slow a name down.
    pub fn unlock(&self, name: &str) {
        lock(&self.attempts).forget(name);
    }

    fn proof(&self, name: &str, password: &str, kept: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.key);
        for part in [name, password, kept] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    fn is_remembered(&self, proof: &[u8; 32]) -> bool {
        let now = Instant::now();
        let found = lock(&self.remembered).get(proof).copied();
        found.is_some_and(|r| r.is_good(now))
    }

    fn remember(&self, proof: [u8; 32]) {
        let now = Instant::now();
        let mut list = lock(&self.remembered);
        if list.len() >= MOST_REMEMBERED {
            list.retain(|_, r| r.is_good(now));
            if list.len() >= MOST_REMEMBERED {
                list.clear();
            }
        }
        let entry = list.entry(proof).or_insert(Remembered {
            proved: now,
            used: now,
        });
        if !entry.is_good(now) {
            entry.proved = now;
        }
        entry.used = now;
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while one of them was held leaves it whole.
    of.lock().unwrap_or_else(|e| e.into_inner())
}

impl From<Busy> for SignInError {
    fn from(_: Busy) -> Self {
        SignInError::Busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_remembered_but_not_for_ever() {
        let now = Instant::now();
        let after = |seconds: u64| now + Duration::from_secs(seconds);
        let mut remembered = Remembered {
            proved: now,
            used: now,
        };
        assert!(remembered.is_good(after(899)));
        assert!(!remembered.is_good(after(900)));
        remembered.used = after(899);
        assert!(remembered.is_good(after(1700)));
        remembered.used = after(8 * 3600 - 1);
        assert!(remembered.is_good(after(8 * 3600 - 1)));
        assert!(!remembered.is_good(after(8 * 3600)));
    }
}
