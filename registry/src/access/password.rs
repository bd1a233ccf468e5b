//! Passwords: argon2id hashes in PHC form, and generated ones.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};

/// Shortest password that is taken.
pub const MIN_LENGTH: usize = 10;
/// Longest one: a longer one costs the hash without being safer.
pub const MAX_LENGTH: usize = 256;

/// Why a password was refused or could not be hashed.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too short or too long.
    #[error("a password has {MIN_LENGTH} to {MAX_LENGTH} bytes")]
    Length,
    /// No randomness, or no memory.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

/// Hashes a password for keeping. Takes tens of milliseconds and 19 MiB: on a blocking thread.
///
/// # Errors
/// When it is too short or too long, or the system has no randomness.
pub fn hash(password: &str) -> Result<String, PasswordError> {
    if !(MIN_LENGTH..=MAX_LENGTH).contains(&password.len()) {
        return Err(PasswordError::Length);
    }
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|e| PasswordError::Hash(e.to_string()))
}

/// Whether a password is the one that was hashed. As costly as [`hash`].
#[must_use]
pub fn verify(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| {
        Argon2::default()
            .verify_password(password.as_bytes(), &hash)
            .is_ok()
    })
}

/// A random password: 24 characters that are easy to copy, 139 bits.
///
/// # Errors
/// When the system has no randomness.
pub fn generate() -> Result<String, PasswordError> {
    const LETTERS: &[u8; 56] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ2345678";
    let mut password = String::new();
    while password.len() < 24 {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|e| PasswordError::Hash(e.to_string()))?;
        // 224 is a multiple of 56: no letter is likelier than another.
        let fair = random.iter().filter(|b| **b < 224);
        password.extend(fair.map(|b| char::from(LETTERS[usize::from(b % 56)])));
    }
    password.truncate(24);
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_that_was_hashed_is_verified() {
        let password = generate().unwrap();
        assert_eq!(password.len(), 24);
        let kept = hash(&password).unwrap();
        assert!(kept.starts_with("$argon2id$"));
        assert!(verify(&password, &kept));
        assert!(!verify("another password", &kept));
        assert!(!verify(&password, "not a hash"));
        assert!(hash("short").is_err());
        assert!(hash(&"x".repeat(MAX_LENGTH + 1)).is_err());
    }
}
