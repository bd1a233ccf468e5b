//! A registry that serves on loopback, asked over HTTP as clients ask it. Names say what holds.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on stops there; helpers are not seen as tests by the lint"
)]

mod accounts;
mod actors;
mod archive;
mod audit;
mod blobs;
mod cells;
mod clients;
mod collection;
mod command;
mod crash;
mod crash_audit;
mod full;
mod hangups;
mod harness;
mod hostile;
mod lists;
mod manifests;
mod operations;
mod oracle;
mod policies;
mod referrers;
mod refusals;
mod replays;
mod roles;
mod s3;
mod spec;
mod tokens;
mod uploads;
mod webhooks;
