//! hostsim: a simulated ESXi host.

use clap::{Parser, Subcommand};
use hostsim::vmx;

/// A simulated ESXi host.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one VM (started by hostsim itself).
    #[command(hide = true)]
    Vmx(vmx::ShimArgs),
}

// Not `tokio::main`: a shim forks before it has threads.
fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Vmx(args) => Ok(vmx::run_shim(&args)?),
    }
}
