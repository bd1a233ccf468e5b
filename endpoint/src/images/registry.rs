//! The client's side of a registry: OCI distribution-spec 1.1 for pulling, Docker's token authentication.

use super::manifest::{ACCEPT, MANIFEST_MAX};
use super::reference::{DEFAULT_DOMAIN, Reference};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use layers::Digest;
use reqwest::header::{ACCEPT as ACCEPT_HEADER, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use std::time::Duration;
use tokio::sync::Mutex;

/// The largest answer of a token server.
const TOKEN_MAX: u64 = 1 << 20;
/// A registry that sends nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);

/// What a registry refused, or failed to do.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It cannot be reached, or the connection broke.
    #[error("Get \"{url}\": {reason}")]
    Transport {
        /// What was asked for.
        url: String,
        /// Why it failed.
        reason: String,
    },
    /// The name or reference is not known there.
    #[error("manifest for {0} not found: manifest unknown: manifest unknown")]
    NotFound(String),
    /// Credentials are missing or wrong.
    #[error("unauthorized: {0}")]
    Unauthorized(String),
    /// It asks to slow down.
    #[error("toomanyrequests: {0}")]
    TooManyRequests(String),
    /// Any other refusal.
    #[error("unexpected answer {status} of the registry for {url}: {reason}")]
    Status {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The registry's words.
        reason: String,
    },
    /// What it sent is not what its digest says.
    #[error(
        "the content of {url} has the digest {is} instead of {should}; the registry or something on the way to it is broken"
    )]
    Digest {
        /// What was asked for.
        url: String,
        /// Digest of what came.
        is: Digest,
        /// Digest asked for.
        should: Digest,
    },
    /// It sent more than is taken.
    #[error("the answer of {url} is larger than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// Bytes that are taken.
        limit: u64,
    },
}

/// Credentials as a Docker client sends them (`X-Registry-Auth`, the body of `POST /auth`).
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// User name.
    #[serde(alias = "Username")]
    pub username: String,
    /// Password.
    #[serde(alias = "Password")]
    pub password: String,
    /// A refresh token, in place of a password.
    #[serde(alias = "identitytoken", alias = "IdentityToken")]
    pub identity_token: String,
    /// A bearer token that the client has obtained.
    #[serde(alias = "registrytoken", alias = "RegistryToken")]
    pub registry_token: String,
    /// The registry that they are for.
    #[serde(alias = "serveraddress", alias = "ServerAddress")]
    pub server_address: String,
}

/// Without the secrets.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// One client for all registries, with its connections.
#[derive(Debug, Clone)]
pub struct RegistryClient {
    http: reqwest::Client,
}

/// One repository of one registry, with what it takes to be let in.
#[derive(Debug)]
pub struct Repository {
    http: reqwest::Client,
    base: String,
    path: String,
    credentials: Credentials,
    /// Value of the header `Authorization`, once it is known which.
    authorization: Mutex<Option<String>>,
}

/// A manifest as it came.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Its bytes.
    pub bytes: Bytes,
    /// Their digest.
    pub digest: Digest,
    /// The media type that the registry gave.
    pub media_type: String,
}

