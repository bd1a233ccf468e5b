//! Takes what a refused request still sends, so that the client gets to read the refusal.
//!
//! A server that answers before it has read the request's body, and then closes the connection, makes the kernel reset
//! it: a client that is still writing sees `broken pipe` or `connection reset`, and not the answer (RFC 9112, section
//! 9.6). [`unread`] is an axum middleware that reads and forgets what a handler left, within [`DRAIN_MAX`] bytes and
//! [`DRAIN_TIME`]. What is longer is cut off: nobody makes a server read for ever.
#![forbid(unsafe_code)]

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::{Version, header::EXPECT};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// Bytes of a body that are read only to be forgotten: an image's archive is of this order.
pub const DRAIN_MAX: u64 = 1 << 30;
/// How long that may take.
pub const DRAIN_TIME: Duration = Duration::from_secs(10);

/// The middleware: `axum::middleware::from_fn(drain::unread)`. A body that the handler goes on reading behind its answer
/// is left alone, and so is one that the client has not begun to send (`Expect: 100-continue`). HTTP/2 ends a stream
/// without its connection, and needs none of this (RFC 9113, section 8.1).
pub async fn unread(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() || request.version() > Version::HTTP_11 {
        return next.run(request).await;
    }
    let expects = request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    let body = Shared(Arc::new(Mutex::new(Inner {
        body,
        begun: false,
        over: false,
    })));
    let ours = body.0.clone();
    let response = next.run(Request::from_parts(parts, Body::new(body))).await;
    // The last reference is ours: the handler has let go of the body.
    if let Some(inner) = Arc::into_inner(ours) {
        let inner = inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !inner.over && (inner.begun || !expects) {
            // Either way the answer goes out; what is left then is the connection's end.
            let _ = tokio::time::timeout(DRAIN_TIME, forget(inner.body)).await;
        }
    }
    response
}

/// Reads to the end, an error, or the limit.
async fn forget(mut body: Body) {
    let mut left = DRAIN_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        let Some(rest) = left.checked_sub(length) else {
            return;
        };
        left = rest;
    }
}

struct Inner {
    body: Body,
    /// Somebody asked for it: the client was told to go on.
    begun: bool,
    over: bool,
}

/// A body that can be taken back from whoever dropped it.
struct Shared(Arc<Mutex<Inner>>);

impl http_body::Body for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.begun = true;
        let polled = Pin::new(&mut inner.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            inner.over = true;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.over || inner.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.body.size_hint()
    }
}
