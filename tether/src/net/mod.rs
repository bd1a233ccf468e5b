//! The VM's networks, and the kernel's events that come by netlink.

pub mod dhcp;
pub mod dial;
pub mod filter;
pub mod interfaces;
pub mod leases;
pub mod netlink;
pub mod power;
pub mod uevent;
