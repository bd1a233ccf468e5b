//! JSON bodies and query parameters, refused in the API's own shape.

use super::Failure;
use crate::bodies;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A JSON body, in and out. At most 2 MiB come in (axum's limit).
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let read = bodies::in_time(axum::Json::<T>::from_request(request, state)).await;
        let slow = || Failure::with_status(StatusCode::REQUEST_TIMEOUT, bodies::SLOW.into());
        match read.ok_or_else(slow)? {
            Ok(axum::Json(value)) => Ok(Json(value)),
            Err(e) => Err(Failure::with_status(e.status(), e.body_text())),
        }
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// Query parameters.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Query(value)),
            Err(e) => Err(Failure::with_status(e.status(), e.body_text())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[tokio::test]
    async fn json_that_never_ends_is_given_up() {
        let body = Body::from_stream(futures_util::stream::pending::<std::io::Result<String>>());
        let mut request = Request::new(body);
        let kind = http::HeaderValue::from_static("application/json");
        request.headers_mut().insert("content-type", kind);
        let read = Json::<String>::from_request(request, &()).await;
        let status = read.unwrap_err().into_response().status();
        assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
    }
}
