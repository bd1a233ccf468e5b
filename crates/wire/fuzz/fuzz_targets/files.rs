//! Arbitrary bytes as a stream of a files job's records.
#![no_main]
use libfuzzer_sys::fuzz_target;
use wire::files::{Decoder, Item, Kind, Record, is_clean};

fuzz_target!(|data: &[u8]| {
    let mut decoder = Decoder::new();
    for piece in data.chunks(97) {
        decoder.push(piece);
        while let Ok(Some(item)) = decoder.next_item() {
            if let Item::Record(Record::Entry(entry)) = item {
                assert!(is_clean(&entry.path));
                if let Kind::HardLink(first) = &entry.kind {
                    assert!(is_clean(first));
                }
            }
        }
    }
});
