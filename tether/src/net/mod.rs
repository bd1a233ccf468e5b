//! The VM's networks, and the kernel's events that come by netlink.

pub mod dial;
pub mod interfaces;
pub mod netlink;
pub mod power;
pub mod uevent;
