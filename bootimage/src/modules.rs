//! Which modules go into the image: the list of wanted ones, what they need, and their order.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::modinfo::{self, canonical};
use crate::package::{KernelPackage, module_name};
use crate::{Error, Result};

/// The list that covers ESXi's devices and QEMU's.
pub const DEFAULT_LIST: &str = include_str!("default.modules");

/// A module that somebody wants in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// When the tether loads it; see [`crate::order`].
    pub group: String,
    /// Whether an image without it is an error.
    pub required: bool,
    /// Its name, with underscores.
    pub name: String,
    /// Patterns of devices that ask for it, beside those that it names itself.
    pub aliases: Vec<String>,
}

/// Reads a module list: a line `GROUP required|optional NAME [ALIAS…]` each, `#` comments.
///
/// # Errors
/// A line that is none of these, named by its number.
pub fn parse_list(text: &str, what: &str) -> Result<Vec<Wanted>> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(group) = words.next() else { continue };
        let bad = |why: &str| {
            Err(Error::format(
                format!("{what}, line {}", number + 1),
                format!("{why}; a line is: GROUP required|optional NAME [ALIAS…]"),
            ))
        };
        let required = match words.next() {
            Some("required") => true,
            Some("optional") => false,
            _ => return bad("the second word is neither `required` nor `optional`"),
        };
        let Some(name) = words.next().map(canonical) else {
            return bad("the module's name is missing");
        };
        if let Some(odd) = [group, &name].into_iter().find(|word| !is_name(word)) {
            return bad(&format!(
                "`{odd}` is not made of letters, digits, `_` and `-`"
            ));
        }
        if wanted.iter().any(|other| other.name == name) {
            return bad(&format!("`{name}` is there twice"));
        }
        let aliases = words.map(str::to_string).collect();
        wanted.push(Wanted {
            group: group.into(),
            required,
            name,
            aliases,
        });
    }
    Ok(wanted)
}

fn is_name(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= 64
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// A module that goes into the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its name, with underscores.
    pub name: String,
    /// When the tether loads it: the list's group, or that of the first wanted module that needs it.
    pub group: String,
    /// Its file in the package.
    pub path: String,
    /// Indices of all modules that have to be there before it, ascending; what these need, too.
    pub needs: Vec<usize>,
    /// Patterns of devices that ask for it, as the module has them.
    pub aliases: Vec<String>,
    /// Those that the list adds.
    pub more_aliases: Vec<String>,
    /// Whether the list names it, or it is only needed by one that is named.
    pub listed: bool,
    /// Its bytes, unpacked.
    pub content: Vec<u8>,
}

/// What came of a module list with one kernel.
#[derive(Debug, Default)]
pub struct Selection {
    /// What goes in, each after all that it needs.
    pub modules: Vec<Chosen>,
    /// Wanted, and built into the kernel.
    pub builtin: Vec<String>,
    /// Optional, and not in this kernel at all.
    pub absent: Vec<String>,
}

/// Chooses the wanted modules and what they need out of a kernel package.
///
/// # Errors
/// If a required module is neither a file nor built in, or a module cannot be read.
pub fn select(kernel: &KernelPackage, wanted: &[Wanted]) -> Result<Selection> {
    let builtin = builtin(kernel)?;
    let files = kernel.modules();
    let config = kernel.config()?;
    let signed = config
        .iter()
        .flat_map(|config| config.lines())
        .any(|line| line == "CONFIG_MODULE_SIG_FORCE=y");
    let mut selector = Selector {
        kernel,
        files: &files,
        builtin: &builtin,
        signed,
        index: HashMap::new(),
        selection: Selection::default(),
    };
    for want in wanted {
        selector.want(want)?;
    }
    Ok(selector.selection)
}

/// Names of what is built in, from `modules.builtin` and the configuration together.
fn builtin(kernel: &KernelPackage) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    if let Some(list) = kernel.modules_builtin()? {
        names.extend(
            list.lines()
                .filter_map(|line| module_name(line.rsplit('/').next()?.trim())),
        );
    }
    if let Some(config) = kernel.config()? {
        names.extend(builtin_by_config(&config).map(str::to_string));
    }
    Ok(names)
}

/// Modules whose configuration option is `y`: for packages without a `modules.builtin`.
fn builtin_by_config(config: &str) -> impl Iterator<Item = &'static str> {
    let set: BTreeSet<&str> = config
        .lines()
        .filter_map(|line| line.trim().strip_suffix("=y"))
        .collect();
    OPTIONS
        .iter()
        .filter(move |(_, option)| set.contains(option))
        .map(|(name, _)| *name)
}

