//! The clock and the random pool, out of the configuration.

use crate::sys::fs::add_entropy;
use nix::time::{ClockId, clock_settime};
use std::os::fd::AsFd;
use wire::config::GuestConfig;

/// Sets the wall clock, if given and not past already, and credits the seed. (A VM that is reset finds the configuration
/// of its boot again, and has a clock that ran on.) What fails is told on the console only: a
/// container with the RTC's time and the kernel's own randomness still runs.
pub fn set(config: &GuestConfig) {
    if is_late(crate::io::now(), config.clock) {
        let time = std::time::Duration::from_nanos(config.clock);
        if let Err(e) = clock_settime(ClockId::CLOCK_REALTIME, time.into()) {
            crate::console(&format!("setting the clock: {e}"));
        }
    }
    if let Some(seed) = decode(&config.seed) {
        let credit = || {
            add_entropy(
                std::fs::File::options()
                    .write(true)
                    .open("/dev/urandom")?
                    .as_fd(),
                &seed,
            )
        };
        if let Err(e) = credit() {
            crate::console(&format!("seeding the random pool: {e}"));
        }
    }
}

/// Whether a clock is behind what it is told to be (ns; 0: told nothing).
fn is_late(own: u64, told: u64) -> bool {
    own < told
}

/// 32 bytes out of 64 hex digits.
fn decode(hex: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_set_forwards_only() {
        assert!(is_late(1, 2));
        assert!(!is_late(2, 1), "a VM that was reset");
        assert!(!is_late(2, 2) && !is_late(2, 0));
    }

    #[test]
    fn a_seed_is_64_hex_digits() {
        assert_eq!(decode(&"0f".repeat(32)), Some([15; 32]));
        assert_eq!(decode("0f"), None);
        assert_eq!(decode(&"zz".repeat(32)), None);
    }
}
