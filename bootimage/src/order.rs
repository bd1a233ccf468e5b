//! `/modules/order`: what the tether reads to know which module to load when.
//!
//! Text, one line a module, in load order (each after all that it needs), after a first line that
//! is exactly `# mooring modules 1`:
//!
//! ```text
//! # mooring modules 1
//! boot 000-crc16.ko - -
//! device 007-vmw_pvscsi.ko 001,002 pci:v000015ADd000007C0sv*sd*bc*sc*i*
//! ```
//!
//! Words are parted by one space each: the *group*, the *file* in `/modules` (`NNN-name.ko`,
//! decompressed, NNN is the line's number from 000), what it *needs*, and its *aliases*.
//! - **needs**: the numbers of all modules that have to be loaded before, ascending, parted by
//!   commas, `-` for none. It is transitively closed: loading those in this order, then the file
//!   itself (finit_module(2), no flags, no parameters), is enough. One that is loaded already
//!   (EEXIST) is fine.
//! - **aliases**: from the fourth word to the line's end, patterns of modaliases in which `*`
//!   stands for any run of characters; `-` for none.
//! - **group**: when to load.
//!   - `boot`: at once, all of it, in order.
//!   - `device`: once a device is there whose `modalias` (a file below /sys/devices, and a key of
//!     its uevent) one of the aliases matches. Loading one can bring further devices
//!     (virtio_pci brings the virtio devices), so look again until nothing new matches; a uevent
//!     tells of those that are plugged in later. Modules that others need, but the list does not
//!     name, are in the group of the first that needs them and have no aliases.
//!   - any other (`cdrom`, `loop`, `nfs`, `nft`, `fuse`, `ipv6`, `packet`): when the tether needs
//!     what it is named after; all modules of the group in order, with their needs. A group with no
//!     line is built in, or the kernel has none of it.
//!
//! A kernel with everything built in has a file of one line.

use crate::modules::Chosen;
use crate::{Error, Result};

/// The first line; the number changes with the format.
pub const HEADER: &str = "# mooring modules 1";

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Line {
    /// When to load it.
    pub group: String,
    /// The file in `/modules`.
    pub file: String,
    /// Lines (from 0) that have to be loaded before.
    pub needs: Vec<usize>,
    /// Patterns of devices that ask for it.
    pub aliases: Vec<String>,
}

impl Line {
    /// The module's name, with underscores.
    pub fn name(&self) -> &str {
        let name = self
            .file
            .split_once('-')
            .map_or(self.file.as_str(), |(_, name)| name);
        name.strip_suffix(".ko").unwrap_or(name)
    }
}

/// The lines for modules in load order.
pub fn lines(modules: &[Chosen]) -> Vec<Line> {
    let line = |(number, module): (usize, &Chosen)| Line {
        group: module.group.clone(),
        file: format!("{number:03}-{}.ko", module.name),
        needs: module.needs.clone(),
        aliases: if module.listed && module.group == "device" {
            module
                .aliases
                .iter()
                .filter(|alias| is_device_alias(alias))
                .chain(&module.more_aliases)
                .cloned()
                .collect()
        } else {
            Vec::new()
        },
    };
    modules.iter().enumerate().map(line).collect()
}

/// Leaves out what no device of a PC can match: device tree nodes, and names that are no
/// modalias at all (`fs-ext4`, `net-pf-40`, `devname:…`).
fn is_device_alias(alias: &str) -> bool {
    let bus = ["pci:", "virtio:", "acpi", "scsi:", "dmi:"];
    bus.iter().any(|bus| alias.starts_with(bus)) && !alias.contains(char::is_whitespace)
}

/// The file's text.
pub fn format(lines: &[Line]) -> String {
    let mut text = format!("{HEADER}\n");
    for line in lines {
        let needs: Vec<String> = line.needs.iter().map(|need| format!("{need:03}")).collect();
        let or_dash = |words: String| if words.is_empty() { "-".into() } else { words };
        text.push_str(&format!(
            "{} {} {} {}\n",
            line.group,
            line.file,
            or_dash(needs.join(",")),
            or_dash(line.aliases.join(" ")),
        ));
    }
    text
}

