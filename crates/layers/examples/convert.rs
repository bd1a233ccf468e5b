//! Converts layer files and says how long each took: `convert FILE…`. Compare with `time gzip -dc FILE`.
//! With `PARTITION` set in the environment, the last one's partition is written to that file.

use std::fs::File;
use std::time::Instant;

use layers::convert::{Expectations, Limits, convert};
use layers::io::Stream;
use layers::spool::Spool;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spool = Spool::new(std::env::temp_dir(), 64 << 30)?;
    for path in std::env::args().skip(1) {
        let start = Instant::now();
        let layer = convert(
            File::open(&path)?,
            &Expectations::default(),
            &spool,
            &Limits::default(),
            |_| {},
        )?;
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{path}: {} entries, {} -> {} -> {} bytes, {seconds:.2} s, {:.0} MB/s of tar, {}",
            layer.entries,
            layer.size,
            layer.tar_size,
            layer.image.stored(),
            layer.tar_size as f64 / seconds / 1e6,
            layer.diff_id,
        );
        if let Some(file) = std::env::var_os("PARTITION") {
            std::io::copy(&mut Stream::new(layer.image)?, &mut File::create(file)?)?;
        }
    }
    Ok(())
}
