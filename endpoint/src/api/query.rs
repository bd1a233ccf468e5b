//! Query parameters as Go's net/http and Docker's httputils read them.

use crate::{
    errors::{Error, Result},
    timestamps,
};
use axum::{extract::FromRequestParts, http::request::Parts};
use serde_json::Value;
use std::{collections::BTreeMap, convert::Infallible};

/// Parameters and filters in a query are bounded by hyper's limit of the request head; this
/// bounds the number of filter values.
const FILTER_VALUES: usize = 1024;

/// The parameters of a request's query, decoded. A name without value is the empty string.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or("")))
    }
}

impl Query {
    /// Decodes a query string.
    pub fn parse(query: &str) -> Self {
        Self(
            query
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    /// The first value of `name`; the empty string where there is none.
    pub fn text(&self, name: &str) -> &str {
        self.find(name).unwrap_or("")
    }

    /// The first value of `name`.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Docker's idea of a true value: anything but ``, `0`, `no`, `false` and `none`.
    pub fn flag(&self, name: &str) -> bool {
        let value = self.text(name).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// Like [`Query::flag`], with a default where the parameter is absent.
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        self.find(name).map_or(default, |_| self.flag(name))
    }

    /// A whole number, `None` where the parameter is absent or empty.
    ///
    /// # Errors
    /// 400 where it is no number.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        match self.find(name).map(str::trim) {
            None | Some("") => Ok(None),
            Some(value) => value.parse().map(Some).map_err(|_| {
                Error::bad(format!(
                    "invalid value for {name}: {value:?}: expected a whole number"
                ))
            }),
        }
    }

    /// The `filters` parameter.
    ///
    /// # Errors
    /// 400 where it is neither `{"name":["value"]}` nor the old `{"name":{"value":true}}`.
    pub fn filters(&self) -> Result<Filters> {
        Filters::parse(self.text("filters"))
    }
}

/// Percent-decoding of a query component; a wrong escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |b: u8| char::from(b).to_digit(16);
        match (
            bytes[at],
            bytes.get(at + 1).copied(),
            bytes.get(at + 2).copied(),
        ) {
            (b'%', Some(high), Some(low)) if hex(high).is_some() && hex(low).is_some() => {
                let value = hex(high).unwrap_or(0) * 16 + hex(low).unwrap_or(0);
                out.push(u8::try_from(value).unwrap_or(b'%'));
                at += 3;
            }
            (b'+', ..) => {
                out.push(b' ');
                at += 1;
            }
            (other, ..) => {
                out.push(other);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Docker's filters: names, each with a set of values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads the JSON of a `filters` parameter; empty text is no filter.
    ///
    /// # Errors
    /// 400 for anything that is not in one of the two forms.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::bad(format!(
                "invalid filter: {text:?}: expected a JSON object of lists"
            ))
        };
        if text.is_empty() {
            return Ok(Self::default());
        }
        let value: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|_| wrong())?;
        let mut out = BTreeMap::new();
        let mut count = 0;
        for (name, values) in value {
            let values: Vec<String> = match values {
                Value::Array(list) => list
                    .into_iter()
                    .map(|v| v.as_str().map(str::to_owned).ok_or_else(wrong))
                    .collect::<Result<_>>()?,
                Value::Object(map) => map
                    .into_iter()
                    .filter(|(_, on)| on.as_bool().unwrap_or(false))
                    .map(|(value, _)| value)
                    .collect(),
                _ => return Err(wrong()),
            };
            count += values.len();
            if count > FILTER_VALUES {
                return Err(Error::bad(format!(
                    "invalid filter: more than {FILTER_VALUES} values"
                )));
            }
            out.insert(name, values);
        }
        Ok(Self(out))
    }

    /// Refuses names that the caller does not know, in Docker's words.
    ///
    /// # Errors
    /// 400 naming the first unknown one.
    pub fn allow(&self, known: &[&str]) -> Result<()> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Error::bad(format!("invalid filter '{name}'"))),
            None => Ok(()),
        }
    }

    /// The values of a filter; `None` where it is not set.
    pub fn values(&self, name: &str) -> Option<&[String]> {
        self.0
            .get(name)
            .map(Vec::as_slice)
            .filter(|values| !values.is_empty())
    }

    /// True where the filter is not set, or one of its values satisfies `test`.
    pub fn any(&self, name: &str, test: impl FnMut(&String) -> bool) -> bool {
        self.values(name)
            .is_none_or(|values| values.iter().any(test))
    }

    /// True where `labels` satisfies every `label` filter (`name` or `name=value`) under `name`.
    pub fn labels(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.values(name).unwrap_or(&[]).iter().all(|want| {
            want.split_once('=').map_or_else(
                || labels.contains_key(want),
                |(key, value)| labels.get(key).is_some_and(|have| have == value),
            )
        })
    }

    /// What a `prune` with the filters `label`, `label!` and `until` takes.
    ///
    /// # Errors
    /// 400 for a wrong or a second `until`.
    pub fn prune(&self) -> Result<Prune<'_>> {
        let until = match self.values("until") {
            None => u64::MAX,
            Some([one]) => timestamps::parse(one, timestamps::now())?,
            Some(_) => return Err(Error::bad("more than one until filter specified")),
        };
        Ok(Prune {
            filters: self,
            until,
        })
    }

    /// A filter that is a truth value.
    ///
    /// # Errors
    /// 400 where it is set to something else, or to both.
    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        let Some(values) = self.values(name) else {
            return Ok(None);
        };
        match values {
            [one] if matches!(one.as_str(), "1" | "true" | "True" | "TRUE" | "t" | "T") => {
                Ok(Some(true))
            }
            [one] if matches!(one.as_str(), "0" | "false" | "False" | "FALSE" | "f" | "F") => {
                Ok(Some(false))
            }
            _ => Err(Error::bad(format!(
                "invalid filter '{name}=[{}]'",
                values.join(" ")
            ))),
        }
    }
}

