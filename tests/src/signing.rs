//! Signatures of images as cosign puts them into registries, made with a key of the test's own.

use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use layers::Digest;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// What comes before the point in a public key on P-256, in DER (RFC 5480).
const PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A key that signs images.
#[derive(Debug)]
pub struct Signer {
    key: EcdsaKeyPair,
}

impl Signer {
    /// A new key.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new() -> Result<Self> {
        let random = SystemRandom::new();
        let failed = |_| anyhow!("a key cannot be made");
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            .map_err(failed)?;
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random)
                .map_err(|e| anyhow!("{e}"))?;
        Ok(Signer { key })
    }

    /// Its public key in PEM.
    pub fn public(&self) -> String {
        let der = [PREFIX, self.key.public_key().as_ref()].concat();
        let text = STANDARD.encode(der);
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    }

    /// Signs the image of a digest in a repository (`host:port/path`) without TLS.
    ///
    /// # Errors
    /// When skopeo cannot push the signature.
    pub fn sign(&self, repository: &str, image: &str) -> Result<()> {
        let payload = json!({
            "critical": {
                "identity": { "docker-reference": repository },
                "image": { "docker-manifest-digest": image },
                "type": "cosign container image signature",
            },
            "optional": null,
        })
        .to_string();
        let signature = self
            .key
            .sign(&SystemRandom::new(), payload.as_bytes())
            .map_err(|_| anyhow!("the payload cannot be signed"))?;
        let folder = tempfile::tempdir()?;
        let blobs = folder.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs)?;
        let put = |bytes: &[u8]| -> Result<(String, usize)> {
            let digest = Digest::of(bytes);
            std::fs::write(blobs.join(digest.hex()), bytes)?;
            Ok((digest.to_string(), bytes.len()))
        };
        let (layer, layer_size) = put(payload.as_bytes())?;
        let config = json!({
            "architecture": "", "os": "", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [layer] },
        });
        let (config, config_size) = put(config.to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config, "size": config_size,
            },
            "layers": [{
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "digest": layer, "size": layer_size,
                "annotations": {
                    "dev.cosignproject.cosign/signature": STANDARD.encode(signature.as_ref()),
                },
            }],
        });
        let (manifest, manifest_size) = put(manifest.to_string().as_bytes())?;
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": manifest, "size": manifest_size,
                "annotations": { "org.opencontainers.image.ref.name": "s" },
            }],
        });
        std::fs::write(folder.path().join("index.json"), index.to_string())?;
        std::fs::write(
            folder.path().join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )?;
        push(folder.path(), repository, image)
    }
}

fn push(layout: &Path, repository: &str, image: &str) -> Result<()> {
    let hex = image.strip_prefix("sha256:").context("a digest")?;
    let mut c = Command::new("skopeo");
    c.args(["copy", "-q", "--insecure-policy", "--preserve-digests"]);
    c.arg("--dest-tls-verify=false");
    c.arg(format!("oci:{}:s", layout.display()));
    c.arg(format!("docker://{repository}:sha256-{hex}.sig"));
    crate::command::run(c, b"", crate::command::DEADLINE)?.ok()?;
    Ok(())
}
