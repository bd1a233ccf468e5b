//! What goes wrong with a registry.

use layers::Digest;

/// What a registry refused, or failed to do.
#[derive(Debug, Clone, thiserror::Error)]
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
    /// Something else is not there.
    #[error("the registry does not know {url}: {reason}")]
    Missing {
        /// What was asked for.
        url: String,
        /// The registry's words.
        reason: String,
    },
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
    /// The administrator's list does not have it.
    #[error(
        "registry {registry} is not among those that this host may use ({allowed}): use one of these, or have the administrator add it (--registry-allow)"
    )]
    NotAllowed {
        /// The registry.
        registry: String,
        /// Those that may be used.
        allowed: String,
    },
    /// The administrator wants it signed, and it is not.
    #[error(
        "image {reference} ({}) is not signed with a key that this host asks for ({keys}): have it signed (cosign sign --key) or use an image that is",
        digest.map_or_else(String::new, |d| d.to_string())
    )]
    NotSigned {
        /// The image.
        reference: String,
        /// Its digest.
        digest: Option<Digest>,
        /// Files with the keys.
        keys: String,
    },
    /// The administrator wants all images signed.
    #[error(
        "{0} is refused: this host takes signed images only, and what comes so has no signature; push it to a registry, sign it there and pull it"
    )]
    SignedOnly(&'static str),
    /// A setting cannot be used.
    #[error("{0}")]
    Setting(String),
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
