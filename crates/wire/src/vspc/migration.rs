//! vMotions under way at a concentrator: who may take over which port's stream.

use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;
use thiserror::Error;

/// Names one migration: the host's sequence and a secret of the concentrator.
#[derive(Clone, PartialEq, Eq)]
pub struct Cookie(Vec<u8>);

impl Cookie {
    /// A cookie as it stands on the wire.
    pub fn new(bytes: Vec<u8>) -> Cookie {
        Cookie(bytes)
    }
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Cookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cookie({} bytes)", self.0.len())
    }
}

/// Why a migration step is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MigrationError {
    /// No migration has this cookie, or its time ran out.
    #[error("no migration with this cookie is under way")]
    Unknown,
    /// One is under way for this port.
    #[error("a migration of this port is already under way")]
    Busy,
}

/// The migrations under way; one for a whole concentrator. `P` names a port (the VM).
#[derive(Debug)]
pub struct Migrations<P> {
    timeout: Duration,
    under_way: Vec<Migration<P>>,
}

#[derive(Debug)]
struct Migration<P> {
    port: P,
    cookie: Cookie,
    peered: bool,
    deadline: Instant,
}

impl<P: Clone + Eq> Migrations<P> {
    /// None yet. A begin that is not followed by a peer for `timeout`, or a peer that is not
    /// followed by its completion, is forgotten.
    pub fn new(timeout: Duration) -> Self {
        Migrations {
            timeout,
            under_way: Vec::new(),
        }
    }

    /// A port's host announced a migration. `secret`: fresh random bytes.
    pub fn begin(
        &mut self,
        port: P,
        sequence: &[u8],
        secret: [u8; 16],
        now: Instant,
    ) -> Result<Cookie, MigrationError> {
        if self
            .under_way
            .iter()
            .any(|m| m.port == port && m.deadline > now)
        {
            return Err(MigrationError::Busy);
        }
        let mut bytes = sequence.to_vec();
        bytes.extend_from_slice(&secret);
        let cookie = Cookie::new(bytes);
        // With what timed out.
        self.under_way
            .retain(|m| m.port != port && m.deadline > now);
        let deadline = now + self.timeout;
        self.under_way.push(Migration {
            port,
            cookie: cookie.clone(),
            peered: false,
            deadline,
        });
        Ok(cookie)
    }

    /// The destination presents a cookie: which port it may take over on COMPLETE. Once.
    pub fn peer(&mut self, cookie: &Cookie, now: Instant) -> Result<P, MigrationError> {
        let mut found = None;
        for migration in &mut self.under_way {
            let same: bool = migration.cookie.0.ct_eq(&cookie.0).into();
            if same && !migration.peered && migration.deadline > now {
                migration.peered = true;
                migration.deadline = now + self.timeout;
                found = Some(migration.port.clone());
            }
        }
        found.ok_or(MigrationError::Unknown)
    }

    /// COMPLETE or ABORT for a port: its migration is over.
    pub fn end(&mut self, port: &P) {
        self.under_way.retain(|m| m.port != *port);
    }

    /// Until when the output of a port is held back; `None` where no migration of it is under way.
    pub fn until(&self, port: &P, now: Instant) -> Option<Instant> {
        let ours = |m: &&Migration<P>| m.port == *port && m.deadline > now;
        self.under_way.iter().filter(ours).map(|m| m.deadline).max()
    }
}
