//! What is said on a shim's control socket: JSON, one object a line, answers in the order of the
//! requests. The socket's listening end is made by hostsim and handed to the shim, so a client
//! can connect before the shim is up: its request waits for it.

use super::exit::ExitRecord;
use super::spec::NicSpec;
use serde::{Deserialize, Serialize};

/// Name of the socket in the run folder.
pub(super) const CONTROL_SOCKET: &str = "control.sock";
/// Longest line that either side takes.
pub(super) const LINE_MAX: usize = 64 * 1024;

/// From hostsim to the shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub(super) enum Request {
    /// How is the VM? Answered at once.
    Status,
    /// Answered with `Status` once the guest runs, or with `Exited` when it never will.
    WaitRunning,
    /// Press the ACPI power button.
    ShutdownGuest,
    /// Pull the plug. Answered with `Exited`.
    PowerOff,
    /// Press the reset button.
    Reset,
    /// Plug a vNIC into a free slot.
    PlugNic {
        /// The vNIC.
        nic: NicSpec,
    },
    /// Change what is at the other end of a vNIC's cable, or whether it is plugged in.
    SetNic {
        /// The vNIC as it is to be.
        nic: NicSpec,
    },
    /// Take a vNIC out. Answered once the guest has let it go. An empty slot is fine.
    UnplugNic {
        /// Its slot.
        slot: u8,
    },
    /// Answered with `Exited` once the VM has ended and its record is on the disk.
    WaitExit,
}

/// From the shim to hostsim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(super) enum Reply {
    /// Done.
    Done,
    /// How the VM is.
    Status(VmxStatus),
    /// It has ended.
    Exited(ExitRecord),
    /// The request could not be carried out.
    Error {
        /// What failed and why.
        message: String,
    },
}

/// State of a VM under a shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmxState {
    /// QEMU is being started.
    Starting,
    /// The guest runs.
    Running,
    /// The guest is stopped, e.g. because the datastore is full.
    Paused,
    /// The guest has ended, or QEMU is being ended.
    Stopping,
}

/// A shim's answer to a question about its VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmxStatus {
    /// The VM's state.
    pub state: VmxState,
    /// Process ID of the shim.
    pub shim_pid: u32,
    /// Process ID of QEMU, for CPU and memory figures from /proc; `None` before it is started.
    pub qemu_pid: Option<u32>,
    /// Since when the guest runs, ns since 1970.
    pub running_since: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmx::ExitReason;

    #[test]
    fn the_lines_are_as_documented() {
        let line = serde_json::to_string(&Request::WaitRunning).unwrap();
        assert_eq!(line, r#"{"request":"wait_running"}"#);
        let record = ExitRecord {
            reason: ExitReason::QemuSignal { signal: 9 },
            at: 5,
            ran: true,
        };
        let line = serde_json::to_string(&Reply::Exited(record.clone())).unwrap();
        assert_eq!(
            line,
            r#"{"reply":"exited","reason":"qemu_signal","signal":9,"at":5,"ran":true}"#
        );
        assert_eq!(
            serde_json::from_str::<Reply>(&line).unwrap(),
            Reply::Exited(record)
        );
    }
}
