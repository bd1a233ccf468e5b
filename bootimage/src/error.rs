//! What can go wrong, and what to do about it.

use std::path::{Path, PathBuf};

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of building or inspecting a boot image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused something on a named file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "create", …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A stream (a package's payload, an archive) broke off or is not what it claims.
    #[error("{what} is damaged or no such thing: {source}")]
    Stream {
        /// The archive or payload.
        what: String,
        /// Where decoding stopped.
        source: std::io::Error,
    },
    /// Input that breaks its format's rules.
    #[error("{what}: {why}")]
    Format {
        /// The file, or the part of it.
        what: String,
        /// The rule that was broken, and what would be right.
        why: String,
    },
    /// Input that is larger than anything sensible of its kind.
    #[error("{what} is larger than {limit} bytes, which no {kind} is; refused")]
    TooLarge {
        /// The file, or the part of it.
        what: String,
        /// The limit in bytes.
        limit: u64,
        /// The kind of thing.
        kind: &'static str,
    },
    /// A required module is neither in the package nor built in.
    #[error("kernel {version} has no module `{name}`, neither as a file nor built in{}; \
             make it `optional` in the module list or take another kernel", nearest_words(.nearest))]
    NoSuchModule {
        /// The kernel's release.
        version: String,
        /// The wanted module.
        name: String,
        /// Names in the package that look alike, best first.
        nearest: Vec<String>,
    },
    /// Modules need each other in a circle.
    #[error("modules depend on each other in a circle: {}", .0.join(" -> "))]
    ModuleCycle(Vec<String>),
    /// A package without something that a kernel package has.
    #[error("{}: no {missing} in it; {hint}", path.display())]
    Incomplete {
        /// The package.
        path: PathBuf,
        /// What is missing.
        missing: String,
        /// What would be right.
        hint: String,
    },
    /// A program that does part of the work failed or is not installed.
    #[error("{program} failed: {why}; {hint}")]
    Program {
        /// The program.
        program: String,
        /// Its exit status and last words, or why it did not start.
        why: String,
        /// What to do.
        hint: String,
    },
    /// The ISO writer refused.
    #[error("cannot write the ISO: {0}")]
    Iso(String),
}

fn nearest_words(names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!(" (nearest: {})", names.join(", "))
    }
}

impl Error {
    /// Wraps an I/O error on a file; use as `map_err(Error::io("read", path))`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Wraps an I/O error inside a stream that has a name but no file of its own.
    pub fn stream(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Stream { what, source }
    }

    /// Input that breaks its format's rules.
    pub fn format(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Format {
            what: what.into(),
            why: why.into(),
        }
    }
}
