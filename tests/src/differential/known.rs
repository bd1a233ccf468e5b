//! Differences that are known, each with its reason.

use super::compare::Difference;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;

/// Lines that may differ, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reason {
    /// A short name.
    pub name: String,
    /// The reason, as the page tells it.
    pub why: String,
    /// Patterns of where it shows; none: everywhere.
    pub places: Vec<String>,
    /// Patterns of lines: ours or Docker's.
    pub lines: Vec<(bool, String)>,
}

/// Whether a text is what a pattern says: `*` stands for anything, nothing included.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

impl Reason {
    /// The number of the line that explains a difference.
    fn explains(&self, difference: &Difference) -> Option<usize> {
        let here = self.places.is_empty() || self.places.iter().any(|p| matches(p, &difference.at));
        let line = |(ours, pattern): &(bool, String)| {
            *ours == difference.ours && matches(pattern, &difference.line)
        };
        self.lines.iter().position(line).filter(|_| here)
    }
}

/// What became of the differences of a run.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Those that no reason explains.
    pub unknown: Vec<Difference>,
    /// Reason and line of those that one does.
    pub used: BTreeSet<(usize, usize)>,
}

/// Sorts differences into known and unknown ones.
pub fn judge(reasons: &[Reason], found: &[Difference]) -> Verdict {
    let mut verdict = Verdict::default();
    for difference in found {
        let mut explained = false;
        for (at, reason) in reasons.iter().enumerate() {
            if let Some(line) = reason.explains(difference) {
                verdict.used.insert((at, line));
                explained = true;
            }
        }
        if !explained {
            verdict.unknown.push(difference.clone());
        }
    }
    verdict
}

impl Verdict {
    /// Known differences that did not occur: after a whole run they are to be struck.
    pub fn stale<'a>(&self, reasons: &'a [Reason]) -> Vec<(&'a Reason, &'a str)> {
        let mut out = Vec::new();
        for (at, reason) in reasons.iter().enumerate() {
            for (number, (_, line)) in reason.lines.iter().enumerate() {
                if !self.used.contains(&(at, number)) {
                    out.push((reason, line.as_str()));
                }
            }
        }
        out
    }
}

/// Reads the list of known differences.
///
/// # Errors
/// For a line that is none of the known forms, a reason without text or without lines.
pub fn parse(text: &str) -> Result<Vec<Reason>> {
    let mut reasons: Vec<Reason> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("== ") {
            reasons.push(Reason {
                name: name.trim().to_owned(),
                ..Reason::default()
            });
            continue;
        }
        let reason = reasons.last_mut();
        let reason =
            reason.with_context(|| format!("line {number} stands before the first `== NAME`"))?;
        match (line.get(..2), line.get(2..)) {
            (Some("- "), Some(rest)) => reason.lines.push((false, rest.to_owned())),
            (Some("+ "), Some(rest)) => reason.lines.push((true, rest.to_owned())),
            _ => match line.strip_prefix("in ") {
                Some(places) => {
                    let places = places.split_whitespace().map(str::to_owned);
                    reason.places.extend(places);
                }
                None if reason.lines.is_empty() => {
                    if !reason.why.is_empty() {
                        reason.why.push(' ');
                    }
                    reason.why.push_str(line.trim());
                }
                None => bail!("line {number}: expected `- LINE`, `+ LINE` or `in PLACES`"),
            },
        }
    }
    for reason in &reasons {
        ensure!(!reason.why.is_empty(), "{} has no reason", reason.name);
        ensure!(!reason.lines.is_empty(), "{} has no lines", reason.name);
    }
    Ok(reasons)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# note\n== runtime\nA VM has no\nruntime.\n- *.Runtime = \"runc\"\n+ *.Runtime = \"mooring\"\n\n== cp\nin cp/* diff/a:1\nLater.\n+ *\n";

    fn one(at: &str, ours: bool, line: &str) -> Difference {
        Difference {
            at: at.into(),
            ours,
            line: line.into(),
        }
    }

    #[test]
    fn patterns_match_as_written() {
        for (pattern, text, yes) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acd", false),
            ("*x*", "axb", true),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("*", "", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), yes, "{pattern} {text}");
        }
    }

    #[test]
    fn a_difference_that_no_reason_explains_is_unknown_and_one_that_did_not_occur_is_stale() {
        let reasons = parse(LIST).unwrap();
        assert_eq!(reasons[0].why, "A VM has no runtime.");
        let verdict = judge(
            &reasons,
            &[
                one("run/a:1", false, "[0].HostConfig.Runtime = \"runc\""),
                one("cp/a:1", true, "anything"),
                one("run/a:1", true, "anything"),
            ],
        );
        assert_eq!(verdict.unknown, [one("run/a:1", true, "anything")]);
        let stale: Vec<&str> = verdict.stale(&reasons).iter().map(|(_, l)| *l).collect();
        assert_eq!(stale, ["*.Runtime = \"mooring\""]);
    }

    #[test]
    fn a_reason_must_say_why() {
        assert!(parse("== a\n- x\n").is_err());
        assert!(parse("== a\nwhy\n").is_err());
        assert!(parse("- x\n").is_err());
    }
}
