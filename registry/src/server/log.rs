//! The process's own log: to standard error, and the last lines of it in memory for administrators who have no shell.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard};

/// Lines that are kept.
const LINES: usize = 2000;
/// Longest line that is kept whole, in bytes.
const LONGEST: usize = 2000;

static LAST: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

fn last() -> MutexGuard<'static, VecDeque<String>> {
    // A panic while it was held leaves the list whole.
    LAST.lock().unwrap_or_else(|e| e.into_inner())
}

/// The last lines, at most `most`, of those that hold `text`; the oldest first.
#[must_use]
pub fn lines(text: Option<&str>, most: usize) -> Vec<String> {
    let last = last();
    let wanted = last
        .iter()
        .rev()
        .filter(|line| text.is_none_or(|text| line.contains(text)));
    let mut found: Vec<String> = wanted.take(most).cloned().collect();
    found.reverse();
    found
}

fn keep(bytes: &[u8]) {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST)]);
    let mut last = last();
    for line in text.lines() {
        if last.len() == LINES {
            last.pop_front();
        }
        last.push_back(line.to_owned());
    }
}

/// What the log is written to. Each event is one write.
#[derive(Debug, Default)]
pub struct Tee;

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        keep(bytes);
        io::stderr().write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_found() {
        for n in 0..LINES + 10 {
            keep(format!("line {n} {}\n", "x".repeat(n % 7 * 1000)).as_bytes());
        }
        let all = lines(None, usize::MAX);
        assert_eq!(all.len(), LINES);
        assert!(all.iter().all(|l| l.len() <= LONGEST));
        assert!(lines(Some("line 9 "), 10).is_empty());
        let text = format!("line {} ", LINES + 9);
        assert_eq!(lines(Some(&text), 10).len(), 1);
        assert_eq!(lines(None, 2).len(), 2);
    }
}