/// Reads the file back, for `bootimage inspect`.
///
/// # Errors
/// Anything that [`format()`] would not have written.
pub fn parse(text: &str) -> Result<Vec<Line>> {
    let bad =
        |number: usize, why: &str| Error::format(format!("modules/order, line {number}"), why);
    let body = text.strip_suffix('\n').unwrap_or(text);
    let mut rows = body.split('\n');
    if rows.next() != Some(HEADER) {
        return Err(bad(
            1,
            "is not `# mooring modules 1`; made by another version?",
        ));
    }
    let mut lines = Vec::new();
    for (index, row) in rows.enumerate() {
        let number = index + 2;
        if row
            .split(' ')
            .any(|word| word.is_empty() || word.chars().any(|c| c.is_control()))
        {
            return Err(bad(
                number,
                "has an empty word or a control character in it",
            ));
        }
        let mut words = row.split(' ');
        let (Some(group), Some(file), Some(needs)) = (words.next(), words.next(), words.next())
        else {
            return Err(bad(number, "has fewer than four words"));
        };
        if !file.starts_with(&format!("{index:03}-")) || !file.ends_with(".ko") {
            return Err(bad(
                number,
                "names a file that is not NNN-name.ko with the line's number",
            ));
        }
        let needs = match needs {
            "-" => Vec::new(),
            needs => needs
                .split(',')
                .map(|need| need.parse().ok().filter(|&need: &usize| need < index))
                .collect::<Option<_>>()
                .ok_or_else(|| bad(number, "needs something that is not a line above it"))?,
        };
        let aliases: Vec<String> = match words.collect::<Vec<_>>().as_slice() {
            [] => return Err(bad(number, "has fewer than four words")),
            ["-"] => Vec::new(),
            words if words.contains(&"-") => {
                return Err(bad(number, "has `-` among aliases"));
            }
            words => words.iter().map(|word| (*word).to_string()).collect(),
        };
        lines.push(Line {
            group: group.into(),
            file: file.into(),
            needs,
            aliases,
        });
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "# mooring modules 1\n\
        boot 000-crc16.ko - -\n\
        boot 001-ext4.ko 000 -\n\
        device 002-vmw_pvscsi.ko 000,001 pci:v000015ADd000007C0sv*sd*bc*sc*i* acpi*:QEMU0002:*\n";

    #[test]
    fn the_text_is_pinned_and_reads_back() {
        let lines = parse(SAMPLE).unwrap();
        assert_eq!(lines[2].needs, [0, 1]);
        assert_eq!(lines[2].aliases.len(), 2);
        assert_eq!(lines[2].name(), "vmw_pvscsi");
        assert_eq!(format(&lines), SAMPLE);
    }

    #[test]
    fn a_need_that_comes_later_is_refused() {
        let text = "# mooring modules 1\nboot 000-a.ko 000 -\n";
        assert!(
            parse(text)
                .unwrap_err()
                .to_string()
                .contains("not a line above it")
        );
    }

    #[test]
    fn what_format_would_not_write_is_refused() {
        for line in [
            "boot 000-a.ko -",
            "boot 000-a.ko - ",
            "boot 000-a.ko - x\r",
            "boot  000-a.ko - -",
        ] {
            parse(&format!("{HEADER}\n{line}\n")).unwrap_err();
        }
    }

    #[test]
    fn only_aliases_of_devices_are_kept() {
        assert!(is_device_alias("virtio:d00000013v*"));
        assert!(is_device_alias("acpi*:QEMU0002:*"));
        assert!(!is_device_alias("of:N*T*Cqemu,fw-cfg-mmioC*"));
        assert!(!is_device_alias("fs-ext4"));
    }
}
