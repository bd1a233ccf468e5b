//! One tether VM in QEMU, without hostsim, and a peer that speaks to it as the endpoint does.
//!
//! [`vm::Vm::boot`] makes a disk and starts QEMU; [`peer::Peer`] is the endpoint's side of the
//! link, over the VM's second serial port (a unix socket).

pub mod build;
pub mod disk;
pub mod peer;
pub mod vm;
