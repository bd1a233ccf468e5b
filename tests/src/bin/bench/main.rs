//! Benchmarks as ratios: Mooring and a floor or a peer, measured in turns in the same run. README.md says how.
#![forbid(unsafe_code)]

mod bare;
mod boot;
mod commands;
mod floors;
mod http;
mod lab;
mod measure;
mod objects;
mod output;
mod registry;
mod share;
mod sizes;
mod tcp;

use anyhow::{Context, Result};
use clap::Parser;
use lab::{Kernel, Lab};
use measure::{Alternate, Bar, Row, Unit};
use output::Through;
use std::process::ExitCode;
use std::time::Instant;
use tests::{interrupt, places};

/// Benchmarks as ratios against floors and peers; a table, and target/bench.json.
#[derive(Parser)]
struct Cli {
    /// Only the benchmarks whose names hold one of these
    names: Vec<String>,
    /// Show the benchmarks' names
    #[arg(long)]
    list: bool,
    /// Pairs of measurements for each [default: as the list says]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    runs: Option<u16>,
}

/// Measures one benchmark, and gives its rows.
type Measure = Box<dyn Fn(&mut Lab, &Alternate) -> Result<Vec<Row>>>;

/// One benchmark.
struct Bench {
    name: String,
    unit: Unit,
    bar: Bar,
    runs: usize,
    warm: bool,
    measure: Measure,
}

impl Bench {
    fn new(
        name: impl Into<String>,
        unit: Unit,
        bar: Bar,
        runs: usize,
        measure: impl Fn(&mut Lab, &Alternate) -> Result<Row> + 'static,
    ) -> Self {
        Bench {
            name: name.into(),
            unit,
            bar,
            runs,
            warm: true,
            measure: Box::new(move |lab, order| Ok(vec![measure(lab, order)?])),
        }
    }

    /// Sizes, which are looked at once.
    fn sizes(name: &str, measure: impl Fn(&mut Lab) -> Result<Vec<Row>> + 'static) -> Self {
        Bench {
            name: name.to_owned(),
            unit: Unit::Bytes,
            bar: Bar::None,
            runs: 1,
            warm: false,
            measure: Box::new(move |lab, _| measure(lab)),
        }
    }
}

/// All of them, those that share a host side by side.
fn benches() -> Vec<Bench> {
    let mut all = vec![Bench::sizes("size", |_| sizes::files())];
    for (name, kernel, bar) in [
        ("boot-to-first-byte", Kernel::Packaged, 1.6),
        ("boot-to-first-byte-fast", Kernel::Fast, 0.6),
    ] {
        for (part, setup) in boot::setups(kernel) {
            all.push(Bench {
                name: format!("{name}-{part}"),
                unit: Unit::Seconds,
                bar: Bar::AtMost(bar),
                runs: 5,
                warm: true,
                measure: Box::new(move |lab, order| boot::first_byte(lab, setup, order)),
            });
        }
    }
    for (part, way) in [("direct", bare::Way::Tuned), ("iso", bare::Way::TunedIso)] {
        let name = format!("bare-boot-fast-{part}");
        let measure = move |lab: &mut Lab, order: &Alternate| bare::trimmed(lab, way, order);
        all.push(Bench::new(name, Unit::Seconds, Bar::None, 5, measure));
    }
    for link in ["vsock", "serial"] {
        for (name, through, bar) in [
            ("", Through::Logs, Bar::AtLeast(0.6)),
            ("-attach", Through::Attach, Bar::None),
        ] {
            all.push(Bench {
                name: format!("stdout-{link}{name}"),
                unit: Unit::Rate,
                bar,
                runs: 3,
                warm: false,
                measure: Box::new(move |lab, order| output::stdout(lab, link, through, order)),
            });
        }
        all.push(Bench::new(
            format!("exec-{link}"),
            Unit::Seconds,
            Bar::AtMost(1.0),
            15,
            move |lab, order| commands::exec(lab, link, order),
        ));
    }
    all.push(Bench::new(
        "create",
        Unit::Seconds,
        Bar::AtMost(1.0),
        15,
        commands::create,
    ));
    all.push(Bench::new(
        "pull",
        Unit::Seconds,
        Bar::AtMost(0.5),
        3,
        commands::pull,
    ));
    all.extend(against_dockerd());
    all.extend(over_tcp());
    all.extend(shares());
    all.extend(registries());
    all.push(Bench::sizes("resident", sizes::resident));
    all.push(Bench::sizes("free-128m-guest", sizes::free));
    all
}

/// Whole commands on networks, volumes, lists, images.
fn against_dockerd() -> Vec<Bench> {
    type Whole = fn(&mut Lab, &Alternate) -> Result<Row>;
    let all: [(&str, Bar, usize, Whole); 9] = [
        ("network-create", Bar::None, 15, objects::network),
        ("volume-create", Bar::None, 15, objects::volume),
        ("create-and-rm", Bar::None, 15, objects::create_and_remove),
        ("stats", Bar::None, 5, objects::stats),
        ("top", Bar::None, 15, objects::top),
        ("load", Bar::None, 3, objects::load),
        ("save", Bar::None, 3, objects::save),
        ("push", Bar::None, 3, objects::push),
        ("list-1000", Bar::AtMost(0.5), 15, objects::list),
    ];
    let bench = |(name, bar, runs, whole): (&str, Bar, usize, Whole)| {
        Bench::new(name, Unit::Seconds, bar, runs, whole)
    };
    all.into_iter().map(bench).collect()
}

