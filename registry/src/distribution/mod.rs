//! The distribution API (OCI distribution spec 1.1, and what Docker's clients expect beyond it).

mod blobs;
pub mod error;
mod lists;
pub(crate) mod manifest;
mod manifests;
mod referrers;
mod routes;
mod uploads;

use crate::access::{Action, Permit, Principal, SignInError, Target, Verdict, authorise};
use crate::audit::{Draft, Operation, Told};
use crate::names::RepositoryName;
use crate::registry::{Asked, Registry};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use error::{Code, Failure};
use http::header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
pub use routes::{Route, parse};
use std::borrow::Cow;
use std::sync::Arc;

/// Most entries of one page of tags, repositories or referrers.
const MAX_PAGE: u32 = 1000;

/// Tells Docker's clients which API this is.
const API_VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("docker-distribution-api-version"),
    HeaderValue::from_static("registry/2.0"),
);

/// What a handler has to know of a request, without its body.
#[derive(Debug)]
struct Call {
    registry: Arc<Registry>,
    principal: Principal,
    method: Method,
    headers: HeaderMap,
    query: Option<String>,
    asked: Asked,
    /// What is written down with a change.
    draft: Draft,
}

impl Call {
    /// Refuses what the caller may not do.
    fn allow(&self, action: Action, target: Target<'_>) -> Result<(), Failure> {
        let verdict = self
            .registry
            .metadata
            .read(|db| authorise(db, &self.principal, action, target))?;
        match verdict {
            Verdict::Allowed => Ok(()),
            Verdict::SignIn => Err(self.sign_in("sign in first", action, target, None)),
            Verdict::Scope => Err(self.sign_in(
                "the token is not for this; ask for one that is",
                action,
                target,
                Some("insufficient_scope"),
            )),
            Verdict::Denied => Err(Failure::new(
                Code::Denied,
                "you may not do this here (or there is no such project)",
            )),
        }
    }

    /// A 401 that tells which token will do.
    fn sign_in(
        &self,
        message: &str,
        action: Action,
        target: Target<'_>,
        error: Option<&str>,
    ) -> Failure {
        let scope = match target {
            Target::Repository(name) => {
                let actions = match action {
                    Action::Push => "pull,push",
                    Action::Delete => "delete",
                    _ => "pull",
                };
                Some(format!("repository:{name}:{actions}"))
            }
            _ => None,
        };
        let challenge = self
            .registry
            .challenge(&self.asked, scope.as_deref(), error);
        Failure::sign_in(message, challenge)
    }

    fn may(&self, action: Action, name: &RepositoryName) -> Result<(), Failure> {
        self.allow(action, Target::Repository(name))
    }

    /// The right to be asked for again when it is used, after the body.
    fn permit(&self, action: Action, name: &RepositoryName) -> Permit {
        Permit {
            principal: self.principal.clone(),
            action,
            repository: name.clone(),
            draft: self.draft.clone(),
        }
    }

    /// The first value of a query parameter.
    fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        let query = self.query.as_deref()?;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then(|| decode(value))
        })
    }

    /// `?n=`, bounded; `None` when it was not given.
    fn page_size(&self) -> Result<Option<u32>, Failure> {
        let Some(text) = self.parameter("n") else {
            return Ok(None);
        };
        match text.parse::<u64>() {
            Ok(n) => Ok(Some(u32::try_from(n).unwrap_or(MAX_PAGE).min(MAX_PAGE))),
            Err(_) => Err(Failure::new(
                Code::SizeInvalid,
                "n must be a number of entries, 0 or more",
            )),
        }
    }

    fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A query's value: percent-decoded, `+` a space.
fn decode(value: &str) -> Cow<'_, str> {
    if !value.contains(['%', '+']) {
        return Cow::Borrowed(value);
    }
    let spaced = value.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced)
        .decode_utf8_lossy()
        .into_owned()
        .into()
}

