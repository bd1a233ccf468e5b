//! An arbitrary partition table, with right checksums where the input asks for it.
#![no_main]
use layers::gpt::Table;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut disk = vec![0; 3 << 20];
    let count = bytes.len().min(34 * 1024);
    disk[..count].copy_from_slice(&bytes[..count]);
    if let Ok(table) = Table::read(&disk) {
        assert!(table.partitions.iter().all(|partition| partition.start + partition.size <= 3 << 20));
    }
});
