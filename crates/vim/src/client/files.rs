//! Files of datastores over HTTPS (`/folder/…?dcPath=…&dsName=…`).

use super::transport::{Body, full};
use super::{Client, Error};
use crate::DatastorePath;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use std::ops::Range;
use tokio::io::AsyncRead;

/// What a HEAD tells of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    /// Bytes.
    pub size: u64,
}

/// The content of a file as it comes.
#[derive(Debug)]
pub struct FileBody {
    body: Incoming,
    server: String,
    /// Bytes that this answer has, as far as the server says.
    pub length: Option<u64>,
}

impl FileBody {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// Where the connection broke before the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|source| Error::Http {
                server: self.server.clone(),
                source,
            })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// All that is left, as long as it is no more than `max` bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`], or where the connection broke.
    pub async fn bytes(mut self, max: usize) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if all.len() + chunk.len() > max {
                return Err(Error::TooLarge {
                    server: self.server,
                    max,
                });
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }
}

impl Client {
    /// Reads a file, or the part of it in `range` (bytes).
    ///
    /// # Errors
    /// [`Error::Status`] with 404 where it does not exist, 416 where the range is outside of it.
    pub async fn file_get(
        &self,
        datacenter: &str,
        path: &DatastorePath,
        range: Option<Range<u64>>,
    ) -> Result<FileBody, Error> {
        let range = range.map(|r| format!("bytes={}-{}", r.start, r.end.saturating_sub(1)));
        let response = self
            .file(Method::GET, datacenter, path, range.as_deref())
            .await?;
        let length = content_length(response.headers());
        Ok(FileBody {
            body: response.into_body(),
            server: self.inner.core.transport.server(),
            length,
        })
    }

    /// Size of a file.
    ///
    /// # Errors
    /// [`Error::Status`] with 404 where it does not exist.
    pub async fn file_head(
        &self,
        datacenter: &str,
        path: &DatastorePath,
    ) -> Result<FileStat, Error> {
        let response = self.file(Method::HEAD, datacenter, path, None).await?;
        Ok(FileStat {
            size: content_length(response.headers()).unwrap_or(0),
        })
    }

    /// Deletes a file.
    ///
    /// # Errors
    /// [`Error::Status`] with 404 where it does not exist, 409 or 403 where it is in use.
    pub async fn file_delete(&self, datacenter: &str, path: &DatastorePath) -> Result<(), Error> {
        self.file(Method::DELETE, datacenter, path, None)
            .await
            .map(drop)
    }

    /// Writes a file; what was there before is replaced once all has arrived.
    ///
    /// # Errors
    /// [`Error::Status`] with 507 where the datastore is full.
    pub async fn file_put(
        &self,
        datacenter: &str,
        path: &DatastorePath,
        content: impl Into<Bytes>,
    ) -> Result<(), Error> {
        let content = content.into();
        let length = content.len() as u64;
        self.put(datacenter, path, full(content), Some(length))
            .await
    }

    /// Writes a file from a reader, without holding it in memory. With `length` unknown the body
    /// is sent in chunks.
    ///
    /// # Errors
    /// [`Error::Status`] with 507 where the datastore is full; [`Error::Http`] where the reader failed.
    pub async fn file_put_stream(
        &self,
        datacenter: &str,
        path: &DatastorePath,
        content: impl AsyncRead + Send + Sync + 'static,
        length: Option<u64>,
    ) -> Result<(), Error> {
        let stream = tokio_util::io::ReaderStream::with_capacity(content, 256 * 1024);
        let frames = futures_util::StreamExt::map(stream, |piece| piece.map(Frame::data));
        self.put(
            datacenter,
            path,
            BodyExt::boxed(StreamBody::new(frames)),
            length,
        )
        .await
    }

    async fn put(
        &self,
        datacenter: &str,
        path: &DatastorePath,
        body: Body,
        length: Option<u64>,
    ) -> Result<(), Error> {
        // A body that is a stream cannot be sent twice: make sure of the session first.
        self.current_session().await?;
        let transport = &self.inner.core.transport;
        let url = folder_url(datacenter, path);
        let mut request =
            Request::put(&url).header(header::CONTENT_TYPE, "application/octet-stream");
        if let Some(length) = length {
            request = request.header(header::CONTENT_LENGTH, length);
        }
        let wrong = |e: http::Error| Error::Config {
            what: "the request",
            why: e.to_string(),
        };
        let response = transport
            .send_once(request.body(body).map_err(wrong)?)
            .await?;
        match response.status() {
            StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(()),
            status => Err(transport.status(status, &format!("PUT {url}"))),
        }
    }

    /// Renews the session where it has expired.
    async fn current_session(&self) -> Result<(), Error> {
        let Some(this) = self.content().session_manager.clone() else {
            return Ok(());
        };
        let spec = crate::types::PropertyFilterSpec::object(&this, &["currentSession"]);
        let this = self.content().property_collector.clone();
        let options = crate::types::RetrieveOptions::default();
        let call = crate::method::RetrievePropertiesEx {
            this,
            spec_set: vec![spec],
            options,
        };
        self.call(&call).await.map(drop)
    }

    async fn file(
        &self,
        method: Method,
        datacenter: &str,
        path: &DatastorePath,
        range: Option<&str>,
    ) -> Result<http::Response<Incoming>, Error> {
        let core = &self.inner.core;
        let url = folder_url(datacenter, path);
        let mut renewed = false;
        loop {
            let generation = core.generation().await;
            let request = || {
                let mut request = Request::builder().method(method.clone()).uri(&url);
                if let Some(range) = range {
                    request = request.header(header::RANGE, range);
                }
                request.body(full(Bytes::new()))
            };
            let (response, _) = core.transport.send_again(request).await?;
            match response.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::NO_CONTENT => {
                    return Ok(response);
                }
                StatusCode::UNAUTHORIZED if !renewed => {
                    core.renew(generation).await?;
                    renewed = true;
                }
                status => return Err(core.transport.status(status, &format!("{method} {url}"))),
            }
        }
    }
}

fn content_length(headers: &http::HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// `/folder/a/b.vmdk?dcPath=ha-datacenter&dsName=datastore1`.
fn folder_url(datacenter: &str, path: &DatastorePath) -> String {
    let mut url = String::from("/folder/");
    percent(&path.path, true, &mut url);
    url.push_str("?dcPath=");
    percent(datacenter, false, &mut url);
    url.push_str("&dsName=");
    percent(&path.datastore, false, &mut url);
    url
}

fn percent(text: &str, slashes: bool, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(byte.into())
            }
            b'/' if slashes => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}
