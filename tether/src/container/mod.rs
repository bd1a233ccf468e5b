//! The container: its root, its processes, and what keeps them from the tether.

pub mod caps;
pub mod cgroup;
pub mod child;
pub mod devices;
pub mod environment;
pub mod init;
pub mod lookup;
pub mod mounts;
pub mod notices;
pub mod seccomp;
pub mod sibling;
pub mod spawn;
pub mod stats;
pub mod top;
pub mod users;

/// Bytes of a message that a child tells, at most: a pipe takes them without waiting.
const MESSAGE_MAX: usize = 4096;

/// Why a process could not be started, as `StartFailed` tells it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// Docker's exit code: 126 (not executable), 127 (not found), 125 (anything else).
    pub code: i32,
    /// Docker's wording.
    pub message: String,
}

impl StartError {
    /// An error that is neither "not found" nor "not executable".
    pub fn other(message: impl Into<String>) -> StartError {
        StartError {
            code: 125,
            message: message.into(),
        }
    }

    /// As a child tells it to the tether: `E`, the code, the message.
    #[must_use]
    pub fn report(&self) -> Vec<u8> {
        let message = self.message.as_bytes();
        let mut report = vec![b'E'];
        report.extend(self.code.to_le_bytes());
        report.extend(message.iter().take(MESSAGE_MAX));
        report
    }

    /// As [`StartError::other`], from what was tried, on what, and the system's error.
    pub fn system(what: &str, on: impl std::fmt::Display, error: &std::io::Error) -> StartError {
        StartError::other(format!("{what} {on}: {}", reason(error)))
    }
}

/// The system's words for an error, in the form that Go (and so Docker) gives them: without number, lower case.
#[must_use]
pub fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => {
            let text = nix::errno::Errno::from_raw(number).desc();
            let mut chars = text.chars();
            chars
                .next()
                .map(|c| c.to_ascii_lowercase().to_string() + chars.as_str())
                .unwrap_or_default()
        }
        None => error.to_string(),
    }
}
