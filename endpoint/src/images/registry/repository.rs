//! One repository: its manifests and blobs, and being let in.

use super::challenge::Challenge;
use super::http::{bounded, judge, send};
use super::{Credentials, Http, RegistryError, is_loopback};
use crate::images::manifest::{ACCEPT, MANIFEST_MAX};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use layers::Digest;
use reqwest::header::{ACCEPT as ACCEPT_HEADER, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;

/// The largest answer of a token server.
const TOKEN_MAX: u64 = 1 << 20;

/// One repository of one registry, with what it takes to be let in.
#[derive(Debug)]
pub struct Repository {
    http: Http,
    base: String,
    path: String,
    credentials: Credentials,
    /// What is to be done there, as token servers are told of it.
    access: Access,
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

/// What a repository is opened for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Access {
    /// Manifests and blobs are fetched.
    #[default]
    Pull,
    /// They are sent, too.
    Push {
        /// Repositories of the same registry that blobs may be taken over from.
        from: Vec<String>,
    },
}

impl Access {
    /// The scopes for a repository (distribution's spec/auth/scope.md), with those that the registry asks for.
    fn scopes(&self, path: &str, asked: &str) -> String {
        match self {
            _ if path.is_empty() => asked.to_owned(),
            Access::Pull if asked.is_empty() => format!("repository:{path}:pull"),
            Access::Pull => asked.to_owned(),
            Access::Push { from } => {
                let mut scopes = vec![format!("repository:{path}:pull,push")];
                scopes.extend(from.iter().map(|from| format!("repository:{from}:pull")));
                let further = asked.split(' ').filter(|scope| {
                    !scope.is_empty() && !scope.starts_with(&format!("repository:{path}:"))
                });
                let further: Vec<String> = further.map(str::to_owned).collect();
                scopes.extend(further);
                scopes.join(" ")
            }
        }
    }
}

impl Repository {
    pub(super) fn new(
        http: Http,
        base: String,
        path: String,
        credentials: Credentials,
        access: Access,
    ) -> Self {
        Repository {
            http,
            base,
            path,
            credentials,
            access,
            authorization: Mutex::new(None),
        }
    }

    /// Fetches a manifest by tag or digest; one asked for by digest is checked.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] names `shown`.
    pub async fn manifest(&self, wanted: &str, shown: &str) -> Result<Fetched, RegistryError> {
        let url = format!("{}/v2/{}/manifests/{wanted}", self.base, self.path);
        let answer = self.get(&url, ACCEPT).await.map_err(|e| match e {
            RegistryError::Missing { .. } => RegistryError::NotFound(shown.to_owned()),
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
        if let Ok(should) = wanted.parse() {
            check(digest, should, url)?;
        }
        Ok(Fetched {
            bytes,
            digest,
            media_type,
        })
    }

    /// Fetches a small blob whole, and checks it.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn small_blob(&self, digest: &Digest, limit: u64) -> Result<Bytes, RegistryError> {
        let url = self.blob_url(digest);
        let bytes = bounded(self.get(&url, "").await?, limit, &url).await?;
        check(Digest::of(&bytes), *digest, url)?;
        Ok(bytes)
    }

    pub(super) fn blob_url(&self, digest: &Digest) -> String {
        format!("{}/v2/{}/blobs/{digest}", self.base, self.path)
    }

    /// One GET that succeeds, let in.
    pub(super) async fn get(&self, url: &str, accept: &str) -> Result<Response, RegistryError> {
        let request = || {
            let request = self.http.any.get(url);
            if accept.is_empty() {
                request
            } else {
                request.header(ACCEPT_HEADER, accept)
            }
        };
        judge(self.call(url, request).await?, url).await
    }

    /// One request, let in; any answer will do. A token that has expired in between is replaced once.
    pub(super) async fn call(
        &self,
        url: &str,
        make: impl Fn() -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let request = |authorization: Option<&String>| match authorization {
            Some(value) if self.is_ours(url) => make().header(AUTHORIZATION, value),
            _ => make(),
        };
        let value = self.authorization.lock().await.clone();
        let mut answer = send(request(value.as_ref()), url).await?;
        if answer.status() == StatusCode::UNAUTHORIZED
            && answer.headers().contains_key(WWW_AUTHENTICATE)
        {
            let before = value;
            self.authorize(&answer).await?;
            let value = self.authorization.lock().await.clone();
            if value != before {
                answer = send(request(value.as_ref()), url).await?;
            }
        }
        Ok(answer)
    }

    /// Whether a URL is the registry's own, and so may be sent what lets in.
    pub(super) fn is_ours(&self, url: &str) -> bool {
        let (Ok(base), Ok(url)) = (reqwest::Url::parse(&self.base), reqwest::Url::parse(url))
        else {
            return false;
        };
        base.origin() == url.origin()
    }

    /// What lets in, where that is known.
    pub(super) async fn authorization(&self) -> Option<String> {
        self.authorization.lock().await.clone()
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn http(&self) -> &Http {
        &self.http
    }

    /// Does what `WWW-Authenticate` asks for (distribution's spec/auth/token.md, RFC 7617).
    pub(super) async fn authorize(&self, answer: &Response) -> Result<(), RegistryError> {
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
                let scope = self.access.scopes(&self.path, &asked);
                format!("Bearer {}", self.token(&realm, &service, &scope).await?)
            }
        };
        *self.authorization.lock().await = Some(value);
        Ok(())
    }

    fn basic(&self) -> String {
        let pair = format!(
            "{}:{}",
            self.credentials.username, self.credentials.password
        );
        format!("Basic {}", STANDARD.encode(pair))
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
        let secret =
            !self.credentials.username.is_empty() || !self.credentials.identity_token.is_empty();
        let url = token_server(realm, secret)?;
        let mut fields = vec![("service", service)];
        let scopes = scope.split(' ').filter(|scope| !scope.is_empty());
        fields.extend(scopes.map(|scope| ("scope", scope)));
        let request = if self.credentials.identity_token.is_empty() {
            let mut url = url;
            url.query_pairs_mut().extend_pairs(&fields);
            let request = self.http.any.get(url);
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
                .still
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

/// The URL of a token server. One on another machine is sent no secret in the clear, whatever the registry says: the
/// rule that holds for registries themselves.
fn token_server(realm: &str, secret: bool) -> Result<reqwest::Url, RegistryError> {
    let fail = |reason: String| RegistryError::Transport {
        url: realm.to_owned(),
        reason,
    };
    let url = reqwest::Url::parse(realm).map_err(|e| fail(e.to_string()))?;
    let near = url.host_str().is_some_and(is_loopback);
    match url.scheme() {
        "https" => Ok(url),
        "http" if near || !secret => Ok(url),
        "http" => Err(fail(
            "the registry asks for the password to be sent there without TLS, which is done on loopback only"
                .into(),
        )),
        other => Err(fail(format!("the scheme {other:?} of the token server is not known"))),
    }
}

/// Refuses content that has another digest than it should.
fn check(is: Digest, should: Digest, url: String) -> Result<(), RegistryError> {
    if is == should {
        return Ok(());
    }
    Err(RegistryError::Digest { url, is, should })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_asks_for_all_that_it_needs_at_once() {
        let push = Access::Push {
            from: vec!["a/b".into()],
        };
        for (access, asked, scopes) in [
            (&Access::Pull, "", "repository:x/y:pull"),
            (&Access::Pull, "repository:x/y:pull", "repository:x/y:pull"),
            (&push, "", "repository:x/y:pull,push repository:a/b:pull"),
            (
                &push,
                "repository:x/y:push registry:catalog:*",
                "repository:x/y:pull,push repository:a/b:pull registry:catalog:*",
            ),
        ] {
            assert_eq!(access.scopes("x/y", asked), scopes);
        }
    }

    #[test]
    fn a_password_must_not_go_to_a_token_server_without_tls() {
        for (realm, anonymous, with_secret) in [
            ("https://auth.example/token", true, true),
            ("http://127.0.0.1:5001/token", true, true),
            ("http://auth.example/token", true, false),
            ("http://127.0.0.1.example/token", true, false),
            ("http://127.0.0.1@auth.example/token", true, false),
            ("file:///etc/passwd", false, false),
            ("token", false, false),
        ] {
            assert_eq!(token_server(realm, false).is_ok(), anonymous, "{realm}");
            assert_eq!(token_server(realm, true).is_ok(), with_secret, "{realm}");
        }
    }
}
