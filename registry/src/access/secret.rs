//! Random secrets that nobody has to remember: of robots, refresh tokens and token keys. They have 256 bits, so that a
//! plain hash keeps them.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A secret as it is given out: `PREFIX` and 64 hexadecimal digits.
///
/// # Errors
/// When the system has no randomness.
pub fn generate(prefix: &str) -> Result<String, getrandom::Error> {
    Ok(format!("{prefix}{}", hex::encode(random()?)))
}

/// 32 random bytes.
///
/// # Errors
/// When the system has no randomness.
pub fn random() -> Result<[u8; 32], getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// What is kept of a secret.
#[must_use]
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Whether this is the secret that was kept, in a time that does not tell how much of it is right.
#[must_use]
pub fn verify(secret: &str, kept: &[u8]) -> bool {
    hash(secret).ct_eq(kept).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_that_was_kept_is_verified() {
        let secret = generate("robot_").unwrap();
        assert_eq!(secret.len(), 6 + 64);
        assert!(verify(&secret, &hash(&secret)));
        assert!(!verify(&secret[1..], &hash(&secret)));
        assert!(!verify(&secret, b""));
    }
}
