//! Blobs: read whole or in part, looked at, removed.

use super::error::{Code, Failure};
use super::{Call, value};
use crate::access::Action;
use crate::digest::Digest;
use crate::metadata::{Blob, Unlink, now};
use crate::names::RepositoryName;
use crate::ranges::{self, Wanted};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    IF_RANGE, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Milliseconds for which one note that a blob is wanted stands for all of them; far less than what is collected waits.
const NOTED: i64 = 60 * 1000;

fn unknown(digest: &Digest) -> Failure {
    Failure::new(Code::BlobUnknown, "the repository has no such blob")
        .detail(serde_json::json!({"digest": digest.as_str()}))
}

fn find(call: &Call, name: &RepositoryName, digest: &Digest) -> Result<Blob, Failure> {
    call.registry
        .metadata
        .read(|db| db.blob(name, digest))?
        .ok_or_else(|| unknown(digest))
}

/// Headers that both `GET` and `HEAD` send.
fn headers(digest: &Digest, length: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(CONTENT_DIGEST, value(digest.as_str()));
    headers.insert(ETAG, value(format!("\"{digest}\"")));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=31536000, immutable"),
    );
    headers
}

/// Whether `If-None-Match` holds this entity tag (RFC 9110, 13.1.2).
pub(super) fn is_cached(call: &Call, digest: &str) -> bool {
    call.header(IF_NONE_MATCH).is_some_and(|list| {
        list.split(',').any(|tag| {
            let tag = tag.trim();
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            tag == "*" || tag.trim_matches('"') == digest
        })
    })
}

pub(super) async fn get(
    call: &Call,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Response, Failure> {
    call.may(Action::Pull, name)?;
    let blob = find(call, name, digest)?;
    if is_cached(call, digest.as_str()) {
        let mut headers = headers(digest, 0);
        headers.remove(CONTENT_LENGTH);
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    // A part of something else than the client has is of no use to it (RFC 9110, 13.1.5).
    let range = call.header(RANGE).filter(|_| {
        call.header(IF_RANGE)
            .is_none_or(|tag| tag.trim().trim_matches('"') == digest.as_str())
    });
    let (status, range) = match range.map_or(Wanted::Whole, |text| ranges::parse(text, blob.size)) {
        Wanted::Whole => (StatusCode::OK, 0..blob.size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => {
            return Err(Failure::new(
                Code::SizeInvalid,
                format!("the range lies outside of the blob's {} bytes", blob.size),
            )
            .status(StatusCode::RANGE_NOT_SATISFIABLE)
            .header(CONTENT_RANGE, value(format!("bytes */{}", blob.size))));
        }
    };
    let mut headers = headers(digest, range.end - range.start);
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {}-{}/{}", range.start, range.end - 1, blob.size);
        headers.insert(CONTENT_RANGE, value(text));
    }
    let body = call.registry.store.open(&blob.key, range).await?;
    Ok((status, headers, Body::new(body)).into_response())
}

/// A client that may push and is told that the blob is here will not send it: so it is noted as wanted, and is not
/// collected before the manifest can be here.
pub(super) async fn head(
    call: &Call,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Response, Failure> {
    call.may(Action::Pull, name)?;
    let blob = find(call, name, digest)?;
    if call.may(Action::Push, name).is_ok() {
        let (name, wanted) = (name.clone(), digest.clone());
        let stale = call
            .registry
            .metadata
            .read(|db| db.blob_untouched_since(&name, &wanted, now() - NOTED))?;
        if stale {
            let there = call
                .registry
                .metadata
                .write(move |db| db.touch_blob(&name, &wanted))
                .await?;
            if !there {
                return Err(unknown(digest));
            }
        }
    }
    Ok((StatusCode::OK, headers(digest, blob.size)).into_response())
}

pub(super) async fn delete(
    call: &Call,
    name: RepositoryName,
    digest: Digest,
) -> Result<Response, Failure> {
    call.may(Action::Delete, &name)?;
    let wanted = digest.clone();
    let permit = call.permit(Action::Delete, &name);
    let metadata = &call.registry.metadata;
    let done = call
        .draft
        .commit(metadata, StatusCode::ACCEPTED, move |db, _| {
            permit.check::<Failure>(db)?;
            match db.repository(&name)? {
                Some(repository) => Ok::<_, Failure>(db.unlink_blob(repository.id, &wanted)?),
                None => Ok(Unlink::Unknown),
            }
        })
        .await?;
    match done {
        Unlink::Done => Ok(StatusCode::ACCEPTED.into_response()),
        Unlink::Unknown => Err(unknown(&digest)),
        Unlink::Needed(manifest) => Err(Failure::new(
            Code::Unsupported,
            format!("manifest {manifest} needs this blob; delete the manifest first"),
        )),
    }
}
