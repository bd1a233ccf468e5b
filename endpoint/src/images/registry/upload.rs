//! The sending side of a repository (distribution-spec, "Pushing Blobs", "Pushing Manifests").

use super::http::{judge, send};
use super::{RegistryError, Repository, SILENCE};
use bytes::Bytes;
use futures_util::Stream;
use layers::{Digest, ReadAt};
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LOCATION, RANGE,
};
use reqwest::{Response, StatusCode};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes that are read and sent at a time.
const PIECE: u64 = 256 << 10;
/// How often an upload is taken up again after it broke off.
const ATTEMPTS: u32 = 5;
/// Pause before the first of these; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);

/// What an upload tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Bytes that were given to the registry so far.
    Sent(u64),
    /// It broke off and is taken up again after so long.
    Again(Duration),
}

impl Repository {
    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let url = self.blob_url(digest);
        let answer = self.call(&url, || self.http().any.head(&url)).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        judge(answer, &url).await.map(|_| true)
    }

    /// Takes a blob over from another repository of the same registry; `false` where the registry does not do that.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn mount(&self, digest: &Digest, from: &str) -> Result<bool, RegistryError> {
        let digest = digest.to_string();
        let mut url = self.url(&self.uploads())?;
        url.query_pairs_mut()
            .append_pair("mount", &digest)
            .append_pair("from", from);
        let url = url.to_string();
        let answer = self.post(&url).await?;
        match answer.status() {
            StatusCode::CREATED => Ok(true),
            StatusCode::ACCEPTED => {
                // An upload has begun in place of the mount; it is not wanted.
                if let Ok(place) = self.location(&answer, &url) {
                    let _forgotten_anyway =
                        self.call(&place, || self.http().still.delete(&place)).await;
                }
                Ok(false)
            }
            // A repository that may not be read is as good as none.
            StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(false),
            _ => judge(answer, &url).await.map(|_| false),
        }
    }

    /// Sends a blob of this digest. Where the connection breaks it goes on from where the registry has got to.
    ///
    /// # Errors
    /// [`RegistryError`], after several attempts where it may pass.
    pub async fn upload(
        &self,
        blob: impl ReadAt + Clone + 'static,
        digest: &Digest,
        told: impl Fn(Told),
    ) -> Result<(), RegistryError> {
        let mut place = None;
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS {
            match self.attempt(&mut place, &blob, digest, &told).await {
                Err(error) if error.is_passing() => {
                    tracing::info!(%digest, %error, "an upload broke off");
                }
                done => return done,
            }
            told(Told::Again(pause));
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.attempt(&mut place, &blob, digest, &told).await
    }

    /// One attempt; `place` is that of an upload that has begun.
    async fn attempt<B: ReadAt + Clone + 'static>(
        &self,
        place: &mut Option<String>,
        blob: &B,
        digest: &Digest,
        told: &impl Fn(Told),
    ) -> Result<(), RegistryError> {
        let size = blob.size().map_err(|e| local(&self.uploads(), &e))?;
        let mut at = 0;
        if let Some(url) = place.take() {
            let answer = self.call(&url, || self.http().still.get(&url)).await?;
            if answer.status().is_success() {
                *place = Some(self.location(&answer, &url).unwrap_or(url));
                at = received(answer.headers()).min(size);
            }
            // An upload that is not known any more may have ended well, with the answer lost. Else it begins anew.
            if place.is_none() && self.has_blob(digest).await? {
                return Ok(());
            }
        }
        let mut url = match place.clone() {
            Some(url) => url,
            None => {
                let url = self.uploads();
                let answer = judge(self.post(&url).await?, &url).await?;
                let url = self.location(&answer, &url)?;
                *place = Some(url.clone());
                url
            }
        };
        if at < size {
            let answer = self.patch(&url, blob, at, size, told).await?;
            url = self.location(&answer, &url).unwrap_or(url);
            *place = Some(url.clone());
        }
        let mut last = self.url(&url)?;
        last.query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let url = last.to_string();
        let answer = self
            .call(&url, || {
                self.http().still.put(&url).header(CONTENT_LENGTH, 0)
            })
            .await?;
        let answer = judge(answer, &url).await;
        if answer.is_err() {
            // What was sent is not what it should be: from the start, if at all.
            *place = None;
        }
        answer.map(|_| ())
    }

    /// Sends the bytes from `at` on.
    async fn patch<B: ReadAt + Clone + 'static>(
        &self,
        url: &str,
        blob: &B,
        at: u64,
        size: u64,
        told: &impl Fn(Told),
    ) -> Result<Response, RegistryError> {
        let sent = Arc::new(AtomicU64::new(at));
        let body = pieces(blob.clone(), at, size, sent.clone());
        let mut request = self
            .http()
            .sending
            .patch(url)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, size - at);
        if at > 0 {
            request = request.header(CONTENT_RANGE, format!("{at}-{}", size - 1));
        }
        if self.is_ours(url)
            && let Some(value) = self.authorization().await
        {
            request = request.header(AUTHORIZATION, value);
        }
        let answer = send(request.body(reqwest::Body::wrap_stream(body)), url);
        tokio::pin!(answer);
        let mut silent = Duration::ZERO;
        let mut before = at;
        const LOOK: Duration = Duration::from_millis(200);
        let answer = loop {
            // The body is taken by the connection, which tells nobody; a look at the counter is for people to see.
            match tokio::time::timeout(LOOK, &mut answer).await {
                Ok(answer) => break answer?,
                Err(_) => {
                    let now = sent.load(Ordering::Relaxed);
                    silent = if now > before {
                        Duration::ZERO
                    } else {
                        silent + LOOK
                    };
                    before = now;
                    told(Told::Sent(now));
                    if silent >= SILENCE {
                        return Err(RegistryError::Transport {
                            url: url.to_owned(),
                            reason: format!("it took nothing for {} s", SILENCE.as_secs()),
                        });
                    }
                }
            }
        };
        if answer.status() == StatusCode::UNAUTHORIZED {
            // A token has expired. The body is spent: the next attempt goes on with a new one.
            self.authorize(&answer).await?;
            return Err(RegistryError::Transport {
                url: url.to_owned(),
                reason: "the registry's token expired".into(),
            });
        }
        told(Told::Sent(size));
        judge(answer, url).await
    }

    /// Sends a manifest under a tag or its digest; the digest that it has there.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest, RegistryError> {
        let url = format!("{}/v2/{}/manifests/{reference}", self.base(), self.path());
        let request = || {
            self.http()
                .still
                .put(&url)
                .header(CONTENT_TYPE, media_type)
                .body(bytes.clone())
        };
        judge(self.call(&url, request).await?, &url).await?;
        Ok(Digest::of(&bytes))
    }

    fn uploads(&self) -> String {
        format!("{}/v2/{}/blobs/uploads/", self.base(), self.path())
    }

    async fn post(&self, url: &str) -> Result<Response, RegistryError> {
        self.call(url, || {
            self.http().still.post(url).header(CONTENT_LENGTH, 0)
        })
        .await
    }

    fn url(&self, url: &str) -> Result<reqwest::Url, RegistryError> {
        reqwest::Url::parse(url).map_err(|e| local(url, &e))
    }

    /// Where the registry says that an upload goes on.
    fn location(&self, answer: &Response, url: &str) -> Result<String, RegistryError> {
        let fail = |reason: String| RegistryError::Transport {
            url: url.to_owned(),
            reason,
        };
        let text = answer
            .headers()
            .get(LOCATION)
            .and_then(|v| v.to_str().ok())
            .ok_or_else(|| fail("the registry does not say where the upload goes on".into()))?;
        let place = self
            .url(url)?
            .join(text)
            .map_err(|e| fail(format!("the upload's place {text:?}: {e}")))?;
        let plain = place.scheme() != "https" && !self.is_ours(place.as_str());
        if plain {
            return Err(fail(format!(
                "the registry has the upload go on at {place}, without TLS"
            )));
        }
        Ok(place.to_string())
    }
}

