//! Packs a small ext4 with blocks of 1 KiB as an input of the fuzz target `ext4_read`:
//! `cargo run --example ext4_pieces IMAGE > crates/layers/fuzz/seeds/ext4_read/NAME`.
//! Images without checksums (`mkfs.ext4 -b 1024 -O ^metadata_csum`) let changes through.

use std::io::Write;

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os()
        .nth(1)
        .ok_or_else(|| anyhow::anyhow!("which image?"))?;
    let mut out = std::io::stdout().lock();
    for (number, block) in std::fs::read(path)?.chunks(1024).enumerate() {
        let length = block
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        if length > 0 {
            out.write_all(&u16::try_from(number)?.to_le_bytes())?;
            out.write_all(&u16::try_from(length)?.to_le_bytes())?;
            out.write_all(&block[..length])?;
        }
    }
    Ok(())
}
