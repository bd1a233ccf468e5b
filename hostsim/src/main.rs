//! hostsim: a simulated ESXi host.

use clap::{Parser, Subcommand};
use hostsim::{serve, vmx};

/// A simulated ESXi host.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the vSphere API; prints `ready: https://ADDRESS thumbprint=SHA256` once it does.
    Serve(serve::ServeArgs),
    /// Run one VM (started by hostsim itself).
    #[command(hide = true)]
    Vmx(vmx::ShimArgs),
}

// Not `tokio::main`: a shim forks before it has threads.
fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hostsim: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Serve(args) => {
            tracing_subscriber::fmt()
                .with_env_filter(
                    tracing_subscriber::EnvFilter::try_from_default_env()
                        .unwrap_or_else(|_| "info".into()),
                )
                .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
                .with_writer(std::io::stderr)
                .init();
            raise_files();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?;
            Ok(runtime.block_on(serve::run(&args))?)
        }
        Command::Vmx(args) => Ok(vmx::run_shim(&args)?),
    }
}

/// As many open files as the system allows: each client that waits, and each VM's shim that is asked, is one.
fn raise_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
