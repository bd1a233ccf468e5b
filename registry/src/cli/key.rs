//! `registry key`

use super::{Common, call};
use crate::api::keys::Rotate;
use anyhow::Result;
use clap::Subcommand;
use http::Method;

/// Keys that sign tokens.
#[derive(Subcommand)]
pub(crate) enum Key {
    /// Sign with another key from now on (every 30 days this happens by itself)
    Rotate {
        /// Refuse the tokens that the old keys signed, at once
        #[arg(long)]
        revoke: bool,
    },
}

pub(crate) fn run(common: &Common, key: &Key) -> Result<()> {
    let Key::Rotate { revoke } = key;
    let body = Rotate { revoke: *revoke };
    let () = call::call(&common.data, Method::POST, "/keys/rotate", &body)?;
    common.done("another key signs now")
}
