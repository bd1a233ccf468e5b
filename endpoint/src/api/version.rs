//! The version in front of a path: `/v1.43/containers/json`.

use crate::errors::{Error, Result};
use axum::http::Uri;

/// The newest API version that is spoken.
pub const API_VERSION: ApiVersion = ApiVersion(1, 50);
/// The oldest API version that is spoken.
pub const MIN_API_VERSION: ApiVersion = ApiVersion(1, 24);

/// A Docker API version. A request without one gets the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub u16, pub u16);

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Takes the version off a URI.
///
/// # Errors
/// 400 in Docker's words where the version is out of range.
pub fn strip(uri: &Uri) -> Result<(ApiVersion, Option<Uri>)> {
    let Some((version, rest)) = split(uri.path()) else {
        return Ok((API_VERSION, None));
    };
    if version > API_VERSION {
        return Err(Error::bad(format!(
            "client version {version} is too new. Maximum supported API version is {API_VERSION}"
        )));
    }
    if version < MIN_API_VERSION {
        return Err(Error::bad(format!(
            "client version {version} is too old. Minimum supported API version is {MIN_API_VERSION}, please upgrade your client to a newer version"
        )));
    }
    let target = match uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    let uri = target
        .parse()
        .map_err(|_| Error::bad(format!("invalid path {rest:?}")))?;
    Ok((version, Some(uri)))
}

fn split(path: &str) -> Option<(ApiVersion, &str)> {
    let after = path.strip_prefix("/v")?;
    let end = after.find('/')?;
    let (major, minor) = after[..end].split_once('.')?;
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(major) || !digits(minor) {
        return None;
    }
    // A number that does not fit is certainly too new.
    let number = |s: &str| s.parse().unwrap_or(u16::MAX);
    Some((ApiVersion(number(major), number(minor)), &after[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip_text(text: &str) -> Result<(ApiVersion, String)> {
        let uri: Uri = text.parse().unwrap();
        strip(&uri).map(|(version, stripped)| (version, stripped.unwrap_or(uri).to_string()))
    }

    #[test]
    fn takes_off_versions_in_range_only() {
        assert_eq!(
            strip_text("/_ping").unwrap(),
            (API_VERSION, "/_ping".into())
        );
        assert_eq!(
            strip_text("/v1.24/containers/json?all=1").unwrap(),
            (ApiVersion(1, 24), "/containers/json?all=1".into())
        );
        assert_eq!(strip_text("/volumes").unwrap().1, "/volumes");
        let new = strip_text("/v1.51/info").unwrap_err().message;
        assert_eq!(
            new,
            "client version 1.51 is too new. Maximum supported API version is 1.50"
        );
        assert!(
            strip_text("/v1.23/info")
                .unwrap_err()
                .message
                .contains("too old")
        );
        assert!(strip_text("/v99999999.1/info").is_err());
    }
}
