//! What two runs of one step do not have in common.

use anyhow::{Context, Result};

/// A line that only one side has: `-` Docker's, `+` ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// `subject/case:step`, or `subject/case:NAME` for a call of a program.
    pub at: String,
    /// Whether the line is ours.
    pub ours: bool,
    /// The line.
    pub line: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.ours { '+' } else { '-' };
        write!(f, "{sign} {}", self.line)
    }
}

/// The most lines of one side that are aligned; output beyond is compared as a set would be, line by line in order.
const ALIGNED: usize = 2000;

/// The lines that only one of both has, in their order (longest common subsequence).
pub fn differences(at: &str, docker: &[String], ours: &[String]) -> Vec<Difference> {
    let same = docker.iter().zip(ours).take_while(|(a, b)| a == b).count();
    let (a, b) = (&docker[same..], &ours[same..]);
    let (a, b) = (&a[..a.len().min(ALIGNED)], &b[..b.len().min(ALIGNED)]);
    // longest[i][j]: of a[i..] and b[j..].
    let width = b.len() + 1;
    let mut longest = vec![0u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i * width + j] = if a[i] == b[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let line = |ours: bool, line: &String| Difference {
        at: at.to_owned(),
        ours,
        line: line.clone(),
    };
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            i += 1;
            j += 1;
        } else if j == b.len()
            || i < a.len() && longest[(i + 1) * width + j] >= longest[i * width + j + 1]
        {
            out.push(line(false, &a[i]));
            i += 1;
        } else {
            out.push(line(true, &b[j]));
            j += 1;
        }
    }
    out
}

/// Differences as text, to be read again.
pub fn write(found: &[Difference]) -> String {
    let lines = found.iter().map(|d| format!("{}\t{d}\n", d.at));
    lines.collect()
}

/// Reads what [`write`] wrote.
///
/// # Errors
/// For a line that it did not write.
pub fn read(text: &str) -> Result<Vec<Difference>> {
    let difference = |line: &str| {
        let (at, rest) = line.split_once('\t')?;
        Some(Difference {
            at: at.to_owned(),
            ours: rest.starts_with('+'),
            line: rest.get(2..)?.to_owned(),
        })
    };
    text.lines()
        .map(|line| difference(line).with_context(|| format!("no difference: {line:?}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(a: &[&str], b: &[&str]) -> Vec<String> {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let found = differences("x", &own(a), &own(b));
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_was_written_is_read_again() {
        let found = differences("a/b:1", &["x\ty".into()], &["z".into()]);
        assert_eq!(read(&write(&found)).unwrap(), found);
        assert!(read("nothing").is_err());
    }

    #[test]
    fn only_what_differs_is_told() {
        assert!(show(&["a", "b"], &["a", "b"]).is_empty());
        assert_eq!(show(&["a", "b", "c"], &["a", "x", "c"]), ["- b", "+ x"]);
        assert_eq!(show(&["a"], &["a", "b"]), ["+ b"]);
        assert_eq!(show(&["a", "b"], &["b"]), ["- a"]);
    }
}
