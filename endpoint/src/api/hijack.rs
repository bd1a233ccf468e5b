//! Connections that stop being HTTP: attach and exec.
//!
//! Clients of today send `Upgrade: tcp` and get 101. Old ones send neither header and expect a
//! 200 without length, behind which the connection is raw. hyper cannot do the latter, so
//! [`OldClients`] sits between socket and hyper and makes the one into the other. Others do the
//! same on a connection that has carried requests before (dockerode): they read the output as the
//! answer's body, and get it as one.
//!
//! Some clients (docker-py) read the answer's head through a buffer and what follows past it, and lose
//! what comes with the head in one read. So output waits until they have read the head: [`Drained`].

use super::drained::Drained;
use crate::{
    api::version::ApiVersion,
    errors::{Error, Result},
};
use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use futures_util::{StreamExt as _, future::BoxFuture};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_util::io::ReaderStream;

/// Bytes of a request's or answer's head that are looked at.
const HEAD_MAX: usize = 64 * 1024;

/// Bytes of output that wait for a client that reads them as a body.
const BODY_BUFFER: usize = 64 * 1024;

/// Both directions between a client and a process.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug> Duplex for T {}

/// A connection that was taken over.
pub type Connection = Box<dyn Duplex>;

/// How the client wants its bytes.
#[derive(Debug)]
enum How {
    /// On the connection itself.
    Upgrade(OnUpgrade),
    /// As the answer's body; the request's body is the input.
    Body(Body),
}

/// The right to take over a request's connection.
#[derive(Debug)]
pub struct Hijack {
    how: How,
    content_type: &'static str,
}

impl Hijack {
    /// Takes the right out of a request.
    ///
    /// # Errors
    /// 400 where the connection cannot be upgraded although the client asks for it.
    pub fn of(request: &mut Request) -> Result<Self> {
        let how = if request.headers().contains_key(header::UPGRADE) {
            let on = request.extensions_mut().remove::<OnUpgrade>();
            How::Upgrade(on.ok_or_else(|| Error::bad("this connection cannot be upgraded"))?)
        } else {
            How::Body(std::mem::take(request.body_mut()))
        };
        Ok(Self {
            how,
            content_type: "application/vnd.docker.raw-stream",
        })
    }

    /// Names the answer's format: multiplexed where there is no terminal (from 1.42 on).
    #[must_use]
    pub fn format(mut self, version: ApiVersion, tty: bool) -> Self {
        if version >= ApiVersion(1, 42) && !tty {
            self.content_type = "application/vnd.docker.multiplexed-stream";
        }
        self
    }

    /// The answer, and what resolves to the connection once it is sent.
    pub fn accept(self) -> (Response, BoxFuture<'static, hyper::Result<Connection>>) {
        let mut response = Response::new(Body::empty());
        let connection: BoxFuture<'static, hyper::Result<Connection>> = match self.how {
            How::Upgrade(on) => {
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                let headers = response.headers_mut();
                headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
                Box::pin(async move { Ok(Box::new(TokioIo::new(on.await?)) as Connection) })
            }
            How::Body(input) => {
                let (ours, theirs) = tokio::io::duplex(BODY_BUFFER);
                let (output, into) = tokio::io::split(theirs);
                *response.body_mut() = Body::from_stream(ReaderStream::new(output));
                tokio::spawn(feed(input, into));
                Box::pin(std::future::ready(Ok(Box::new(ours) as Connection)))
            }
        };
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(self.content_type),
        );
        (response, connection)
    }
}

