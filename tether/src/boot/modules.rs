//! Kernel modules: `/modules/order` of the initramfs says which, in which order, and when
//! (its form is bootimage's module `order`).

use super::Fault;
use crate::sys::fs::finit_module;
use std::collections::HashSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

const STEP: &str = "modules";
const FOLDER: &str = "/modules";
/// First line of the file; its number changes with the form.
const HEADER: &str = "# mooring modules 1";

/// One module of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    group: String,
    file: String,
    needs: Vec<usize>,
    aliases: Vec<String>,
}

/// The modules that this boot can load.
#[derive(Debug, Default)]
pub struct Modules {
    lines: Vec<Line>,
    loaded: HashSet<usize>,
    /// The kernel's command line: it has modules' parameters, too.
    cmdline: String,
}

impl Modules {
    /// Reads the order file; none there means that all is built in.
    ///
    /// # Errors
    /// If it is of another form.
    pub fn read() -> Result<Modules, Fault> {
        match fs::read_to_string(format!("{FOLDER}/order")) {
            Ok(text) => Ok(Modules {
                lines: parse(&text).map_err(|message| Fault {
                    step: STEP,
                    message,
                })?,
                loaded: HashSet::new(),
                cmdline: fs::read_to_string("/proc/cmdline")
                    .map_err(Fault::at(STEP, "reading /proc/cmdline"))?,
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Modules::default()),
            Err(e) => Err(Fault::at(STEP, format!("reading {FOLDER}/order"))(e)),
        }
    }

    /// Loads what this VM's devices ask for, until nothing more does.
    ///
    /// # Errors
    /// Names the module and the kernel's reason.
    pub fn load_devices(&mut self) -> Result<(), Fault> {
        if self.lines.iter().all(|l| l.aliases.is_empty()) {
            return Ok(());
        }
        loop {
            let present = device_aliases();
            let wanted: Vec<usize> = (0..self.lines.len())
                .filter(|i| !self.loaded.contains(i))
                .filter(|i| {
                    self.lines[*i]
                        .aliases
                        .iter()
                        .any(|a| present.iter().any(|p| matches(a, p)))
                })
                .collect();
            if wanted.is_empty() {
                return Ok(());
            }
            for index in wanted {
                // A device whose driver does not load must not cost a boot that does without it:
                // what is then missing is told by the step that misses it.
                if let Err(fault) = self.load(index) {
                    crate::console(&fault.to_string());
                }
            }
        }
    }

    /// Loads all modules of a group.
    ///
    /// # Errors
    /// Names the module and the kernel's reason.
    pub fn load_group(&mut self, group: &str) -> Result<(), Fault> {
        (0..self.lines.len())
            .filter(|i| self.lines[*i].group == group)
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|i| self.load(i))
    }

