//! The differential set against Debian's dockerd; tests/differential/README.md says how.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::Parser;
use std::process::ExitCode;
use std::time::Instant;
use tests::differential::set::{Pair, Report, Run, sample};
use tests::differential::{case, compare, folder, known, page};
use tests::places;
use tests::random::Random;

/// Runs Docker commands against Debian's dockerd and against Mooring, and compares what comes of them.
#[derive(Parser)]
struct Cli {
    /// Only the cases whose names hold one of these
    names: Vec<String>,
    /// Show the cases' names and how many commands they have
    #[arg(long)]
    list: bool,
    /// Only so many cases, chosen by MOORING_SEED
    #[arg(long)]
    sample: Option<usize>,
    /// Show both sides' output of every command, not only what differs and is not known
    #[arg(long)]
    all: bool,
    /// Judge what the last run found by what is known now, run nothing
    #[arg(long)]
    again: bool,
    /// Write the known differences into docs/docker-compatibility.md, run nothing
    #[arg(long)]
    page: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("differential: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<bool> {
    let list = std::fs::read_to_string(folder().join("differences.txt"))?;
    let reasons = known::parse(&list).context("differences.txt")?;
    if cli.page {
        let path = places::root().join("docs/docker-compatibility.md");
        let text = std::fs::read_to_string(&path)?;
        std::fs::write(path, page::put(&text, &page::render(&reasons))?)?;
        return Ok(true);
    }
    let last = places::target().join("differential.txt");
    if cli.again {
        let found = compare::read(&std::fs::read_to_string(last)?)?;
        return Ok(tell(&reasons, &known::judge(&reasons, &found), true));
    }
    let mut cases = case::read_all(&folder())?;
    let whole = cli.names.is_empty() && cli.sample.is_none();
    if !cli.names.is_empty() {
        cases.retain(|c| cli.names.iter().any(|name| c.name.contains(name.as_str())));
    }
    if let Some(count) = cli.sample {
        cases = Random::seeded(1, |mut random| Ok(sample(cases, count, &mut random)))?;
    }
    if cli.list {
        for case in &cases {
            println!("{:4} {}", case.steps.len(), case.name);
        }
        return Ok(true);
    }
    tests::interrupt::watch()?;
    let begin = Instant::now();
    let pair = Pair::start()?;
    let report = Report::of(&pair, &cases, |case, run| match run {
        Ok(run) => show(cli.all, &reasons, &case.name, run),
        Err(e) => println!("{}: could not be run: {e:#}", case.name),
    });
    drop(pair);
    std::fs::write(last, compare::write(&report.found))?;
    let verdict = report.judge(&reasons);
    println!(
        "{} commands and calls in {} cases, {} s: {} lines differ, {} of them unknown; {} cases could not be run",
        report.commands,
        report.cases,
        begin.elapsed().as_secs(),
        report.found.len(),
        verdict.unknown.len(),
        report.broken.len()
    );
    let good = tell(&reasons, &verdict, whole);
    Ok(good && report.broken.is_empty())
}

/// Tells what is not as it is written down.
fn tell(reasons: &[known::Reason], verdict: &known::Verdict, whole: bool) -> bool {
    let mut at = "";
    for difference in &verdict.unknown {
        if difference.at != at {
            at = &difference.at;
            println!("{at}");
        }
        println!("  {difference}");
    }
    let stale = if whole {
        verdict.stale(reasons)
    } else {
        Vec::new()
    };
    for (reason, line) in &stale {
        println!("{} does not occur: {line}", reason.name);
    }
    verdict.unknown.is_empty() && stale.is_empty()
}

fn show(all: bool, reasons: &[known::Reason], name: &str, run: &Run) {
    let unknown = known::judge(reasons, &run.found).unknown;
    println!(
        "{name}: {} commands, {} lines differ, {} unknown",
        run.commands,
        run.found.len(),
        unknown.len()
    );
    for (docker, ours) in &run.outcomes {
        let here: Vec<_> = unknown.iter().filter(|d| d.at == docker.at).collect();
        if all || !here.is_empty() {
            println!("  {}: {}", docker.at, docker.command);
        }
        if all {
            docker
                .lines
                .iter()
                .for_each(|l| println!("    docker| {l}"));
            ours.lines.iter().for_each(|l| println!("      ours| {l}"));
        }
        here.iter().for_each(|d| println!("    {d}"));
    }
}
