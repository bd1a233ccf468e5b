//! One request and its answer.

use super::RegistryError;
use bytes::Bytes;
use futures_util::TryStreamExt;
use reqwest::{RequestBuilder, Response, StatusCode};

/// Sends a request; any answer will do.
pub(super) async fn send(request: RequestBuilder, url: &str) -> Result<Response, RegistryError> {
    let answer = request.send().await;
    answer.map_err(|e| RegistryError::transport(url, &e))
}

/// The answer, if it is a success.
pub(super) async fn judge(answer: Response, url: &str) -> Result<Response, RegistryError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = bounded(answer, 64 << 10, url).await.unwrap_or_default();
    let reason = serde_json::from_slice::<serde_json::Value>(&body)
        .ok()
        .and_then(|v| {
            v.pointer("/errors/0/message")
                .or_else(|| v.get("details"))
                .and_then(|m| m.as_str())
                .map(str::to_owned)
        })
        .unwrap_or_else(|| {
            status
                .canonical_reason()
                .unwrap_or("no reason given")
                .to_owned()
        });
    Err(match status {
        StatusCode::NOT_FOUND => RegistryError::Missing {
            url: url.to_owned(),
            reason,
        },
        StatusCode::UNAUTHORIZED => RegistryError::Unauthorized(reason),
        StatusCode::FORBIDDEN => {
            RegistryError::Unauthorized(format!("access to the resource is denied: {reason}"))
        }
        StatusCode::TOO_MANY_REQUESTS => RegistryError::TooManyRequests(reason),
        other => RegistryError::Status {
            url: url.to_owned(),
            status: other.as_u16(),
            reason,
        },
    })
}

/// The answer's body, at most `limit` bytes.
pub(super) async fn bounded(
    answer: Response,
    limit: u64,
    url: &str,
) -> Result<Bytes, RegistryError> {
    let too_large = || RegistryError::TooLarge {
        url: url.to_owned(),
        limit,
    };
    if answer.content_length().is_some_and(|n| n > limit) {
        return Err(too_large());
    }
    let mut all = Vec::new();
    let mut stream = answer.bytes_stream();
    while let Some(part) = stream
        .try_next()
        .await
        .map_err(|e| RegistryError::transport(url, &e))?
    {
        if all.len() as u64 + part.len() as u64 > limit {
            return Err(too_large());
        }
        all.extend_from_slice(&part);
    }
    Ok(all.into())
}
