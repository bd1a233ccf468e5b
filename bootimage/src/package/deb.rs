//! Debian packages: an `ar` archive of `debian-binary`, `control.tar.*` and `data.tar.*` (deb(5)).

use std::io::Read;

use super::Collector;
use crate::compress::{self, read_bounded};
use crate::{Error, Result};

/// The control file of any real package is far smaller.
const MAX_CONTROL: u64 = 1 << 20;

/// Reads a package front to back; returns its name and version.
pub(super) fn read(mut input: impl Read, what: &str, collector: &mut Collector) -> Result<String> {
    let mut magic = [0; 8];
    input.read_exact(&mut magic).map_err(Error::stream(what))?;
    let mut label = String::new();
    let mut header = [0; 60];
    loop {
        input.read_exact(&mut header).map_err(Error::stream(what))?;
        let (name, len) = member(&header).ok_or_else(|| {
            Error::format(what, "has a damaged member header; it is no Debian package")
        })?;
        let mut body = input.by_ref().take(len);
        if name.starts_with("control.tar") {
            label = control(&mut body, what)?;
        } else if name.starts_with("data.tar") {
            // The last member that matters; what follows it is not read.
            data(&mut body, what, collector)?;
            return Ok(label);
        }
        std::io::copy(&mut body, &mut std::io::sink()).map_err(Error::stream(what))?;
        if len % 2 == 1 {
            let mut padding = [0];
            input
                .read_exact(&mut padding)
                .map_err(Error::stream(what))?;
        }
    }
}

/// Name and size of an `ar` member (ar(5), common format).
fn member(header: &[u8; 60]) -> Option<(&str, u64)> {
    if &header[58..] != b"`\n" {
        return None;
    }
    let name = std::str::from_utf8(&header[..16])
        .ok()?
        .trim_end()
        .trim_end_matches('/');
    let len = std::str::from_utf8(&header[48..58])
        .ok()?
        .trim_end()
        .parse()
        .ok()?;
    Some((name, len))
}

fn control(body: &mut impl Read, what: &str) -> Result<String> {
    let (_, tar) = compress::decoder(body, what)?;
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().map_err(Error::stream(what))? {
        let entry = entry.map_err(Error::stream(what))?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if path.trim_start_matches("./") == "control" {
            let text = read_bounded(entry, what, "control file", MAX_CONTROL)?;
            let text = String::from_utf8_lossy(&text).into_owned();
            let field = |name: &str| {
                text.lines()
                    .find_map(|line| line.strip_prefix(name))
                    .unwrap_or_default()
                    .trim()
            };
            return Ok(format!("{} {}", field("Package:"), field("Version:")));
        }
    }
    Ok(String::new())
}

fn data(body: &mut impl Read, what: &str, collector: &mut Collector) -> Result<()> {
    let (_, tar) = compress::decoder(body, what)?;
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().map_err(Error::stream(what))? {
        let entry = entry.map_err(Error::stream(what))?;
        if entry.header().entry_type().is_file() {
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            collector.take(&path, entry)?;
        }
    }
    Ok(())
}
