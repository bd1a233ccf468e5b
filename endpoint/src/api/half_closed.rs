//! Clients that have closed their sending side, or all of it, while their answer is made: `nc -N`, `socat`, Ctrl-C.
//!
//! hyper either does not look, and then who is gone from a silent answer (`events`, `wait`, `logs -f`) is never let go of,
//! or it drops the answer of whoever has nothing more to say. Docker's does neither (Go, net/http: the end of what a client
//! sends cancels the request's context; what is answered all the same is sent). So hyper is told to look, and is kept from
//! seeing that end until the answer is done: which it is as soon as there is nothing more of it at once.

use axum::{body::Body, response::Response};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// What a connection and its request know of each other.
#[derive(Debug, Clone, Default)]
pub struct Exchange(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    /// The client sends nothing more, and its requests are here whole.
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// Requests that are being answered; HTTP/2 has several at once.
    answering: usize,
    /// The last answer is done, and not yet with the client.
    flushing: bool,
    /// The body of a request has not been read to its end.
    uploading: bool,
    /// Whoever reads it waits for more.
    starved: bool,
    /// The client sends nothing more.
    over: bool,
    /// hyper, which waits to hear of that.
    waker: Option<Waker>,
}

impl State {
    /// hyper may hear that the client sends nothing more: nobody is answered, or waits for what the client did not send.
    fn may_tell(&self) -> bool {
        self.answering == 0 && !self.flushing || self.uploading && self.starved
    }
}

impl Exchange {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and tells who waits for that.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        if !state.over {
            return;
        }
        if state.may_tell()
            && let Some(waker) = state.waker.take()
        {
            waker.wake();
        }
        let whole = !state.uploading;
        drop(state);
        if whole {
            self.0.ended.cancel();
        }
    }

    /// A request has come. The guards go into its body and into that of its answer.
    pub fn begin(&self, body: &impl HttpBody) -> (Uploading, Answering) {
        let mut state = self.state();
        state.answering += 1;
        state.uploading = !body.is_end_stream();
        (Uploading(self.clone()), Answering(self.clone()))
    }
}

/// The body of a request that is being read.
#[derive(Debug)]
pub struct Uploading(Exchange);

impl Drop for Uploading {
    fn drop(&mut self) {
        self.0
            .change(|state| (state.uploading, state.starved) = (false, false));
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Answering(Exchange);

/// Goes with an answer (as an extension) that comes to its end by itself: a file, a log that is not followed. Cut where it
/// has to be waited for, it would look whole. Whoever is gone from it is found out by its writes.
#[derive(Debug, Clone, Copy)]
pub struct Finite;

impl Answering {
    /// Puts this into the answer.
    pub fn keep(self, answer: Response) -> Response {
        let finite = answer.extensions().get::<Finite>().is_some();
        let ended = (!finite).then(|| Box::pin(self.0.0.ended.clone().cancelled_owned()));
        answer.map(|body| {
            Body::new(Answer {
                body,
                ended,
                _answering: self,
            })
        })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.answering -= 1;
            state.flushing = state.answering == 0;
        });
    }
}

/// The body of an answer. For a client that sends nothing more it ends where it would be waited for.
struct Answer {
    body: Body,
    /// The client sends nothing more; not for one that is finite.
    ended: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _answering: Answering,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        // What is there is sent; nobody waits for more.
        match &mut self.ended {
            Some(ended) => ended.as_mut().poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body that tells when it is read, or given up.
#[derive(Debug)]
pub struct Upload<B> {
    body: B,
    uploading: Option<Uploading>,
}

impl<B> Upload<B> {
    /// Puts the guard into the body.
    pub fn new(body: B, uploading: Uploading) -> Self {
        Self {
            body,
            uploading: Some(uploading),
        }
    }
}

impl<B: HttpBody + Unpin> HttpBody for Upload<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Some(Uploading(exchange)) = &self.uploading {
            exchange.change(|state| state.starved = polled.is_pending());
        }
        let frame = ready!(polled);
        if self.body.is_end_stream() || !matches!(frame, Some(Ok(_))) {
            self.uploading = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A client's connection.
#[derive(Debug)]
pub struct HalfClosed<T> {
    inner: T,
    exchange: Exchange,
}

impl<T> HalfClosed<T> {
    /// Wraps a connection.
    pub fn new(inner: T, exchange: Exchange) -> Self {
        Self { inner, exchange }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for HalfClosed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if !this.exchange.state().over {
            let read = ready!(Pin::new(&mut this.inner).poll_read(cx, buf));
            if read.is_err() || buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(read);
            }
        }
        let told = this.exchange.state().may_tell();
        this.exchange.change(|state| {
            state.over = true;
            state.waker = Some(cx.waker().clone());
        });
        if told {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for HalfClosed<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        // hyper flushes once it has written all it has.
        if self.exchange.state().flushing {
            self.exchange.change(|state| state.flushing = false);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
