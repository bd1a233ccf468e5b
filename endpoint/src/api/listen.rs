//! Where clients connect: unix sockets, and TCP with TLS and client certificates.

use crate::api::{
    self,
    half_closed::{Exchange, HalfClosed, Upload},
};
use axum::{Router, body::Body};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use std::{
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// A connection that has not sent its first request by then is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why the API cannot be served somewhere.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Neither `unix://PATH` nor `tcp://HOST:PORT`.
    #[error("--docker {0}: expected unix://PATH or tcp://HOST:PORT")]
    Address(String),
    /// TCP without certificate and authority would give the host away to anyone.
    #[error("--docker {0}: TCP needs --tls-cert, --tls-key and --tls-ca")]
    NoTls(String),
    /// The socket could not be made.
    #[error("cannot listen at {address}: {source}")]
    Bind {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Another program serves there.
    #[error("cannot listen at {0}: another program answers there")]
    InUse(String),
    /// A file with a certificate or key could not be used.
    #[error("{path}: {reason}")]
    Pem {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Certificate, key and clients' authority for TCP.
#[derive(Debug, Clone, Copy)]
pub struct TlsFiles<'a> {
    /// Certificate chain, PEM.
    pub cert: &'a Path,
    /// Private key, PEM.
    pub key: &'a Path,
    /// Authority of the clients' certificates, PEM.
    pub ca: &'a Path,
}

/// A socket that clients can connect to.
pub enum Listener {
    /// A unix socket, and its path.
    Unix(UnixListener, PathBuf),
    /// TCP with TLS.
    Tls(TcpListener, TlsAcceptor),
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({})", self.docker_host())
    }
}

impl Listener {
    /// Opens the socket for `address`. A stale unix socket, which nobody answers on, is replaced.
    ///
    /// # Errors
    /// Where the address is none, is taken, or TLS is incomplete.
    pub async fn bind(address: &str, tls: Option<TlsFiles<'_>>) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Bind {
            address: address.to_owned(),
            source,
        };
        if let Some(path) = address.strip_prefix("unix://") {
            let path = PathBuf::from(path);
            if std::fs::symlink_metadata(&path).is_ok_and(|m| m.file_type().is_socket()) {
                if tokio::net::UnixStream::connect(&path).await.is_ok() {
                    return Err(ListenError::InUse(address.to_owned()));
                }
                std::fs::remove_file(&path).map_err(failed)?;
            }
            let listener = UnixListener::bind(&path).map_err(failed)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660))
                .map_err(failed)?;
            return Ok(Self::Unix(listener, path));
        }
        let Some(address_only) = address.strip_prefix("tcp://") else {
            return Err(ListenError::Address(address.to_owned()));
        };
        let tls = tls.ok_or_else(|| ListenError::NoTls(address.to_owned()))?;
        let acceptor = acceptor(tls)?;
        let listener = TcpListener::bind(address_only).await.map_err(failed)?;
        Ok(Self::Tls(listener, acceptor))
    }

    /// What a client puts into `DOCKER_HOST`.
    pub fn docker_host(&self) -> String {
        match self {
            Self::Unix(_, path) => format!("unix://{}", path.display()),
            Self::Tls(listener, _) => listener
                .local_addr()
                .map_or_else(|_| "tcp://".to_owned(), |addr| format!("tcp://{addr}")),
        }
    }

    /// Serves until `stop`; then no new connection is taken and the unix socket is removed.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        let path = match &self {
            Self::Unix(_, path) => Some(path.clone()),
            Self::Tls(..) => None,
        };
        tracing::info!(at = %self.docker_host(), "the Docker API is served");
        let ended = stop.clone();
        tokio::select! {
            () = self.accept(router, stop) => {}
            () = ended.cancelled() => {}
        }
        if let Some(path) = path {
            let _already_gone = std::fs::remove_file(path);
        }
    }

    async fn accept(self, router: Router, stop: CancellationToken) {
        loop {
            let router = router.clone();
            let stop = stop.clone();
            let accepted = match &self {
                Self::Unix(listener, _) => listener.accept().await.map(|(stream, _)| {
                    tokio::spawn(connection(stream, router, stop));
                }),
                Self::Tls(listener, acceptor) => listener.accept().await.map(|(stream, peer)| {
                    let acceptor = acceptor.clone();
                    tokio::spawn(async move {
                        let _best_effort = stream.set_nodelay(true);
                        match tokio::time::timeout(HEADER_TIMEOUT, acceptor.accept(stream)).await {
                            Ok(Ok(stream)) => connection(stream, router, stop).await,
                            Ok(Err(error)) => tracing::info!(%peer, %error, "TLS refused"),
                            Err(_) => tracing::info!(%peer, "TLS handshake timed out"),
                        }
                    });
                }),
            };
            if let Err(error) = accepted {
                // Out of descriptors: they come back when connections end.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection<T>(stream: T, router: Router, stop: CancellationToken)
where
    T: AsyncRead + AsyncWrite + api::drained::Drained + Unpin + Send + 'static,
{
    let exchange = Exchange::default();
    let stream = HalfClosed::new(api::hijack::OldClients::new(stream), exchange.clone());
    let service =
        hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let (uploading, answering) = exchange.begin(request.body());
            let request = request.map(|body| Body::new(Upload::new(body, uploading)));
            let answer = api::handle(router.clone(), request);
            async move { answer.await.map(|answer| answering.keep(answer)) }
        });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(hyper_util::rt::TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        // The end of what a client sends is looked for; `HalfClosed` says when it is seen. What is closed of an upgraded
        // connection is not hyper's any more.
        .half_close(false);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = stop.cancelled() => return,
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}

fn acceptor(files: TlsFiles<'_>) -> Result<TlsAcceptor, ListenError> {
    let wrong = |path: &Path, reason: String| ListenError::Pem {
        path: path.to_owned(),
        reason,
    };
    let read = |path: &Path| std::fs::read(path).map_err(|e| wrong(path, e.to_string()));
    let certs = |path: &Path| -> Result<Vec<_>, ListenError> {
        let certs: Vec<_> = rustls_pemfile::certs(&mut read(path)?.as_slice())
            .collect::<Result<_, _>>()
            .map_err(|e| wrong(path, e.to_string()))?;
        if certs.is_empty() {
            return Err(wrong(path, "no certificate in PEM form in it".to_owned()));
        }
        Ok(certs)
    };
    let key = rustls_pemfile::private_key(&mut read(files.key)?.as_slice())
        .map_err(|e| wrong(files.key, e.to_string()))?
        .ok_or_else(|| wrong(files.key, "no private key in PEM form in it".to_owned()))?;
    let mut roots = RootCertStore::empty();
    for cert in certs(files.ca)? {
        roots
            .add(cert)
            .map_err(|e| wrong(files.ca, e.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| wrong(files.ca, e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(files.cert, e.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certs(files.cert)?, key)
        .map_err(|e| wrong(files.cert, e.to_string()))?;
    // HTTP/2 has no upgrade, and attach needs one.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::half_closed::Finite;
    use axum::{Extension, extract::Request, routing::any};
    use std::convert::Infallible;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// What a client gets that sends this and nothing more, and waits for the end.
    async fn answer(router: Router, request: &str) -> String {
        let (mut client, served) = tokio::io::duplex(4096);
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let serving = tokio::spawn(connection(served, router, CancellationToken::new()));
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        serving.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn who_sends_nothing_more_gets_an_answer_that_takes_a_while() {
        for close in ["", "Connection: close\r\n"] {
            // The connection is looked at many times meanwhile.
            let handler = || async {
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                "x".repeat(100_000)
            };
            let router = Router::new().route("/slow", any(handler));
            let request = format!("GET /slow HTTP/1.1\r\nHost: d\r\n{close}\r\n");
            let answer = answer(router, &request).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(answer.ends_with(&"x".repeat(100_000)));
        }
    }

    #[tokio::test]
    async fn who_sends_nothing_more_is_not_kept_by_a_silent_answer() {
        let handler = || async {
            let first = futures_util::stream::iter([Ok::<_, Infallible>("what is known")]);
            let silence = futures_util::stream::pending();
            Body::from_stream(futures_util::StreamExt::chain(first, silence))
        };
        let router = Router::new().route("/silent", any(handler));
        let answer = answer(router, "GET /silent HTTP/1.1\r\nHost: d\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("what is known") && answer.ends_with("0\r\n\r\n"));
    }

    #[tokio::test]
    async fn who_sends_nothing_more_gets_a_file_whole() {
        let handler = || async {
            let parts = futures_util::stream::unfold(0, |n| async move {
                tokio::task::yield_now().await;
                (n < 100).then(|| (Ok::<_, Infallible>("part"), n + 1))
            });
            (Extension(Finite), Body::from_stream(parts))
        };
        let router = Router::new().route("/file", any(handler));
        let answer = answer(router, "GET /file HTTP/1.1\r\nHost: d\r\n\r\n").await;
        assert_eq!(answer.matches("part").count(), 100);
        assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_an_error() {
        let handler = |request: Request| async {
            match axum::body::to_bytes(request.into_body(), 1 << 20).await {
                Ok(body) => format!("{} bytes", body.len()),
                Err(_) => "broken".to_owned(),
            }
        };
        let router = || Router::new().route("/upload", any(handler));
        let head = "POST /upload HTTP/1.1\r\nHost: d\r\nContent-Length: 5\r\n\r\n";
        let whole = answer(router(), &format!("{head}12345")).await;
        assert!(whole.ends_with("5 bytes"), "{whole}");
        let half = answer(router(), &format!("{head}123")).await;
        assert!(half.ends_with("broken"), "{half}");
    }
}
