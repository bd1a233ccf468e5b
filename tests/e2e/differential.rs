//! Docker's commands against Debian's dockerd and against us (tests/differential/README.md): a sample of the set; all of
//! it in `make soak`.

use crate::hosts::{Hosts, alone};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::sync::Arc;
use tests::differential::set::{Pair, Report, sample};
use tests::differential::{case, folder, known};
use tests::random::{Random, times};

/// Cases of a sample: about a minute.
const SAMPLE: usize = 6;

pub fn tests(_: &Arc<Hosts>) -> Vec<Trial> {
    vec![alone(
        "differential::commands_differ_from_dockers_only_as_it_is_written_down",
        || Random::seeded(20, compare),
    )]
}

fn compare(mut random: Random) -> Result<()> {
    let reasons = known::parse(&std::fs::read_to_string(folder().join("differences.txt"))?)?;
    let all = case::read_all(&folder())?;
    let count = times(SAMPLE, all.len());
    let whole = count == all.len();
    let cases = sample(all, count, &mut random);
    let report = Report::of(&Pair::start()?, &cases, |_, _| {});
    let verdict = report.judge(&reasons);
    let mut wrong = report.broken.clone();
    let unknown = verdict.unknown.iter();
    wrong.extend(unknown.map(|d| format!("{}: {d}", d.at)));
    if whole {
        let stale = verdict.stale(&reasons);
        let stale = stale.iter();
        wrong.extend(stale.map(|(r, line)| format!("{} does not occur: {line}", r.name)));
    }
    ensure!(
        wrong.is_empty(),
        "of {} commands in {} cases, these differ in what is not in tests/differential/differences.txt:\n{}",
        report.commands,
        report.cases,
        wrong.join("\n")
    );
    Ok(())
}
