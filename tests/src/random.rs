//! Seeded choices: a run that failed can be run again.

/// A small generator (SplitMix64, Steele et al. 2014); its seed is printed with a failure.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The seed from `MOORING_SEED`, else this one.
    pub fn seeded(default: u64) -> Self {
        let seed = std::env::var("MOORING_SEED")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or(default);
        Random(seed)
    }

    /// The next 64 bits.
    #[allow(
        clippy::should_implement_trait,
        reason = "it never ends, so it is no iterator"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n` (n > 0).
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// How often a count is run: whole with `MOORING_SOAK=1` (`make soak`), else a sample. A whole count is told on
/// standard error, for the record of the soak.
pub fn times(sample: usize, whole: usize) -> usize {
    if std::env::var_os("MOORING_SOAK").is_some() {
        eprintln!("soak: count {whole}");
        whole
    } else {
        sample
    }
}
