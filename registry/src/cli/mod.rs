//! The command line. What is not about the folder itself goes through the administration API: of the process that serves
//! the folder, or of this one if none does.

mod archive;
mod audit;
mod call;
mod gc;
mod guide;
mod init;
mod key;
mod label;
mod layout;
mod policies;
mod project;
mod robot;
mod serve;
mod user;
mod webhook;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use std::io::Write;
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
        let line = match self.json {
            true => serde_json::to_string(result)?,
            false => text(result),
        };
        let mut out = std::io::stdout().lock();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            // Who reads has read enough (`| head`); what was asked for is done.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            done => Ok(done?),
        }
    }

    /// Says that something was done.
    fn done(&self, text: &str) -> Result<()> {
        self.print(&serde_json::json!({"done": true}), |_| text.to_owned())
    }
}

/// Columns with their heads, as wide as they have to be.
fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|r| r.get(column))
            .map(String::as_str);
        cells
            .chain(heads.get(column).copied())
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(heads.to_vec())];
    lines.extend(
        rows.iter()
            .map(|r| line(r.iter().map(String::as_str).collect())),
    );
    lines.join("\n")
}

/// A time (milliseconds since 1970) for people.
fn when(milliseconds: i64) -> String {
    use time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::from_unix_timestamp(milliseconds / 1000)
        .ok()
        .and_then(|t| t.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// What a file that holds a password says.
fn password_of(file: Option<&PathBuf>) -> Result<Option<String>> {
    let Some(path) = file else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

#[derive(Subcommand)]
enum Command {
    /// Make a registry's folder, with an administrator and, if asked for, certificates
    Init(init::Init),
    /// Serve it
    Serve(serve::Serve),
    /// Tell how to log in, push and pull
    Guide(guide::Guide),
    /// Local users
    #[command(subcommand)]
    User(user::User),
    /// Projects and their members
    #[command(subcommand)]
    Project(project::Project),
    /// Accounts of programs, each of one project
    #[command(subcommand)]
    Robot(robot::Robot),
    /// How much a project may hold
    #[command(subcommand)]
    Quota(policies::Quota),
    /// Tags that must not move and not go
    #[command(subcommand)]
    Immutable(policies::Immutable),
    /// Which tags are kept, and which go
    #[command(subcommand)]
    Retention(policies::Retention),
    /// Labels of what is in a project
    #[command(subcommand)]
    Label(label::Label),
    /// Who is told what happens in a project
    #[command(subcommand)]
    Webhook(webhook::Webhook),
    /// Keys that sign tokens
    #[command(subcommand)]
    Key(key::Key),
    /// What was done, by whom, from where, with which result
    #[command(subcommand)]
    Audit(audit::Audit),
    /// The last lines of the log of the process that serves
    Log(audit::Log),
    /// Users, roles, robots and projects' settings as one file, for another registry
    #[command(subcommand)]
    Archive(archive::Archive),
    /// Collect garbage now
    Gc(gc::Gc),
    /// Write a repository into a folder, as an OCI image layout
    Export(layout::Export),
    /// Push what an OCI image layout holds into a repository
    Import(layout::Import),
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Init(init) => init::run(&cli.common, &init),
        Command::Serve(serve) => serve::run(&cli.common, &serve),
        Command::Guide(guide) => guide::run(&cli.common, &guide),
        Command::User(user) => user::run(&cli.common, user),
        Command::Project(project) => project::run(&cli.common, project),
        Command::Robot(robot) => robot::run(&cli.common, robot),
        Command::Quota(quota) => policies::quota(&cli.common, quota),
        Command::Immutable(rule) => policies::immutable(&cli.common, rule),
        Command::Retention(rule) => policies::retention(&cli.common, rule),
        Command::Label(label) => label::run(&cli.common, label),
        Command::Webhook(webhook) => webhook::run(&cli.common, webhook),
        Command::Key(key) => key::run(&cli.common, &key),
        Command::Audit(audit) => audit::run(&cli.common, audit),
        Command::Log(log) => audit::log(&cli.common, &log),
        Command::Archive(archive) => archive::run(&cli.common, archive),
        Command::Gc(gc) => gc::run(&cli.common, &gc),
        Command::Export(export) => layout::export(&cli.common, &export),
        Command::Import(import) => layout::import(&cli.common, &import),
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
