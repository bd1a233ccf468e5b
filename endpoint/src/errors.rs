//! The errors that reach a Docker client: a kind, which gives the HTTP status, and a message in
//! Docker's own wording, since clients match on both.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};

/// What sort of failure, and so which HTTP status (Docker Engine API, "Errors").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 304: the container is in that state already.
    NotModified,
    /// 400.
    BadParameter,
    /// 403.
    Forbidden,
    /// 404.
    NotFound,
    /// 409.
    Conflict,
    /// 500.
    Internal,
    /// 501.
    NotImplemented,
    /// 503: vSphere does not answer, or the VM's link is away.
    Unavailable,
}

impl Kind {
    /// The HTTP status of this kind.
    pub fn status(self) -> StatusCode {
        match self {
            Kind::NotModified => StatusCode::NOT_MODIFIED,
            Kind::BadParameter => StatusCode::BAD_REQUEST,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A failure as it is told to the client: `{"message": …}` with the status of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Gives the HTTP status.
    pub kind: Kind,
    /// What failed, on what, why, what to do. Docker's wording where Docker has one.
    pub message: String,
}

/// The result of everything that a client can ask for.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of any kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// 400: a parameter that is wrong, with what would be right.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(Kind::BadParameter, message)
    }

    /// 409: it cannot be done in the present state.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// 404 for something that is neither container nor exec nor image.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// 500: our fault, or the hypervisor's.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// 501: Docker can, we cannot yet.
    pub fn not_yet(what: &str) -> Self {
        Self::new(
            Kind::NotImplemented,
            format!("{what} is not supported by Mooring yet"),
        )
    }

    /// 503: a part that we depend on is away.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// Whether it is the 304.
    pub fn is_not_modified(&self) -> bool {
        self.kind == Kind::NotModified
    }

    /// 304 without a message: already started, already stopped.
    pub fn not_modified() -> Self {
        Self::new(Kind::NotModified, "")
    }

    /// 404 for a container that does not exist.
    pub fn no_such_container(name: &str) -> Self {
        Self::new(Kind::NotFound, format!("No such container: {name}"))
    }

    /// 404 for an exec that does not exist.
    pub fn no_such_exec(id: &str) -> Self {
        Self::new(Kind::NotFound, format!("No such exec instance: {id}"))
    }

    /// 404 for an image that does not exist; makes the Docker client pull it.
    pub fn no_such_image(reference: &str) -> Self {
        Self::new(
            Kind::NotFound,
            format!("No such image: {}", named(reference)),
        )
    }

    /// 409 for a request that needs a running container.
    pub fn not_running(id: &str) -> Self {
        Self::new(Kind::Conflict, format!("container {id} is not running"))
    }

    /// 409 for a request that needs a running container, of one between two runs.
    pub fn restarting(id: &str) -> Self {
        Self::new(
            Kind::Conflict,
            format!("Container {id} is restarting, wait until the container is running"),
        )
    }
}

/// The reference of an image as Docker puts it into its error: with a tag, unless it is an ID or a digest.
fn named(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    if last.contains(':') || reference.contains('@') {
        reference.to_owned()
    } else {
        format!("{reference}:latest")
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        if status == StatusCode::NOT_MODIFIED {
            return status.into_response();
        }
        (status, Json(serde_json::json!({ "message": self.message }))).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_missing_is_named_with_its_tag() {
        assert_eq!(named("busybox"), "busybox:latest");
        assert_eq!(named("127.0.0.1:5000/x"), "127.0.0.1:5000/x:latest");
        assert_eq!(named("x:1"), "x:1");
        assert_eq!(named("x@sha256:ab"), "x@sha256:ab");
    }
}
