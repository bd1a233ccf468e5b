//! The Docker API, mapped to VM operations on the vSphere API.
//!
//! [`api`] is what clients see, [`containers`] the model behind it, [`link`] the endpoint's side
//! of the containers' VMs, [`vsphere`] the only part that knows vSphere's types.
#![deny(unsafe_code)]
// The answers of info and inspect are long literals.
#![recursion_limit = "512"]

pub mod api;
pub mod app;
pub mod cli;
pub mod containers;
pub mod errors;
pub mod events;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod images;
mod insist;
pub mod link;
pub mod networks;
pub mod records;
pub mod serve;
mod sys;
mod texts;
pub mod timestamps;
pub mod volumes;
pub mod vsphere;
