//! Merges what comes again and again, so that reads and refusals do not fill the disk: the first one of a minute is an
//! entry, all further ones of that minute that are the same in everything are one more, with their number.
//!
//! Who reads or is refused ever other things gets that many entries in a minute; then only how many more there were.

use crate::access::network;
use crate::metadata::{AuditEntry, now};
use std::collections::HashMap;

/// Different entries of one user from one source in a minute.
const DIFFERENT: u32 = 1000;
/// Most entries remembered; when there are more, the minute ends early.
const MOST: usize = 20_000;

/// A minute's entries.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// How often each came again; and when last.
    seen: HashMap<AuditEntry, (u32, i64)>,
    /// How many different ones there are of a user from a source.
    different: HashMap<(String, Box<str>), u32>,
}

impl Recent {
    /// Looks whether an entry came before in this minute. It is given back when it is to be written now.
    pub(super) fn see(&mut self, mut entry: AuditEntry) -> Option<AuditEntry> {
        if let Some(again) = self.again(&entry) {
            return again;
        }
        let who = (entry.user.clone(), network(&entry.source));
        let different = self.different.entry(who).or_insert(0);
        if *different < DIFFERENT {
            *different += 1;
        } else {
            // Of which there are few: none of it is the client's choice, but a project that there is.
            entry.source = network(&entry.source).into();
            entry.target = None;
            entry.repository = None;
            entry.detail = Some("many different ones".into());
            if entry.status >= 400 {
                entry.project = None;
            }
            if let Some(again) = self.again(&entry) {
                return again;
            }
        }
        self.seen.insert(entry.clone(), (0, 0));
        Some(entry)
    }

    /// `Some(None)`: it is counted.
    fn again(&mut self, entry: &AuditEntry) -> Option<Option<AuditEntry>> {
        let (count, last) = self.seen.get_mut(entry)?;
        *count = count.saturating_add(1);
        *last = now();
        Some(None)
    }

    /// Whether there is no room for more.
    pub(super) fn is_full(&self) -> bool {
        self.seen.len() >= MOST
    }

    /// Ends the minute: an entry for each that came again.
    pub(super) fn take(&mut self) -> Vec<AuditEntry> {
        let again = std::mem::take(self).seen.into_iter();
        let mut again: Vec<AuditEntry> = again
            .filter(|(_, (count, _))| *count > 0)
            .map(|(entry, (count, time))| AuditEntry {
                time,
                count,
                ..entry
            })
            .collect();
        again.sort_by_key(|entry| entry.time);
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(target: &str, status: u16) -> AuditEntry {
        AuditEntry {
            user: "jo".into(),
            source: "::1".into(),
            project: Some("p".into()),
            operation: "pull".into(),
            target: Some(target.into()),
            status,
            ..AuditEntry::default()
        }
    }

    #[test]
    fn the_same_is_written_once_and_counted() {
        let mut recent = Recent::default();
        assert_eq!(recent.see(entry("a", 200)), Some(entry("a", 200)));
        assert_eq!(recent.see(entry("a", 200)), None);
        assert_eq!(recent.see(entry("a", 200)), None);
        assert_eq!(recent.see(entry("a", 403)), Some(entry("a", 403)));
        assert_eq!(recent.see(entry("b", 200)), Some(entry("b", 200)));
        let again = recent.take();
        assert_eq!(again.len(), 1);
        assert_eq!((again[0].count, again[0].target.as_deref()), (2, Some("a")));
        assert!(again[0].time > 0);
        assert_eq!(recent.see(entry("a", 200)), Some(entry("a", 200)));
    }

    #[test]
    fn who_has_many_addresses_of_one_network_is_one_source() {
        let mut recent = Recent::default();
        let from = |n: u32| AuditEntry {
            source: format!("2001:db8::{:x}:{:x}", n >> 16, n & 0xffff),
            ..entry("a", 200)
        };
        let written = (0..10_000).filter_map(|n| recent.see(from(n))).count();
        assert_eq!(written, DIFFERENT as usize + 1);
    }

    #[test]
    fn who_asks_for_ever_other_things_gets_no_entry_for_each() {
        let mut recent = Recent::default();
        let seen = |recent: &mut Recent, n: u32| recent.see(entry(&n.to_string(), 403)).is_some();
        let written = (0..100_000).filter(|n| seen(&mut recent, *n)).count();
        assert_eq!(written, DIFFERENT as usize + 1);
        assert!(!recent.is_full());
        let again = recent.take();
        let more: Vec<_> = again.iter().map(|e| (e.count, e.target.clone())).collect();
        assert_eq!(more, [(100_000 - DIFFERENT - 1, None)]);
    }
}
