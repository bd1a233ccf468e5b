//! HTTPS connections that are kept and used again, and the session's cookie.

use super::{Error, Trust};
use crate::soap;
use crate::xml::Limits;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Body of a request.
pub(super) type Body = BoxBody<Bytes, std::io::Error>;

/// Connections that were idle for longer are not used again: a server may just be closing them.
const IDLE: Duration = Duration::from_secs(50);
/// Connections that are kept.
const KEPT: usize = 16;
/// Silence on a connection after which the kernel asks whether the server is still there. A long
/// poll is silent for minutes; firewalls forget flows that are, and a host that crashed says nothing.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Questions without an answer after which the connection is broken.
const KEEPALIVE_PROBES: u32 = 3;

pub(super) struct Transport {
    host: String,
    port: u16,
    name: ServerName<'static>,
    connector: tokio_rustls::TlsConnector,
    idle: Mutex<Vec<(Instant, SendRequest<Body>)>>,
    cookies: Mutex<BTreeMap<String, String>>,
}

/// A body of these bytes.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

impl Transport {
    pub(super) fn new(url: &str, trust: &Trust) -> Result<Transport, Error> {
        let bad = |why: &str| Error::Config {
            what: "the URL",
            why: format!("{url:?}: {why}; one looks like https://host[:port]"),
        };
        let uri: http::Uri = url.parse().map_err(|_| bad("not a URL"))?;
        if uri.scheme_str() != Some("https") {
            return Err(bad("not https"));
        }
        let host = uri
            .host()
            .ok_or_else(|| bad("no host"))?
            .trim_matches(['[', ']'])
            .to_owned();
        let name =
            ServerName::try_from(host.clone()).map_err(|_| bad("no host name or address"))?;
        Ok(Transport {
            port: uri.port_u16().unwrap_or(443),
            host,
            name,
            connector: super::tls::config(trust)?.into(),
            idle: Mutex::default(),
            cookies: Mutex::default(),
        })
    }

