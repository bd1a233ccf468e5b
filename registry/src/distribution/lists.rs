//! Pages of tags and of repositories.

use super::error::{Code, Failure};
use super::{Call, MAX_PAGE, encode, json, value};
use crate::access::{Action, Principal, sight};
use crate::names::RepositoryName;
use axum::response::Response;
use http::StatusCode;
use http::header::LINK;
use serde_json::json;

/// `GET tags/list`: sorted by their bytes. Without `n` all of them, up to the page that a client can be expected to take.
pub(super) fn tags(call: &Call, name: &RepositoryName) -> Result<Response, Failure> {
    call.may(Action::Pull, name)?;
    let size = call.page_size()?;
    let last = call.parameter("last").unwrap_or_default();
    let limit = size.unwrap_or(MAX_PAGE);
    let tags = call.registry.metadata.read(|db| {
        let repository = db
            .repository(name)?
            .ok_or_else(|| Failure::new(Code::NameUnknown, "there is no such repository"))?;
        Ok::<_, Failure>(db.tags_after(repository.id, &last, limit + 1)?)
    })?;
    let (tags, more) = cut(tags, limit);
    let mut response = json(
        StatusCode::OK,
        json!({"name": name.as_str(), "tags": tags}).to_string(),
    );
    if let Some(last) = tags.last().filter(|_| more) {
        let link = format!(
            "</v2/{name}/tags/list?n={limit}&last={}>; rel=\"next\"",
            encode(last)
        );
        response.headers_mut().insert(LINK, value(link));
    }
    Ok(response)
}

/// `GET _catalog` (Docker's): names of the repositories that the caller may pull from.
pub(super) async fn catalog(call: Call) -> Result<Response, Failure> {
    let limit = call.page_size()?.unwrap_or(MAX_PAGE);
    let last = call.parameter("last").unwrap_or_default().into_owned();
    if let Principal::Token { grants, .. } = &call.principal
        && !grants
            .iter()
            .any(|g| g.kind == "registry" && g.name == "catalog")
    {
        let challenge = call.registry.challenge(
            &call.asked,
            Some("registry:catalog:*"),
            Some("insufficient_scope"),
        );
        return Err(Failure::sign_in(
            "the token is not for this; ask for one that is",
            challenge,
        ));
    }
    // What may be pulled is asked of the owner.
    let principal = call.principal.subject().clone();
    let names = call
        .registry
        .metadata
        .read_long::<_, Failure>(move |db| {
            let sight = sight(db, &principal, Action::Pull)?;
            Ok(db.visible_repositories(&sight, &last, limit + 1)?)
        })
        .await?;
    let (names, more) = cut(names, limit);
    let mut response = json(StatusCode::OK, json!({"repositories": names}).to_string());
    if let Some(last) = names.last().filter(|_| more) {
        let link = format!(
            "</v2/_catalog?n={limit}&last={}>; rel=\"next\"",
            encode(last)
        );
        response.headers_mut().insert(LINK, value(link));
    }
    Ok(response)
}

/// One more than a page was asked for, to know whether there is more. A page of none has no next one.
fn cut(mut names: Vec<String>, limit: u32) -> (Vec<String>, bool) {
    let more = names.len() > limit as usize && limit > 0;
    names.truncate(limit as usize);
    (names, more)
}
