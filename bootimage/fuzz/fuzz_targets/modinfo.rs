//! A module's ELF file, a module list, and the order file.
#![no_main]

use bootimage::{modinfo, modules, order};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = modinfo::parse(data, "input");
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = modules::parse_list(text, "input");
        // What is accepted is what would be written.
        if let Ok(lines) = order::parse(text) {
            assert_eq!(order::parse(&order::format(&lines)).ok(), Some(lines));
        }
    }
});
