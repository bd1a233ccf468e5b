//! Manifests, indexes and configurations (OCI image-spec 1.1; Docker image manifest version 2, schema 2), bounded.

use layers::Digest;
use serde::Deserialize;
use serde_json::Value;

/// The largest manifest or index that is read, in bytes (the distribution specification asks for 4 MiB at least).
pub const MANIFEST_MAX: u64 = 4 << 20;
/// The largest configuration that is read, in bytes.
pub const CONFIG_MAX: u64 = 8 << 20;
/// The most layers of one image; the GPT has 256 entries, two of which are the container's.
pub const LAYERS_MAX: usize = 250;

/// What is asked for, in a request's `Accept`.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Media type of OCI's index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of OCI's manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of OCI's configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Media types of layers, OCI's and Docker's. How a layer is compressed its bytes tell, not its type: dockerd goes by
/// them, and there are images whose types are wrong.
const LAYERS: [&str; 11] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// A manifest that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not what the specification says.
    #[error("the {what} is malformed: {reason}")]
    Malformed {
        /// `manifest`, `index`, `configuration`.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Nothing for this platform.
    #[error("no matching manifest for {wanted} in the manifest list entries (it has {offered})")]
    Platform {
        /// The platform asked for.
        wanted: String,
        /// Those that there are.
        offered: String,
    },
    /// An artifact that is no image.
    #[error("this is not a container image but an artifact of type {0:?}; only images can be run")]
    Artifact(String),
    /// An image of another platform.
    #[error(
        "image with reference {reference} was found but its platform ({is}) does not match the specified platform ({wanted})"
    )]
    OtherPlatform {
        /// The reference.
        reference: String,
        /// Its platform.
        is: String,
        /// The platform asked for.
        wanted: String,
    },
    /// More layers than a disk has partitions for.
    #[error("the image has {0} layers; {LAYERS_MAX} are supported")]
    TooManyLayers(usize),
}

/// A content descriptor (image-spec, "Descriptors").
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// For which platform, in an index.
    pub platform: Option<Platform>,
    /// What sort of artifact, in an index.
    pub artifact_type: Option<String>,
    /// What else is said of it.
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// A platform, as `os/architecture[/variant]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `v8`.
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of our VMs.
    pub fn ours() -> Self {
        Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
            variant: None,
        }
    }

    /// Parses `--platform`: `os`, `architecture`, `os/architecture` or `os/architecture/variant`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/').map(|p| p.to_ascii_lowercase());
        let first = parts.next().filter(|p| !p.is_empty())?;
        let rest: Vec<String> = parts.collect();
        let valid = |p: &str| {
            !p.is_empty()
                && p.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if !valid(&first) || !rest.iter().all(|p| valid(p)) {
            return None;
        }
        let architecture = |a: &str| match a {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            other => other.to_owned(),
        };
        match rest.as_slice() {
            [] if first == "linux" => Some(Platform::ours()),
            [] => Some(Platform {
                os: "linux".into(),
                architecture: architecture(&first),
                variant: None,
            }),
            [a] => Some(Platform {
                os: first,
                architecture: architecture(a),
                variant: None,
            }),
            [a, v] => Some(Platform {
                os: first,
                architecture: architecture(a),
                variant: Some(v.clone()),
            }),
            _ => None,
        }
    }

    /// Whether an image for `other` will do where this one is asked for.
    pub fn takes(&self, other: &Platform) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || self.variant == other.variant)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|v| write!(f, "/{v}"))
    }
}

/// What a registry gave for a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "there are few at a time, and not for long"
)]
pub enum Document {
    /// A list of manifests.
    Index(Vec<Descriptor>),
    /// One image.
    Image(ImageManifest),
}

/// The manifest of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageManifest {
    /// Its own media type, where it says so.
    pub media_type: Option<String>,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
}

fn malformed(what: &'static str, reason: impl ToString) -> ManifestError {
    ManifestError::Malformed {
        what,
        reason: reason.to_string(),
    }
}

