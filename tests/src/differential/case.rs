//! Cases as they are written down: files of commands, one for each subject.

use anyhow::{Context, Result, bail, ensure};
use std::path::Path;

/// What one line of a case is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `$`: one command, whose exit code and output are compared.
    Compared,
    /// `@`: a program whose output has one line for each call that it made: a name, a tab, what came of it.
    Calls,
    /// `%`: prepares or cleans up; must succeed, is neither counted nor compared.
    Quiet,
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it is for.
    pub kind: Kind,
    /// For bash; lines that were indented follow.
    pub command: String,
}

/// Commands that run in one shell, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// `subject/name`.
    pub name: String,
    /// Its commands.
    pub steps: Vec<Step>,
}

/// Reads every `*.cases` file of a folder, by name.
///
/// # Errors
/// For a file that cannot be read or is not written as it should be, and for two cases of one name.
pub fn read_all(folder: &Path) -> Result<Vec<Case>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "cases") {
            files.push(path);
        }
    }
    files.sort();
    let mut all: Vec<Case> = Vec::new();
    for path in files {
        let subject = path.file_stem().unwrap_or_default().to_string_lossy();
        let text = std::fs::read_to_string(&path)?;
        let cases = parse(&subject, &text).with_context(|| path.display().to_string())?;
        for case in cases {
            ensure!(
                all.iter().all(|c| c.name != case.name),
                "{} is there twice",
                case.name
            );
            all.push(case);
        }
    }
    Ok(all)
}

/// Reads one file's text.
///
/// # Errors
/// For a line that is none of the known forms, with its number.
pub fn parse(subject: &str, text: &str) -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("== ") {
            cases.push(Case {
                name: format!("{subject}/{}", name.trim()),
                steps: Vec::new(),
            });
            continue;
        }
        let Some(case) = cases.last_mut() else {
            bail!("line {number} stands before the first `== NAME`");
        };
        if line.starts_with("  ") {
            let step = case.steps.last_mut();
            let step = step.with_context(|| format!("line {number} continues nothing"))?;
            step.command.push('\n');
            step.command.push_str(line);
            continue;
        }
        let kind = match line.get(..2) {
            Some("$ ") => Kind::Compared,
            Some("@ ") => Kind::Calls,
            Some("% ") => Kind::Quiet,
            _ => {
                bail!("line {number}: expected `== NAME`, `$ COMMAND`, `@ COMMAND` or `% COMMAND`")
            }
        };
        case.steps.push(Step {
            kind,
            command: line[2..].to_owned(),
        });
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_line_by_line() {
        let text =
            "# note\n== one\n$ docker ps\n% docker rm x\n== two\n$ docker run \\\n    image\n";
        let cases = parse("run", text).unwrap();
        let names: Vec<&str> = cases.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["run/one", "run/two"]);
        assert_eq!(cases[0].steps[1].kind, Kind::Quiet);
        assert_eq!(cases[1].steps[0].command, "docker run \\\n    image");
    }

    #[test]
    fn what_is_not_written_so_is_refused_with_its_line() {
        for text in ["$ docker ps\n", "== a\ndocker ps\n", "== a\n  docker ps\n"] {
            assert!(
                parse("run", text)
                    .unwrap_err()
                    .to_string()
                    .contains("line ")
            );
        }
    }
}
