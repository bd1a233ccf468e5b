//! Which path is whose.

use crate::access::{Action, Principal, Target, Verdict, authorise};
use crate::registry::Registry;
use crate::server::metrics::Moment;
use crate::{api, distribution, metadata, token_service};
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::StatusCode;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use std::sync::Arc;
use std::time::Instant;

/// Everything that is served to clients.
pub fn router(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/v2", any(distribution::serve))
        .route("/v2/", any(distribution::serve))
        .route("/v2/{*rest}", any(distribution::serve))
        .nest("/api/v1", api::router(&registry))
        .route("/token", get(token_service::get).post(token_service::post))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_for_administrators))
        .layer(middleware::from_fn(drain::unread))
        .layer(middleware::from_fn_with_state(registry.clone(), count))
        .with_state(registry)
}

/// What the operations' address serves, without sign-in.
pub(super) fn operations(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(registry)
}

async fn count(State(registry): State<Arc<Registry>>, request: Request, next: Next) -> Response {
    /// Counts down even when the client hangs up.
    struct InFlight(Arc<Registry>);
    impl Drop for InFlight {
        fn drop(&mut self) {
            self.0.metrics.in_flight.dec();
        }
    }
    let begin = Instant::now();
    let method = request.method().clone();
    registry.metrics.in_flight.inc();
    let in_flight = InFlight(registry.clone());
    let response = next.run(request).await;
    drop(in_flight);
    registry
        .metrics
        .answered(&method, response.status(), begin.elapsed());
    response
}

/// The process answers.
async fn health() -> &'static str {
    "ok\n"
}

/// Requests can be served: metadata and blobs are there, and both can be written.
async fn ready(State(registry): State<Arc<Registry>>) -> Response {
    let written = registry
        .metadata
        .write(|db| db.set_setting("ready", b""))
        .await
        .map_err(|e| e.to_string());
    let store = registry.store.clone();
    let staged = tokio::task::spawn_blocking(move || store.staging().sync_staging())
        .await
        .map_err(|e| e.to_string())
        .and_then(|done| done.map_err(|e| e.to_string()));
    match written.and(staged) {
        Ok(()) => "ready\n".into_response(),
        Err(e) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {e}\n")).into_response(),
    }
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let load = registry.credentials.hashing.load();
    let counted = registry
        .metadata
        .read::<_, metadata::Error>(|db| Ok((db.open_uploads()?, db.audit_rows()?)));
    let (uploads, audit_rows) = match counted {
        Ok(counted) => counted,
        Err(e) => {
            return (StatusCode::SERVICE_UNAVAILABLE, format!("{e}\n")).into_response();
        }
    };
    let moment = Moment {
        hashing: load.hashing as u64,
        // Who has a turn is counted among those who wait for its end.
        hashing_waiting: load.waiting.saturating_sub(load.hashing) as u64,
        uploads,
        audit_rows,
        metadata_waiting: registry.metadata.waiting() as u64,
        metadata_commits: registry.metadata.commits(),
    };
    ([(CONTENT_TYPE, kind)], registry.metrics.text(&moment)).into_response()
}

async fn metrics_for_administrators(
    State(registry): State<Arc<Registry>>,
    request: Request,
) -> Response {
    let asked = registry
        .credentials
        .identify(request.extensions(), request.headers());
    let (principal, _) = asked.await;
    let principal = principal.unwrap_or(Principal::Anonymous);
    let verdict = registry
        .metadata
        .read(|db| authorise(db, &principal, Action::Administer, Target::Registry));
    match verdict {
        Ok(Verdict::Allowed) => metrics(State(registry)).await,
        Ok(_) => (
            StatusCode::UNAUTHORIZED,
            [(
                WWW_AUTHENTICATE,
                "Basic realm=\"registry\", charset=\"UTF-8\"",
            )],
            "for administrators\n",
        )
            .into_response(),
        Err(e) => (StatusCode::SERVICE_UNAVAILABLE, format!("{e}\n")).into_response(),
    }
}
