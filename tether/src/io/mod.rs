//! Bytes on their way: from processes into the journal and onto streams, from streams to stdin.

pub mod fd;
pub mod follow;
pub mod logs;
pub mod output;
pub mod partition;
pub mod recent;
pub mod record;
pub mod stream;

/// Now, in ns since 1970.
#[must_use]
pub fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64)
}
