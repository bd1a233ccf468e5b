//! The way to a serial port's proxy: its URI, TCP, and TLS with a pinned certificate.

use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use vim::Thumbprint;

/// Where a proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    host: String,
    port: u16,
    /// `telnets`: the certificate that it must have.
    pinned: Option<Thumbprint>,
}

/// A connection to a proxy.
pub(super) trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

impl Proxy {
    /// Read `telnet://host:port` or `telnets://host:port#thumbprint=<SHA-256>`; hex digits, with
    /// or without colons.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what would be right.
    pub(super) fn parse(uri: &str) -> Result<Proxy, String> {
        let wrong = |what: &str| {
            format!(
                "proxy URI {uri:?}: {what}; telnet://host:port or \
                 telnets://host:port#thumbprint=<SHA-256 of the certificate> is possible"
            )
        };
        let (scheme, rest) = uri.split_once("://").ok_or_else(|| wrong("no scheme"))?;
        let (address, fragment) = match rest.split_once('#') {
            Some((address, fragment)) => (address, Some(fragment)),
            None => (rest, None),
        };
        let pinned = match (scheme, fragment) {
            ("telnet", None) => None,
            ("telnet", Some(_)) => return Err(wrong("telnet has no certificate to pin")),
            ("telnets", fragment) => {
                let hex = fragment
                    .and_then(|f| f.strip_prefix("thumbprint="))
                    .ok_or_else(|| wrong("no thumbprint"))?;
                let print = hex.parse();
                Some(print.map_err(|_| wrong("the thumbprint is not 64 hex digits"))?)
            }
            _ => return Err(wrong("unknown scheme")),
        };
        let (host, port) = address.rsplit_once(':').ok_or_else(|| wrong("no port"))?;
        let port = port
            .parse()
            .ok()
            .filter(|p| *p != 0)
            .ok_or_else(|| wrong("no such port"))?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if host.is_empty() {
            return Err(wrong("no host"));
        }
        Ok(Proxy { host, port, pinned })
    }

    /// Connect, and (telnets) make sure that it is the one that was pinned.
    pub(super) async fn connect(&self) -> io::Result<Box<dyn Connection>> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.set_nodelay(true)?;
        let Some(pinned) = self.pinned else {
            return Ok(Box::new(tcp));
        };
        let config = vim::tls::pinned(pinned).map_err(io::Error::other)?;
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let tls = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await?;
        Ok(Box::new(tls))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_uris_are_read_and_wrong_ones_refused() {
        let plain = Proxy::parse("telnet://[::1]:13370").unwrap();
        assert_eq!(
            plain,
            Proxy {
                host: "::1".into(),
                port: 13370,
                pinned: None
            }
        );
        let print = vec!["AB"; 32].join(":");
        let tls = Proxy::parse(&format!("telnets://vch.example:1#thumbprint={print}")).unwrap();
        assert_eq!(tls.pinned, Some(Thumbprint([0xab; 32])));
        for wrong in [
            "telnets://host:1",
            "telnets://host:1#thumbprint=ab",
            "telnet://host",
            "telnet://host:0",
            "telnet://:5",
            "http://host:1",
            "host:1",
        ] {
            assert!(
                Proxy::parse(wrong).unwrap_err().contains("is possible"),
                "{wrong}"
            );
        }
    }
}
