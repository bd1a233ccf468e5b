//! vMotions under way at a concentrator: who may take over which port's stream.

use std::time::{Duration, Instant};
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
    _p: std::marker::PhantomData<P>,
}

impl<P: Clone + Eq> Migrations<P> {
    /// None yet. A begin that is not followed for `timeout` is forgotten.
    pub fn new(timeout: Duration) -> Self {
        let _ = timeout;
        unimplemented!()
    }

    /// A port's host announced a migration. `secret`: fresh random bytes.
    pub fn begin(
        &mut self,
        port: P,
        sequence: &[u8],
        secret: [u8; 16],
        now: Instant,
    ) -> Result<Cookie, MigrationError> {
        let _ = (port, sequence, secret, now);
        unimplemented!()
    }

    /// The destination presents a cookie: which port it may take over on COMPLETE.
    pub fn peer(&mut self, cookie: &Cookie, now: Instant) -> Result<P, MigrationError> {
        let _ = (cookie, now);
        unimplemented!()
    }

    /// COMPLETE or ABORT for a port: its migration is over.
    pub fn end(&mut self, port: &P) {
        let _ = port;
        unimplemented!()
    }

    /// Forgets what timed out; returns the ports whose held-back output is to flow again.
    pub fn expire(&mut self, now: Instant) -> Vec<P> {
        let _ = now;
        unimplemented!()
    }

    /// When [`Migrations::expire`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        unimplemented!()
    }
}