/// Parses a manifest or an index.
///
/// # Errors
/// [`ManifestError`].
pub fn parse(bytes: &[u8]) -> Result<Document, ManifestError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        schema_version: Option<u32>,
        media_type: Option<String>,
        artifact_type: Option<String>,
        config: Option<Descriptor>,
        layers: Option<Vec<Descriptor>>,
        manifests: Option<Vec<Descriptor>>,
    }
    let raw: Raw = serde_json::from_slice(bytes).map_err(|e| malformed("manifest", e))?;
    if raw.schema_version != Some(2) {
        return Err(malformed(
            "manifest",
            "its schema version is not 2 (schema 1 has been obsolete since 2017: push the image again)",
        ));
    }
    // One document that could be read as either is an attack on those who check only one of them (CVE-2021-41190).
    match (raw.config, raw.layers, raw.manifests) {
        (None, None, Some(manifests)) => Ok(Document::Index(manifests)),
        (Some(config), layers, None) => {
            let kind = config.media_type.as_str();
            if !kind.is_empty() && kind != OCI_CONFIG && kind != DOCKER_CONFIG {
                return Err(ManifestError::Artifact(
                    raw.artifact_type.unwrap_or_else(|| kind.to_owned()),
                ));
            }
            let layers = layers.unwrap_or_default();
            if layers.len() > LAYERS_MAX {
                return Err(ManifestError::TooManyLayers(layers.len()));
            }
            Ok(Document::Image(ImageManifest {
                media_type: raw.media_type,
                config,
                layers,
            }))
        }
        _ => Err(malformed(
            "manifest",
            format!(
                "it is neither an image nor an index ({})",
                raw.media_type.unwrap_or_default()
            ),
        )),
    }
}

/// Refuses an image with a layer that is known to be something else than a tar of files.
///
/// # Errors
/// [`ManifestError::Artifact`] with its type.
pub fn check_layers(image: &ImageManifest) -> Result<(), ManifestError> {
    let wrong = image
        .layers
        .iter()
        .find(|l| !l.media_type.is_empty() && !LAYERS.contains(&l.media_type.as_str()));
    match wrong {
        Some(layer) => Err(ManifestError::Artifact(layer.media_type.clone())),
        None => Ok(()),
    }
}

/// The entry of an index for a platform.
///
/// # Errors
/// [`ManifestError::Platform`] names those that there are.
pub fn choose<'a>(
    index: &'a [Descriptor],
    wanted: &Platform,
) -> Result<&'a Descriptor, ManifestError> {
    let images = || index.iter().filter(|d| d.artifact_type.is_none());
    images()
        .find(|d| d.platform.as_ref().is_some_and(|p| wanted.takes(p)))
        // An index of one image without a platform means that image; its configuration is checked later.
        .or_else(|| images().find(|d| d.platform.is_none() && index.len() == 1))
        .ok_or_else(|| {
            let mut offered: Vec<_> = index
                .iter()
                .filter_map(|d| d.platform.as_ref())
                .map(ToString::to_string)
                .take(20)
                .collect();
            offered.dedup();
            let offered = if offered.is_empty() {
                "none with a platform".to_owned()
            } else {
                offered.join(", ")
            };
            ManifestError::Platform {
                wanted: wanted.to_string(),
                offered,
            }
        })
}

/// An image's configuration, with what is read of it checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The whole of it.
    pub json: Value,
    /// Diff IDs of the layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// Its platform.
    pub platform: Platform,
}

