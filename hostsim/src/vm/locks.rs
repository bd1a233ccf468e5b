//! Who has which VMDK open, as VMFS locks them: one VM that writes, or any number that read.
//!
//! QEMU locks its files, too. But that says nothing in state-only mode, and not with vSphere's words.

use super::Vm;
use crate::host::Host;
use std::collections::HashMap;
use vim::{Fault, FaultKind};

/// A VMDK that a VM has open while it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Datastore path.
    pub path: String,
    /// It writes to it.
    pub write: bool,
}

/// The locks of all VMs that are on, or about to be.
#[derive(Debug, Default)]
pub struct DiskLocks {
    /// By path: who writes, or how many read.
    files: HashMap<String, Holders>,
    by_vm: HashMap<String, Vec<Open>>,
}

#[derive(Debug, Default)]
struct Holders {
    writer: bool,
    readers: usize,
}

impl DiskLocks {
    /// Locks all of a VM's files, or none.
    ///
    /// # Errors
    /// The file that another VM has locked.
    pub fn take(&mut self, vm: &str, opens: Vec<Open>) -> Result<(), String> {
        self.release(vm);
        let busy = |open: &&Open| {
            let holders = self.files.get(&open.path);
            holders.is_some_and(|h| h.writer || open.write && h.readers > 0)
        };
        if let Some(open) = opens.iter().find(busy) {
            return Err(open.path.clone());
        }
        for open in &opens {
            let holders = self.files.entry(open.path.clone()).or_default();
            if open.write {
                holders.writer = true;
            } else {
                holders.readers += 1;
            }
        }
        self.by_vm.insert(vm.to_owned(), opens);
        Ok(())
    }

    /// Unlocks what a VM has locked.
    pub fn release(&mut self, vm: &str) {
        for open in self.by_vm.remove(vm).unwrap_or_default() {
            let Some(holders) = self.files.get_mut(&open.path) else {
                continue;
            };
            if open.write {
                holders.writer = false;
            } else {
                holders.readers = holders.readers.saturating_sub(1);
            }
            if !holders.writer && holders.readers == 0 {
                self.files.remove(&open.path);
            }
        }
    }
}

/// Whether a disk of this mode is never written to. What ESXi would throw away at power-off is refused here.
pub fn reads_only(disk_mode: &str) -> bool {
    matches!(disk_mode, "nonpersistent" | "independent_nonpersistent")
}

/// What a VM opens at power-on: its disks, and to read all that they are built on. Blocks on files.
///
/// # Errors
/// `FileNotFound` where one is missing.
pub fn opens(host: &Host, vm: &Vm) -> Result<Vec<Open>, Fault> {
    let mut opens = Vec::new();
    for backing in vm.config.disks().filter_map(|d| d.disk_backing()) {
        let path = host.store.parse(&backing.file_name)?;
        let chain = host.disks.chain(&host.store, &path)?;
        for (depth, (path, _)) in chain.into_iter().enumerate() {
            opens.push(Open {
                path: path.to_string(),
                write: depth == 0 && !reads_only(&backing.disk_mode),
            });
        }
    }
    Ok(opens)
}

/// What ESXi says of a disk that another VM has open.
pub fn fault(path: &str) -> Fault {
    let reason = "Failed to lock the file".to_owned();
    let message = format!(
        "{reason}: cannot open the disk '{path}' or one of the snapshot disks it depends on"
    );
    Fault::new(FaultKind::GenericVmConfigFault { reason }, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &str, write: bool) -> Open {
        Open {
            path: path.to_owned(),
            write,
        }
    }

    #[test]
    fn one_writes_or_many_read() {
        let mut locks = DiskLocks::default();
        locks
            .take("1", vec![open("seal", false), open("v", true)])
            .unwrap();
        let both = vec![open("seal", false), open("v", false)];
        assert_eq!(locks.take("2", both.clone()), Err("v".to_owned()));
        // Nothing of what was refused stays locked.
        assert_eq!(locks.files["seal"].readers, 1);
        locks.release("1");
        locks.take("2", both.clone()).unwrap();
        locks.take("3", both).unwrap();
        assert_eq!(locks.take("1", vec![open("v", true)]), Err("v".to_owned()));
        locks.release("2");
        locks.release("2");
        assert_eq!(locks.take("1", vec![open("v", true)]), Err("v".to_owned()));
        locks.release("3");
        locks.take("1", vec![open("v", true)]).unwrap();
        locks.release("1");
        assert!(locks.files.is_empty());
    }
}
