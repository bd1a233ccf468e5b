//! Errors in the shape of the OCI distribution spec ("Error Codes").

use crate::access::tokens::TokenError;
use crate::access::{Refused, SignInError, Verdict};
use crate::digest::DigestError;
use crate::names::NameError;
use crate::{blobs, metadata, uploads};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

/// The spec's codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are the spec's, letter for letter")]
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    /// Not in the spec: something on our side.
    Unknown,
}

impl Code {
    /// As it is sent.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Code::BlobUnknown => "BLOB_UNKNOWN",
            Code::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Code::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Code::DigestInvalid => "DIGEST_INVALID",
            Code::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Code::ManifestInvalid => "MANIFEST_INVALID",
            Code::ManifestUnknown => "MANIFEST_UNKNOWN",
            Code::NameInvalid => "NAME_INVALID",
            Code::NameUnknown => "NAME_UNKNOWN",
            Code::SizeInvalid => "SIZE_INVALID",
            Code::Unauthorized => "UNAUTHORIZED",
            Code::Denied => "DENIED",
            Code::Unsupported => "UNSUPPORTED",
            Code::TooManyRequests => "TOOMANYREQUESTS",
            Code::Unknown => "UNKNOWN",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Code::BlobUnknown
            | Code::BlobUploadUnknown
            | Code::ManifestUnknown
            | Code::NameUnknown => StatusCode::NOT_FOUND,
            Code::BlobUploadInvalid
            | Code::DigestInvalid
            | Code::ManifestBlobUnknown
            | Code::ManifestInvalid
            | Code::NameInvalid
            | Code::SizeInvalid => StatusCode::BAD_REQUEST,
            Code::Unauthorized => StatusCode::UNAUTHORIZED,
            Code::Denied => StatusCode::FORBIDDEN,
            Code::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Code::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Code::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// An answer that is not the wanted one.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    status: StatusCode,
    message: String,
    detail: Value,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Failure {
    /// With the code's usual status.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Failure {
            code,
            status: code.status(),
            message: message.into(),
            detail: Value::Null,
            headers: Vec::new(),
        }
    }

    /// With another status.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// With what a program may want to know.
    #[must_use]
    pub fn detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// A 401 that tells where and how to sign in.
    #[must_use]
    pub fn sign_in(message: impl Into<String>, challenge: HeaderValue) -> Self {
        Failure::new(Code::Unauthorized, message).header(WWW_AUTHENTICATE, challenge)
    }

    /// With where to sign in, if that is what is wrong.
    #[must_use]
    pub fn challenge(self, challenge: HeaderValue) -> Self {
        if self.status == StatusCode::UNAUTHORIZED {
            self.header(WWW_AUTHENTICATE, challenge)
        } else {
            self
        }
    }

    fn full(message: String) -> Self {
        Failure::new(Code::Unknown, message)
            .status(StatusCode::INSUFFICIENT_STORAGE)
            .header(RETRY_AFTER, HeaderValue::from_static("60"))
    }

    /// A handler panicked.
    pub(super) fn broken(e: &tokio::task::JoinError) -> Self {
        Failure::internal(format!("a request was not answered: {e}"))
    }

    fn internal(message: String) -> Self {
        tracing::error!("{message}");
        Failure::new(
            Code::Unknown,
            "the registry could not do this; its log says why",
        )
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut error = json!({"code": self.code.text(), "message": self.message});
        if !self.detail.is_null() {
            error["detail"] = self.detail;
        }
        let body = json!({"errors": [error]}).to_string();
        let mut headers: HeaderMap = self.headers.into_iter().collect();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        (self.status, headers, body).into_response()
    }
}

impl From<metadata::Error> for Failure {
    fn from(e: metadata::Error) -> Self {
        match e {
            metadata::Error::Full => Failure::full(e.to_string()),
            metadata::Error::Closed => {
                Failure::new(Code::Unknown, e.to_string()).status(StatusCode::SERVICE_UNAVAILABLE)
            }
            e => Failure::internal(e.to_string()),
        }
    }
}

impl From<blobs::Error> for Failure {
    fn from(e: blobs::Error) -> Self {
        match e {
            blobs::Error::Full => Failure::full(e.to_string()),
            e => Failure::internal(e.to_string()),
        }
    }
}

impl From<NameError> for Failure {
    fn from(e: NameError) -> Self {
        Failure::new(Code::NameInvalid, e.to_string())
    }
}

impl From<DigestError> for Failure {
    fn from(e: DigestError) -> Self {
        Failure::new(Code::DigestInvalid, e.to_string())
    }
}

impl From<SignInError> for Failure {
    fn from(e: SignInError) -> Self {
        match e {
            SignInError::Wrong => Failure::new(Code::Unauthorized, e.to_string()),
            SignInError::Locked(seconds) => Failure::new(Code::TooManyRequests, e.to_string())
                .header(RETRY_AFTER, seconds.into()),
            SignInError::Busy => Failure::new(Code::TooManyRequests, e.to_string())
                .header(RETRY_AFTER, HeaderValue::from_static("1")),
            SignInError::Password(e) => Failure::internal(e.to_string()),
            SignInError::Token(e) => e.into(),
            SignInError::Metadata(e) => e.into(),
        }
    }
}

impl From<TokenError> for Failure {
    fn from(e: TokenError) -> Self {
        match e {
            TokenError::Invalid(_) | TokenError::Owner => {
                Failure::new(Code::Unauthorized, e.to_string())
            }
            TokenError::Make(_) => Failure::internal(e.to_string()),
            TokenError::Metadata(e) => e.into(),
        }
    }
}

impl From<metadata::QuotaExceeded> for Failure {
    fn from(e: metadata::QuotaExceeded) -> Self {
        Failure::new(Code::Denied, e.to_string()).detail(json!({"quota": e.quota, "used": e.used}))
    }
}

impl From<Refused> for Failure {
    fn from(e: Refused) -> Self {
        let code = match e.0 {
            Verdict::SignIn | Verdict::Scope => Code::Unauthorized,
            Verdict::Denied | Verdict::Allowed => Code::Denied,
        };
        Failure::new(code, e.to_string())
    }
}

impl From<uploads::Error> for Failure {
    fn from(e: uploads::Error) -> Self {
        use uploads::Error as E;
        let message = e.to_string();
        match e {
            E::Unknown => Failure::new(Code::BlobUploadUnknown, message),
            E::NoProject(_) => Failure::new(Code::NameUnknown, message),
            E::OutOfOrder { .. } => Failure::new(Code::BlobUploadInvalid, message)
                .status(StatusCode::RANGE_NOT_SATISFIABLE),
            E::Digest { .. } => Failure::new(Code::DigestInvalid, message),
            E::Size { .. } => Failure::new(Code::SizeInvalid, message),
            E::Cut(_) => Failure::new(Code::BlobUploadInvalid, message),
            E::Quota(e) => e.into(),
            E::Refused(e) => e.into(),
            E::Store(e) => e.into(),
            E::Metadata(e) => e.into(),
            E::Broken(_) => Failure::internal(message),
        }
    }
}
