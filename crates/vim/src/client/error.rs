//! What can go wrong with a call.

use crate::fault::{Fault, FaultKind};
use crate::soap::SoapError;
use crate::value::DecodeError;
use std::time::Duration;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answers with a fault, or the task ended with one.
    #[error("{method}: {fault}")]
    Fault {
        /// The method.
        method: &'static str,
        /// Its fault.
        fault: Box<Fault>,
    },
    /// The answer cannot be understood.
    #[error("the answer to {method} cannot be understood: {source}")]
    Answer {
        /// The method.
        method: &'static str,
        /// Why.
        source: SoapError,
    },
    /// A property is not of the type that it should have.
    #[error("a property cannot be understood: {0}")]
    Property(#[from] DecodeError),
    /// No connection.
    #[error("cannot connect to {server}: {source}")]
    Connect {
        /// `host:port`.
        server: String,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke, or HTTP failed.
    #[error("the connection to {server} failed: {source}")]
    Http {
        /// `host:port`.
        server: String,
        /// Why.
        source: hyper::Error,
    },
    /// An HTTP status that is no answer.
    #[error("{server} answers {status} to {what}")]
    Status {
        /// `host:port`.
        server: String,
        /// Status code.
        status: u16,
        /// Method and path.
        what: String,
    },
    /// The answer is larger than can be taken.
    #[error("the answer of {server} has more than {max} bytes")]
    TooLarge {
        /// `host:port`.
        server: String,
        /// Bytes that are taken.
        max: usize,
    },
    /// No answer in time. The connection is not used again.
    #[error("{what} has had no answer for {limit:?}")]
    Timeout {
        /// The method.
        what: &'static str,
        /// The time-out.
        limit: Duration,
    },
    /// The URL, the certificate or the trust anchor cannot be used.
    #[error("{what} cannot be used: {why}")]
    Config {
        /// Which setting.
        what: &'static str,
        /// Why, and what would be right.
        why: String,
    },
    /// The server has no such manager.
    #[error("the server has no {name}")]
    NoManager {
        /// Which.
        name: &'static str,
    },
    /// Nothing of this name is in the inventory.
    #[error("the server has no {what}")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The waiter for tasks has ended.
    #[error("the task {task} is no longer watched: {why}")]
    TaskLost {
        /// Which.
        task: String,
        /// Why.
        why: String,
    },
}

impl Error {
    /// The server's fault, where it is one.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Error::Fault { fault, .. } => Some(fault),
            _ => None,
        }
    }

    /// The kind of the server's fault, where it is one.
    pub fn kind(&self) -> Option<&FaultKind> {
        self.fault().map(|f| &f.kind)
    }

    /// Whether what was asked for does not exist (a fault of that meaning, or 404).
    pub fn is_not_found(&self) -> bool {
        self.fault().is_some_and(Fault::is_not_found)
            || matches!(
                self,
                Error::Status { status: 404, .. } | Error::NotFound { .. }
            )
    }
}
