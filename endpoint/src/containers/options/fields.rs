//! Fields of a JSON object, by their type.

use crate::errors::{Error, Result};
use serde_json::{Map, Value};

/// A `HostConfig`, to read fields of a type; absent and null are the default.
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl Fields<'_> {
    fn wrong(field: &str, want: &str) -> Error {
        Error::bad(format!("invalid HostConfig: {field} must be {want}"))
    }

    pub(super) fn find(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|v| !v.is_null())
    }

    pub(super) fn text(&self, field: &str) -> Result<&str> {
        self.find(field).map_or(Ok(""), |v| {
            v.as_str().ok_or_else(|| Self::wrong(field, "a string"))
        })
    }

    pub(super) fn flag(&self, field: &str) -> Result<bool> {
        self.find(field).map_or(Ok(false), |v| {
            v.as_bool().ok_or_else(|| Self::wrong(field, "a boolean"))
        })
    }

    pub(super) fn number(&self, field: &str) -> Result<Option<i64>> {
        self.find(field)
            .map(|v| {
                v.as_i64()
                    .ok_or_else(|| Self::wrong(field, "a whole number"))
            })
            .transpose()
    }

    pub(super) fn list(&self, field: &str) -> Result<Vec<String>> {
        self.find(field).map_or(Ok(Vec::new()), |v| {
            serde_json::from_value(v.clone()).map_err(|_| Self::wrong(field, "a list of strings"))
        })
    }
}
