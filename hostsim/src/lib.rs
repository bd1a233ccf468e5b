//! A simulated ESXi host: the vSphere API in front, a datastore folder and QEMU behind.
#![deny(unsafe_code)]

pub mod vmx;
