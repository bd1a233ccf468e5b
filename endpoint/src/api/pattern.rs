//! Filters by name: Docker takes their values as regular expressions.

use super::query::Filters;
use regex::{Regex, RegexBuilder};

/// Bytes that a compiled expression may take; a larger one matches only what it is, letter by letter.
const EXPRESSION_MAX: usize = 256 * 1024;

/// A value that Docker takes as a regular expression; what is none matches only itself (moby, `filters.Args.Match`).
#[derive(Debug)]
pub struct Pattern {
    text: String,
    expression: Option<Regex>,
}

impl Pattern {
    fn new(text: &str) -> Self {
        let expression = RegexBuilder::new(text).size_limit(EXPRESSION_MAX).build();
        Self {
            text: text.to_owned(),
            expression: expression.ok(),
        }
    }

    /// The values of a filter.
    pub fn all(filters: &Filters, name: &str) -> Vec<Self> {
        let values = filters.values(name).unwrap_or(&[]);
        values.iter().map(|value| Self::new(value)).collect()
    }

    /// True where there are no patterns, or one of them matches one of these spellings of a name.
    pub fn any(patterns: &[Self], spellings: &[&str]) -> bool {
        let matches = |pattern: &Self| spellings.iter().any(|name| pattern.matches(name));
        patterns.is_empty() || patterns.iter().any(matches)
    }

    fn matches(&self, name: &str) -> bool {
        self.text == name || self.expression.as_ref().is_some_and(|e| e.is_match(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_with_docker() {
        for (want, name, yes) in [
            ("web", "my-web-1", true),
            ("^web", "web-1", true),
            ("^/web$", "web", true),
            ("^web$", "web-1", false),
            ("web$", "my-web", true),
            ("^/my.*1$", "my-web-1", true),
            ("^b", "abc", false),
            ("x", "web", false),
            ("^(db|web)$", "web", true),
            ("[", "web", false),
            ("[", "[", true),
        ] {
            // A container's name with and without its slash.
            let spellings = [name, &format!("/{name}")];
            let pattern = [Pattern::new(want)];
            assert_eq!(Pattern::any(&pattern, &spellings), yes, "{want} {name}");
        }
        assert!(Pattern::any(&[], &["web"]));
    }
}
