//! A blob as a stream that outlives its connection.

use super::error::with_causes;
use super::http::judge;
use super::{RegistryError, Repository};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use layers::Digest;
use reqwest::header::{CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{Response, StatusCode};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// How often in a row a blob is asked for again without that a byte of it came.
const ATTEMPTS: u32 = 5;
/// Pause before the first of these; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);

type Body = Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>;

/// Where a download has got to.
struct Download {
    repository: Arc<Repository>,
    url: String,
    size: u64,
    at: u64,
    /// Bytes of the body that came already, where the registry gives all of it anew.
    skip: u64,
    body: Option<Body>,
    attempts: u32,
    pause: Duration,
    told: Box<dyn Fn(Duration) + Send>,
}

impl Repository {
    /// A blob of `size` bytes as a stream from byte `from` on, not yet checked. Where the connection breaks, the rest is
    /// asked for (RFC 9110, 14.2); `told` is called with the pause before that.
    ///
    /// # Errors
    /// [`RegistryError`] where it does not begin; errors of the stream itself are `std::io::Error`s.
    pub async fn blob(
        self: &Arc<Self>,
        digest: &Digest,
        size: u64,
        from: u64,
        told: Box<dyn Fn(Duration) + Send>,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + Unpin + use<>, RegistryError> {
        let url = self.blob_url(digest);
        let mut download = Download {
            repository: self.clone(),
            url,
            size,
            at: from,
            skip: 0,
            body: None,
            attempts: 0,
            pause: PAUSE,
            told,
        };
        while let Err(error) = download.open().await {
            download.wait(&error).await?;
        }
        Ok(Box::pin(futures_util::stream::try_unfold(
            download,
            |mut download| async move {
                let piece = download.next().await.map_err(io::Error::other)?;
                Ok(piece.map(|piece| (piece, download)))
            },
        )))
    }
}

impl Download {
    /// Asks for what is missing.
    async fn open(&mut self) -> Result<(), RegistryError> {
        let request = || {
            let request = self.repository.http().any.get(&self.url);
            if self.at == 0 {
                request
            } else {
                request.header(RANGE, format!("bytes={}-", self.at))
            }
        };
        let answer = self.repository.call(&self.url, request).await?;
        let answer = judge(answer, &self.url).await?;
        self.skip = skipped(&answer, self.at).ok_or_else(|| RegistryError::Transport {
            url: self.url.clone(),
            reason: format!(
                "the registry gave another part than that from byte {}",
                self.at
            ),
        })?;
        self.body = Some(Box::pin(answer.bytes_stream()));
        Ok(())
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let broken = match &mut self.body {
                None => match self.open().await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Some(body) => match body.next().await {
                    Some(Ok(mut piece)) => {
                        // At most the piece's length.
                        let skip = self.skip.min(piece.len() as u64);
                        self.skip -= skip;
                        let piece = piece.split_off(skip as usize);
                        if piece.is_empty() {
                            continue;
                        }
                        self.at += piece.len() as u64;
                        (self.attempts, self.pause) = (0, PAUSE);
                        return Ok(Some(piece));
                    }
                    // More than there should be is judged by its reader.
                    None if self.at >= self.size => return Ok(None),
                    None => RegistryError::Transport {
                        url: self.url.clone(),
                        reason: format!("it ended after {} of {} bytes", self.at, self.size),
                    },
                    Some(Err(error)) => RegistryError::Transport {
                        url: self.url.clone(),
                        reason: with_causes(&error),
                    },
                },
            };
            self.body = None;
            self.wait(&broken).await?;
        }
    }

    /// Waits before the next attempt, where there may be one.
    async fn wait(&mut self, error: &RegistryError) -> Result<(), RegistryError> {
        self.attempts += 1;
        if !error.is_passing() || self.attempts >= ATTEMPTS {
            return Err(error.clone());
        }
        tracing::info!(%error, "a download broke off");
        (self.told)(self.pause);
        tokio::time::sleep(self.pause).await;
        self.pause *= 2;
        Ok(())
    }
}

/// How many bytes of an answer to a request from `at` on have come before; `None` where it is another part.
fn skipped(answer: &Response, at: u64) -> Option<u64> {
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return Some(at);
    }
    (first(answer.headers())? == at).then_some(0)
}

/// The first byte's number in `Content-Range: bytes 5-9/10`.
fn first(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (first, _) = text.strip_prefix("bytes ")?.split_once('-')?;
    first.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_where_it_says() {
        for (text, is) in [
            ("bytes 5-9/10", Some(5)),
            ("bytes 0-9/*", Some(0)),
            ("5-9", None),
            ("bytes x-9/10", None),
            ("bytes */10", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, text.parse().unwrap());
            assert_eq!(first(&headers), is, "{text}");
        }
    }
}
