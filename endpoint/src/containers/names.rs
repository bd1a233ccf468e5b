//! Names and IDs of containers.

use crate::errors::{Error, Result};
use std::io;

/// Characters of the ID behind the container's name in the VM's name.
pub const SHORT_ID: usize = 12;
/// vSphere allows 80 characters for a VM's name; `-` and the short ID take 13.
pub const NAME_MAX: usize = 80 - SHORT_ID - 1;

/// Checks a name that a client chose; a leading `/` is taken off, as Docker does.
///
/// # Errors
/// 400 in Docker's words.
pub fn check(given: &str) -> Result<&str> {
    let name = given.strip_prefix('/').unwrap_or(given);
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if !first || !rest || name.len() < 2 {
        return Err(Error::bad(format!(
            "Invalid container name ({given}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )));
    }
    if name.len() > NAME_MAX {
        return Err(Error::bad(format!(
            "Invalid container name ({name}): it has {} characters, vSphere allows {NAME_MAX}",
            name.len()
        )));
    }
    Ok(name)
}

/// A new container or exec ID: 64 hex digits.
///
/// # Errors
/// Where the system gives no random bytes.
pub fn random_id() -> io::Result<String> {
    let mut bytes = [0u8; 32];
    loop {
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let id = hex::encode(bytes);
        // Docker avoids short IDs that read as a number: they could not be host names.
        if !id[..SHORT_ID].bytes().all(|b| b.is_ascii_digit()) {
            return Ok(id);
        }
    }
}

/// The VM's name of a container.
pub fn vm_name(name: &str, id: &str) -> String {
    format!("{name}-{}", &id[..SHORT_ID.min(id.len())])
}

/// The container's name out of its VM's name; where an administrator renamed the VM to something
/// else, the short ID stands in.
pub fn from_vm_name(vm: &str, id: &str) -> String {
    let short = &id[..SHORT_ID.min(id.len())];
    vm.strip_suffix(short)
        .and_then(|rest| rest.strip_suffix('-'))
        .and_then(|name| check(name).ok())
        .unwrap_or(short)
        .to_owned()
}

const LEFT: &[&str] = &[
    "amber", "bold", "brisk", "calm", "clear", "coral", "crisp", "deep", "eager", "early", "fair",
    "fleet", "free", "fresh", "gentle", "gilded", "glad", "grand", "hardy", "keen", "kind",
    "light", "lively", "lone", "loyal", "lucid", "mellow", "merry", "mild", "noble", "nimble",
    "open", "patient", "plain", "proud", "quick", "quiet", "ready", "ripe", "sharp", "silent",
    "silver", "slow", "smooth", "solid", "steady", "still", "swift", "tidy", "true", "vivid",
    "warm", "wide", "windy", "wise",
];
const RIGHT: &[&str] = &[
    "anchor", "bay", "beacon", "bell", "boat", "bow", "brig", "buoy", "canal", "cape", "cargo",
    "clipper", "coast", "compass", "cove", "crane", "current", "cutter", "deck", "dock", "dory",
    "ferry", "fjord", "frigate", "galley", "gull", "harbour", "haven", "heron", "hull", "island",
    "jetty", "keel", "ketch", "lagoon", "lantern", "mast", "pier", "pilot", "port", "quay", "raft",
    "reef", "rudder", "sail", "schooner", "shore", "skiff", "sloop", "sound", "strait", "tide",
    "tug", "wharf", "yawl",
];

/// A name out of random bytes, for a container without one; with a number from the second try on.
pub fn invent(random: [u8; 4], attempt: u32) -> String {
    let pick = |list: &[&'static str], high: u8, low: u8| {
        list[usize::from(u16::from_be_bytes([high, low])) % list.len()]
    };
    let base = format!(
        "{}_{}",
        pick(LEFT, random[0], random[1]),
        pick(RIGHT, random[2], random[3])
    );
    if attempt == 0 {
        base
    } else {
        format!("{base}{attempt}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_rule_and_vspheres_length() {
        for good in ["ab", "/web", "a.b_c-d", "0x"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "/", "_a", "-a", "a b", "a/b", "ä1"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check(&"x".repeat(NAME_MAX)).is_ok());
        assert!(check(&"x".repeat(NAME_MAX + 1)).is_err());
    }

    #[test]
    fn a_vm_name_gives_the_name_back() {
        let id = random_id().unwrap();
        assert_eq!(from_vm_name(&vm_name("a-b", &id), &id), "a-b");
        assert_eq!(from_vm_name("renamed by hand", &id), id[..12]);
        assert!(check(&invent([1, 2, 3, 4], 3)).is_ok());
    }
}