/// Hands a request's body on as input. Its end is no end of the input: most have none at all.
async fn feed(input: Body, mut into: impl AsyncWrite + Unpin) {
    let mut input = input.into_data_stream();
    while let Some(Ok(bytes)) = input.next().await {
        if into.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// A socket on which the first request, if it is an old client's attach or exec start, looks
/// like a new client's, and its answer again like an old daemon's.
#[derive(Debug)]
pub struct OldClients<T> {
    inner: T,
    /// What was read and is not yet handed on.
    input: Vec<u8>,
    /// The first request's head was seen whole (or given up on).
    input_known: bool,
    /// Its answer has to be changed.
    old: bool,
    /// What hyper wrote of the answer's head.
    output: Vec<u8>,
    /// Bytes of `output` that have been written to the socket.
    sent: usize,
    /// The connection is HTTP no more.
    switched: bool,
    /// The head that said so may not have been read yet.
    unread: bool,
}

impl<T> OldClients<T> {
    /// Wraps a fresh connection.
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            input: Vec::new(),
            input_known: false,
            old: false,
            output: Vec::new(),
            sent: 0,
            switched: false,
            unread: false,
        }
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// Whether a request's head is that of an attach or exec start without upgrade.
fn is_old_hijack(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let Some(path) = lines
        .next()
        .and_then(|line| line.strip_prefix("POST "))
        .and_then(|rest| rest.split([' ', '?']).next())
    else {
        return false;
    };
    let hijacks = path.ends_with("/attach") && path.contains("/containers/")
        || path.ends_with("/start") && path.contains("/exec/");
    hijacks && !lines.any(|line| line.to_ascii_lowercase().starts_with("upgrade:"))
}

impl<T: AsyncRead + Unpin> AsyncRead for OldClients<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.input_known {
            let mut chunk = [0u8; 4096];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
            this.input.extend_from_slice(chunk.filled());
            if let Some(end) = head_end(&this.input) {
                this.input_known = true;
                if is_old_hijack(&this.input[..end]) {
                    this.old = true;
                    let upgrade = b"Connection: Upgrade\r\nUpgrade: tcp\r\n";
                    this.input.splice(end - 2..end - 2, upgrade.iter().copied());
                }
            } else if chunk.filled().is_empty() || this.input.len() > HEAD_MAX {
                this.input_known = true;
            }
        }
        if this.input.is_empty() {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let count = this.input.len().min(buf.remaining());
        buf.put_slice(&this.input[..count]);
        this.input.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> OldClients<T> {
    /// Writes what is left of the changed answer.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.output.len() {
            let count =
                ready!(Pin::new(&mut self.inner).poll_write(cx, &self.output[self.sent..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        self.output.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Drained + Unpin> AsyncWrite for OldClients<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if !this.switched && bytes.starts_with(b"HTTP/1.1 101") {
            // hyper writes a head at once, and nothing behind it before it was flushed.
            (this.switched, this.unread) = (true, true);
        } else if this.unread && !this.old {
            ready!(this.poll_output(cx))?;
            ready!(this.inner.poll_drained(cx))?;
            this.unread = false;
        }
        if this.old {
            this.output.extend_from_slice(bytes);
            if let Some(end) = head_end(&this.output) {
                this.old = false;
                if this.output.starts_with(b"HTTP/1.1 101") {
                    let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n";
                    this.output.splice(..end, head.iter().copied());
                }
            } else if this.output.len() > HEAD_MAX {
                this.old = false;
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(this.poll_output(cx))?;
        Pin::new(&mut this.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.old {
            ready!(self.poll_output(cx))?;
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_output(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn pass(request: &str, answer: &str) -> (String, String) {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut server = OldClients::new(server);
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut seen = String::new();
        server.read_to_string(&mut seen).await.unwrap();
        for piece in answer.as_bytes().chunks(7) {
            server.write_all(piece).await.unwrap();
        }
        server.shutdown().await.unwrap();
        let mut got = String::new();
        client.read_to_string(&mut got).await.unwrap();
        (seen, got)
    }

    #[tokio::test]
    async fn an_old_client_gets_a_raw_200() {
        let (seen, got) = pass(
            "POST /v1.24/containers/x/attach?stream=1 HTTP/1.1\r\nHost: d\r\n\r\nstdin",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: tcp\r\n\r\nbytes",
        )
        .await;
        assert!(seen.ends_with("Host: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nstdin"));
        assert_eq!(
            got,
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nbytes"
        );
    }

    #[tokio::test]
    async fn output_never_comes_in_one_read_with_the_head() {
        for (request, head) in [
            (
                "POST /exec/x/start HTTP/1.1\r\nUpgrade: tcp\r\n\r\n",
                "HTTP/1.1 101",
            ),
            ("POST /exec/x/start HTTP/1.1\r\n\r\n", "HTTP/1.1 200"),
        ] {
            let (mut client, server) = tokio::net::UnixStream::pair().unwrap();
            let mut server = OldClients::new(server);
            client.write_all(request.as_bytes()).await.unwrap();
            let mut seen = [0; 1000];
            let _length = server.read(&mut seen).await.unwrap();
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: tcp\r\n\r\n";
            server.write_all(answer).await.unwrap();
            server.flush().await.unwrap();
            let mut output = Box::pin(server.write_all(b"output"));
            assert!(futures_util::poll!(output.as_mut()).is_pending());
            let mut read = [0; 8192];
            let length = client.read(&mut read).await.unwrap();
            assert!(read[..length].starts_with(head.as_bytes()));
            assert!(read[..length].ends_with(b"\r\n\r\n"), "no output behind it");
            output.await.unwrap();
            let length = client.read(&mut read).await.unwrap();
            assert_eq!(&read[..length], b"output");
        }
    }

    #[tokio::test]
    async fn who_asks_for_no_upgrade_reads_the_output_as_a_body() {
        let mut request = Request::new(Body::from("input"));
        let (response, connection) = Hijack::of(&mut request).unwrap().accept();
        assert_eq!(response.status(), StatusCode::OK);
        let mut connection = connection.await.unwrap();
        let mut input = [0u8; 5];
        connection.read_exact(&mut input).await.unwrap();
        assert_eq!(&input, b"input");
        connection.write_all(b"output").await.unwrap();
        connection.shutdown().await.unwrap();
        let body = axum::body::to_bytes(response.into_body(), 100).await;
        assert_eq!(body.unwrap(), "output");
    }

    #[tokio::test]
    async fn everyone_else_passes_unchanged() {
        for request in [
            "POST /containers/x/attach HTTP/1.1\r\nUpgrade: tcp\r\n\r\n",
            "GET /_ping HTTP/1.1\r\n\r\n",
            "no HTTP",
        ] {
            let answer = "HTTP/1.1 101 Switching Protocols\r\n\r\nx";
            let (seen, got) = pass(request, answer).await;
            assert_eq!((seen.as_str(), got.as_str()), (request, answer));
        }
        let refused = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        let (_, got) = pass("POST /exec/x/start HTTP/1.1\r\n\r\n{}", refused).await;
        assert_eq!(got, refused);
    }
}
