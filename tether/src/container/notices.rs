//! A cgroup's file whose changes the kernel tells (`cgroup.events`, `memory.events`): keys and
//! numbers, one a line (cgroup-v2.rst, "Flat keyed").

use crate::sys::fs::register_notices;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes that are read of such a file.
const READ: usize = 1024;

/// Such a file, open.
#[derive(Debug)]
pub struct Notices {
    file: File,
    changes: AsyncFd<OwnedFd>,
}

impl Notices {
    /// Opens one.
    ///
    /// # Errors
    /// Those of the file system and of epoll_ctl(2).
    pub fn open(path: &str) -> io::Result<Notices> {
        let file = File::open(path)?;
        let changes = register_notices(file.try_clone()?.into())?;
        Ok(Notices { file, changes })
    }

    /// The number behind a key; 0 where there is none.
    ///
    /// # Errors
    /// Those of reading.
    pub fn value(&self, key: &str) -> io::Result<u64> {
        let mut buf = [0u8; READ];
        let got = self.file.read_at(&mut buf, 0)?;
        Ok(value(&String::from_utf8_lossy(&buf[..got]), key))
    }

    /// Waits until the number behind a key is not `known`; gives it.
    ///
    /// # Errors
    /// Those of reading.
    pub async fn other_than(&self, key: &str, known: u64) -> io::Result<u64> {
        loop {
            // What changes behind the reading is told again.
            let value = self.value(key)?;
            if value != known {
                return Ok(value);
            }
            let mut guard = self.changes.ready(Interest::PRIORITY).await?;
            guard.clear_ready();
        }
    }
}

/// The number behind a key in the text of such a file.
#[must_use]
pub fn value(text: &str, key: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_whole() {
        let text = "oom 1\noom_kill 2\noom_group_kill x\n";
        assert_eq!(value(text, "oom"), 1);
        assert_eq!(value(text, "oom_kill"), 2);
        assert_eq!(value(text, "oom_group_kill"), 0);
        assert_eq!(value(text, "frozen"), 0);
    }
}
