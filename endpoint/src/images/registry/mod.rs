//! The client's side of a registry: OCI distribution-spec 1.1 for pulling, Docker's token authentication.

mod challenge;
mod credentials;
mod error;
mod http;
mod repository;
mod upload;

#[cfg(any(test, fuzzing))]
pub(crate) use challenge::Challenge;
pub use credentials::Credentials;
pub use error::RegistryError;
pub use repository::{Access, Fetched, Repository};
pub use upload::Told;

use super::reference::{DEFAULT_DOMAIN, Reference};
use http::send;
use reqwest::{Response, StatusCode};
use std::time::Duration;

/// A registry that sends nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);

/// One client for all registries, with its connections.
#[derive(Debug, Clone)]
pub struct RegistryClient {
    http: Http,
}

/// Connections to registries and to their token servers.
#[derive(Debug, Clone)]
struct Http {
    /// Follows redirects; `Authorization` goes to no other host and port (RFC 9110, 15.4).
    any: reqwest::Client,
    /// Follows none: for requests with a secret in their body, which a redirect would carry to anyone.
    still: reqwest::Client,
    /// Follows none, and waits for an answer as long as there is something to send.
    sending: reqwest::Client,
}

impl RegistryClient {
    /// A client.
    ///
    /// # Errors
    /// When the machine's certificates cannot be read.
    pub fn new() -> Result<Self, RegistryError> {
        let client = |redirects: reqwest::redirect::Policy, silence: Option<Duration>| {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("mooring/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(Duration::from_secs(30))
                .redirect(redirects);
            let builder = match silence {
                Some(silence) => builder.read_timeout(silence),
                None => builder,
            };
            builder
                .build()
                .map_err(|e| RegistryError::transport("(no request yet)", &e))
        };
        let none = reqwest::redirect::Policy::none;
        let http = Http {
            any: client(reqwest::redirect::Policy::default(), Some(SILENCE))?,
            still: client(none(), Some(SILENCE))?,
            sending: client(none(), None)?,
        };
        Ok(RegistryClient { http })
    }

    /// Opens a repository: finds out how the registry is spoken to, and logs in where it asks for that.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn open(
        &self,
        reference: &Reference,
        credentials: Credentials,
        access: Access,
    ) -> Result<Repository, RegistryError> {
        let host = if reference.domain == DEFAULT_DOMAIN {
            "registry-1.docker.io"
        } else {
            reference.domain.as_str()
        };
        let (base, answer) = self.reach(host).await?;
        let path = reference.path.clone();
        let repository = Repository::new(self.http.clone(), base, path, credentials, access);
        if answer.status() == StatusCode::UNAUTHORIZED {
            repository.authorize(&answer).await?;
        }
        Ok(repository)
    }

    /// Checks credentials against a registry (`docker login`).
    ///
    /// # Errors
    /// [`RegistryError::Unauthorized`] where they are wrong.
    pub async fn login(&self, credentials: Credentials) -> Result<(), RegistryError> {
        let address = credentials
            .server_address
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        let host = address.split('/').next().unwrap_or_default();
        let host = match host {
            "" | "docker.io" | "index.docker.io" => "registry-1.docker.io",
            other => other,
        }
        .to_owned();
        let (base, answer) = self.reach(&host).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(());
        }
        let url = format!("{base}/v2/");
        let repository = Repository::new(
            self.http.clone(),
            base,
            String::new(),
            credentials,
            Access::Pull,
        );
        repository.authorize(&answer).await?;
        repository.get(&url, "").await.map(|_| ())
    }

    /// The registry's base URL and its answer to `GET /v2/`. Loopback registries may speak plain HTTP, as with Docker.
    async fn reach(&self, host: &str) -> Result<(String, Response), RegistryError> {
        let base = format!("https://{host}");
        let secure = send(
            self.http.any.get(format!("{base}/v2/")),
            &format!("{base}/v2/"),
        )
        .await;
        match secure {
            Ok(answer) => Ok((base, answer)),
            Err(_) if is_loopback(host) => {
                let base = format!("http://{host}");
                let url = format!("{base}/v2/");
                send(self.http.any.get(&url), &url)
                    .await
                    .map(|answer| (base, answer))
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether a registry is on this machine, by its name.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_may_be_plain() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "example.com",
            "10.0.0.1:5000",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "[2001:db8::1]:5000",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
