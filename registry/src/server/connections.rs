//! Accepts connections and serves each on a task of its own, HTTP/1.1 or HTTP/2.

use super::tls::Certificates;
use crate::audit::Source;
use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::MapRequest;

/// How long a client may take for its TLS handshake, and for a request's head.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Bytes that wait for a client to take them, and the longest head. What a slow client costs.
const BUFFER: usize = 64 * 1024;

/// All connections.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Connections {
    pub(super) fn new(stop: CancellationToken) -> Self {
        Connections {
            stop,
            tasks: TaskTracker::new(),
        }
    }

    /// Runs something that is waited for at the end, as connections are.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    pub(super) fn serve_tcp(
        &self,
        listener: TcpListener,
        certificates: Option<Arc<Certificates>>,
        router: Router,
    ) {
        let this = self.clone();
        self.tasks.spawn(async move {
            while let Some((stream, address)) = this.accept(|| listener.accept()).await {
                let source = Source(address.ip().to_canonical().to_string().into());
                // Answers are written whole; waiting to fill a segment only delays them.
                let _ = stream.set_nodelay(true);
                let (inner, router) = (this.clone(), router.clone());
                let certificates = certificates.clone();
                this.tasks.spawn(async move {
                    match certificates {
                        None => inner.serve(stream, router, source).await,
                        Some(certificates) => {
                            let shaken = certificates.accept(stream);
                            match tokio::time::timeout(HEAD_TIME, shaken).await {
                                Ok(Ok(stream)) => inner.serve(stream, router, source).await,
                                Ok(Err(e)) => tracing::debug!("TLS handshake: {e}"),
                                Err(_) => tracing::debug!("a TLS handshake took too long"),
                            }
                        }
                    }
                });
            }
        });
    }

    pub(super) fn serve_unix(&self, listener: UnixListener, router: Router) {
        let this = self.clone();
        self.tasks.spawn(async move {
            while let Some((stream, _)) = this.accept(|| listener.accept()).await {
                let (inner, router) = (this.clone(), router.clone());
                this.tasks
                    .spawn(async move { inner.serve(stream, router, Source::default()).await });
            }
        });
    }

    /// The next connection; `None` at the end. When there are too many open files, the next try is made when one may have
    /// been closed.
    async fn accept<S, A, F>(&self, accept: impl Fn() -> F) -> Option<(S, A)>
    where
        F: Future<Output = std::io::Result<(S, A)>>,
    {
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return None,
                accepted = accept() => accepted,
            };
            match accepted {
                Ok(accepted) => return Some(accepted),
                Err(e) => {
                    tracing::warn!("accept: {e}");
                    // There is no event that says that a file may be opened again.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn serve<S>(&self, stream: S, router: Router, source: Source)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(BUFFER)
            .http2()
            .timer(TokioTimer::new())
            .max_send_buf_size(BUFFER)
            .keep_alive_interval(Duration::from_secs(60));
        let from = move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(source.clone());
            request
        };
        let service = TowerToHyperService::new(MapRequest::new(router, from));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = ended {
            tracing::debug!("connection: {e}");
        }
    }

    /// When all have ended.
    pub(super) async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
