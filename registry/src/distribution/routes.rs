//! From a path below `/v2/` to what it names. Read from the right, since a repository's name may hold any of the words.

use super::error::{Code, Failure};
use crate::digest::Digest;
use crate::names::{Reference, RepositoryName};
use percent_encoding::percent_decode_str;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `NAME/blobs/DIGEST`
    Blob(RepositoryName, Digest),
    /// `NAME/blobs/uploads/`
    Uploads(RepositoryName),
    /// `NAME/blobs/uploads/ID`
    Upload(RepositoryName, String),
    /// `NAME/manifests/REFERENCE`
    Manifest(RepositoryName, Reference),
    /// `NAME/tags/list`
    Tags(RepositoryName),
    /// `NAME/referrers/DIGEST`
    Referrers(RepositoryName, Digest),
}

/// Parses a whole path.
///
/// # Errors
/// When it names nothing, or a name or digest in it is not of the right form.
pub fn parse(path: &str) -> Result<Route, Failure> {
    let nothing = || {
        Failure::new(
            Code::NameUnknown,
            "this path names nothing in the distribution API",
        )
    };
    let path = percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| nothing())?;
    let path = path.strip_prefix("/v2").ok_or_else(nothing)?;
    match path {
        "" | "/" => return Ok(Route::Base),
        "/_catalog" => return Ok(Route::Catalog),
        _ => {}
    }
    let path = path.strip_prefix('/').ok_or_else(nothing)?;
    if let Some(name) = path
        .strip_suffix("/blobs/uploads/")
        .or_else(|| path.strip_suffix("/blobs/uploads"))
    {
        return Ok(Route::Uploads(name.parse()?));
    }
    let (rest, last) = path.rsplit_once('/').ok_or_else(nothing)?;
    let (name, kind) = rest.rsplit_once('/').ok_or_else(nothing)?;
    Ok(match kind {
        "blobs" => Route::Blob(name.parse()?, last.parse()?),
        "uploads" => {
            let name = name.strip_suffix("/blobs").ok_or_else(nothing)?;
            Route::Upload(name.parse()?, last.to_owned())
        }
        "manifests" => Route::Manifest(name.parse()?, reference(last)?),
        "tags" if last == "list" => Route::Tags(name.parse()?),
        "referrers" => Route::Referrers(name.parse()?, last.parse()?),
        _ => return Err(nothing()),
    })
}

/// A tag has no colon, a digest has one.
fn reference(text: &str) -> Result<Reference, Failure> {
    if text.contains(':') {
        return Ok(Reference::Digest(text.parse()?));
    }
    text.parse()
        .map(Reference::Tag)
        .map_err(|e: crate::names::NameError| Failure::new(Code::ManifestInvalid, e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_path_of_the_spec_is_known() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let name = || "p/a".parse().unwrap();
        let good = [
            ("/v2".to_owned(), Route::Base),
            ("/v2/".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            ("/v2/p/a/tags/list".to_owned(), Route::Tags(name())),
            ("/v2/p/a/blobs/uploads/".to_owned(), Route::Uploads(name())),
            ("/v2/p/a/blobs/uploads".to_owned(), Route::Uploads(name())),
            (
                "/v2/p/a/blobs/uploads/1f".to_owned(),
                Route::Upload(name(), "1f".into()),
            ),
            (
                format!("/v2/p/a/blobs/{digest}"),
                Route::Blob(name(), digest.parse().unwrap()),
            ),
            (
                format!("/v2/p/a/blobs/{}", digest.replace(':', "%3A")),
                Route::Blob(name(), digest.parse().unwrap()),
            ),
            (
                format!("/v2/p/a/referrers/{digest}"),
                Route::Referrers(name(), digest.parse().unwrap()),
            ),
            (
                "/v2/p/a/manifests/latest".to_owned(),
                Route::Manifest(name(), Reference::Tag("latest".parse().unwrap())),
            ),
            (
                "/v2/p/blobs/uploads/manifests/tags/list".to_owned(),
                Route::Tags("p/blobs/uploads/manifests".parse().unwrap()),
            ),
        ];
        for (path, route) in good {
            assert_eq!(parse(&path).unwrap(), route, "{path}");
        }
        for bad in [
            "/v1/",
            "/v2/x",
            "/v2/p/a/tags/other",
            "/v2/p/a/blobs/sha256:0",
            "/v2/p/../a/tags/list",
            "/v2/p/%2e%2e/tags/list",
            "/v2/P/a/tags/list",
            "/v2/a/tags/list",
            "/v2/p/a/manifests/",
            "/v2/p/a/manifests/a%00",
            "/v2/%ff/a/tags/list",
            "/v2//tags/list",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_parsed_has_a_safe_name(path in "/v2/[a-zA-Z0-9._/%:-]{0,80}") {
            let name = match parse(&path) {
                Err(_) | Ok(Route::Base | Route::Catalog) => return Ok(()),
                Ok(Route::Blob(n, _) | Route::Uploads(n) | Route::Upload(n, _)
                    | Route::Manifest(n, _) | Route::Tags(n) | Route::Referrers(n, _)) => n,
            };
            prop_assert!(name.as_str().contains('/'));
            prop_assert!(name.as_str().split('/').all(|c| !c.is_empty() && !c.starts_with('.')));
        }
    }
}
