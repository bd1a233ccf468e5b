//! From a request's `Authorization` header to a principal.

use super::{Principal, password};
use crate::metadata::{self, Metadata};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// How long a password that was verified is not hashed again.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Most of these; more are forgotten all at once.
const MOST_REMEMBERED: usize = 4096;
/// Passwords hashed at once (19 MiB each); who comes later waits.
const HASHED_AT_ONCE: usize = 4;

/// Why nobody could be made of the credentials.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// Wrong user, wrong password, or a header that is no credentials: not told apart.
    #[error("the user name or the password is wrong")]
    Wrong,
    /// The users could not be looked up.
    #[error(transparent)]
    Metadata(#[from] metadata::Error),
}

/// Verifies credentials.
#[derive(Debug)]
pub struct Credentials {
    metadata: Arc<Metadata>,
    /// What to hash for a user that does not exist, so that the answer takes as long.
    nobody: String,
    /// Keyed hashes of what was verified lately. They contain the kept hash, so a changed password is not remembered.
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    key: [u8; 32],
    hashing: Semaphore,
}

impl Credentials {
    /// Over these users.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(metadata: Arc<Metadata>) -> Result<Self, password::PasswordError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|e| password::PasswordError::Hash(e.to_string()))?;
        Ok(Credentials {
            metadata,
            nobody: password::hash(&password::generate()?)?,
            remembered: Mutex::default(),
            key,
            hashing: Semaphore::new(HASHED_AT_ONCE),
        })
    }

    /// Who sent this request.
    ///
    /// # Errors
    /// When it carries credentials that are not right; without any it is anonymous.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, SignInError> {
        let Some(header) = headers.get(AUTHORIZATION) else {
            return Ok(Principal::Anonymous);
        };
        let text = header.to_str().map_err(|_| SignInError::Wrong)?;
        let (scheme, value) = text.split_once(' ').ok_or(SignInError::Wrong)?;
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

    /// Verifies a user's password.
    ///
    /// # Errors
    /// When it is wrong, or there is no such user.
    pub async fn sign_in(&self, name: &str, password: &str) -> Result<Principal, SignInError> {
        if password.len() > password::MAX_LENGTH {
            return Err(SignInError::Wrong);
        }
        let user = self.metadata.read(|db| db.user(name))?;
        let kept = user.as_ref().map_or(&self.nobody, |u| &u.password).clone();
        let proof = self.proof(name, password, &kept);
        if !self.is_remembered(&proof) {
            let permit = self.hashing.acquire().await;
            let password = password.to_owned();
            let right = tokio::task::spawn_blocking(move || password::verify(&password, &kept))
                .await
                .unwrap_or(false);
            drop(permit);
            if !right {
                return Err(SignInError::Wrong);
            }
        }
        let user = user.ok_or(SignInError::Wrong)?;
        self.remember(proof);
        Ok(Principal::User {
            name: user.name,
            administrator: user.administrator,
        })
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
}
