//! The VM keys of a container (docs/decisions/0001, "VM keys").

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use wire::{
    handshake::{KeyState, NewSession},
    keys::Key,
};

/// ID of the VCH.
pub const VCH: &str = "mooring.vch";
/// ID of the container.
pub const ID: &str = "mooring.id";
/// [`crate::containers::state::Record`] as JSON.
pub const STATE: &str = "mooring.state";
/// The link's resumption: `boot:session:key`.
pub const RESUME: &str = "mooring.link.resume";
/// The secret of the next boot or the present one, and where its tether dials: JSON.
pub const PREPARED: &str = "mooring.link.prepared";
/// The ports that the present boot has published, JSON; counts while the VM is on.
pub const PORTS: &str = "mooring.ports";
/// [`crate::containers::state::Changes`] as JSON; absent where nothing was changed.
pub const CHANGES: &str = "mooring.changes";
/// Set while the VM is, or is about to be, up for the container's files only.
pub const MAINTENANCE: &str = "mooring.maintenance";
/// Set once the removal has begun.
pub const REMOVING: &str = "mooring.removing";
const SPEC: &str = "mooring.spec";
/// Bytes of one chunk.
const CHUNK: usize = 48 * 1024;
/// Bytes of all chunks.
const MAX: usize = 512 * 1024;

/// Why keys could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A key that must be there.
    #[error("VM key {0} is missing")]
    Missing(String),
    /// A key with a value that cannot be read.
    #[error("VM key {key}: {reason}")]
    Invalid {
        /// Which.
        key: String,
        /// Why not.
        reason: String,
    },
    /// Too large for extraConfig.
    #[error(
        "the container's configuration takes {0} bytes, more than the {MAX} that fit into the VM's keys; use fewer or shorter labels, arguments and environment variables"
    )]
    TooLarge(usize),
}

/// Keys and values of one VM.
pub type Keys = BTreeMap<String, String>;

/// Whether the removal of this VM has begun.
pub fn removing(keys: &Keys) -> bool {
    keys.get(REMOVING).is_some_and(|value| !value.is_empty())
}

/// Puts a value into `mooring.spec.N`.
///
/// # Errors
/// Where it is too large.
pub fn put_spec(keys: &mut Keys, spec: &impl Serialize) -> Result<(), KeyError> {
    let json = serde_json::to_vec(spec).map_err(|e| KeyError::Invalid {
        key: SPEC.to_owned(),
        reason: e.to_string(),
    })?;
    let text = STANDARD.encode(json);
    if text.len() > MAX {
        return Err(KeyError::TooLarge(text.len()));
    }
    let mut count = 0;
    for chunk in text.as_bytes().chunks(CHUNK) {
        // Base64 is ASCII.
        let chunk = String::from_utf8_lossy(chunk).into_owned();
        keys.insert(format!("{SPEC}.{count}"), chunk);
        count += 1;
    }
    keys.insert(format!("{SPEC}.chunks"), count.to_string());
    Ok(())
}

/// Reads `mooring.spec.N`.
///
/// # Errors
/// Where a chunk is missing or the whole is not what it should be.
pub fn spec<T: DeserializeOwned>(keys: &Keys) -> Result<T, KeyError> {
    let get = |key: String| keys.get(&key).ok_or(KeyError::Missing(key));
    let invalid = |reason: String| KeyError::Invalid {
        key: SPEC.to_owned(),
        reason,
    };
    let count: usize = get(format!("{SPEC}.chunks"))?
        .parse()
        .ok()
        .filter(|count| *count <= MAX / CHUNK + 1)
        .ok_or_else(|| invalid("its number of chunks is none".to_owned()))?;
    let mut text = String::new();
    for n in 0..count {
        text.push_str(get(format!("{SPEC}.{n}"))?);
    }
    let json = STANDARD.decode(text).map_err(|e| invalid(e.to_string()))?;
    serde_json::from_slice(&json).map_err(|e| invalid(e.to_string()))
}

/// A key with a JSON value; `None` where it is not set.
///
/// # Errors
/// Where it is not what it should be.
pub fn json<T: DeserializeOwned>(keys: &Keys, key: &str) -> Result<Option<T>, KeyError> {
    keys.get(key)
        .filter(|text| !text.is_empty())
        .map(|text| {
            serde_json::from_str(text).map_err(|e| KeyError::Invalid {
                key: key.to_owned(),
                reason: e.to_string(),
            })
        })
        .transpose()
}

/// The value of [`RESUME`] for a session.
pub fn resume_text(session: &NewSession) -> String {
    format!(
        "{}:{}:{}",
        session.identity.boot,
        session.session,
        session.key.to_hex()
    )
}

/// The link's state out of [`RESUME`], if it is of this boot.
pub fn resume(keys: &Keys, boot: u64) -> Option<KeyState> {
    let mut parts = keys.get(RESUME)?.splitn(3, ':');
    let of: u64 = parts.next()?.parse().ok()?;
    let session = parts.next()?.parse().ok()?;
    let key = Key::from_hex(parts.next()?).ok()?;
    (of == boot).then_some(KeyState::Resume { key, session })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::keys::Identity;

    #[test]
    fn a_spec_survives_its_chunks_and_a_missing_one_is_named() {
        let spec_value: Vec<String> = (0..5000).map(|i| format!("label number {i}")).collect();
        let mut keys = Keys::new();
        put_spec(&mut keys, &spec_value).unwrap();
        assert!(keys.len() > 2);
        assert_eq!(spec::<Vec<String>>(&keys).unwrap(), spec_value);
        keys.remove("mooring.spec.1");
        let error = spec::<Vec<String>>(&keys).unwrap_err();
        assert_eq!(error.to_string(), "VM key mooring.spec.1 is missing");
        let large = "x".repeat(MAX);
        assert!(put_spec(&mut Keys::new(), &large).is_err());
    }

    #[test]
    fn a_resume_key_is_of_one_boot() {
        let identity = Identity::new(&"ab".repeat(32), 3).unwrap();
        let session = NewSession {
            identity,
            key: Key::new([7; 32]),
            session: 2,
        };
        let keys = Keys::from([(RESUME.to_owned(), resume_text(&session))]);
        assert_eq!(resume(&keys, 3), Some(KeyState::after(&session)));
        assert_eq!(resume(&keys, 4), None);
    }
}