/// The options (linux/…/Makefile) behind the modules of the default list.
const OPTIONS: &[(&str, &str)] = &[
    ("9p", "CONFIG_9P_FS"),
    ("9pnet_virtio", "CONFIG_NET_9P_VIRTIO"),
    ("ahci", "CONFIG_SATA_AHCI"),
    ("af_packet", "CONFIG_PACKET"),
    ("ata_piix", "CONFIG_ATA_PIIX"),
    ("button", "CONFIG_ACPI_BUTTON"),
    ("cdrom", "CONFIG_CDROM"),
    ("ext4", "CONFIG_EXT4_FS"),
    ("fuse", "CONFIG_FUSE_FS"),
    ("ipv6", "CONFIG_IPV6"),
    ("isofs", "CONFIG_ISO9660_FS"),
    ("libata", "CONFIG_ATA"),
    ("loop", "CONFIG_BLK_DEV_LOOP"),
    ("nf_conntrack", "CONFIG_NF_CONNTRACK"),
    ("nf_tables", "CONFIG_NF_TABLES"),
    ("nfs", "CONFIG_NFS_FS"),
    ("nfsv3", "CONFIG_NFS_V3"),
    ("nfsv4", "CONFIG_NFS_V4"),
    ("nft_ct", "CONFIG_NFT_CT"),
    ("overlay", "CONFIG_OVERLAY_FS"),
    ("qemu_fw_cfg", "CONFIG_FW_CFG_SYSFS"),
    ("sctp", "CONFIG_IP_SCTP"),
    ("sd_mod", "CONFIG_BLK_DEV_SD"),
    ("sr_mod", "CONFIG_BLK_DEV_SR"),
    ("unix", "CONFIG_UNIX"),
    ("virtio_balloon", "CONFIG_VIRTIO_BALLOON"),
    ("virtio_blk", "CONFIG_VIRTIO_BLK"),
    ("virtio_console", "CONFIG_VIRTIO_CONSOLE"),
    ("virtio_net", "CONFIG_VIRTIO_NET"),
    ("virtio_pci", "CONFIG_VIRTIO_PCI"),
    ("virtio_rng", "CONFIG_HW_RANDOM_VIRTIO"),
    ("virtio_scsi", "CONFIG_SCSI_VIRTIO"),
    ("vmw_balloon", "CONFIG_VMWARE_BALLOON"),
    ("vmw_pvscsi", "CONFIG_VMWARE_PVSCSI"),
    ("vmw_vmci", "CONFIG_VMWARE_VMCI"),
    ("vmw_vsock_virtio_transport", "CONFIG_VIRTIO_VSOCKETS"),
    ("vmw_vsock_vmci_transport", "CONFIG_VMWARE_VMCI_VSOCKETS"),
    ("vmxnet3", "CONFIG_VMXNET3"),
    ("vsock", "CONFIG_VSOCKETS"),
];

struct Selector<'a> {
    kernel: &'a KernelPackage,
    files: &'a BTreeMap<String, &'a str>,
    builtin: &'a BTreeSet<String>,
    /// This kernel refuses a module without signature.
    signed: bool,
    index: HashMap<String, usize>,
    selection: Selection,
}

impl Selector<'_> {
    fn want(&mut self, want: &Wanted) -> Result<()> {
        if self.files.contains_key(&want.name) {
            let index = self.add(&want.name, &want.group, &mut Vec::new())?;
            let chosen = &mut self.selection.modules[index];
            if !chosen.listed {
                // Another one may have needed it first.
                chosen.group.clone_from(&want.group);
            }
            chosen.listed = true;
            chosen.more_aliases.extend(want.aliases.iter().cloned());
        } else if self.builtin.contains(&want.name) {
            self.selection.builtin.push(want.name.clone());
        } else if want.required {
            return Err(self.missing(&want.name));
        } else {
            self.selection.absent.push(want.name.clone());
        }
        Ok(())
    }

    fn missing(&self, name: &str) -> Error {
        Error::NoSuchModule {
            version: self.kernel.version().into(),
            name: name.into(),
            nearest: nearest(name, self.files.keys().chain(self.builtin)),
        }
    }

    /// Adds a module after all that it needs, depth first; `trail` is the way to it.
    fn add(&mut self, name: &str, group: &str, trail: &mut Vec<String>) -> Result<usize> {
        if let Some(&index) = self.index.get(name) {
            return Ok(index);
        }
        if let Some(start) = trail.iter().position(|passed| passed == name) {
            let mut circle = trail[start..].to_vec();
            circle.push(name.into());
            return Err(Error::ModuleCycle(circle));
        }
        trail.push(name.into());
        let path = *self.files.get(name).ok_or_else(|| self.missing(name))?;
        let mut content = self.kernel.module(path)?;
        if !self.signed {
            // They come from where the kernel comes from; checking each one takes a boot's time.
            content.truncate(modinfo::without_signature(&content).len());
        }
        let info = modinfo::parse(&content, path)?;
        let mut needs = BTreeSet::new();
        for (needed, hard) in info
            .softdep_pre
            .iter()
            .map(|name| (name, false))
            .chain(info.depends.iter().map(|name| (name, true)))
        {
            if self.files.contains_key(needed) {
                let before = (self.selection.modules.len(), trail.len());
                let index = match self.add(needed, group, trail) {
                    // A soft dependency that leads in a circle or to what is not there is no reason to fail.
                    Err(Error::ModuleCycle(_) | Error::NoSuchModule { .. }) if !hard => {
                        for module in self.selection.modules.drain(before.0..) {
                            self.index.remove(&module.name);
                        }
                        trail.truncate(before.1);
                        continue;
                    }
                    index => index?,
                };
                needs.extend(self.selection.modules[index].needs.iter().copied());
                needs.insert(index);
            } else if hard && !self.builtin.contains(needed) {
                return Err(self.missing(needed));
            }
        }
        trail.pop();
        let index = self.selection.modules.len();
        self.index.insert(name.into(), index);
        self.selection.modules.push(Chosen {
            name: name.into(),
            group: group.into(),
            path: path.into(),
            needs: needs.into_iter().collect(),
            aliases: info.aliases,
            more_aliases: Vec::new(),
            listed: false,
            content,
        });
        Ok(index)
    }
}

/// Up to three names that are near to `name`, nearest first; none that is far off.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let limit = (name.len() / 3).max(2);
    let mut near: Vec<(usize, &String)> = names
        .map(|other| (edit_distance(name, other), other))
        .filter(|(distance, other)| {
            *distance <= limit
                || (name.len() >= 4
                    && (other.contains(name) || name.contains(other.as_str()) && other.len() >= 4))
        })
        .collect();
    near.sort();
    near.dedup();
    near.into_iter()
        .take(3)
        .map(|(_, name)| name.clone())
        .collect()
}

/// Levenshtein's distance: insertions, deletions and replacements of bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
