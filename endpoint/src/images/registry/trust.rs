//! Signatures of images, as cosign makes them (sigstore's "cosign signature specification"): beside the image of digest
//! `sha256:X` the tag `sha256-X.sig` names a manifest whose layers are payloads, each with its signature in an annotation.

use super::{RegistryError, Repository};
use crate::images::manifest::{Document, parse};
use base64::{Engine, engine::general_purpose::STANDARD};
use layers::Digest;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::Deserialize;

/// The media type of a payload.
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation with the signature of a payload.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The type of a payload that signs an image.
const TYPE: &str = "cosign container image signature";
/// The largest payload that is read, in bytes.
const PAYLOAD_MAX: u64 = 64 << 10;
/// The most signatures of an image that are looked at.
const SIGNATURES_MAX: usize = 32;
/// What comes before the point in a `SubjectPublicKeyInfo` of the curve P-256 (RFC 5480), in DER.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A key that images may be signed with: ECDSA on P-256, as `cosign generate-key-pair` makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublicKey(Vec<u8>);

impl PublicKey {
    /// Reads keys out of PEM.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(pem: &[u8]) -> Result<Vec<Self>, String> {
        let mut keys = Vec::new();
        for item in rustls_pemfile::read_all(&mut &*pem) {
            let rustls_pemfile::Item::SubjectPublicKeyInfo(der) =
                item.map_err(|e| e.to_string())?
            else {
                continue;
            };
            match der.strip_prefix(&P256_PREFIX[..]) {
                Some(point) if point.len() == 65 && point[0] == 4 => {
                    keys.push(PublicKey(point.to_vec()));
                }
                _ => return Err("a key in it is not one of ECDSA on P-256".into()),
            }
        }
        if keys.is_empty() {
            return Err("there is no public key in it (-----BEGIN PUBLIC KEY-----)".into());
        }
        Ok(keys)
    }

    /// Whether a payload says that the image of a digest is signed, and the signature is this key's.
    pub fn signs(&self, image: &Digest, payload: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0);
        // What is in it counts only where it is signed.
        key.verify(payload, signature).is_ok() && says(payload) == Some(*image)
    }
}

/// The digest of the image that a payload is about.
fn says(payload: &[u8]) -> Option<Digest> {
    #[derive(Deserialize)]
    struct Payload {
        critical: Critical,
    }
    #[derive(Deserialize)]
    struct Critical {
        image: Image,
        #[serde(rename = "type")]
        kind: String,
    }
    #[derive(Deserialize)]
    struct Image {
        #[serde(rename = "docker-manifest-digest")]
        digest: Digest,
    }
    let payload: Payload = serde_json::from_slice(payload).ok()?;
    (payload.critical.kind == TYPE).then_some(payload.critical.image.digest)
}

impl Repository {
    /// Whether the image of a digest is signed with one of these keys.
    ///
    /// # Errors
    /// [`RegistryError`] where the registry does not say.
    pub(super) async fn is_signed(
        &self,
        image: &Digest,
        keys: &[PublicKey],
    ) -> Result<bool, RegistryError> {
        let tag = format!("sha256-{}.sig", image.hex());
        let manifest = match self.manifest(&tag, &tag).await {
            Ok(manifest) => manifest,
            Err(RegistryError::NotFound(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        let Ok(Document::Image(signatures)) = parse(&manifest.bytes) else {
            return Ok(false);
        };
        for layer in signatures.layers.iter().take(SIGNATURES_MAX) {
            let signature = layer
                .annotations
                .get(SIGNATURE)
                .and_then(|text| STANDARD.decode(text).ok());
            let (PAYLOAD, Some(signature)) = (layer.media_type.as_str(), signature) else {
                continue;
            };
            let payload = match self.small_blob(&layer.digest, PAYLOAD_MAX).await {
                Ok(payload) => payload,
                // One that is missing or damaged is none; there may be others.
                Err(error) if !error.is_passing() => continue,
                Err(error) => return Err(error),
            };
            if keys
                .iter()
                .any(|key| key.signs(image, &payload, &signature))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    fn pair() -> (EcdsaKeyPair, PublicKey) {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random)
                .unwrap();
        let public = PublicKey(pair.public_key().as_ref().to_vec());
        (pair, public)
    }

    fn payload(digest: &Digest, kind: &str) -> Vec<u8> {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"x"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{kind}"}},"optional":null}}"#
        )
        .into_bytes()
    }

    #[test]
    fn only_this_key_s_signature_of_this_image_counts() {
        let (pair, key) = pair();
        let (_, other) = self::pair();
        let image = Digest::of(b"image");
        let sign = |bytes: &[u8]| {
            let signature = pair.sign(&SystemRandom::new(), bytes).unwrap();
            signature.as_ref().to_vec()
        };
        let good = payload(&image, TYPE);
        assert!(key.signs(&image, &good, &sign(&good)));
        assert!(!other.signs(&image, &good, &sign(&good)));
        assert!(!key.signs(&Digest::of(b"another"), &good, &sign(&good)));
        let mut changed = good.clone();
        changed[3] ^= 1;
        assert!(!key.signs(&image, &changed, &sign(&good)));
        let kind = payload(&image, "something else");
        assert!(!key.signs(&image, &kind, &sign(&kind)));
        for nonsense in [&b""[..], b"{}", b"null", b"\xff"] {
            assert!(!key.signs(&image, nonsense, &sign(nonsense)));
        }
        assert!(!key.signs(&image, &good, b""));
    }

    #[test]
    fn keys_are_read_out_of_pem() {
        let (_, key) = pair();
        let pem = |der: &[u8]| {
            let text = STANDARD.encode(der);
            format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
        };
        let whole = [&P256_PREFIX[..], &key.0].concat();
        assert_eq!(PublicKey::read(pem(&whole).as_bytes()).unwrap(), [key]);
        for bad in [
            String::new(),
            "nonsense".into(),
            pem(&whole[..90]),
            pem(b"x"),
        ] {
            assert!(PublicKey::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
