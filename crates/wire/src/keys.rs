//! Secrets of the link and the identity that they belong to.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroize;

/// A text that should be 64 hex digits is not.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{what} must be 64 hex digits, it has {len} characters or one that is no hex digit")]
pub struct BadHex {
    /// What the text was for.
    pub what: &'static str,
    /// How many bytes it has.
    pub len: usize,
}

/// 32 bytes of secret: the per-boot secret or the resume key. Wiped when dropped; never printed.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Key {
    /// A key of these bytes.
    pub fn new(bytes: [u8; 32]) -> Key {
        Key(bytes)
    }

    /// From 64 hex digits, as `LinkConfig::secret` and the VM key `mooring.link.resume` have it.
    pub fn from_hex(text: &str) -> Result<Key, BadHex> {
        hex32(text, "a link key").map(Key)
    }

    /// As 64 lower-case hex digits, for storing; the caller keeps it from logs.
    pub fn to_hex(&self) -> String {
        to_hex(&self.0)
    }

    /// A number that tells this key from others, and nothing else of it.
    pub fn fingerprint(&self) -> u64 {
        let bytes = self.derive(b"fingerprint", &[0; 32]).0;
        u64::from_le_bytes(*bytes.first_chunk().unwrap_or(&[0; 8]))
    }

    /// HMAC-SHA-256 under this key of a label and a transcript's hash.
    pub(crate) fn mac(&self, label: &[u8], transcript: &[u8; 32]) -> Hmac<Sha256> {
        #[allow(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes any key length");
        mac.update(label);
        mac.update(transcript);
        mac
    }

    /// A key derived from this one for the use that `label` names.
    pub(crate) fn derive(&self, label: &[u8], transcript: &[u8; 32]) -> Key {
        Key(self.mac(label, transcript).finalize().into_bytes().into())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        use subtle::ConstantTimeEq;
        self.0.ct_eq(&other.0).into()
    }
}
impl Eq for Key {}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Who a link belongs to: one boot of one container VM.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Container ID.
    pub container: [u8; 32],
    /// Number of the VM's boot, from 1.
    pub boot: u64,
}

impl Identity {
    /// From a container ID in hex (64 digits) and a boot number.
    pub fn new(container: &str, boot: u64) -> Result<Identity, BadHex> {
        Ok(Identity {
            container: hex32(container, "a container ID")?,
            boot,
        })
    }

    /// The container ID as 64 lower-case hex digits.
    pub fn container_hex(&self) -> String {
        to_hex(&self.container)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({} boot {})", self.container_hex(), self.boot)
    }
}

/// SHA-256 over parts, each preceded by its length, so that no two lists of parts hash alike.
pub(crate) fn transcript(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn hex32(text: &str, what: &'static str) -> Result<[u8; 32], BadHex> {
    let bad = BadHex {
        what,
        len: text.len(),
    };
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return Err(bad);
    }
    let mut out = [0u8; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => *byte = high << 4 | low,
            _ => return Err(bad),
        }
    }
    Ok(out)
}

fn digit(c: u8) -> Option<u8> {
    (c as char).to_digit(16).map(|d| d as u8)
}

fn to_hex(bytes: &[u8; 32]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways_and_bad_hex_is_refused() {
        let text = "00ff10a5".repeat(8);
        assert_eq!(Key::from_hex(&text).unwrap().to_hex(), text);
        assert_eq!(Identity::new(&text, 3).unwrap().container_hex(), text);
        assert!(Key::from_hex(&text[1..]).is_err());
        assert!(Key::from_hex(&text.replace('f', "g")).is_err());
        assert!(Key::from_hex(&"é".repeat(32)).is_err());
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = Key::new([0xab; 32]);
        assert!(!format!("{key:?}").contains("ab"));
    }

    #[test]
    fn parts_of_a_transcript_cannot_be_moved() {
        assert_ne!(transcript(&[b"ab", b"c"]), transcript(&[b"a", b"bc"]));
    }
}
