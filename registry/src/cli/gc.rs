//! `registry gc`

use super::{Common, call};
use crate::api::CollectRequest;
use crate::gc::Report;
use anyhow::Result;
use clap::Args;
use http::Method;

/// Collects garbage now, beside whatever else the registry does.
#[derive(Args)]
pub(crate) struct Gc {
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Leave what a client wanted in the last minutes alone [default: as registry.toml has it]
    #[arg(long, value_name = "MINUTES")]
    grace: Option<u32>,
    /// Remove manifests that had no tag for this time [default: as registry.toml has it]
    #[arg(long, value_name = "HOURS")]
    untagged: Option<u32>,
}

pub(crate) fn run(common: &Common, gc: &Gc) -> Result<()> {
    let request = CollectRequest {
        dry_run: gc.dry_run,
        grace_minutes: gc.grace,
        untagged_hours: gc.untagged,
    };
    let report: Report = call::call(&common.data, Method::POST, "/gc", &request)?;
    common.print(&report, |r| {
        format!(
            "{} {} blobs ({} bytes), {} manifests without a tag, {} blobs of repositories that do not need them, {} empty repositories",
            if r.dry_run { "would free" } else { "freed" },
            r.blobs, r.bytes, r.manifests, r.links, r.repositories
        )
    })
}
