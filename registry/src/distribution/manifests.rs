//! Manifests: read, kept, removed; and tags, which are removed here too.

use super::blobs::{CONTENT_DIGEST, is_cached};
use super::error::{Code, Failure};
use super::manifest::{self, MAX_MANIFEST};
use super::{Call, value};
use crate::access::Action;
use crate::digest::{Algorithm, Digest};
use crate::metadata::{PutManifest, RemoveManifest};
use crate::names::{Reference, RepositoryName, Tag};
use crate::webhooks::{self, Event};
use crate::{bodies, uploads};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::json;

const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

fn unknown(reference: &Reference) -> Failure {
    Failure::new(Code::ManifestUnknown, "the repository has no such manifest")
        .detail(json!({"reference": reference.to_string()}))
}

fn immutable(tag: &str) -> Failure {
    Failure::new(
        Code::Denied,
        format!("tag {tag} is immutable here: a rule of the project says so"),
    )
}

pub(super) fn get(
    call: &Call,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Response, Failure> {
    call.may(Action::Pull, name)?;
    let body = call.method == Method::GET;
    // The spec has NAME_UNKNOWN, too, for a repository that is not there; clients know this one.
    let found = call
        .registry
        .metadata
        .read(|db| db.manifest(name, reference, body))?
        .ok_or_else(|| unknown(reference))?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, value(&found.media_type));
    headers.insert(CONTENT_DIGEST, value(&found.digest));
    headers.insert(ETAG, value(format!("\"{}\"", found.digest)));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if is_cached(call, &found.digest) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    headers.insert(CONTENT_LENGTH, found.size.into());
    Ok((StatusCode::OK, headers, found.body).into_response())
}

pub(super) async fn put(
    call: &Call,
    name: RepositoryName,
    reference: Reference,
    body: Body,
) -> Result<Response, Failure> {
    call.may(Action::Push, &name)?;
    let body = read(&call.headers, body).await?;
    let algorithm = match &reference {
        Reference::Digest(digest) => digest.algorithm(),
        Reference::Tag(_) => Algorithm::Sha256,
    };
    let digest = Digest::of(algorithm, &body);
    if let Reference::Digest(wanted) = &reference
        && *wanted != digest
    {
        return Err(Failure::new(
            Code::DigestInvalid,
            format!("the manifest's digest is {digest}"),
        ));
    }
    let content_type = call.header(CONTENT_TYPE);
    let new = manifest::parse(body, content_type, digest.clone())?;
    let subject = new.subject.clone();
    let repository = name.clone();
    let permit = call.permit(Action::Push, &name);
    let metadata = &call.registry.metadata;
    let done = call
        .draft
        .commit(metadata, StatusCode::CREATED, move |db, _| {
            permit.check::<Failure>(db)?;
            let found = db
                .ensure_repository(&repository)?
                .ok_or_else(|| uploads::Error::NoProject(repository.project().to_owned()))?;
            let tag = match &reference {
                Reference::Tag(tag) => Some(tag),
                Reference::Digest(_) => None,
            };
            if let Some(tag) = tag {
                let there = db.tag(found.id, tag.as_str())?;
                let moves = there.is_some_and(|t| t.digest != new.digest.as_str());
                if moves && db.is_immutable(found.project, &repository, tag.as_str())? {
                    return Err(immutable(tag.as_str()).into());
                }
            }
            let put = || Ok::<_, Refused>(db.put_manifest(found.id, &new, tag)?);
            match db.charged(found.project, put)? {
                PutManifest::Done => {
                    let (by, digest) = (permit.principal.name(), new.digest.as_str());
                    let tag = tag.map(Tag::as_str);
                    let event = Event::Push { digest, tag };
                    webhooks::queue(db, found.project, &repository, by, event)?;
                    Ok(())
                }
                // An error, so that a repository that was made for it goes as well.
                PutManifest::Missing(missing) => Err(Refused::Missing(missing)),
            }
        })
        .await;
    match done {
        Ok(()) => call.registry.queued.notify_one(),
        Err(Refused::Other(failure)) => return Err(failure),
        Err(Refused::Missing(missing)) => {
            let digests: Vec<&str> = missing.iter().map(Digest::as_str).collect();
            return Err(Failure::new(
                Code::ManifestBlobUnknown,
                format!(
                    "the manifest refers to {}, which the repository does not have; push it first",
                    digests.join(", ")
                ),
            )
            .detail(json!({"digests": digests})));
        }
    }
    let mut headers = HeaderMap::new();
    headers.insert(LOCATION, value(format!("/v2/{name}/manifests/{digest}")));
    headers.insert(CONTENT_DIGEST, value(digest.as_str()));
    if let Some(subject) = subject {
        headers.insert(SUBJECT, value(subject.as_str()));
    }
    Ok((StatusCode::CREATED, headers).into_response())
}