/// Parses a configuration.
///
/// # Errors
/// [`ManifestError`].
pub fn config(bytes: &[u8]) -> Result<Config, ManifestError> {
    let json: Value = serde_json::from_slice(bytes).map_err(|e| malformed("configuration", e))?;
    let text = |name: &str| {
        json.get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (os, architecture) = (text("os"), text("architecture"));
    if os.is_empty() || architecture.is_empty() {
        return Err(malformed("configuration", "os or architecture is missing"));
    }
    let list = json
        .pointer("/rootfs/diff_ids")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if list.len() > LAYERS_MAX {
        return Err(ManifestError::TooManyLayers(list.len()));
    }
    let diff_ids = list
        .into_iter()
        .map(|d| serde_json::from_value(d).map_err(|e| malformed("configuration", e)))
        .collect::<Result<Vec<Digest>, _>>()?;
    let variant = Some(text("variant")).filter(|v| !v.is_empty());
    Ok(Config {
        json,
        diff_ids,
        platform: Platform {
            os,
            architecture,
            variant,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn descriptor(extra: &str) -> String {
        format!(r#"{{"digest":"{D}","size":3{extra}}}"#)
    }

    #[test]
    fn an_index_gives_the_entry_of_the_platform_and_skips_attestations() {
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{}]}}"#,
            descriptor(r#","platform":{"os":"unknown","architecture":"unknown"}"#),
            descriptor(r#","platform":{"os":"linux","architecture":"arm64","variant":"v8"}"#),
            descriptor(r#","platform":{"os":"linux","architecture":"amd64"}"#),
        );
        let Document::Index(index) = parse(text.as_bytes()).unwrap() else {
            panic!("no index")
        };
        assert_eq!(
            choose(&index, &Platform::ours()).unwrap().platform,
            Some(Platform::ours())
        );
        assert!(choose(&index, &Platform::parse("linux/arm64").unwrap()).is_ok());
        assert!(choose(&index, &Platform::parse("linux/arm64/v7").unwrap()).is_err());
        let error = choose(&index, &Platform::parse("linux/s390x").unwrap())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("linux/s390x") && error.contains("linux/amd64"),
            "{error}"
        );
    }

    #[test]
    fn what_is_image_and_index_at_once_is_refused() {
        let text = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}}"#,
            descriptor("")
        );
        assert!(parse(text.as_bytes()).is_err());
    }

    #[test]
    fn an_artifact_is_refused_by_its_type() {
        let config = descriptor(r#","mediaType":"application/vnd.cncf.helm.config.v1+json""#);
        let error =
            parse(format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#).as_bytes())
                .unwrap_err();
        assert!(error.to_string().contains("helm"), "{error}");
    }

    #[test]
    fn an_artifact_is_refused_by_its_layers() {
        let image = |kind: &str| {
            let config = descriptor(r#","mediaType":"application/vnd.oci.image.config.v1+json""#);
            let layer = descriptor(&format!(r#","mediaType":"{kind}""#));
            let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]}}"#);
            match parse(text.as_bytes()).unwrap() {
                Document::Image(image) => check_layers(&image),
                Document::Index(_) => panic!("no image"),
            }
        };
        assert_eq!(image(""), Ok(()));
        for kind in [
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.diff.tar.zstd",
        ] {
            assert_eq!(image(kind), Ok(()), "{kind}");
        }
        for kind in [
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "application/vnd.dev.cosign.simplesigning.v1+json",
            "application/wasm",
        ] {
            assert_eq!(image(kind), Err(ManifestError::Artifact(kind.to_owned())));
        }
    }

    #[test]
    fn schema_1_and_nonsense_are_refused() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"schemaVersion":1,"fsLayers":[]}"#,
            r#"{"schemaVersion":2}"#,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(config(b"{}").is_err());
        assert!(
            config(br#"{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["x"]}}"#)
                .is_err()
        );
    }

    #[test]
    fn platforms_are_read_as_docker_reads_them() {
        for (text, shown) in [
            ("linux/amd64", "linux/amd64"),
            ("linux", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm/v7", "linux/arm/v7"),
        ] {
            assert_eq!(Platform::parse(text).unwrap().to_string(), shown);
        }
        for text in ["", "/", "linux/", "a/b/c/d", "li nux/amd64"] {
            assert!(Platform::parse(text).is_none(), "{text}");
        }
    }
}
