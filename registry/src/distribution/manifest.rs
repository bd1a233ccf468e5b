//! What a manifest refers to. The bytes are kept as they came; only what the registry acts on is parsed.

use super::error::{Code, Failure};
use crate::digest::Digest;
use crate::metadata::NewManifest;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Largest manifest, bytes: the least that the spec lets a registry take.
pub(super) const MAX_MANIFEST: usize = 4 << 20;
/// Most references of one manifest.
const MAX_REFERENCES: usize = 10_000;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    urls: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(Code::ManifestInvalid, message)
}

/// Parses a manifest that is pushed as `content_type`.
pub(crate) fn parse(
    body: Vec<u8>,
    content_type: Option<&str>,
    digest: Digest,
) -> Result<NewManifest, Failure> {
    let document: Document = serde_json::from_slice(&body)
        .map_err(|e| invalid(format!("the manifest cannot be read: {e}")))?;
    if document.schema_version != 2 {
        return Err(invalid(format!(
            "schemaVersion is {}, only 2 is taken",
            document.schema_version
        )));
    }
    let media_type = media_type(&document, content_type)?;
    let is_index = match media_type.as_str() {
        OCI_MANIFEST | DOCKER_MANIFEST => false,
        OCI_INDEX | DOCKER_LIST => true,
        other => {
            return Err(invalid(format!(
                "media type {other} is not one of {OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, {DOCKER_LIST}"
            )));
        }
    };
    let count = document.layers.as_ref().map_or(0, Vec::len)
        + document.manifests.as_ref().map_or(0, Vec::len);
    if count > MAX_REFERENCES {
        return Err(invalid(format!(
            "the manifest has {count} references, {MAX_REFERENCES} are taken"
        )));
    }
    let mut new = NewManifest {
        digest,
        media_type,
        body,
        subject: None,
        artifact_type: document.artifact_type.filter(|t| !t.is_empty()),
        annotations: None,
        blobs: Vec::new(),
        optional_blobs: Vec::new(),
        children: Vec::new(),
    };
    if is_index {
        let Some(manifests) = document.manifests else {
            return Err(invalid("an index has a list of manifests"));
        };
        if document.config.is_some() || document.layers.is_some() {
            return Err(invalid("an index has neither config nor layers"));
        }
        for child in &manifests {
            new.children.push(reference(child)?);
        }
    } else {
        let (Some(config), Some(layers)) = (&document.config, &document.layers) else {
            return Err(invalid(
                "an image manifest has a config and a list of layers",
            ));
        };
        if document.manifests.is_some() {
            return Err(invalid("an image manifest has no list of manifests"));
        }
        if new.artifact_type.is_none() {
            new.artifact_type = Some(config.media_type.clone()).filter(|t| !t.is_empty());
        }
        new.blobs.push(reference(config)?);
        for layer in layers {
            // Layers that may not be distributed, and those that are fetched from elsewhere, need not be here.
            let foreign = !layer.urls.is_empty()
                || layer.media_type.contains(".nondistributable.")
                || layer.media_type.contains(".foreign.");
            let list = if foreign {
                &mut new.optional_blobs
            } else {
                &mut new.blobs
            };
            list.push(reference(layer)?);
        }
    }
    new.subject = document.subject.as_ref().map(reference).transpose()?;
    if let Some(annotations) = document.annotations.filter(|a| !a.is_empty()) {
        new.annotations = serde_json::to_string(&annotations).ok();
    }
    Ok(new)
}

/// The type it is pushed as; what the document says of itself must be the same.
fn media_type(document: &Document, content_type: Option<&str>) -> Result<String, Failure> {
    let pushed = content_type
        .map(|t| t.split_once(';').map_or(t, |(t, _)| t).trim())
        .filter(|t| !t.is_empty() && *t != "application/json");
    match (pushed, document.media_type.as_deref()) {
        (Some(pushed), Some(own)) if pushed != own => Err(invalid(format!(
            "it is pushed as {pushed}, but says that it is {own}"
        ))),
        (Some(pushed), _) => Ok(pushed.to_owned()),
        (None, Some(own)) => Ok(own.to_owned()),
        (None, None) if document.manifests.is_some() => Ok(OCI_INDEX.to_owned()),
        (None, None) => Ok(OCI_MANIFEST.to_owned()),
    }
}

fn reference(descriptor: &Descriptor) -> Result<Digest, Failure> {
    if i64::try_from(descriptor.size).is_err() {
        return Err(invalid(format!("{} bytes are no size", descriptor.size)));
    }
    descriptor.digest.parse().map_err(|e| {
        invalid(format!(
            "{}: {e}",
            descriptor.digest.chars().take(200).collect::<String>()
        ))
    })
}
