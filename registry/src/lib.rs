//! An OCI registry: distribution, projects and roles, garbage collection.
//!
//! | module | what |
//! | --- | --- |
//! | [`distribution`] | the distribution API, `/v2/` |
//! | [`api`] | the administration API, `/api/v1/` |
//! | [`access`] | who asks, and what they may do |
//! | [`token_service`] | where the distribution API's tokens are had, `/token` |
//! | [`audit`] | what was done, by whom, from where, with which result |
//! | [`uploads`] | blobs on their way in |
//! | [`blobs`] | the blobs' bytes, in a folder or an S3-compatible service |
//! | [`metadata`] | everything else, in SQLite |
//! | [`gc`] | removes what nothing refers to |
//! | [`retention`] | removes tags as projects' rules have it |
//! | [`webhooks`] | tells others of pushes and removals |
//! | [`server`] | listeners, TLS, health, metrics, shutdown |
//! | [`cli`] | `registry init`, `serve`, `user`, `project`, `robot`, … |
#![forbid(unsafe_code)]

pub mod access;
pub mod api;
pub mod audit;
pub mod blobs;
mod bodies;
pub mod cli;
pub mod digest;
pub mod distribution;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod gc;
pub mod glob;
pub mod metadata;
pub mod names;
pub mod ranges;
pub mod registry;
pub mod retention;
pub mod server;
pub mod settings;
pub mod token_service;
pub mod uploads;
pub mod webhooks;