/// Containers' networks, over bare VMs on taps.
fn over_tcp() -> Vec<Bench> {
    use tcp::{From, What};
    let mut all = Vec::new();
    for (place, from) in [("published", From::Outside), ("between", From::Container)] {
        for (kind, what, unit) in [
            ("rate", What::Rate, Unit::Rate),
            ("latency", What::Latency, Unit::Seconds),
        ] {
            let name = format!("tcp-{place}-{kind}");
            all.push(Bench::new(name, unit, Bar::None, 5, move |lab, order| {
                tcp::tcp(lab, from, what, order)
            }));
        }
    }
    all
}

/// A folder of the machine, over the container's own disk.
fn shares() -> Vec<Bench> {
    use share::What;
    let all = [
        ("write", What::Write, Unit::Rate),
        ("read", What::Read, Unit::Rate),
        ("files", What::Files, Unit::Seconds),
    ];
    let bench = |(name, what, unit)| {
        let name = format!("share-9p-{name}");
        Bench::new(name, unit, Bar::None, 5, move |lab, order| {
            share::share(lab, what, order)
        })
    };
    all.into_iter().map(bench).collect()
}

/// Those of the registry, which need no VM.
fn registries() -> Vec<Bench> {
    let mut all = Vec::new();
    for (direction, pull) in [("pull", true), ("push", false)] {
        for (name, size) in [("1k", 1 << 10), ("1m", 1 << 20), ("100m", 100 << 20)] {
            for clients in [1, 16, 256] {
                let bar = match (direction, name, clients) {
                    ("pull", "1m", 256) => Bar::AtLeast(2.0),
                    ("push", "100m", 1 | 16) => Bar::AtLeast(1.5),
                    // 25 GB for each measurement.
                    (_, "100m", 256) => continue,
                    _ => Bar::None,
                };
                all.push(Bench {
                    name: format!("registry-{direction}-{name}-{clients}"),
                    unit: Unit::Rate,
                    bar,
                    runs: 3,
                    warm: pull,
                    measure: Box::new(move |lab, order| {
                        registry::transfer(lab.registries()?, order, pull, size, clients)
                    }),
                });
            }
        }
    }
    let more = [
        (
            "registry-resident",
            Unit::Bytes,
            Bar::AtMost(0.25),
            1,
            registry::resident as fn(&Alternate) -> _,
        ),
        (
            "registry-tag-page",
            Unit::Seconds,
            Bar::AtMost(1.0),
            3,
            registry::tag_page,
        ),
        (
            "registry-start",
            Unit::Seconds,
            Bar::AtMost(1.0),
            3,
            registry::start,
        ),
    ];
    for (name, unit, bar, runs, measure) in more {
        all.push(Bench {
            name: name.into(),
            unit,
            bar,
            runs,
            warm: false,
            measure: Box::new(move |_, order| measure(order)),
        });
    }
    all
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for. `false`: some could not be measured. A bar that is missed is told, and is no failure.
fn run(cli: &Cli) -> Result<bool> {
    let wanted = |b: &Bench| cli.names.is_empty() || cli.names.iter().any(|n| b.name.contains(n));
    let benches: Vec<Bench> = benches().into_iter().filter(wanted).collect();
    anyhow::ensure!(
        !benches.is_empty(),
        "no benchmark's name holds {}; --list shows them",
        cli.names.join(" or ")
    );
    if cli.list {
        for b in &benches {
            println!("{:32} {:>7} {:>3} runs", b.name, b.bar.to_string(), b.runs);
        }
        return Ok(true);
    }
    interrupt::watch()?;
    let begin = Instant::now();
    let mut lab = Lab::default();
    if benches.iter().any(|b| !b.name.starts_with("registry-")) {
        eprintln!("bench: accelerator {}", lab.floors()?.accelerator());
    }
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for (n, b) in benches.iter().enumerate() {
        eprintln!(
            "bench: {} of {}: {} ({} s so far)",
            n + 1,
            benches.len(),
            b.name,
            begin.elapsed().as_secs()
        );
        let order = Alternate {
            name: &b.name,
            unit: b.unit,
            bar: b.bar,
            runs: cli.runs.map_or(b.runs, usize::from),
            warm: b.warm,
        };
        match interrupt::check().and_then(|()| (b.measure)(&mut lab, &order)) {
            Ok(more) => rows.extend(more),
            Err(e) => {
                eprintln!("bench: {} could not be measured: {e:#}", b.name);
                failed.push(b.name.as_str());
            }
        }
        // After each: an interrupted run leaves what it has.
        save(&rows)?;
    }
    drop(lab);
    print!("{}", measure::table(&rows));
    println!(
        "ours, min, max: Mooring's median and range; ratio: median of the pairs' ratios; {} s; target/bench.json",
        begin.elapsed().as_secs()
    );
    if !failed.is_empty() {
        println!("could not be measured: {}", failed.join(", "));
    }
    Ok(failed.is_empty())
}

fn save(rows: &[Row]) -> Result<()> {
    let path = places::target().join("bench.json");
    let fresh = path.with_extension("json.new");
    let list: Vec<serde_json::Value> = rows.iter().map(Row::json).collect();
    std::fs::write(&fresh, format!("{:#}\n", serde_json::Value::from(list)))
        .and_then(|()| std::fs::rename(&fresh, &path))
        .with_context(|| path.display().to_string())
}
