//! Passwords: argon2id hashes in PHC form, and generated ones.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordHasher, PasswordVerifier};

/// Shortest password that is taken.
pub const MIN_LENGTH: usize = 10;
/// Longest one: a longer one costs the hash without being safer.
pub const MAX_LENGTH: usize = 256;

/// Least different characters in one.
const MIN_VARIETY: usize = 5;
/// Least bytes beside a word that is guessed first.
const MIN_BESIDE: usize = 6;
/// What is tried first by who guesses, as far as it is long enough.
const COMMON: &[&str] = &[
    "password",
    "passw0rd",
    "1234567890",
    "0123456789",
    "qwertyuiop",
    "letmein",
    "iloveyou",
    "changeme",
    "welcome",
    "administrator",
    "abcdefghij",
];

/// Why a password was refused or could not be hashed.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too short or too long.
    #[error("a password has {MIN_LENGTH} to {MAX_LENGTH} bytes")]
    Length,
    /// The same few characters again and again.
    #[error("the password has to have at least {MIN_VARIETY} different characters")]
    Variety,
    /// The user's name, or what everybody takes.
    #[error("the password must not contain the user's name, nor be made of what is guessed first")]
    Guessable,
    /// No randomness, or no memory.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

/// Whether a user may take this password.
///
/// # Errors
/// Which rule it breaks.
pub fn check(user: &str, password: &str) -> Result<(), PasswordError> {
    if !(MIN_LENGTH..=MAX_LENGTH).contains(&password.len()) {
        return Err(PasswordError::Length);
    }
    let mut different: Vec<char> = password.chars().collect();
    different.sort_unstable();
    different.dedup();
    if different.len() < MIN_VARIETY {
        return Err(PasswordError::Variety);
    }
    let lower = password.to_lowercase();
    let weak = |word: &str| lower.contains(word) && lower.len() - word.len() < MIN_BESIDE;
    if user.len() >= 3 && lower.contains(&user.to_lowercase()) || COMMON.iter().any(|w| weak(w)) {
        return Err(PasswordError::Guessable);
    }
    Ok(())
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

/// Whether a text is a hash as [`hash`] makes it, and checking a password against it costs no more than against ours.
#[must_use]
pub fn is_hash(text: &str) -> bool {
    // As PHC strings are bounded.
    if text.len() > 512 {
        return false;
    }
    let Ok(hash) = PasswordHash::new(text) else {
        return false;
    };
    let cheap = Params::try_from(&hash).is_ok_and(|params| {
        let most = Params::default();
        params.m_cost() <= most.m_cost()
            && params.t_cost() <= most.t_cost()
            && params.p_cost() <= most.p_cost()
    });
    cheap && hash.algorithm.as_str() == "argon2id" && hash.salt.is_some() && hash.hash.is_some()
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
        check("admin", &password).unwrap();
        for (user, bad) in [
            ("somebody", "short"),
            ("somebody", "aaaaaaaaaaaa"),
            ("somebody", "Passw0rd!!"),
            ("somebody", "i am Somebody else"),
        ] {
            assert!(check(user, bad).is_err(), "{bad}");
        }
        assert!(is_hash(&kept));
        for (from, to) in [
            ("argon2id", "argon2d"),
            ("m=19456", "m=4000000"),
            ("t=2", "t=100000"),
        ] {
            assert!(kept.contains(from), "{kept}");
            assert!(!is_hash(&kept.replace(from, to)), "{to}");
        }
        assert!(!is_hash("") && !is_hash("$argon2id$v=19$m=19456,t=2,p=1"));
        check("al", "always all right").unwrap();
        assert!(hash("short").is_err());
        assert!(hash(&"x".repeat(MAX_LENGTH + 1)).is_err());
    }
}
