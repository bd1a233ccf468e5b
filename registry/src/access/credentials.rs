//! From a request's `Authorization` header to a principal.

use super::attempts::Attempts;
use super::tokens::{TokenError, Tokens};
use super::{Principal, password, secret};
use crate::metadata::{self, Metadata, now};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// How long a password that was verified is not hashed again.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Most of these; more are forgotten all at once.
const MOST_REMEMBERED: usize = 4096;
/// Passwords hashed at once (19 MiB each); who comes later waits.
const HASHED_AT_ONCE: usize = 4;
/// Most who wait for that; who comes then is sent away.
const WAITING: usize = 512;

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
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    attempts: Mutex<Attempts>,
    key: [u8; 32],
    hashing: Semaphore,
    waiting: AtomicUsize,
}

impl Credentials {
    /// Over these users and tokens.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(
        metadata: Arc<Metadata>,
        tokens: Arc<Tokens>,
    ) -> Result<Self, password::PasswordError> {
        Ok(Credentials {
            metadata,
            tokens,
            nobody: password::hash(&password::generate()?)?,
            remembered: Mutex::default(),
            attempts: Mutex::default(),
            key: secret::random().map_err(|e| password::PasswordError::Hash(e.to_string()))?,
            hashing: Semaphore::new(HASHED_AT_ONCE),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Who sent this request: with a password (`Basic`) or a token (`Bearer`).
    ///
    /// # Errors
    /// When it carries credentials that are not right; without any it is anonymous.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, SignInError> {
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
        self.sign_in(name, password).await
    }

    /// Verifies a user's password, or a robot's secret (its name has a `+`).
    ///
    /// # Errors
    /// When it is wrong, or there is no such user, or the name is locked.
    pub async fn sign_in(&self, name: &str, password: &str) -> Result<Principal, SignInError> {
        if password.len() > password::MAX_LENGTH || name.len() > crate::names::MAX_REPOSITORY {
            return Err(SignInError::Wrong);
        }
        match name.split_once('+') {
            Some((project, robot)) => self.robot(project, robot, password),
            None => self.user(name, password).await,
        }
    }

    async fn user(&self, name: &str, password: &str) -> Result<Principal, SignInError> {
        let user = self
            .metadata
            .read(|db| db.user(name))?
            .filter(|u| !u.disabled);
        let kept = user.as_ref().map_or(&self.nobody, |u| &u.password).clone();
        let proof = self.proof(name, password, &kept);
        // Who had the right password a moment ago is not locked out by somebody who guesses.
        if !self.is_remembered(&proof) {
            self.prove(name, password, kept).await?;
        }
        let user = user.ok_or(SignInError::Wrong)?;
        self.remember(proof);
        Ok(Principal::User {
            id: user.id,
            name: user.name,
            generation: user.generation,
        })
    }

    /// Hashes, within the bounds of memory and of attempts.
    async fn prove(&self, name: &str, password: &str, kept: String) -> Result<(), SignInError> {
        /// Counts down even when the client hangs up.
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        if before >= WAITING {
            return Err(SignInError::Busy);
        }
        let permit = self.hashing.acquire().await;
        // Looked at when its turn has come: what failed while it waited counts.
        let locked = self.attempts().locked(name, Instant::now());
        if let Some(left) = locked {
            return Err(SignInError::Locked(left.as_secs() + 1));
        }
        let password = password.to_owned();
        let right = tokio::task::spawn_blocking(move || password::verify(&password, &kept))
            .await
            .unwrap_or(false);
        drop(permit);
        drop(waiting);
        if !right {
            if self.attempts().failed(name, Instant::now()) {
                tracing::warn!(
                    "too many failed sign-ins as {name:?}: the name is locked for a while"
                );
            }
            return Err(SignInError::Wrong);
        }
        self.attempts().forget(name);
        Ok(())
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

    /// Lets a user sign in again whose name was locked.
    pub fn unlock(&self, name: &str) {
        self.attempts().forget(name);
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
        self.list()
            .get(proof)
            .is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    fn remember(&self, proof: [u8; 32]) {
        let mut list = self.list();
        if list.len() >= MOST_REMEMBERED {
            list.retain(|_, at| at.elapsed() < REMEMBERED);
            if list.len() >= MOST_REMEMBERED {
                list.clear();
            }
        }
        let at = list.entry(proof).or_insert_with(Instant::now);
        if at.elapsed() >= REMEMBERED {
            *at = Instant::now();
        }
    }

    fn list(&self) -> MutexGuard<'_, HashMap<[u8; 32], Instant>> {
        // A panic while it was held leaves the map whole.
        self.remembered.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        // As above.
        self.attempts.lock().unwrap_or_else(|e| e.into_inner())
    }
}
