//! Seeded choices: a run that failed can be run again.

use anyhow::{Context, Result};

/// A small generator (SplitMix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Runs a test with the seed from `MOORING_SEED`, else this one. A failure names the seed.
    ///
    /// # Errors
    /// The test's, and where `MOORING_SEED` is no number.
    pub fn seeded<T>(default: u64, test: impl FnOnce(Random) -> Result<T>) -> Result<T> {
        let seed = match std::env::var("MOORING_SEED") {
            Ok(text) => text
                .parse()
                .with_context(|| format!("MOORING_SEED is {text:?}"))?,
            Err(_) => default,
        };
        let told = ToldInPanic(seed);
        let result = test(Random(seed));
        drop(told);
        result.with_context(|| format!("with MOORING_SEED={seed}"))
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

/// Tells the seed of a test that panics.
struct ToldInPanic(u64);

impl Drop for ToldInPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("with MOORING_SEED={}", self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_its_seed() {
        let failed = Random::seeded(42, |mut random| -> Result<()> {
            anyhow::bail!("it was {}", random.below(1))
        });
        let text = format!("{:#}", failed.unwrap_err());
        let seed = std::env::var("MOORING_SEED").unwrap_or_else(|_| "42".into());
        assert_eq!(text, format!("with MOORING_SEED={seed}: it was 0"));
    }
}