/// Which objects a `prune` takes, by labels and age.
#[derive(Debug, Clone, Copy)]
pub struct Prune<'a> {
    filters: &'a Filters,
    /// In ns since 1970.
    until: u64,
}

impl Prune<'_> {
    /// Whether it takes an object with these labels, made then (ns since 1970).
    pub fn takes(&self, labels: &BTreeMap<String, String>, created: u64) -> bool {
        let filters = self.filters;
        let excluded = filters.values("label!").is_some() && filters.labels("label!", labels);
        created <= self.until && filters.labels("label", labels) && !excluded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_as_go_does() {
        let query = Query::parse("name=a%2Fb+c&all&size=0&t=1&t=2&bad=%zz");
        assert_eq!(query.text("name"), "a/b c");
        assert!(!query.flag("all"));
        assert!(!query.flag("size"));
        assert!(query.flag("t"));
        assert_eq!(query.all("t").count(), 2);
        assert_eq!(query.text("bad"), "%zz");
        assert_eq!(query.number::<u32>("none").unwrap(), None);
        assert!(query.number::<u32>("name").is_err());
    }

    #[test]
    fn reads_both_forms_of_filters() {
        let new = Filters::parse(r#"{"label":["a","b=c"]}"#).unwrap();
        let old = Filters::parse(r#"{"label":{"a":true,"b=c":true,"x":false}}"#).unwrap();
        assert_eq!(new, old);
        let labels = BTreeMap::from([
            ("a".to_owned(), String::new()),
            ("b".to_owned(), "c".to_owned()),
        ]);
        assert!(new.labels("label", &labels));
        assert!(
            !Filters::parse(r#"{"label":["a","b=d"]}"#)
                .unwrap()
                .labels("label", &labels)
        );
        for wrong in ["[]", "{\"a\":1}", "{\"a\":[1]}", "x"] {
            assert!(Filters::parse(wrong).is_err(), "{wrong}");
        }
        assert!(new.allow(&["name"]).is_err());
    }

    #[test]
    fn a_prune_takes_what_is_old_and_labelled_so() {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let takes = |text: &str| {
            Filters::parse(text)
                .unwrap()
                .prune()
                .unwrap()
                .takes(&labels, 5)
        };
        assert!(takes("{}"));
        assert!(takes(r#"{"label":["a"]}"#));
        assert!(!takes(r#"{"label":["a=c"]}"#));
        assert!(!takes(r#"{"label!":["a"]}"#));
        assert!(takes(r#"{"label!":["x"],"until":["1s"]}"#));
        assert!(!takes(r#"{"until":["1970-01-01T00:00:00Z"]}"#));
        let two = Filters::parse(r#"{"until":["1s","2s"]}"#).unwrap();
        assert!(two.prune().is_err());
    }
}
