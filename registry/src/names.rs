//! Names of projects, repositories and tags: parsed once, safe everywhere after (OCI distribution spec, "Pull").

use crate::digest::Digest;
use std::fmt;
use std::str::FromStr;

/// The project that exists from the start, public.
pub const DEFAULT_PROJECT: &str = "default-project";

/// Longest name of a repository in bytes, its project included.
pub const MAX_REPOSITORY: usize = 255;
/// Longest name of a project in bytes.
pub const MAX_PROJECT: usize = 100;
/// Longest name of a user in bytes.
pub const MAX_USER: usize = 64;

/// Whether a user may be called so. A `+` is for robots, and a `:` would end the name in a Basic header.
///
/// # Errors
/// When not.
pub fn check_user(name: &str) -> Result<(), NameError> {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let good = name.len() <= MAX_USER
        && name.bytes().next().is_some_and(alphanumeric)
        && name
            .bytes()
            .all(|b| alphanumeric(b) || matches!(b, b'.' | b'_' | b'-' | b'@'));
    good.then_some(()).ok_or(NameError::User)
}

/// Why a name was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// Not of the spec's form.
    #[error(
        "a name is made of lower-case letters, digits and separators (. _ __ -), in parts divided by /"
    )]
    Form,
    /// A repository outside of all projects.
    #[error(
        "a repository is named PROJECT/NAME; without a project of your own, use {DEFAULT_PROJECT}/NAME"
    )]
    NoProject,
    /// Longer than [`MAX_REPOSITORY`] or [`MAX_PROJECT`].
    #[error("the name is too long (at most {0} bytes)")]
    Long(usize),
    /// Not of a tag's form.
    #[error("a tag is 1 to 128 letters, digits, _ . and -, and does not begin with . or -")]
    Tag,
    /// Not of a user's form.
    #[error(
        "a user's name is 1 to {MAX_USER} lower-case letters, digits, . _ - and @, and begins with a letter or digit"
    )]
    User,
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, one component of a name.
fn component(s: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = s.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !alphanumeric(*first) || !alphanumeric(*last) {
        return false;
    }
    bytes
        .split(|b| alphanumeric(*b))
        .all(|separator| match separator {
            [] | b"." | b"_" | b"__" => true,
            dashes => dashes.iter().all(|b| *b == b'-'),
        })
}

/// A project's name: one component.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProjectName(Box<str>);

impl ProjectName {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProjectName {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        if s.len() > MAX_PROJECT {
            return Err(NameError::Long(MAX_PROJECT));
        }
        if !component(s) {
            return Err(NameError::Form);
        }
        Ok(ProjectName(s.into()))
    }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A repository's whole name, `PROJECT/NAME[/NAME…]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Box<str>);

impl RepositoryName {
    /// As text, with the project.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The project it is in.
    #[must_use]
    pub fn project(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(p, _)| p)
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        if s.len() > MAX_REPOSITORY {
            return Err(NameError::Long(MAX_REPOSITORY));
        }
        if !s.split('/').all(component) {
            return Err(NameError::Form);
        }
        let (project, _) = s.split_once('/').ok_or(NameError::NoProject)?;
        if project.len() > MAX_PROJECT {
            return Err(NameError::Long(MAX_PROJECT));
        }
        Ok(RepositoryName(s.into()))
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

impl Tag {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let mut bytes = s.bytes();
        let good = s.len() <= 128
            && bytes
                .next()
                .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
            && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        good.then(|| Tag(s.into())).ok_or(NameError::Tag)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// By a tag, which can move.
    Tag(Tag),
    /// By its digest.
    Digest(Digest),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(t) => t.fmt(f),
            Reference::Digest(d) => d.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_named_as_the_spec_has_it_and_lie_in_a_project() {
        for good in ["p/a", "default-project/a.b_c__d---e/f", "0/1/2/3"] {
            assert_eq!(good.parse::<RepositoryName>().unwrap().as_str(), good);
        }
        assert_eq!("p/a/b".parse::<RepositoryName>().unwrap().project(), "p");
        assert_eq!("a".parse::<RepositoryName>(), Err(NameError::NoProject));
        for bad in [
            "", "/", "p/", "/a", "p//a", "p/..", "p/../q", "p/.a", "p/a.", "p/a..b", "p/a___b",
            "P/a", "p/a-", "p/a b", "p/a%2fb", "p/é", "p/a\0", "p/a._b",
        ] {
            assert_eq!(
                bad.parse::<RepositoryName>(),
                Err(NameError::Form),
                "{bad:?}"
            );
        }
        assert_eq!(
            format!("p/{}", "a".repeat(254)).parse::<RepositoryName>(),
            Err(NameError::Long(MAX_REPOSITORY))
        );
        assert!("p/a".parse::<ProjectName>().is_err());
    }

    #[test]
    fn users_names_cannot_be_taken_for_a_robot_s() {
        for good in ["a", "admin", "jo.doe@example.org", "0_0-0"] {
            assert!(check_user(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a+b", "a:b", ".a", "a b", "é", &"a".repeat(65)] {
            assert_eq!(check_user(bad), Err(NameError::User), "{bad}");
        }
    }

    #[test]
    fn tags_are_as_the_spec_has_them() {
        for good in ["latest", "_", "1.0-rc.1", &"a".repeat(128)] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a:b", "a b", "é", &"a".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }
}