impl RegistryClient {
    /// A client.
    ///
    /// # Errors
    /// When the machine's certificates cannot be read.
    pub fn new() -> Result<Self, RegistryError> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("mooring/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(30))
            .read_timeout(SILENCE)
            .build()
            .map_err(|e| RegistryError::Transport {
                url: "(no request yet)".into(),
                reason: chain(&e),
            })?;
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
    ) -> Result<Repository, RegistryError> {
        let host = if reference.domain == DEFAULT_DOMAIN {
            "registry-1.docker.io"
        } else {
            reference.domain.as_str()
        };
        let (base, answer) = self.reach(host).await?;
        let repository = Repository {
            http: self.http.clone(),
            base,
            path: reference.path.clone(),
            credentials,
            authorization: Mutex::new(None),
        };
        if answer.status() == StatusCode::UNAUTHORIZED {
            let scope = format!("repository:{}:pull", repository.path);
            repository.authorize(&answer, &scope).await?;
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
        let repository = Repository {
            http: self.http.clone(),
            base,
            path: String::new(),
            credentials,
            authorization: Mutex::new(None),
        };
        repository.authorize(&answer, "").await?;
        let url = format!("{}/v2/", repository.base);
        repository.get(&url, "").await.map(|_| ())
    }

    /// The registry's base URL and its answer to `GET /v2/`. Loopback registries may speak plain HTTP, as with Docker.
    async fn reach(&self, host: &str) -> Result<(String, Response), RegistryError> {
        let base = format!("https://{host}");
        let secure = send(self.http.get(format!("{base}/v2/")), &format!("{base}/v2/")).await;
        match secure {
            Ok(answer) => Ok((base, answer)),
            Err(_) if is_loopback(host) => {
                let base = format!("http://{host}");
                let url = format!("{base}/v2/");
                send(self.http.get(&url), &url)
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

impl Repository {
    /// Fetches a manifest by tag or digest; one asked for by digest is checked.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] names `shown`.
    pub async fn manifest(&self, wanted: &str, shown: &str) -> Result<Fetched, RegistryError> {
        let url = format!("{}/v2/{}/manifests/{wanted}", self.base, self.path);
        let answer = self.get(&url, ACCEPT).await.map_err(|e| match e {
            RegistryError::NotFound(_) => RegistryError::NotFound(shown.to_owned()),
            other => other,
        })?;
        let media_type = answer
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let bytes = bounded(answer, MANIFEST_MAX, &url).await?;
        let digest = Digest::of(&bytes);
        match wanted.parse::<Digest>() {
            Ok(should) if should != digest => Err(RegistryError::Digest {
                url,
                is: digest,
                should,
            }),
            _ => Ok(Fetched {
                bytes,
                digest,
                media_type,
            }),
        }
    }

    /// Fetches a small blob whole, and checks it.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn small_blob(&self, digest: &Digest, limit: u64) -> Result<Bytes, RegistryError> {
        let url = self.blob_url(digest);
        let bytes = bounded(self.get(&url, "").await?, limit, &url).await?;
        let is = Digest::of(&bytes);
        if is == *digest {
            Ok(bytes)
        } else {
            Err(RegistryError::Digest {
                url,
                is,
                should: *digest,
            })
        }
    }

    /// A blob as a stream, not yet checked.
    ///
    /// # Errors
    /// [`RegistryError`]; errors of the stream itself are `std::io::Error`s.
    pub async fn blob(
        &self,
        digest: &Digest,
    ) -> Result<impl Stream<Item = std::io::Result<Bytes>> + Send + Unpin + use<>, RegistryError>
    {
        let url = self.blob_url(digest);
        let answer = self.get(&url, "").await?;
        Ok(Box::pin(answer.bytes_stream().map_err(move |e| {
            std::io::Error::other(format!("Get {url:?}: {}", chain(&e)))
        })))
    }

    fn blob_url(&self, digest: &Digest) -> String {
        format!("{}/v2/{}/blobs/{digest}", self.base, self.path)
    }

    /// One GET, let in. A token that has expired in between is replaced once.
    async fn get(&self, url: &str, accept: &str) -> Result<Response, RegistryError> {
        let request = |authorization: Option<&String>| {
            let mut r = self.http.get(url);
            if !accept.is_empty() {
                r = r.header(ACCEPT_HEADER, accept);
            }
            if let Some(value) = authorization {
                r = r.header(AUTHORIZATION, value);
            }
            r
        };
        let value = self.authorization.lock().await.clone();
        let mut answer = send(request(value.as_ref()), url).await?;
        if answer.status() == StatusCode::UNAUTHORIZED
            && answer.headers().contains_key(WWW_AUTHENTICATE)
        {
            let scope = if self.path.is_empty() {
                String::new()
            } else {
                format!("repository:{}:pull", self.path)
            };
            let before = value;
            self.authorize(&answer, &scope).await?;
            let value = self.authorization.lock().await.clone();
            if value != before {
                answer = send(request(value.as_ref()), url).await?;
            }
        }
        judge(answer, url).await
    }

    /// Does what `WWW-Authenticate` asks for (distribution's spec/auth/token.md, RFC 7617).
    async fn authorize(&self, answer: &Response, scope: &str) -> Result<(), RegistryError> {
        let header = answer
            .headers()
            .get(WWW_AUTHENTICATE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let Some(challenge) = Challenge::parse(header) else {
            return Err(RegistryError::Unauthorized(format!(
                "the registry asks for an authentication that is not known: {header:?}"
            )));
        };
        let value = match challenge {
            Challenge::Basic if self.credentials.username.is_empty() => {
                return Err(RegistryError::Unauthorized(
                    "authentication required: no basic auth credentials; `docker login` first"
                        .into(),
                ));
            }
            Challenge::Basic => self.basic(),
            Challenge::Bearer { .. } if !self.credentials.registry_token.is_empty() => {
                format!("Bearer {}", self.credentials.registry_token)
            }
            Challenge::Bearer {
                realm,
                service,
                scope: asked,
            } => {
                let scope = if asked.is_empty() { scope } else { &asked };
                format!("Bearer {}", self.token(&realm, &service, scope).await?)
            }
        };
        *self.authorization.lock().await = Some(value);
        Ok(())
    }

    fn basic(&self) -> String {
        use base64::Engine as _;
        let pair = format!(
            "{}:{}",
            self.credentials.username, self.credentials.password
        );
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(pair)
        )
    }

    async fn token(
        &self,
        realm: &str,
        service: &str,
        scope: &str,
    ) -> Result<String, RegistryError> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let fail = |reason: String| RegistryError::Transport {
            url: realm.to_owned(),
            reason,
        };
        let url = reqwest::Url::parse(realm).map_err(|e| fail(e.to_string()))?;
        let mut fields = vec![("service", service)];
        if !scope.is_empty() {
            fields.push(("scope", scope));
        }
        let request = if self.credentials.identity_token.is_empty() {
            let mut url = url;
            url.query_pairs_mut().extend_pairs(&fields);
            let request = self.http.get(url);
            if self.credentials.username.is_empty() {
                request
            } else {
                request.header(AUTHORIZATION, self.basic())
            }
        } else {
            fields.extend([
                ("grant_type", "refresh_token"),
                ("client_id", "mooring"),
                ("refresh_token", &self.credentials.identity_token),
            ]);
            let mut body = reqwest::Url::parse("http://form/").map_err(|e| fail(e.to_string()))?;
            body.query_pairs_mut().extend_pairs(&fields);
            self.http
                .post(url)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(body.query().unwrap_or_default().to_owned())
        };
        let answer = judge(send(request, realm).await?, realm).await?;
        let bytes = bounded(answer, TOKEN_MAX, realm).await?;
        let answer: Answer = serde_json::from_slice(&bytes)
            .map_err(|e| fail(format!("its answer is no token: {e}")))?;
        answer
            .token
            .or(answer.access_token)
            .filter(|t| !t.is_empty())
            .ok_or_else(|| fail("its answer holds no token".into()))
    }
}

async fn send(request: RequestBuilder, url: &str) -> Result<Response, RegistryError> {
    request.send().await.map_err(|e| RegistryError::Transport {
        url: url.to_owned(),
        reason: chain(&e),
    })
}

/// An error with all of its causes; reqwest's own text names only the outermost.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// The answer, if it is a success.
async fn judge(answer: Response, url: &str) -> Result<Response, RegistryError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = bounded(answer, 64 << 10, url).await.unwrap_or_default();
    let reason = serde_json::from_slice::<serde_json::Value>(&body)
        .ok()
        .and_then(|v| {
            v.pointer("/errors/0/message")
                .or_else(|| v.get("details"))
                .and_then(|m| m.as_str())
                .map(str::to_owned)
        })
        .unwrap_or_else(|| {
            status
                .canonical_reason()
                .unwrap_or("no reason given")
                .to_owned()
        });
    Err(match status {
        StatusCode::NOT_FOUND => RegistryError::NotFound(url.to_owned()),
        StatusCode::UNAUTHORIZED => RegistryError::Unauthorized(reason),
        StatusCode::FORBIDDEN => {
            RegistryError::Unauthorized(format!("access to the resource is denied: {reason}"))
        }
        StatusCode::TOO_MANY_REQUESTS => RegistryError::TooManyRequests(reason),
        other => RegistryError::Status {
            url: url.to_owned(),
            status: other.as_u16(),
            reason,
        },
    })
}

async fn bounded(answer: Response, limit: u64, url: &str) -> Result<Bytes, RegistryError> {
    let too_large = || RegistryError::TooLarge {
        url: url.to_owned(),
        limit,
    };
    if answer.content_length().is_some_and(|n| n > limit) {
        return Err(too_large());
    }
    let mut all = Vec::new();
    let mut stream = answer.bytes_stream();
    while let Some(part) = stream
        .try_next()
        .await
        .map_err(|e| RegistryError::Transport {
            url: url.to_owned(),
            reason: chain(&e),
        })?
    {
        if all.len() as u64 + part.len() as u64 > limit {
            return Err(too_large());
        }
        all.extend_from_slice(&part);
    }
    Ok(all.into())
}

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: String,
        scope: String,
    },
}

