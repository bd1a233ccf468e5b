//! One VM, one process tree: the shim (`hostsim vmx`) and the QEMU under it.
//!
//! As ESXi has one `vmx` process for each VM, so has hostsim: the shim starts QEMU, owns its QMP
//! connection, its vsock device and its network-backed serial port, and records how QEMU ended. It
//! lives in a session of its own and survives hostsim; QEMU does not survive it (the kernel kills
//! it along). See docs/decisions/0001-boundaries.md.
//!
//! ```text
//! hostsim ── control.sock (JSON lines) ── shim ── QMP ── QEMU
//!                                          ├── vhost-user vsock ── <folder>/port-P
//!                                          └── UART bytes ── telnet(s) ── proxy (vSPC)
//! ```
//!
//! Everything of one run is in the VM's run folder: `spec.json`, `lock`, `control.sock`,
//! `vmx.log`, `exit.json` and what QEMU needs.
//!
//! Entry points: [`Launcher::power_on`], [`VmxHandle::reattach`], and [`run_shim`] for the
//! program's `vmx` sub-command.

mod argv;
mod control;
mod exit;
mod files;
mod handle;
pub mod host;
mod machine;
mod nics;
mod qmp;
mod serial;
mod shares;
mod shim;
mod spec;
pub mod switch;
mod sys;
pub mod tuning;
mod vsock;

#[cfg(any(test, fuzzing))]
pub(crate) use vsock::hostile_guest;

pub use control::{VmxState, VmxStatus};
pub use exit::{EXIT_FILE, ExitReason, ExitRecord};
pub use handle::{LOG_FILE, Launcher, VmxError, VmxHandle};
pub use shim::{ShimArgs, run_shim};
pub use spec::{
    Accelerator, CONTROLLER_UNIT, CONTROLLERS_MAX, DirectBoot, DiskSpec, Firmware,
    GUESTINFO_KEY_MAX, NICS_MAX, NicBackend, NicSpec, SERIALS_MAX, SerialDirection, SerialFaults,
    SerialSpec, SerialUri, ShareSpec, SwitchPort, UserNet, VmxSpec, VsockSpec,
};
