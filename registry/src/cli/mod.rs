//! The command line. What is not about the folder itself goes through the administration API: of the process that serves
//! the folder, or of this one if none does.

mod call;
mod gc;
mod init;
mod serve;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// An OCI registry.
#[derive(Parser)]
#[command(name = "registry", version, about)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What all commands take.
#[derive(Args)]
pub(crate) struct Common {
    /// The registry's folder
    #[arg(
        long,
        global = true,
        env = "REGISTRY_DATA",
        default_value = "/var/lib/mooring-registry"
    )]
    data: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

impl Common {
    /// Prints a result for people or for programs.
    fn print<T: Serialize>(&self, result: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(result)?);
        } else {
            println!("{}", text(result));
        }
        Ok(())
    }
}

#[derive(Subcommand)]
enum Command {
    /// Make a registry's folder, with an administrator and, if asked for, certificates
    Init(init::Init),
    /// Serve it
    Serve(serve::Serve),
    /// Collect garbage now
    Gc(gc::Gc),
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Init(init) => init::run(&cli.common, &init),
        Command::Serve(serve) => serve::run(&cli.common, &serve),
        Command::Gc(gc) => gc::run(&cli.common, &gc),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            if cli.common.json {
                eprintln!("{}", serde_json::json!({"message": format!("{e:#}")}));
            } else {
                eprintln!("registry: {e:#}");
            }
            ExitCode::FAILURE
        }
    }
}
