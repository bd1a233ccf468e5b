//! RPM and Debian packages: any bytes, no panic, bounded memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = bootimage::package::read_bytes(data);
});
