//! The administration API, `/api/v1/`: JSON in and out. The portal and the command line use nothing else. Its description
//! (OpenAPI 3.1) is made from the handlers, and served at `/api/v1/openapi.json`.

pub mod archive;
pub mod audit;
mod caller;
mod collection;
mod error;
mod json;
pub mod keys;
pub mod projects;
pub mod repositories;
pub mod robots;
pub mod rules;
pub mod users;
pub mod webhooks;

pub use caller::Caller;
pub use collection::CollectRequest;
pub use error::{ErrorBody, Failure};

use crate::registry::Registry;
use axum::routing::get;
use axum::{Router, middleware};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder, ServerBuilder};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Which part of a list. The next one begins after the last name of this one.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Most entries, at most 1,000; 100 if left out.
    pub limit: Option<u32>,
    /// Only what comes after this name.
    pub after: Option<String>,
}

impl Page {
    /// Most entries of one page.
    pub const MOST: u32 = 1000;

    /// Bounded.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit.unwrap_or(100).min(Self::MOST)
    }

    /// Where it begins.
    #[must_use]
    pub fn after(&self) -> &str {
        self.after.as_deref().unwrap_or_default()
    }
}

fn paths() -> OpenApiRouter<Arc<Registry>> {
    OpenApiRouter::with_openapi(OpenApi::default())
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::show, users::change, users::remove))
        .routes(routes!(users::set_password))
        .routes(routes!(projects::list, projects::create))
        .routes(routes!(projects::show, projects::change, projects::remove))
        .routes(routes!(projects::set_quota))
        .routes(routes!(projects::members))
        .routes(routes!(projects::set_member, projects::remove_member))
        .routes(routes!(robots::list, robots::create))
        .routes(routes!(robots::change, robots::remove))
        .routes(routes!(robots::renew))
        .routes(routes!(repositories::list))
        .routes(routes!(repositories::remove))
        .routes(routes!(repositories::tags))
        .routes(routes!(repositories::label, repositories::unlabel))
        .routes(routes!(repositories::labels))
        .routes(routes!(repositories::set_label, repositories::remove_label))
        .routes(routes!(repositories::search))
        .routes(routes!(rules::immutable, rules::add_immutable))
        .routes(routes!(rules::remove_immutable))
        .routes(routes!(rules::retention, rules::add_retention))
        .routes(routes!(rules::remove_retention))
        .routes(routes!(rules::run_retention))
        .routes(routes!(webhooks::list, webhooks::add))
        .routes(routes!(webhooks::remove))
        .routes(routes!(archive::export, archive::import))
        .routes(routes!(collection::collect))
        .routes(routes!(keys::rotate))
        .routes(routes!(audit::search))
        .routes(routes!(audit::of_project))
        .routes(routes!(audit::forget))
        .routes(routes!(audit::log))
}

/// The API's description.
#[must_use]
pub fn description() -> OpenApi {
    let (_, mut api) = paths().split_for_parts();
    let info = InfoBuilder::new()
        .title("Mooring registry")
        .version(env!("CARGO_PKG_VERSION"))
        .build();
    let frame = OpenApiBuilder::new()
        .info(info)
        .servers(Some([ServerBuilder::new().url("/api/v1").build()]))
        .build();
    api.info = frame.info;
    api.servers = frame.servers;
    let basic = HttpBuilder::new().scheme(HttpAuthScheme::Basic).build();
    api.components
        .get_or_insert_default()
        .add_security_scheme("basic", SecurityScheme::Http(basic));
    let needs = utoipa::openapi::SecurityRequirement::new("basic", Vec::<String>::new());
    api.security = Some(vec![needs]);
    api
}

/// The API's paths, below `/api/v1`.
pub fn router(registry: &Arc<Registry>) -> Router<Arc<Registry>> {
    let (router, _) = paths().split_for_parts();
    let watch = middleware::from_fn_with_state(registry.clone(), caller::watch);
    router
        .route_layer(watch)
        .route("/openapi.json", get(|| async { axum::Json(description()) }))
        .fallback(|| async { Failure::not_found("there is no such path in the API") })
}
