//! `/token`: where clients of the distribution API get their tokens, by `GET` ("Token Authentication Specification") and
//! by `POST` ("Token Authentication via OAuth2").

pub(crate) mod scope;

use crate::access::{Principal, SignInError, secret, tokens};
use crate::audit::Source;
use crate::bodies;
use crate::distribution::error::Failure;
use crate::metadata::now;
use crate::registry::Registry;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use std::sync::Arc;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Longest form that is read.
const MAX_FORM: usize = 64 * 1024;
/// Milliseconds that a refresh token is good for.
const REFRESH: i64 = 30 * 24 * 3600 * 1000;
/// Begins a refresh token, so that one that was found somewhere is known for what it is.
const REFRESH_PREFIX: &str = "refresh_";

/// `application/x-www-form-urlencoded`, in a query or a body.
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    pub(crate) fn parse(text: &str) -> Self {
        let decode = |s: &str| {
            let spaced = s.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        Form(
            text.split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(k, v)| (decode(k), decode(v)))
                .collect(),
        )
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(k, _)| k == name)
            .map(|(_, v)| v.as_str())
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(k, _)| k == name)
            .map(|(_, v)| v.as_str())
    }
}

/// `GET /token?service=…&scope=…`, with a password in a Basic header or without.
pub async fn get(
    State(registry): State<Arc<Registry>>,
    source: Option<Extension<Source>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let source = source.map(|s| s.0).unwrap_or_default();
    let form = Form::parse(uri.query().unwrap_or_default());
    let principal = match registry.credentials.authenticate(&headers, &source).await {
        Ok(
            principal @ (Principal::Anonymous | Principal::User { .. } | Principal::Robot { .. }),
        ) => principal,
        // A token is no proof for another token.
        Ok(_) => return refused(SignInError::Wrong),
        Err(e) => return refused(e),
    };
    let refresh = form.first("offline_token") == Some("true");
    answer(&registry, &source, &principal, &form, refresh).await
}

/// `POST /token` with `grant_type` `password` or `refresh_token`.
pub async fn post(
    State(registry): State<Arc<Registry>>,
    source: Option<Extension<Source>>,
    body: Body,
) -> Response {
    let source = source.map(|s| s.0).unwrap_or_default();
    let Some(Ok(bytes)) = bodies::in_time(axum::body::to_bytes(body, MAX_FORM)).await else {
        return oauth(
            "invalid_request",
            "the form is too long, too slow, or was cut off",
        );
    };
    let form = Form::parse(&String::from_utf8_lossy(&bytes));
    let principal = match form.first("grant_type") {
        Some("password") => {
            let (Some(name), Some(password)) = (form.first("username"), form.first("password"))
            else {
                return oauth("invalid_request", "username and password are needed");
            };
            registry.credentials.sign_in(name, password, &source).await
        }
        Some("refresh_token") => {
            let Some(token) = form.first("refresh_token") else {
                return oauth("invalid_request", "refresh_token is needed");
            };
            refreshed(&registry, token)
        }
        _ => {
            return oauth(
                "unsupported_grant_type",
                "grant_type is password or refresh_token",
            );
        }
    };
    match principal {
        Ok(principal) => {
            let refresh = form.first("access_type") == Some("offline");
            answer(&registry, &source, &principal, &form, refresh).await
        }
        Err(e) => refused(e),
    }
}

/// Who a refresh token was made out to, with the rights of now.
fn refreshed(registry: &Registry, token: &str) -> Result<Principal, SignInError> {
    let hash = secret::hash(token);
    let user = registry.metadata.read(|db| db.refresh_token(&hash))?;
    let user = user.ok_or(SignInError::Wrong)?;
    Ok(Principal::User {
        id: user.id,
        name: user.name,
        generation: user.generation,
    })
}

async fn answer(
    registry: &Registry,
    source: &Source,
    principal: &Principal,
    form: &Form,
    refresh: bool,
) -> Response {
    match make(registry, source, principal, form, refresh).await {
        Ok(body) => {
            let headers = [
                (CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (headers, body.to_string()).into_response()
        }
        Err(failure) => failure.into_response(),
    }
}

async fn make(
    registry: &Registry,
    source: &Source,
    principal: &Principal,
    form: &Form,
    refresh: bool,
) -> Result<Value, Failure> {
    let asked = scope::parse(form.all("scope"));
    let granted = registry
        .metadata
        .read(|db| scope::grant(db, principal, asked))?;
    let scopes: Vec<String> = granted
        .iter()
        .map(|g| format!("{}:{}:{}", g.kind, g.name, g.actions.join(",")))
        .collect();
    let made = registry.tokens.make(principal, granted).await?;
    let issued = OffsetDateTime::from_unix_timestamp(made.issued)
        .ok()
        .and_then(|t| t.format(&Rfc3339).ok());
    let mut answer = json!({
        "token": made.token,
        "access_token": made.token,
        "expires_in": tokens::LIFETIME,
        "issued_at": issued,
        "scope": scopes.join(" "),
    });
    // Robots have a secret that expires already; nobody needs a second one for them.
    if let (true, &Principal::User { id, generation, .. }) = (refresh, principal) {
        let token = secret::generate(REFRESH_PREFIX)
            .map_err(|e| tokens::TokenError::Make(e.to_string()))?;
        let hash = secret::hash(&token);
        let kept = registry
            .metadata
            .write(move |db| db.add_refresh_token(&hash, id, generation, now() + REFRESH));
        if !kept.await? {
            return Err(tokens::TokenError::Owner.into());
        }
        let (user, operation) = (principal.name(), "refresh-token.create");
        registry.audit.note(user, source, operation, None, None);
        answer["refresh_token"] = json!(token);
    }
    Ok(answer)
}

/// In the registry's shape, which Docker's clients show.
fn refused(e: SignInError) -> Response {
    Failure::from(e)
        .challenge(HeaderValue::from_static(
            "Basic realm=\"registry\", charset=\"UTF-8\"",
        ))
        .into_response()
}

/// In OAuth2's shape (RFC 6749, 5.2).
fn oauth(error: &str, description: &str) -> Response {
    let body = json!({"error": error, "error_description": description});
    let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (StatusCode::BAD_REQUEST, headers, body.to_string()).into_response()
}
