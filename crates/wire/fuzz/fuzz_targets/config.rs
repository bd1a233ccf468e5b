//! Arbitrary text as the guest's configuration.
#![no_main]
use libfuzzer_sys::fuzz_target;
use wire::config::{ConfigError, from_chunks};

fuzz_target!(|data: &str| {
    let (count, chunk) = data.split_once('\n').unwrap_or((data, ""));
    let _ = from_chunks::<ConfigError>(|key| {
        Ok(Some(if key.ends_with("chunks") {
            count.into()
        } else {
            chunk.into()
        }))
    });
});
