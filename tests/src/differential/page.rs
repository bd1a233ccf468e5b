//! The known differences as a part of docs/docker-compatibility.md.

use super::known::Reason;
use anyhow::{Context, Result};

/// Stands before the part.
pub const BEGIN: &str = "<!-- differential:begin -->";
/// Stands behind it.
pub const END: &str = "<!-- differential:end -->";

/// The part's text: each reason with its lines.
pub fn render(reasons: &[Reason]) -> String {
    let mut out =
        "`-` is Docker's line, `+` is ours, `*` stands for anything, a path is a field of JSON.\n"
            .to_owned();
    for reason in reasons {
        let places = if reason.places.is_empty() {
            String::new()
        } else {
            format!(" In `{}`.", reason.places.join("`, `"))
        };
        out += &format!(
            "\n**{}.** {}{places}\n```diff\n",
            reason.name.replace('-', " "),
            reason.why
        );
        for (ours, line) in &reason.lines {
            out += &format!("{} {line}\n", if *ours { '+' } else { '-' });
        }
        out += "```\n";
    }
    out
}

/// The page with this part in place of the one that it has.
///
/// # Errors
/// When the page has no place for it.
pub fn put(page: &str, part: &str) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).context("no mark of its begin")?;
    let (_, after) = rest.split_once(END).context("no mark of its end")?;
    Ok(format!("{before}{BEGIN}\n{part}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::differential::{case, folder, known};

    #[test]
    fn the_page_tells_every_known_difference() {
        let list = std::fs::read_to_string(folder().join("differences.txt")).unwrap();
        let reasons = known::parse(&list).unwrap();
        let path = crate::places::root().join("docs/docker-compatibility.md");
        let page = std::fs::read_to_string(path).unwrap();
        assert!(
            put(&page, &render(&reasons)).unwrap() == page,
            "docs/docker-compatibility.md is not up to date: run the program `differential --page`"
        );
    }

    #[test]
    fn the_cases_can_be_read() {
        assert!(!case::read_all(&folder()).unwrap().is_empty());
    }
}
