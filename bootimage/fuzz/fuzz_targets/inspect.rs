//! Initramfs, ISO and kernel: any bytes, no panic, bounded memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(report) = bootimage::inspect::inspect_bytes(data, "input") {
        let _ = report.text();
    }
});
