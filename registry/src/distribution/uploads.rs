//! Uploads of blobs: begun (or mounted, or done in one request), continued, finished, asked for, cancelled.

use super::blobs::CONTENT_DIGEST;
use super::error::{Code, Failure};
use super::{Call, value};
use crate::access::Action;
use crate::digest::{Algorithm, Digest};
use crate::names::RepositoryName;
use crate::{ranges, uploads};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

pub(super) async fn begin(
    call: &Call,
    name: RepositoryName,
    body: Body,
) -> Result<Response, Failure> {
    call.may(Action::Push, &name)?;
    if let Some(digest) = call.parameter("mount") {
        let digest: Digest = digest.parse()?;
        if mount(call, &name, &digest).await? {
            return Ok(created(&name, &digest));
        }
    } else if let Some(digest) = call.parameter("digest") {
        let digest: Digest = digest.parse()?;
        call.registry
            .uploads
            .whole(call.permit(Action::Push, &name), body, digest.clone())
            .await?;
        return Ok(created(&name, &digest));
    }
    let algorithm = match call.parameter("digest-algorithm") {
        Some(name) => name.parse()?,
        None => Algorithm::Sha256,
    };
    let id = call.registry.uploads.begin(&name, algorithm).await?;
    Ok((StatusCode::ACCEPTED, progress(&name, &id, 0)).into_response())
}

/// Whether the blob is in the repository now, without having been sent. Only what the caller may pull is mounted; whether
/// it exists elsewhere is not told.
async fn mount(call: &Call, name: &RepositoryName, digest: &Digest) -> Result<bool, Failure> {
    let from: RepositoryName = match call.parameter("from") {
        Some(from) => match from.parse() {
            Ok(from) => from,
            Err(_) => return Ok(false),
        },
        // Automatic discovery would have to search all that the caller may see; an upload is always right.
        None => name.clone(),
    };
    if call.may(Action::Pull, &from).is_err() {
        return Ok(false);
    }
    let permits = [
        call.permit(Action::Push, name),
        call.permit(Action::Pull, &from),
    ];
    let (into, digest) = (name.clone(), digest.clone());
    let metadata = &call.registry.metadata;
    let mounted = call
        .draft
        .commit(metadata, StatusCode::CREATED, move |db, _| {
            for permit in &permits {
                permit.check::<uploads::Error>(db)?;
            }
            if db.blob(&from, &digest)?.is_none() {
                return Ok(false);
            }
            let repository = db
                .ensure_repository(&into)?
                .ok_or_else(|| uploads::Error::NoProject(into.project().to_owned()))?;
            db.charged(repository.project, || {
                Ok::<_, uploads::Error>(db.mount_blob(repository.id, &from, &digest)?)
            })
        })
        .await?;
    Ok(mounted)
}

pub(super) fn status(call: &Call, name: &RepositoryName, id: &str) -> Result<Response, Failure> {
    call.may(Action::Push, name)?;
    let received = call.registry.uploads.status(id, name)?;
    Ok((StatusCode::NO_CONTENT, progress(name, id, received)).into_response())
}

pub(super) async fn append(
    call: &Call,
    name: &RepositoryName,
    id: &str,
    body: Body,
) -> Result<Response, Failure> {
    call.may(Action::Push, name)?;
    let range = range(call)?;
    let received = call
        .registry
        .uploads
        .append(id, call.permit(Action::Push, name), range, body)
        .await
        .map_err(|e| refused(e, name, id))?;
    Ok((StatusCode::ACCEPTED, progress(name, id, received)).into_response())
}

pub(super) async fn finish(
    call: &Call,
    name: &RepositoryName,
    id: &str,
    body: Body,
) -> Result<Response, Failure> {
    call.may(Action::Push, name)?;
    let digest: Digest = call
        .parameter("digest")
        .ok_or_else(|| {
            Failure::new(
                Code::DigestInvalid,
                "the last request of an upload needs ?digest=",
            )
        })?
        .parse()?;
    let range = range(call)?;
    call.registry
        .uploads
        .finish(
            id,
            call.permit(Action::Push, name),
            range,
            body,
            digest.clone(),
        )
        .await
        .map_err(|e| refused(e, name, id))?;
    Ok(created(name, &digest))
}

pub(super) async fn cancel(
    call: &Call,
    name: &RepositoryName,
    id: &str,
) -> Result<Response, Failure> {
    call.may(Action::Push, name)?;
    call.registry.uploads.cancel(id, name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The chunk's `Content-Range`, checked against its `Content-Length`.
fn range(call: &Call) -> Result<Option<(u64, u64)>, Failure> {
    let Some(text) = call.headers.get(CONTENT_RANGE) else {
        return Ok(None);
    };
    let range = text.to_str().ok().and_then(ranges::chunk).ok_or_else(|| {
        Failure::new(
            Code::BlobUploadInvalid,
            "Content-Range must be START-END, both inclusive",
        )
        .status(StatusCode::RANGE_NOT_SATISFIABLE)
    })?;
    let length = call
        .header(CONTENT_LENGTH)
        .and_then(|l| l.parse::<u64>().ok());
    if let Some(length) = length
        && length != range.1
    {
        return Err(Failure::new(
            Code::SizeInvalid,
            format!(
                "Content-Range has {} bytes, Content-Length says {length}",
                range.1
            ),
        ));
    }
    Ok(Some(range))
}

/// A chunk out of order is told where to go on.
fn refused(e: uploads::Error, name: &RepositoryName, id: &str) -> Failure {
    let received = match &e {
        uploads::Error::OutOfOrder { received, .. } => Some(*received),
        _ => None,
    };
    let mut failure = Failure::from(e);
    if let Some(received) = received {
        for (key, value) in progress(name, id, received) {
            if let Some(key) = key {
                failure = failure.header(key, value);
            }
        }
    }
    failure
}

/// Where an upload goes on. `Range: 0-0` is Docker's for nothing, too.
fn progress(name: &RepositoryName, id: &str, received: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let location = format!("/v2/{name}/blobs/uploads/{id}");
    headers.insert(LOCATION, value(location));
    headers.insert(RANGE, value(format!("0-{}", received.saturating_sub(1))));
    headers.insert(UPLOAD_ID, value(id));
    headers
}

fn created(name: &RepositoryName, digest: &Digest) -> Response {
    let headers = [
        (LOCATION, value(format!("/v2/{name}/blobs/{digest}"))),
        (CONTENT_DIGEST, value(digest.as_str())),
        (CONTENT_LENGTH, HeaderValue::from_static("0")),
    ];
    (StatusCode::CREATED, headers).into_response()
}
