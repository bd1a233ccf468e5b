//! The Docker Engine API: one file per group of calls, this one joins them.

pub mod archive;
pub mod attach;
pub mod commit;
pub mod containers;
mod drained;
mod endpoint_settings;
pub mod events;
pub mod exec;
pub mod framing;
pub mod half_closed;
pub mod hijack;
pub mod image_fields;
pub mod images;
pub mod inspect;
pub mod listen;
pub mod logs;
pub mod networks;
pub mod off;
pub mod pattern;
pub mod query;
mod row;
pub mod stats;
pub mod system;
pub mod top;
pub mod update;
pub mod version;
pub mod volumes;
pub mod wait;

use crate::{
    app::App,
    containers::Container,
    errors::{Error, Result},
};
use axum::{
    Json, Router,
    body::Body,
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{HeaderValue, request::Parts},
    response::{IntoResponse, Response},
};
use query::Query;
use serde::de::DeserializeOwned;
use std::{convert::Infallible, sync::Arc};
use version::{API_VERSION, ApiVersion};

/// Bytes of a JSON request body. Docker's own limit for `containers/create` is of this order.
pub const JSON_MAX: usize = 8 * 1024 * 1024;

/// The whole API over an application, without the version prefix (see [`version::strip`]).
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(system::router())
        .merge(off::router())
        .merge(events::router())
        .merge(containers::router())
        .merge(exec::router())
        .merge(commit::router())
        .merge(networks::router())
        .merge(volumes::router())
        .merge(images::router())
        .fallback(missing)
        .method_not_allowed_fallback(missing)
        // A refusal comes before the body is read (`docker update`): the client shall see it all the same.
        .layer(axum::middleware::from_fn(drain::unread))
        .with_state(app)
}

async fn missing() -> Error {
    Error::not_found("page not found")
}

/// Handles one request, to its end also where the client's connection goes meanwhile: nothing is left half done. What
/// an answer's body waits for ends with the connection.
pub async fn handle(router: Router, request: Request) -> Result<Response, Infallible> {
    match tokio::spawn(answer(router, request)).await {
        Ok(answer) => answer,
        Err(error) => {
            let error = Error::internal(format!("the request's task ended: {error}"));
            Ok(error.into_response())
        }
    }
}

/// Takes the version off, routes, and adds what every answer carries.
async fn answer(router: Router, mut request: Request) -> Result<Response, Infallible> {
    use hyper::service::Service as _;
    let mut response = match version::strip(request.uri()) {
        Ok((version, uri)) => {
            if let Some(uri) = uri {
                *request.uri_mut() = uri;
            }
            request.extensions_mut().insert(version);
            hyper_util::service::TowerToHyperService::new(router)
                .call(request)
                .await?
        }
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    if let Ok(value) = API_VERSION.to_string().parse() {
        headers.insert("Api-Version", value);
    }
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers.insert(
        "Server",
        HeaderValue::from_static(concat!("Mooring/", env!("CARGO_PKG_VERSION"), " (linux)")),
    );
    Ok(response)
}

impl<S: Sync> FromRequestParts<S> for ApiVersion {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts
            .extensions
            .get::<ApiVersion>()
            .copied()
            .unwrap_or(API_VERSION))
    }
}

/// The container that a path names, with the application and the request's query.
#[derive(Debug)]
pub struct Target {
    /// The application.
    pub app: Arc<App>,
    /// The container.
    pub container: Arc<Container>,
    /// As the path names it.
    pub name: String,
    /// The query.
    pub query: Query,
}

impl FromRequestParts<Arc<App>> for Target {
    type Rejection = Error;

    /// Refuses with 404 where there is no such container.
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        let Path(name) = Path::<String>::from_request_parts(parts, app)
            .await
            .map_err(|error| Error::bad(format!("invalid path: {error}")))?;
        Ok(Self {
            container: app.containers.find(&name)?,
            app: app.clone(),
            name,
            query: Query::parse(parts.uri.query().unwrap_or("")),
        })
    }
}

/// A JSON body, whatever its content type, with errors in Docker's shape. An empty body is
/// `None`.
#[derive(Debug)]
pub struct OptionalJson<T>(pub Option<T>);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = Error;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self> {
        let bytes = axum::body::to_bytes(request.into_body(), JSON_MAX)
            .await
            .map_err(|error| Error::bad(format!("invalid request body: {error}")))?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(None));
        }
        serde_json::from_slice(&bytes)
            .map(|value| Self(Some(value)))
            .map_err(|error| {
                let why = if error.is_eof() {
                    "unexpected EOF".to_owned()
                } else {
                    error.to_string()
                };
                Error::bad(format!("invalid JSON: {why}"))
            })
    }
}

/// A JSON body that must be there.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Error;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self> {
        match OptionalJson::from_request(request, state).await? {
            OptionalJson(Some(value)) => Ok(Self(value)),
            OptionalJson(None) => Err(Error::bad(
                "invalid JSON: got EOF while reading request body",
            )),
        }
    }
}

/// An answer of 200 with a JSON body.
pub fn ok(value: serde_json::Value) -> Response {
    Json(value).into_response()
}
