//! The administration API, `/api/v1/`: JSON in and out. The portal and the command line use nothing else.

mod caller;
mod collection;
mod error;

pub use caller::Caller;
pub use collection::CollectRequest;
pub use error::Failure;

use crate::registry::Registry;
use axum::Router;
use axum::routing::post;
use std::sync::Arc;

/// The API's paths, below `/api/v1`.
pub fn router() -> Router<Arc<Registry>> {
    Router::new()
        .route("/gc", post(collection::collect))
        .fallback(|| async { Failure::not_found("there is no such path in the API") })
}
