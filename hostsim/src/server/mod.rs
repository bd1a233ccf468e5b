//! HTTPS in front: `/sdk` for the API, `/folder` for the datastore's files.

mod dispatch;
mod files;
mod soap;
mod tls;

#[cfg(any(test, fuzzing))]
pub(crate) use files::unescape;
pub use tls::Identity;

use crate::datastore::CutOff;
use crate::host::Host;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections at a time.
const CONNECTIONS_MAX: usize = 4096;
/// Time for a TLS handshake, and for the head of a request.
const HEAD_LIMIT: Duration = Duration::from_secs(30);

/// Body of an answer.
pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

pub(crate) fn text(status: StatusCode, message: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(full(message.into()));
    *response.status_mut() = status;
    response
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

/// Serves until `stop` is cancelled.
pub async fn serve(
    host: Arc<Host>,
    listener: TcpListener,
    identity: &Identity,
    stop: CancellationToken,
) {
    let acceptor = tokio_rustls::TlsAcceptor::from(identity.config.clone());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, say: the next accept may do, once a connection went.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (host, acceptor, stop) = (host.clone(), acceptor.clone(), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            let tls = match tokio::time::timeout(HEAD_LIMIT, acceptor.accept(stream)).await {
                Ok(Ok(tls)) => tls,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "TLS handshake failed");
                    return;
                }
                Err(_) => return,
            };
            let service = service_fn(move |request| {
                let host = host.clone();
                async move {
                    let response = answer(&host, request).await;
                    match response.extensions().get::<CutOff>() {
                        Some(_) => Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted)),
                        None => Ok(response),
                    }
                }
            });
            // No limit on how long a kept connection may be idle between requests: it would count that,
            // too, and a client must not find its connection closed under a call.
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(tls), service);
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                },
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn answer(host: &Arc<Host>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    if path == "/sdk" || path == "/sdk/" {
        return soap::answer(host, request).await;
    }
    if path == "/folder" || path.starts_with("/folder/") {
        return files::answer(host, request).await;
    }
    match path {
        "/sdk/vimServiceVersions.xml" => {
            let mut response = text(StatusCode::OK, VERSIONS);
            let kind = http::HeaderValue::from_static("text/xml");
            response
                .headers_mut()
                .insert(http::header::CONTENT_TYPE, kind);
            response
        }
        _ => text(StatusCode::NOT_FOUND, "hostsim serves /sdk and /folder"),
    }
}

/// What clients read to find out which versions of the API there are.
const VERSIONS: &str = concat!(
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<namespaces version=\"1.0\">\n",
    "<namespace><name>urn:vim25</name><version>8.0.1.0</version>",
    "<priorVersions><version>7.0.3.0</version><version>7.0</version><version>6.7</version><version>6.5</version>",
    "<version>6.0</version><version>5.5</version></priorVersions></namespace>\n</namespaces>\n"
);

/// Value of a cookie of a request.
pub(crate) fn cookie<B>(request: &Request<B>, name: &str) -> Option<String> {
    let pairs = request.headers().get_all(http::header::COOKIE).iter();
    pairs
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.trim_matches('"').to_owned())
}

/// The session's cookie.
pub(crate) const SESSION_COOKIE: &str = "vmware_soap_session";
