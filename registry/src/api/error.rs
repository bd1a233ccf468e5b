//! The administration API's errors: `{"code": …, "message": …}`.

use crate::access::SignInError;
use crate::access::password::PasswordError;
use crate::access::tokens::TokenError;
use crate::audit::ForgetError;
use crate::digest::DigestError;
use crate::names::NameError;
use crate::{blobs, gc, metadata};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::WWW_AUTHENTICATE;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An error's body.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// For programs.
    pub code: String,
    /// For people: what was wrong, and what would be right.
    pub message: String,
}

/// An answer that is not the wanted one.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Failure {
    /// With a code for programs and a message for people.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Failure {
            status,
            code,
            message: message.into(),
        }
    }

    /// What an extractor refused.
    pub(super) fn with_status(status: StatusCode, message: String) -> Self {
        Failure::new(status, "bad_request", message)
    }

    /// 409.
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::CONFLICT, "conflict", message)
    }

    /// 404.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 400.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// 403.
    #[must_use]
    pub fn denied() -> Self {
        Failure::new(StatusCode::FORBIDDEN, "denied", "you may not do this")
    }

    /// 401.
    #[must_use]
    pub fn sign_in(message: impl Into<String>) -> Self {
        Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// A handler panicked.
    pub(super) fn broken(e: &tokio::task::JoinError) -> Self {
        Failure::internal(format!("a request was not answered: {e}"))
    }

    /// With where it is, in a longer text.
    pub(super) fn at(self, place: &str) -> Self {
        Failure {
            message: format!("{place}: {}", self.message),
            ..self
        }
    }

    fn internal(message: impl std::fmt::Display) -> Self {
        tracing::error!("{message}");
        Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the registry could not do this; its log says why",
        )
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = axum::Json(ErrorBody {
            code: self.code.into(),
            message: self.message,
        });
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let how = http::HeaderValue::from_static("Basic realm=\"registry\", charset=\"UTF-8\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, how);
        }
        response
    }
}

impl From<metadata::Error> for Failure {
    fn from(e: metadata::Error) -> Self {
        match e {
            metadata::Error::Full => {
                Failure::new(StatusCode::INSUFFICIENT_STORAGE, "full", e.to_string())
            }
            metadata::Error::Closed => {
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, "closed", e.to_string())
            }
            e => Failure::internal(e),
        }
    }
}

impl From<blobs::Error> for Failure {
    fn from(e: blobs::Error) -> Self {
        match e {
            blobs::Error::Full => {
                Failure::new(StatusCode::INSUFFICIENT_STORAGE, "full", e.to_string())
            }
            e => Failure::internal(e),
        }
    }
}

impl From<SignInError> for Failure {
    fn from(e: SignInError) -> Self {
        match e {
            SignInError::Locked(_) | SignInError::Busy => {
                Failure::new(StatusCode::TOO_MANY_REQUESTS, "too_many", e.to_string())
            }
            SignInError::Password(e) => e.into(),
            SignInError::Metadata(e) | SignInError::Token(TokenError::Metadata(e)) => e.into(),
            e => Failure::sign_in(e.to_string()),
        }
    }
}

impl From<TokenError> for Failure {
    fn from(e: TokenError) -> Self {
        Failure::from(SignInError::Token(e))
    }
}

impl From<NameError> for Failure {
    fn from(e: NameError) -> Self {
        Failure::bad_request(e.to_string())
    }
}

impl From<DigestError> for Failure {
    fn from(e: DigestError) -> Self {
        Failure::bad_request(e.to_string())
    }
}

impl From<PasswordError> for Failure {
    fn from(e: PasswordError) -> Self {
        match e {
            PasswordError::Hash(_) => Failure::internal(e),
            e => Failure::bad_request(e.to_string()),
        }
    }
}

impl From<getrandom::Error> for Failure {
    fn from(e: getrandom::Error) -> Self {
        Failure::internal(e)
    }
}

impl From<ForgetError> for Failure {
    fn from(e: ForgetError) -> Self {
        match e {
            ForgetError::Clock(_) => Failure::conflict(e.to_string()),
            ForgetError::Metadata(e) => e.into(),
        }
    }
}

impl From<gc::Error> for Failure {
    fn from(e: gc::Error) -> Self {
        match e {
            gc::Error::Metadata(e) => e.into(),
            gc::Error::Store(e) => e.into(),
            gc::Error::Uploads(e) => Failure::internal(e),
        }
    }
}