/// Encodes a value for a query of ours.
fn encode(value: &str) -> String {
    percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Serves everything below `/v2/`.
pub async fn serve(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let asked = Asked::of(&parts.uri, &parts.headers);
    let credentials = &registry.credentials;
    let (principal, source) = credentials
        .identify(&parts.extensions, &parts.headers)
        .await;
    let mut response = match principal {
        Ok(principal) => {
            let route = parse(parts.uri.path());
            let query = parts.uri.query();
            let operation = route
                .as_ref()
                .ok()
                .and_then(|route| Operation::of_distribution(route, &parts.method, query));
            let draft = operation.as_ref().map_or_else(Draft::default, |operation| {
                Draft::new(&registry.audit, &principal, &source, operation)
            });
            let call = Call {
                registry: registry.clone(),
                principal: principal.clone(),
                method: parts.method,
                query: query.map(str::to_owned),
                headers: parts.headers,
                asked: asked.clone(),
                draft: draft.clone(),
            };
            let audit = registry.clone();
            let challenge = registry.challenge(&asked, None, None);
            // On a task of its own: a client that hangs up must not leave a change without its entry.
            let done = registry.work.spawn(async move {
                let done = match route {
                    Ok(route) => dispatch(call, route, body).await,
                    Err(failure) => Err(failure),
                };
                let mut response = done.unwrap_or_else(Failure::into_response);
                // A right that was lost on the way is refused where nothing is known of challenges.
                if response.status() == StatusCode::UNAUTHORIZED {
                    let headers = response.headers_mut();
                    headers.entry(WWW_AUTHENTICATE).or_insert(challenge);
                }
                if let Some(operation) = operation {
                    let (audit, status) = (&audit.audit, response.status());
                    audit
                        .write(
                            &draft,
                            &principal,
                            &source,
                            operation,
                            status,
                            Told::default(),
                        )
                        .await;
                }
                response
            });
            done.await
                .unwrap_or_else(|e| Failure::broken(&e).into_response())
        }
        Err(e) => {
            let error = matches!(e, SignInError::Token(_)).then_some("invalid_token");
            let failure = Failure::from(e);
            let challenge = registry.challenge(&asked, None, error);
            failure.challenge(challenge).into_response()
        }
    };
    let (name, value) = API_VERSION;
    response.headers_mut().insert(name, value);
    response
}

async fn dispatch(call: Call, route: Route, body: Body) -> Result<Response, Failure> {
    let method = call.method.clone();
    let get = matches!(method, Method::GET | Method::HEAD);
    match route {
        Route::Base if get => base(&call),
        Route::Catalog if get => lists::catalog(call).await,
        Route::Tags(name) if get => lists::tags(&call, &name),
        Route::Referrers(name, digest) if get => referrers::list(&call, &name, &digest),
        Route::Blob(name, digest) => match method {
            Method::GET => blobs::get(&call, &name, &digest).await,
            Method::HEAD => blobs::head(&call, &name, &digest).await,
            Method::DELETE => blobs::delete(&call, name, digest).await,
            _ => Err(not_allowed("GET, HEAD, DELETE")),
        },
        Route::Uploads(name) => match method {
            Method::POST => uploads::begin(&call, name, body).await,
            _ => Err(not_allowed("POST")),
        },
        Route::Upload(name, id) => match method {
            Method::GET | Method::HEAD => uploads::status(&call, &name, &id),
            Method::PATCH => uploads::append(&call, &name, &id, body).await,
            Method::PUT => uploads::finish(&call, &name, &id, body).await,
            Method::DELETE => uploads::cancel(&call, &name, &id).await,
            _ => Err(not_allowed("GET, PATCH, PUT, DELETE")),
        },
        Route::Manifest(name, reference) => match method {
            Method::GET | Method::HEAD => manifests::get(&call, &name, &reference),
            Method::PUT => manifests::put(&call, name, reference, body).await,
            Method::DELETE => manifests::delete(&call, name, reference).await,
            _ => Err(not_allowed("GET, HEAD, PUT, DELETE")),
        },
        Route::Base | Route::Catalog | Route::Tags(_) | Route::Referrers(..) => {
            Err(not_allowed("GET"))
        }
    }
}

fn not_allowed(allow: &'static str) -> Failure {
    Failure::new(Code::Unsupported, format!("only {allow} can be done here"))
        .header(ALLOW, HeaderValue::from_static(allow))
}

/// `GET /v2/`: says that this is a registry to those who signed in. Docker's clients learn here how to sign in.
fn base(call: &Call) -> Result<Response, Failure> {
    if call.principal == Principal::Anonymous {
        return Err(call.sign_in(
            "sign in first; public projects can be pulled without",
            Action::Pull,
            Target::Registry,
            None,
        ));
    }
    Ok(json(StatusCode::OK, "{}".into()))
}

fn json(status: StatusCode, body: String) -> Response {
    let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (status, headers, body).into_response()
}

/// A header's value of text that is ASCII by its making (digests, names, numbers).
fn value(text: impl AsRef<str>) -> HeaderValue {
    HeaderValue::from_str(text.as_ref()).unwrap_or_else(|_| HeaderValue::from_static(""))
}