    fn load(&mut self, index: usize) -> Result<(), Fault> {
        for needed in self.lines[index].needs.clone().into_iter().chain([index]) {
            if self.loaded.insert(needed) {
                let path = format!("{FOLDER}/{}", self.lines[needed].file);
                let what = || format!("loading {}", self.lines[needed].file);
                let file = File::open(&path).map_err(Fault::at(STEP, what()))?;
                let parameters = parameters(&self.cmdline, &self.lines[needed].file);
                match finit_module(file.as_fd(), &parameters) {
                    Err(e) if e.raw_os_error() != Some(libc::EEXIST) => {
                        return Err(Fault::at(STEP, what())(e));
                    }
                    _ => {}
                }
                // Its memory is the container's from here on.
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }
}

/// What the kernel's command line says to a module, `scsi_mod.scan=manual` for instance. The kernel takes that itself
/// where the module is built in, and leaves it to who loads it where not (as modprobe(8) does).
fn parameters(cmdline: &str, file: &str) -> CString {
    let name = |text: &str| text.replace('-', "_");
    let module = file
        .split_once('-')
        .and_then(|(_, rest)| rest.strip_suffix(".ko"));
    let own = cmdline.split_ascii_whitespace().filter_map(|word| {
        let (to, parameter) = word.split_once('.')?;
        (Some(name(to)) == module.map(name)).then_some(parameter)
    });
    // The kernel's command line has no NUL inside.
    CString::new(own.collect::<Vec<_>>().join(" ")).unwrap_or_default()
}

fn parse(text: &str) -> Result<Vec<Line>, String> {
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err(format!(
            "{FOLDER}/order does not begin with {HEADER:?}: use an initramfs of this tether's release"
        ));
    }
    let list = |word: &str| {
        if word == "-" {
            String::new()
        } else {
            word.to_owned()
        }
    };
    let line = |(number, text): (usize, &str)| -> Option<Line> {
        let mut words = text.split(' ');
        let (group, file, needs) = (words.next()?, words.next()?, list(words.next()?));
        let needs: Vec<usize> = needs
            .split(',')
            .filter(|n| !n.is_empty())
            .map(|n| n.parse().ok())
            .collect::<Option<_>>()?;
        let aliases = words
            .filter(|a| *a != "-" && !a.is_empty())
            .map(ToString::to_string)
            .collect();
        let sound = needs.iter().all(|n| *n < number) && !file.contains('/');
        sound.then(|| Line {
            group: group.into(),
            file: file.into(),
            needs,
            aliases,
        })
    };
    lines
        .enumerate()
        .map(|(n, text)| {
            line((n, text))
                .ok_or_else(|| format!("{FOLDER}/order, line {}: {text:?} is no module", n + 2))
        })
        .collect()
}

/// The modaliases of all devices on the buses that drivers of ours are for.
fn device_aliases() -> Vec<String> {
    let mut found = Vec::new();
    for bus in ["pci", "virtio", "acpi", "platform", "scsi"] {
        let folder = Path::new("/sys/bus").join(bus).join("devices");
        for device in fs::read_dir(folder).into_iter().flatten().flatten() {
            if let Ok(alias) = fs::read_to_string(device.path().join("modalias")) {
                found.push(alias.trim_end().to_owned());
            }
        }
    }
    found
}

/// Whether a pattern in which `*` stands for any run of characters matches.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let pvscsi = "pci:v000015ADd000007C0sv*sd*bc*sc*i*";
        assert!(matches(
            pvscsi,
            "pci:v000015ADd000007C0sv000015ADsd000007C0bc01sc00i00"
        ));
        assert!(!matches(
            pvscsi,
            "pci:v000015ADd000007B0sv000015ADsd000007B0bc02sc00i00"
        ));
        assert!(matches("scsi:t-0x00*", "scsi:t-0x00"));
        assert!(matches("acpi*:QEMU0002:*", "acpi:QEMU0002:"));
        assert!(!matches("a*b", "ac"));
        assert!(matches("abc", "abc"));
        assert!(!matches("ab", "abc"));
    }

    #[test]
    fn parameters_of_the_command_line() {
        let line = "quiet scsi-mod.scan=manual 8250.nr_uarts=2 scsi_mod.max_luns=8 scsi_mod init=/x.scan=y";
        let of = |file: &str| parameters(line, file).into_string().unwrap();
        assert_eq!(of("002-scsi_mod.ko"), "scan=manual max_luns=8");
        assert_eq!(of("003-sd_mod.ko"), "");
    }

    #[test]
    fn the_order_file() {
        let text = "# mooring modules 1\nboot 000-crc16.ko - -\ndevice 001-vmw_pvscsi.ko 000 pci:a* pci:b*\n";
        let lines = parse(text).unwrap();
        assert_eq!(lines[1].needs, [0]);
        assert_eq!(lines[1].aliases, ["pci:a*", "pci:b*"]);
        assert!(parse("# mooring modules 2\n").is_err());
        assert!(
            parse("# mooring modules 1\nboot x 5 -\n")
                .unwrap_err()
                .contains("line 2")
        );
        assert!(parse("# mooring modules 1\nboot ../x - -\n").is_err());
    }
}
