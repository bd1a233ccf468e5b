//! Versions of the protocol between tether and endpoint.

/// A version of everything in this crate that crosses the link. Each variant says what it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Version {
    /// The first: frames with u32 length, handshake with HMAC-SHA-256 over the transcript,
    /// postcard messages, streams with credit.
    V1 = 1,
}

impl Version {
    /// The lowest version that this build speaks.
    pub const MIN: Version = Version::V1;
    /// The highest version that this build speaks.
    pub const MAX: Version = Version::V1;

    /// The version of this number, if this build knows it.
    pub fn from_number(number: u16) -> Option<Version> {
        match number {
            1 => Some(Version::V1),
            _ => None,
        }
    }

    /// The number that stands for it in the handshake.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The highest version that this build and a peer that speaks `min..=max` have in common.
    pub fn negotiate(min: u16, max: u16) -> Option<Version> {
        let highest = max.min(Version::MAX.number());
        let lowest = min.max(Version::MIN.number());
        (lowest..=highest).rev().find_map(Version::from_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_common_version_is_taken() {
        assert_eq!(Version::negotiate(0, 9), Some(Version::V1));
        assert_eq!(Version::negotiate(1, 1), Some(Version::V1));
        assert_eq!(Version::negotiate(2, 9), None);
        assert_eq!(Version::negotiate(9, 1), None);
        assert_eq!(Version::negotiate(0, 0), None);
    }
}