/// Why a manifest was not kept.
enum Refused {
    Missing(Vec<Digest>),
    Other(Failure),
}

impl<E: Into<Failure>> From<E> for Refused {
    fn from(e: E) -> Self {
        Refused::Other(e.into())
    }
}

/// A manifest's bytes, at most [`MAX_MANIFEST`].
async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Failure> {
    let large = || {
        Failure::new(
            Code::ManifestInvalid,
            format!("a manifest has at most {MAX_MANIFEST} bytes"),
        )
        .status(StatusCode::PAYLOAD_TOO_LARGE)
    };
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|l| l.to_str().ok())
        .and_then(|l| l.parse::<usize>().ok());
    if announced.is_some_and(|l| l > MAX_MANIFEST) {
        return Err(large());
    }
    let read = bodies::in_time(axum::body::to_bytes(body, MAX_MANIFEST)).await;
    let Some(read) = read else {
        return Err(
            Failure::new(Code::ManifestInvalid, bodies::SLOW).status(StatusCode::REQUEST_TIMEOUT)
        );
    };
    match read {
        Ok(bytes) => Ok(bytes.into()),
        Err(e) => {
            let limit = std::error::Error::source(&e)
                .is_some_and(|e| e.is::<http_body_util::LengthLimitError>());
            Err(if limit {
                large()
            } else {
                Failure::new(
                    Code::ManifestInvalid,
                    format!("the manifest was cut off: {e}"),
                )
            })
        }
    }
}

pub(super) async fn delete(
    call: &Call,
    name: RepositoryName,
    reference: Reference,
) -> Result<Response, Failure> {
    call.may(Action::Delete, &name)?;
    let wanted = reference.clone();
    let permit = call.permit(Action::Delete, &name);
    let metadata = &call.registry.metadata;
    let done = call
        .draft
        .commit(metadata, StatusCode::ACCEPTED, move |db, _| {
            permit.check::<Failure>(db)?;
            let Some(repository) = db.repository(&name)? else {
                return Ok::<_, Failure>(RemoveManifest::Unknown);
            };
            let tags = match &wanted {
                Reference::Digest(digest) => db.tags_of(repository.id, digest)?,
                Reference::Tag(tag) => vec![tag.as_str().to_owned()],
            };
            for tag in &tags {
                if db.is_immutable(repository.project, &name, tag)? {
                    return Err(immutable(tag));
                }
            }
            let done = match &wanted {
                Reference::Digest(digest) => db.remove_manifest(repository.id, digest)?,
                Reference::Tag(tag) if db.remove_tag(repository.id, tag)? => RemoveManifest::Done,
                Reference::Tag(_) => RemoveManifest::Unknown,
            };
            if matches!(done, RemoveManifest::Done) {
                let reference = &wanted.to_string();
                let (by, event) = (permit.principal.name(), Event::Delete { reference });
                webhooks::queue(db, repository.project, &name, by, event)?;
            }
            Ok(done)
        })
        .await?;
    match done {
        RemoveManifest::Done => {
            call.registry.queued.notify_one();
            Ok(StatusCode::ACCEPTED.into_response())
        }
        RemoveManifest::Unknown => Err(unknown(&reference)),
        RemoveManifest::Needed(index) => Err(Failure::new(
            Code::Unsupported,
            format!("index {index} needs this manifest; delete the index first"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manifest_that_never_ends_is_given_up() {
        let body = Body::from_stream(futures_util::stream::pending::<std::io::Result<String>>());
        let answer = read(&HeaderMap::new(), body).await.unwrap_err();
        assert_eq!(answer.into_response().status(), StatusCode::REQUEST_TIMEOUT);
    }
}
