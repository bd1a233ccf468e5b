//! Calls the administration API as the console.

use crate::access::Principal;
use crate::api::Page;
use crate::registry::{OpenError, Registry};
use crate::server;
use anyhow::{Context, Result, bail};
use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use http_body_util::BodyExt;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write;
use std::path::Path;
use tokio::net::UnixStream;
use tower::ServiceExt;

/// Longest answer that is read.
const MAX_ANSWER: usize = 64 << 20;

/// Sends one request to the registry in this folder: to the process that serves it, or to itself.
///
/// # Errors
/// When the API says no (its message), or nobody can be asked.
pub(crate) fn call<T: DeserializeOwned>(
    folder: &Path,
    method: Method,
    path: &str,
    body: &impl Serialize,
) -> Result<T> {
    let body = serde_json::to_vec(body)?;
    let mut bytes = Vec::new();
    send(folder, method, path, body, MAX_ANSWER, &mut bytes)?;
    let bytes = if bytes.is_empty() {
        &b"null"[..]
    } else {
        &bytes
    };
    serde_json::from_slice(bytes).context("the registry's answer is not understood")
}

/// Writes an answer out as it comes, however long.
///
/// # Errors
/// As [`call`].
pub(crate) fn copy(folder: &Path, path: &str, out: &mut impl Write) -> Result<()> {
    send(folder, Method::GET, path, Vec::new(), usize::MAX, out)?;
    Ok(out.flush()?)
}

fn send(
    folder: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
    longest: usize,
    out: &mut impl Write,
) -> Result<()> {
    let request = Request::builder()
        .method(method)
        .uri(format!("/api/v1{path}"))
        .header("host", "localhost")
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(body))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let response = Session::open(folder).await?.send(request).await?;
        let status = response.status();
        let fail = |e: &dyn std::fmt::Display| anyhow::anyhow!("the registry's answer: {e}");
        if !status.is_success() {
            let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER);
            let bytes = body.collect().await.map_err(|e| fail(&e))?.to_bytes();
            let answer: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
            match answer["message"].as_str() {
                Some(message) => bail!("{message}"),
                None => bail!("the registry answered {status}"),
            }
        }
        let mut body = http_body_util::Limited::new(response.into_body(), longest);
        while let Some(frame) = body.frame().await {
            if let Ok(bytes) = frame.map_err(|e| fail(&e))?.into_data() {
                out.write_all(&bytes)?;
            }
        }
        Ok(())
    })
}

/// A name as a part of a path.
pub(crate) fn part(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// All of a list that comes in pages.
///
/// # Errors
/// As [`call`].
pub(crate) fn list<T: DeserializeOwned>(
    folder: &Path,
    path: &str,
    name: impl Fn(&T) -> &str,
) -> Result<Vec<T>> {
    let mut all: Vec<T> = Vec::new();
    loop {
        let after = all.last().map(|last| part(name(last))).unwrap_or_default();
        let page = format!("{path}?limit={}&after={after}", Page::MOST);
        let found: Vec<T> = call(folder, Method::GET, &page, &())?;
        if found.is_empty() {
            return Ok(all);
        }
        all.extend(found);
    }
}

/// A way to ask the registry in a folder: the process that serves it, or itself.
pub(crate) enum Session {
    Here(axum::Router),
    There(SendRequest<Body>),
}

impl Session {
    /// # Errors
    /// When nobody can be asked.
    pub(crate) async fn open(folder: &Path) -> Result<Self> {
        match Registry::open(folder) {
            Ok(registry) => {
                let router = server::router(registry).layer(axum::Extension(Principal::Console));
                Ok(Session::Here(router))
            }
            Err(OpenError::InUse(_)) => {
                let path = Registry::control_socket(folder);
                let stream = UnixStream::connect(&path).await.with_context(|| {
                    format!("connect to {} (who serves this registry?)", path.display())
                })?;
                let (sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                Ok(Session::There(sender))
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Sends a request. The answer before has to be read to its end.
    ///
    /// # Errors
    /// When the registry has gone.
    pub(crate) async fn send(&mut self, request: Request<Body>) -> Result<http::Response<Body>> {
        match self {
            Session::Here(router) => Ok(router.clone().oneshot(request).await?),
            Session::There(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(request).await?.map(Body::new))
            }
        }
    }
}
