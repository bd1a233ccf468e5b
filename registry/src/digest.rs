//! Content digests (OCI image spec, descriptor.md, "Digests"), and hashers whose state can be kept across a crash.

use sha2::digest::common::hazmat::SerializableState;
use sha2::{Digest as _, Sha256, Sha512};
use std::fmt;
use std::str::FromStr;

/// Why a digest was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid digest: {0}")]
pub struct DigestError(&'static str);

/// A registered digest algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// `sha256`.
    Sha256,
    /// `sha512`.
    Sha512,
}

impl Algorithm {
    /// Its name in a digest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn hex_length(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(s: &str) -> Result<Self, DigestError> {
        match s {
            "sha256" => Ok(Algorithm::Sha256),
            "sha512" => Ok(Algorithm::Sha512),
            _ => Err(DigestError("the algorithm must be sha256 or sha512")),
        }
    }
}

/// `sha256:<64 hex>` or `sha512:<128 hex>`, lower case. Nothing else can be made, so it is safe as a file name's part.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    text: Box<str>,
}

impl Digest {
    /// The digest of bytes at hand.
    #[must_use]
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// `algorithm:hex`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The part after the colon.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.name().len() + 1..]
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(s: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = s
            .split_once(':')
            .ok_or(DigestError("it must be ALGORITHM:HEX"))?;
        let algorithm: Algorithm = algorithm.parse()?;
        if hex.len() != algorithm.hex_length() {
            return Err(DigestError(match algorithm {
                Algorithm::Sha256 => "sha256 has 64 hex digits",
                Algorithm::Sha512 => "sha512 has 128 hex digits",
            }));
        }
        if !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError("only 0-9 and a-f may follow the colon"));
        }
        Ok(Digest {
            algorithm,
            text: s.into(),
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A running hash. Its state can be written down and taken up again in another process.
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Sha512),
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({})", self.algorithm().name())
    }
}

impl Hasher {
    /// A hash over nothing so far.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }

    /// Which hash it is.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Hasher::Sha256(_) => Algorithm::Sha256,
            Hasher::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(h) => h.update(bytes),
            Hasher::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of all that was taken in.
    #[must_use]
    pub fn finish(self) -> Digest {
        let algorithm = self.algorithm();
        let hex = match self {
            Hasher::Sha256(h) => hex::encode(h.finalize()),
            Hasher::Sha512(h) => hex::encode(h.finalize()),
        };
        Digest {
            algorithm,
            text: format!("{}:{hex}", algorithm.name()).into(),
        }
    }

    /// The state as bytes (105 for SHA-256), for [`Hasher::restore`]. It tells what was hashed: keep it as safe as that.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        match self {
            Hasher::Sha256(h) => h.serialize().to_vec(),
            Hasher::Sha512(h) => h.serialize().to_vec(),
        }
    }

    /// A hash that goes on where [`Hasher::save`] was called.
    ///
    /// # Errors
    /// When the bytes are no state of this algorithm.
    pub fn restore(algorithm: Algorithm, state: &[u8]) -> Result<Self, DigestError> {
        const BAD: DigestError = DigestError("the saved hash state is damaged");
        Ok(match algorithm {
            Algorithm::Sha256 => {
                let state = state.try_into().map_err(|_| BAD)?;
                Hasher::Sha256(Sha256::deserialize(state).map_err(|_| BAD)?)
            }
            Algorithm::Sha512 => {
                let state = state.try_into().map_err(|_| BAD)?;
                Hasher::Sha512(Sha512::deserialize(state).map_err(|_| BAD)?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lower_case_digests_of_known_algorithms_are_taken() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(good.parse::<Digest>().unwrap().as_str(), good);
        assert_eq!(good.parse::<Digest>().unwrap().hex(), "0a".repeat(32));
        let good = format!("sha512:{}", "0a".repeat(64));
        assert!(good.parse::<Digest>().is_ok());
        for bad in [
            String::new(),
            "sha256".into(),
            "sha256:".into(),
            format!("sha256:{}", "0A".repeat(32)),
            format!("sha256:{}", "0a".repeat(31)),
            format!("sha256:../{}", "0".repeat(61)),
            format!("md5:{}", "0a".repeat(16)),
            format!("sha256:{}é", "0".repeat(62)),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_restored_hash_goes_on_where_it_was() {
        let bytes: Vec<u8> = (0..1000u32).map(|n| n as u8).collect();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for cut in [0, 1, 63, 64, 65, 127, 128, 500, 1000] {
                let mut h = Hasher::new(algorithm);
                h.update(&bytes[..cut]);
                let mut h = Hasher::restore(algorithm, &h.save()).unwrap();
                h.update(&bytes[cut..]);
                assert_eq!(h.finish(), Digest::of(algorithm, &bytes));
            }
            assert!(Hasher::restore(algorithm, b"short").is_err());
        }
    }
}
