//! End to end: what the tests, benchmarks and long counts share. Real clients, real VMs.

pub mod admin;
pub mod appliance;
pub mod command;
pub mod compose;
pub mod differential;
pub mod docker;
pub mod dockerd;
pub mod guest;
pub mod interrupt;
pub mod namespace;
pub mod netns;
pub mod nfs;
pub mod notary;
pub mod ordinary;
pub mod own_registry;
pub mod places;
pub mod random;
pub mod registry;
pub mod relay;
pub mod signing;
pub mod tokens;
pub mod vch;