/// How much the registry has: `Range: 0-N`, where N is the last byte's number.
fn received(headers: &HeaderMap) -> u64 {
    headers
        .get(RANGE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.trim_start_matches("bytes=").split_once('-'))
        .and_then(|(_, last)| last.parse::<u64>().ok())
        // Distribution says 0-0 for none as for one: then that byte is left to the digest to judge.
        .map_or(0, |last| if last == 0 { 0 } else { last.saturating_add(1) })
}

fn local(url: &str, error: &dyn std::fmt::Display) -> RegistryError {
    RegistryError::Transport {
        url: url.to_owned(),
        reason: error.to_string(),
    }
}

/// The bytes of a blob from `at` on; `sent` counts those that were taken.
fn pieces<B: ReadAt + Clone + 'static>(
    blob: B,
    at: u64,
    size: u64,
    sent: Arc<AtomicU64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    futures_util::stream::try_unfold(at, move |at| {
        let (blob, sent) = (blob.clone(), sent.clone());
        async move {
            sent.store(at, Ordering::Relaxed);
            if at >= size {
                return Ok(None);
            }
            let piece = tokio::task::spawn_blocking(move || {
                // At most `PIECE`.
                let mut piece = vec![0; (size - at).min(PIECE) as usize];
                blob.read_exact_at(at, &mut piece).map(|()| piece)
            })
            .await
            .map_err(io::Error::other)??;
            let next = at + piece.len() as u64;
            Ok(Some((Bytes::from(piece), next)))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_registry_has_got_is_read_from_its_range() {
        for (text, got) in [
            ("0-0", 0),
            ("0-99", 100),
            ("bytes=0-99", 100),
            ("x", 0),
            ("0-x", 0),
            ("0-18446744073709551615", u64::MAX),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            assert_eq!(received(&headers), got, "{text}");
        }
        assert_eq!(received(&HeaderMap::new()), 0);
    }
}