    pub(super) fn server(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub(super) fn forget_session(&self) {
        self.lock_cookies().clear();
    }

    /// Takes the session's cookie from the headers of `Login`'s answer, and of no other: vSphere
    /// gives every call without a valid session a new, anonymous one (`vmware_soap_session` comes
    /// with the `NotAuthenticated` fault). Such an answer to a call of the old session may come
    /// after the log-in that renewed it.
    pub(super) fn begin_session(&self, headers: &HeaderMap) {
        let pairs = headers
            .get_all(header::SET_COOKIE)
            .iter()
            .filter_map(|cookie| cookie.to_str().ok()?.split(';').next()?.split_once('='))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
        *self.lock_cookies() = pairs.collect();
    }

    /// Closes the kept connections: where a call on one had no answer, the others lead to the same
    /// silence, and the next calls should not find that out one after the other.
    pub(super) fn forget_connections(&self) {
        self.lock_idle().clear();
    }

    /// Sends a SOAP call, returns the answer's headers and body (a fault's, too).
    pub(super) async fn soap(&self, message: String) -> Result<(HeaderMap, Bytes), Error> {
        let message = Bytes::from(message);
        let request = || {
            Request::post("/sdk")
                .header(header::CONTENT_TYPE, soap::CONTENT_TYPE)
                .header("SOAPAction", format!("\"{}\"", soap::ACTION))
                .header(header::CONTENT_LENGTH, message.len())
                .body(full(message.clone()))
        };
        let (response, sender) = self.send_again(request).await?;
        let status = response.status();
        let headers = response.headers().clone();
        let answer = self.collect(response, Limits::RESPONSE.bytes).await?;
        self.keep(sender);
        // SOAP 1.1 sends faults with 500.
        if status != StatusCode::OK && status != StatusCode::INTERNAL_SERVER_ERROR {
            return Err(self.status(status, "POST /sdk"));
        }
        Ok((headers, answer))
    }

    pub(super) fn status(&self, status: StatusCode, what: &str) -> Error {
        Error::Status {
            server: self.server(),
            status: status.as_u16(),
            what: what.to_owned(),
        }
    }

    /// The whole body, as long as it is no larger than `max` bytes.
    pub(super) async fn collect(
        &self,
        response: Response<Incoming>,
        max: usize,
    ) -> Result<Bytes, Error> {
        let mut body = response.into_body();
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|source| self.http(source))?;
            if let Some(data) = frame.data_ref() {
                if all.len() + data.len() > max {
                    return Err(Error::TooLarge {
                        server: self.server(),
                        max,
                    });
                }
                all.extend_from_slice(data);
            }
        }
        Ok(all.into())
    }

    pub(super) fn http(&self, source: hyper::Error) -> Error {
        Error::Http {
            server: self.server(),
            source,
        }
    }

    /// Sends a request that can be built twice: where a kept connection turns out to be closed
    /// before the request was taken, it goes on a new one.
    pub(super) async fn send_again(
        &self,
        request: impl Fn() -> Result<Request<Body>, http::Error>,
    ) -> Result<(Response<Incoming>, SendRequest<Body>), Error> {
        while let Some(sender) = self.kept().await {
            match self.send_on(sender, self.build(request())?).await {
                // Never sent: the server closed the connection while it was idle.
                Err(Error::Http { source, .. }) if source.is_canceled() => {}
                other => return other,
            }
        }
        let sender = self.connect().await?;
        self.send_on(sender, self.build(request())?).await
    }

    /// Sends a request with a body that cannot be sent twice, on a connection of its own.
    pub(super) async fn send_once(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Error> {
        let sender = self.connect().await?;
        self.send_on(sender, self.build(Ok(request))?)
            .await
            .map(|(response, _)| response)
    }

    fn build(&self, request: Result<Request<Body>, http::Error>) -> Result<Request<Body>, Error> {
        let wrong = |e: String| Error::Config {
            what: "the request",
            why: e,
        };
        let mut request = request.map_err(|e| wrong(e.to_string()))?;
        let host = HeaderValue::from_str(&self.server()).map_err(|e| wrong(e.to_string()))?;
        request.headers_mut().insert(header::HOST, host);
        let agent = HeaderValue::from_static(concat!("mooring/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        let cookies = self.lock_cookies();
        if !cookies.is_empty() {
            let all: Vec<String> = cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let value = HeaderValue::from_str(&all.join("; ")).map_err(|e| wrong(e.to_string()))?;
            request.headers_mut().insert(header::COOKIE, value);
        }
        Ok(request)
    }

    async fn kept(&self) -> Option<SendRequest<Body>> {
        loop {
            let (since, mut sender) = self.lock_idle().pop()?;
            if since.elapsed() < IDLE && sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    async fn connect(&self) -> Result<SendRequest<Body>, Error> {
        let failed = |source| Error::Connect {
            server: self.server(),
            source,
        };
        let tcp = self.dial().await.map_err(failed)?;
        let tls = self
            .connector
            .connect(self.name.clone(), tcp)
            .await
            .map_err(failed)?;
        let io = hyper_util::rt::TokioIo::new(tls);
        let (sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .map_err(|source| self.http(source))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        Ok(sender)
    }

    async fn dial(&self) -> std::io::Result<tokio::net::TcpStream> {
        let tcp = tokio::net::TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
        Ok(tcp)
    }

    async fn send_on(
        &self,
        mut sender: SendRequest<Body>,
        request: Request<Body>,
    ) -> Result<(Response<Incoming>, SendRequest<Body>), Error> {
        let response = sender
            .send_request(request)
            .await
            .map_err(|source| self.http(source))?;
        Ok((response, sender))
    }

    /// Keeps a connection whose answer was read to its end.
    fn keep(&self, sender: SendRequest<Body>) {
        let mut idle = self.lock_idle();
        if idle.len() < KEPT && !sender.is_closed() {
            // The most recently used last.
            idle.push((Instant::now(), sender));
        }
    }

    fn lock_idle(&self) -> MutexGuard<'_, Vec<(Instant, SendRequest<Body>)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_cookies(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.cookies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_asks_whether_the_server_is_still_there() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let trust = Trust::Thumbprint(crate::Thumbprint([0; 32]));
        let tcp = Transport::new(&url, &trust).unwrap().dial().await.unwrap();
        let socket = SockRef::from(&tcp);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap().as_secs(), 30);
        assert_eq!(socket.tcp_keepalive_interval().unwrap().as_secs(), 10);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    }
}