impl Challenge {
    /// Parses `WWW-Authenticate` (RFC 9110, 11.6.1): a scheme, then `name="value"` joined by commas.
    fn parse(header: &str) -> Option<Self> {
        let (scheme, mut rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (String::new(), String::new(), String::new());
        while let Some((name, after)) = rest.split_once('=') {
            let value;
            (value, rest) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            match name.trim_matches([' ', ',']).to_ascii_lowercase().as_str() {
                "realm" => realm = value.to_owned(),
                "service" => service = value.to_owned(),
                "scope" => scope = value.to_owned(),
                _ => {}
            }
        }
        (!realm.is_empty()).then_some(Challenge::Bearer {
            realm,
            service,
            scope,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        assert_eq!(
            Challenge::parse("Basic realm=\"x\""),
            Some(Challenge::Basic)
        );
        let bearer = Challenge::parse(
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#,
        );
        assert_eq!(
            bearer,
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".into(),
                service: "registry.example".into(),
                scope: "repository:a/b:pull,push".into(),
            })
        );
        for bad in [
            "",
            "Digest realm=\"x\"",
            "Bearer",
            "Bearer realm=\"open",
            "Bearer service=\"x\"",
        ] {
            assert_eq!(Challenge::parse(bad), None, "{bad}");
        }
    }

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

    #[test]
    fn secrets_are_not_shown() {
        let c = Credentials {
            username: "u".into(),
            password: "hidden".into(),
            ..Credentials::default()
        };
        assert!(!format!("{c:?}").contains("hidden"));
    }
}
