//! Faults on a serial line, for tests: seeded, so that a run can be had again.

use crate::vmx::spec::SerialFaults;

/// What happens to the bytes of one direction.
#[derive(Debug)]
pub(super) struct Line {
    faults: SerialFaults,
    state: u64,
}

impl Line {
    /// A line; the two directions of one port differ in `direction`.
    pub(super) fn new(faults: SerialFaults, direction: u64) -> Line {
        Line {
            faults,
            state: faults.seed ^ direction.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        }
    }

    /// Append `bytes` to `to` as they come out of the line.
    pub(super) fn carry(&mut self, bytes: &[u8], to: &mut impl Extend<u8>) {
        let SerialFaults { corrupt, drop, .. } = self.faults;
        if corrupt == 0 && drop == 0 {
            to.extend(bytes.iter().copied());
            return;
        }
        to.extend(bytes.iter().filter_map(|&byte| {
            if self.one_in(drop) {
                None
            } else if self.one_in(corrupt) {
                // Never the byte itself: 1 to 255.
                let [low, ..] = (self.next() % 255 + 1).to_le_bytes();
                Some(byte ^ low)
            } else {
                Some(byte)
            }
        }));
    }

    fn one_in(&mut self, n: u32) -> bool {
        n != 0 && self.next().is_multiple_of(u64::from(n))
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(faults: SerialFaults, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Line::new(faults, 1).carry(bytes, &mut out);
        out
    }

    #[test]
    fn a_line_without_faults_changes_nothing() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(carried(SerialFaults::default(), &bytes), bytes);
    }

    #[test]
    fn one_byte_in_so_many_is_dropped_or_changed_and_the_seed_says_which() {
        let zeros = vec![0; 1_000_000];
        let dropped = carried(
            SerialFaults {
                drop: 1000,
                corrupt: 0,
                seed: 7,
            },
            &zeros,
        );
        assert!((800..1200).contains(&(zeros.len() - dropped.len())));
        let faults = SerialFaults {
            drop: 0,
            corrupt: 1000,
            seed: 7,
        };
        let changed = carried(faults, &zeros);
        assert_eq!(changed.len(), zeros.len());
        assert!((800..1200).contains(&changed.iter().filter(|b| **b != 0).count()));
        assert_eq!(changed, carried(faults, &zeros));
        assert_ne!(changed, carried(SerialFaults { seed: 8, ..faults }, &zeros));
    }
}
