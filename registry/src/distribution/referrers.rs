//! The referrers' list (OCI distribution spec, "Listing Referrers"): what was pushed with a subject, and what older
//! clients put into an index under the referrers tag.

use super::error::Failure;
use super::{Call, MAX_PAGE, encode, value};
use crate::access::Action;
use crate::digest::Digest;
use crate::metadata::{self, Descriptor, Read};
use crate::names::{Reference, RepositoryName, Tag};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};
use std::collections::HashSet;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");
/// Bytes of annotations after which a page ends: an index may have 4 MiB.
const PAGE_BYTES: usize = 3 << 20;

/// What one page holds.
struct Page {
    manifests: Vec<Value>,
    /// Where the next one goes on.
    next: Option<i64>,
}

pub(super) fn list(
    call: &Call,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Response, Failure> {
    call.may(Action::Pull, name)?;
    let artifact_type = call.parameter("artifactType");
    let limit = call.page_size()?.unwrap_or(MAX_PAGE).max(1);
    let after: i64 = match call.parameter("last") {
        Some(last) => last.parse().unwrap_or(0),
        None => 0,
    };
    let page = call
        .registry
        .metadata
        .read(|db| page(db, name, digest, artifact_type.as_deref(), after, limit))?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(INDEX));
    if artifact_type.is_some() {
        headers.insert(FILTERS, HeaderValue::from_static("artifactType"));
    }
    if let Some(next) = page.next {
        let filter =
            artifact_type.map_or(String::new(), |t| format!("&artifactType={}", encode(&t)));
        let link =
            format!("</v2/{name}/referrers/{digest}?n={limit}&last={next}{filter}>; rel=\"next\"");
        headers.insert(LINK, value(link));
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": page.manifests});
    Ok((StatusCode::OK, headers, index.to_string()).into_response())
}

fn page(
    db: &Read<'_>,
    name: &RepositoryName,
    digest: &Digest,
    artifact_type: Option<&str>,
    after: i64,
    limit: u32,
) -> metadata::Result<Page> {
    let mut page = Page {
        manifests: Vec::new(),
        next: None,
    };
    let Some(repository) = db.repository(name)? else {
        return Ok(page);
    };
    let mut found = db.referrers(repository.id, digest, artifact_type, after, limit + 1)?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let mut bytes = 0;
    let mut last = after;
    let mut cut = more;
    for entry in &found {
        bytes += entry.annotations.as_ref().map_or(0, String::len) + 512;
        if bytes > PAGE_BYTES && !page.manifests.is_empty() {
            cut = true;
            break;
        }
        last = entry.position;
        page.manifests.push(descriptor(entry));
    }
    if cut {
        page.next = Some(last);
    } else {
        // On the last page, since it has to leave out what the pages before it told.
        fold_in_tag(db, name, digest, artifact_type, repository.id, &mut page)?;
    }
    Ok(page)
}

fn descriptor(entry: &Descriptor) -> Value {
    let mut descriptor = json!({
        "mediaType": entry.media_type, "digest": entry.digest, "size": entry.size,
    });
    if let Some(artifact_type) = &entry.artifact_type {
        descriptor["artifactType"] = json!(artifact_type);
    }
    let annotations = entry
        .annotations
        .as_deref()
        .and_then(|a| serde_json::from_str::<Value>(a).ok());
    if let Some(annotations) = annotations {
        descriptor["annotations"] = annotations;
    }
    descriptor
}

/// Adds what an index under the referrers tag (`sha256-HEX`) holds, is here, and does not name its subject by itself.
fn fold_in_tag(
    db: &Read<'_>,
    name: &RepositoryName,
    subject: &Digest,
    artifact_type: Option<&str>,
    repository: metadata::RepositoryId,
    page: &mut Page,
) -> metadata::Result<()> {
    let tag: String = format!("{}-{}", subject.algorithm().name(), subject.hex())
        .chars()
        .take(128)
        .collect();
    let Ok(tag) = tag.parse::<Tag>() else {
        return Ok(());
    };
    let Some(index) = db.manifest(name, &Reference::Tag(tag), true)? else {
        return Ok(());
    };
    let index: Value = serde_json::from_slice(&index.body).unwrap_or_default();
    let listed = index["manifests"].as_array().map_or(&[][..], Vec::as_slice);
    let mut told: HashSet<String> = HashSet::new();
    for entry in listed {
        if artifact_type.is_some_and(|t| entry["artifactType"] != t) {
            continue;
        }
        let Some(digest) = entry["digest"].as_str() else {
            continue;
        };
        let Ok(parsed) = digest.parse::<Digest>() else {
            continue;
        };
        let refers = db.refers_to(repository, &parsed, subject)?;
        // `None`: it is not here. `Some(true)`: some page tells it already.
        if refers == Some(false) && told.insert(digest.to_owned()) {
            page.manifests.push(entry.clone());
        }
    }
    Ok(())
}
