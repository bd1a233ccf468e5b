//! Datastore paths: `[datastore1] folder/file.vmdk`.

use std::fmt;
use std::str::FromStr;

/// A file or folder on a datastore.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatastorePath {
    /// Name of the datastore.
    pub datastore: String,
    /// Path in it, `/` between its parts, no leading or trailing one; empty for the root.
    pub path: String,
}

/// A text that is no datastore path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no datastore path; one looks like `[datastore] folder/file`, without `.` or `..`"
)]
pub struct BadDatastorePath {
    /// The text.
    pub text: String,
}

impl DatastorePath {
    /// A path in a datastore. Leading and trailing slashes are dropped.
    pub fn new(datastore: impl Into<String>, path: impl AsRef<str>) -> DatastorePath {
        DatastorePath {
            datastore: datastore.into(),
            path: path.as_ref().trim_matches('/').to_owned(),
        }
    }

    /// A file below this folder.
    pub fn join(&self, name: impl AsRef<str>) -> DatastorePath {
        let name = name.as_ref().trim_matches('/');
        let path = if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.path)
        };
        DatastorePath {
            datastore: self.datastore.clone(),
            path,
        }
    }

    /// The folder that this is in; `None` for the root.
    pub fn parent(&self) -> Option<DatastorePath> {
        if self.path.is_empty() {
            return None;
        }
        let path = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        Some(DatastorePath {
            datastore: self.datastore.clone(),
            path: path.to_owned(),
        })
    }

    /// The last part of the path.
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for DatastorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "[{}]", self.datastore)
        } else {
            write!(f, "[{}] {}", self.datastore, self.path)
        }
    }
}

impl FromStr for DatastorePath {
    type Err = BadDatastorePath;
    fn from_str(text: &str) -> Result<DatastorePath, BadDatastorePath> {
        let bad = || BadDatastorePath {
            text: text.chars().take(300).collect(),
        };
        let (datastore, path) = text
            .trim()
            .strip_prefix('[')
            .and_then(|t| t.split_once(']'))
            .ok_or_else(bad)?;
        let path = path.trim().trim_matches('/');
        // A blank at either end would be gone when the path is shown and read again.
        let parts_fine = path == path.trim()
            && (path.is_empty()
                || path.split('/').all(|p| {
                    !matches!(p, "" | "." | "..") && !p.contains(|c: char| c.is_control())
                }));
        if datastore.is_empty() || datastore.contains('/') || !parts_fine {
            return Err(bad());
        }
        Ok(DatastorePath {
            datastore: datastore.to_owned(),
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_as_it_is_read() {
        for text in ["[ds]", "[ds] a", "[d s] a b/c.vmdk", "[ds] ü/a"] {
            assert_eq!(text.parse::<DatastorePath>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_would_be_read_as_another_path_is_none() {
        // Found by fuzzing: blanks behind a slash that is dropped.
        for text in [
            "[ds] / a",
            "[ds] a /",
            "[ds] a\n/b",
            "[ds] a/../b",
            "[] a",
            "[a/b] c",
            "a",
        ] {
            assert!(text.parse::<DatastorePath>().is_err(), "{text:?}");
        }
    }
}
