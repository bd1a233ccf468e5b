//! What goes wrong with a registry.

use layers::Digest;

/// What a registry refused, or failed to do.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It cannot be reached, or the connection broke.
    #[error("Get \"{url}\": {reason}")]
    Transport {
        /// What was asked for.
        url: String,
        /// Why it failed.
        reason: String,
    },
    /// The name or reference is not known there.
    #[error("manifest for {0} not found: manifest unknown: manifest unknown")]
    NotFound(String),
    /// Credentials are missing or wrong.
    #[error("unauthorized: {0}")]
    Unauthorized(String),
    /// It asks to slow down.
    #[error("toomanyrequests: {0}")]
    TooManyRequests(String),
    /// Any other refusal.
    #[error("unexpected answer {status} of the registry for {url}: {reason}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The registry's words.
        reason: String,
    },
    /// What it sent is not what its digest says.
    #[error(
        "the content of {url} has the digest {is} instead of {should}; the registry or something on the way to it is broken"
    )]
    Digest {
        /// What was asked for.
        url: String,
        /// Digest of what came.
        is: Digest,
        /// Digest asked for.
        should: Digest,
    },
    /// It sent more than is taken.
    #[error("the answer of {url} is larger than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// Bytes that are taken.
        limit: u64,
    },
}

impl RegistryError {
    /// Whether the same may succeed a little later.
    pub fn is_passing(&self) -> bool {
        match self {
            RegistryError::Transport { .. } | RegistryError::TooManyRequests(_) => true,
            RegistryError::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// A failure of the connection.
    pub(super) fn transport(url: &str, error: &dyn std::error::Error) -> Self {
        RegistryError::Transport {
            url: url.to_owned(),
            reason: with_causes(error),
        }
    }
}

/// An error with all of its causes; reqwest's own text names only the outermost.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
