//! `POST /commit`.

use super::{OptionalJson, query::Query};
use crate::{
    app::App,
    containers::{commit::Wanted, config::Config},
    errors::{Error, Result},
    images::Reference,
};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// The call.
pub fn router() -> Router<Arc<App>> {
    Router::new().route("/commit", post(commit))
}

async fn commit(
    State(app): State<Arc<App>>,
    query: Query,
    OptionalJson(body): OptionalJson<Value>,
) -> Result<Response> {
    let container = app.containers.find(query.text("container"))?;
    let config = match body {
        Some(Value::Object(fields)) => Some(Config::read(&fields)?),
        None | Some(Value::Null) => None,
        Some(_) => return Err(Error::bad("invalid JSON: a configuration is an object")),
    };
    let repository = query.text("repo");
    let name = match (repository, query.text("tag")) {
        ("", _) => None,
        (name, "") => Some(name.to_owned()),
        (name, tag) => Some(format!("{name}:{tag}")),
    };
    let name = name
        .map(|name| Reference::parse(&name).map_err(|e| Error::bad(e.to_string())))
        .transpose()?;
    if name.as_ref().is_some_and(|name| name.digest.is_some()) {
        return Err(Error::bad(
            "refusing to create a tag with a digest reference",
        ));
    }
    let wanted = Wanted {
        name,
        comment: query.text("comment").to_owned(),
        author: query.text("author").to_owned(),
        // An empty value is no answer.
        pause: query.text("pause").is_empty() || query.flag("pause"),
        config,
        changes: query.all("changes").map(str::to_owned).collect(),
    };
    // Whole, even if the client goes: a container that was paused for it must go on.
    let id = tokio::spawn(async move {
        let (containers, images) = (app.containers.clone(), app.images.clone());
        containers.commit(&container, &images, wanted).await
    })
    .await
    .map_err(|e| Error::internal(format!("the request's task ended: {e}")))??;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id.to_string() }))).into_response())
}
