//! Runs cases on both sides at once, and judges.

use super::case::Case;
use super::compare::{self, Difference};
use super::known::{self, Reason, Verdict};
use super::side::{Outcome, Side};
use crate::docker::Docker;
use crate::dockerd::Dockerd;
use crate::random::Random;
use crate::registry::Registry;
use crate::vch::{Settings, Vch};
use crate::{command, places};
use anyhow::{Context, Result, ensure};

/// Both hosts, with the same image.
#[derive(Debug)]
pub struct Pair {
    // Dropped in this order: the hosts, then what they reach.
    docker: Side,
    ours: Side,
    _vch: Vch,
    _dockerd: Dockerd,
    _registry: Registry,
}

/// What came of a case on both sides.
#[derive(Debug)]
pub struct Run {
    /// Commands and calls.
    pub commands: usize,
    /// Where the sides differ.
    pub found: Vec<Difference>,
    /// Docker's outcomes and ours, for reports.
    pub outcomes: Vec<(Outcome, Outcome)>,
}

impl Pair {
    /// Starts both.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start() -> Result<Self> {
        let registry = Registry::start()?;
        registry.push("busybox")?;
        let mut dockerd = Dockerd::start()?;
        dockerd.serve(&registry)?;
        eprintln!("starting a virtual container host");
        let vch = Vch::start(Settings::link("vsock"))?;
        for docker in [&dockerd.docker, &vch.docker] {
            load(docker)?;
        }
        let id = vch.docker.ok(&["info", "--format", "{{.ID}}"])?;
        Ok(Pair {
            docker: Side::new(
                "dockerd",
                dockerd.docker.clone(),
                &registry.address,
                Vec::new(),
            )?,
            ours: Side::new(
                "Mooring",
                vch.docker.clone(),
                &registry.address,
                vec![(id, "<host's ID>")],
            )?,
            _vch: vch,
            _dockerd: dockerd,
            _registry: registry,
        })
    }

    /// Runs one case on both sides, at the same time.
    ///
    /// # Errors
    /// When it cannot be run, or the sides made different calls.
    pub fn run(&self, case: &Case) -> Result<Run> {
        let (docker, ours) = std::thread::scope(|scope| {
            let ours = scope.spawn(|| self.ours.run(case));
            let docker = self.docker.run(case);
            let ours = ours.join();
            (docker, ours)
        });
        let docker = docker?;
        let ours =
            ours.map_err(|_| anyhow::anyhow!("{}: the run on our side panicked", case.name))??;
        ensure!(
            docker.iter().map(|o| &o.at).eq(ours.iter().map(|o| &o.at)),
            "{}: the sides made different calls",
            case.name
        );
        let mut found = Vec::new();
        for (docker, ours) in docker.iter().zip(&ours) {
            found.extend(compare::differences(&docker.at, &docker.lines, &ours.lines));
        }
        Ok(Run {
            commands: docker.len(),
            found,
            outcomes: docker.into_iter().zip(ours).collect(),
        })
    }
}

fn load(docker: &Docker) -> Result<()> {
    let archive = places::archive("busybox");
    let path = archive.to_str().context("the archive's path")?;
    docker
        .run_within(&["load", "-q", "-i", path], command::DEADLINE)?
        .ok()
        .map(drop)
}

/// A choice of `count` cases, in their order.
pub fn sample(mut cases: Vec<Case>, count: usize, random: &mut Random) -> Vec<Case> {
    while cases.len() > count {
        let at = random.below(cases.len() as u64);
        cases.remove(usize::try_from(at).unwrap_or(0));
    }
    cases
}

/// Everything a run found.
#[derive(Debug, Default)]
pub struct Report {
    /// Cases that ran.
    pub cases: usize,
    /// Commands and calls in them.
    pub commands: usize,
    /// All differences.
    pub found: Vec<Difference>,
    /// Cases that could not be run, and why.
    pub broken: Vec<String>,
}

impl Report {
    /// Runs these cases, telling `each` of every one.
    pub fn of(pair: &Pair, cases: &[Case], mut each: impl FnMut(&Case, &Result<Run>)) -> Self {
        let mut report = Report::default();
        for case in cases {
            let run = crate::interrupt::check().and_then(|()| pair.run(case));
            each(case, &run);
            report.cases += 1;
            match run {
                Ok(run) => {
                    report.commands += run.commands;
                    report.found.extend(run.found);
                }
                Err(error) => report.broken.push(format!("{error:#}")),
            }
        }
        report
    }

    /// Sorts what was found into known and unknown.
    pub fn judge(&self, reasons: &[Reason]) -> Verdict {
        known::judge(reasons, &self.found)
    }
}
