//! How a VM's run ended, and the file that keeps it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::path::Path;

/// Name of the file in the run folder.
pub const EXIT_FILE: &str = "exit.json";

/// Why a VM no longer runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum ExitReason {
    /// The guest switched itself off (ACPI).
    GuestPowerOff,
    /// [`VmxHandle::power_off`](super::VmxHandle::power_off) was called, or the shim got SIGTERM.
    PowerOffRequested,
    /// The guest reset itself: a reboot, a triple fault, or a panic with `panic=-1`.
    /// A container VM is not started again by that; it counts as an end.
    GuestReset,
    /// The guest's kernel told of a panic (pvpanic).
    GuestPanic,
    /// QEMU was killed from outside.
    QemuSignal {
        /// The signal's number.
        signal: i32,
    },
    /// QEMU ended by itself without the guest's doing, or never came to run.
    QemuError {
        /// Its exit status, where it had one.
        status: Option<i32>,
        /// What went wrong, with the last lines that QEMU wrote to stderr.
        message: String,
    },
    /// The shim was killed, and took QEMU with it. Never written by a shim: it is what
    /// hostsim finds in place of an exit record.
    ShimDied,
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitReason::GuestPowerOff => f.write_str("the guest powered off"),
            ExitReason::PowerOffRequested => f.write_str("powered off on request"),
            ExitReason::GuestReset => f.write_str("the guest reset itself"),
            ExitReason::GuestPanic => f.write_str("the guest's kernel panicked"),
            ExitReason::QemuSignal { signal } => write!(f, "QEMU was killed by signal {signal}"),
            ExitReason::QemuError {
                status: Some(status),
                message,
            } => {
                write!(f, "QEMU ended with status {status}: {message}")
            }
            ExitReason::QemuError {
                status: None,
                message,
            } => write!(f, "QEMU: {message}"),
            ExitReason::ShimDied => f.write_str("the VM's shim process was killed"),
        }
    }
}

/// The last word about a VM's run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Why it ended.
    #[serde(flatten)]
    pub reason: ExitReason,
    /// When, in ns since 1970; 0 where nobody saw it ([`ExitReason::ShimDied`]).
    pub at: u64,
    /// The guest came to run; `false`: the power-on failed.
    pub ran: bool,
}

impl ExitRecord {
    /// Read the record of a run folder; `None` where there is none.
    ///
    /// # Errors
    /// The file cannot be read, or is no exit record.
    pub fn read(run_dir: &Path) -> io::Result<Option<ExitRecord>> {
        match std::fs::read(run_dir.join(EXIT_FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(io::Error::from),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Write the record so that it is there after a power cut.
    pub(super) fn write(&self, run_dir: &Path) -> io::Result<()> {
        super::files::write_durably(&run_dir.join(EXIT_FILE), &serde_json::to_vec(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ExitRecord::read(dir.path()).unwrap(), None);
        for reason in [
            ExitReason::GuestPowerOff,
            ExitReason::QemuSignal { signal: 9 },
            ExitReason::QemuError {
                status: Some(1),
                message: "no such disk\n".into(),
            },
        ] {
            let record = ExitRecord {
                reason,
                at: 7,
                ran: true,
            };
            record.write(dir.path()).unwrap();
            assert_eq!(ExitRecord::read(dir.path()).unwrap(), Some(record));
        }
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }
}
