//! `docker logs`: the journal, live and after the end.

use crate::hosts::{Hosts, Link, equal, holds, on, on_both, started};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::time::Duration;
use tests::docker::Docker;
use tests::random::times;

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let mut all = Vec::new();
    all.extend(on_both(
        hosts,
        "logs::live_and_after_the_end_are_the_same",
        same_live_and_ended,
    ));
    all.extend(on_both(hosts, "logs::follow_ends_with_the_process", follow));
    all.extend(on_both(
        hosts,
        "logs::asked_for_while_the_vm_ends_they_come",
        while_it_ends,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "logs::tail_timestamps_since_and_until",
        ranges,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "logs::a_paused_follower_does_not_hold_the_writer_back",
        paused_follower,
    ));
    all
}

fn same_live_and_ended(docker: &Docker) -> Result<()> {
    let (id, _gone) = started(
        docker,
        "seq 1 5000; echo oops >&2; read x < /dev/zero & exec sleep 3600",
    )?;
    tests::command::eventually("stderr is there", || {
        Ok(docker.run(&["logs", &id])?.errors().contains("oops"))
    })?;
    let live = docker.run(&["logs", &id])?.ok()?;
    docker.ok(&["kill", &id])?;
    docker.ok(&["wait", &id])?;
    let ended = docker.run(&["logs", &id])?.ok()?;
    crate::output::same("stdout", &ended.stdout, &crate::output::seq(5000))?;
    crate::output::same("stdout live and ended", &live.stdout, &ended.stdout)?;
    equal(
        "stderr",
        (live.errors(), ended.errors()),
        ("oops".into(), "oops".into()),
    )
}

/// A log that is asked for at any moment of a VM's end is there, and whole once the process has ended.
fn while_it_ends(docker: &Docker) -> Result<()> {
    for _ in 0..times(4, 30) {
        let (id, _gone) = started(docker, "seq 1 2000")?;
        docker.ok(&["wait", &id])?;
        // The VM is still on: it writes, says goodbye, goes off.
        for _ in 0..12 {
            let log = docker.run_within(&["logs", &id], Duration::from_secs(60))?;
            crate::output::same("log", &log.ok()?.stdout, &crate::output::seq(2000))?;
        }
    }
    Ok(())
}

fn follow(docker: &Docker) -> Result<()> {
    let (id, _gone) = started(
        docker,
        "echo first; read x; for i in 1 2 3; do echo $i; sleep 0.1; done",
    )?;
    // stdin is /dev/null, so the read ends at once and the lines come.
    let out = docker.run(&["logs", "-f", &id])?.ok()?;
    equal("followed", out.text(), "first\n1\n2\n3".into())
}

fn ranges(docker: &Docker) -> Result<()> {
    let (id, _gone) = started(
        docker,
        "echo one; sleep 1.2; echo two; sleep 1.2; printf 'three\\nfour'",
    )?;
    docker.ok(&["wait", &id])?;
    equal(
        "tail 0",
        docker.ok(&["logs", "--tail", "0", &id])?,
        String::new(),
    )?;
    equal(
        "tail 1",
        docker.ok(&["logs", "--tail", "1", &id])?,
        "four".into(),
    )?;
    equal(
        "tail 3",
        docker.ok(&["logs", "--tail", "3", &id])?,
        "two\nthree\nfour".into(),
    )?;
    let stamped = docker.ok(&["logs", "-t", &id])?;
    let lines: Vec<(&str, &str)> = stamped.lines().filter_map(|l| l.split_once(' ')).collect();
    equal(
        "lines",
        lines.iter().map(|l| l.1).collect::<Vec<_>>(),
        vec!["one", "two", "three", "four"],
    )?;
    ensure!(
        lines[0].0.ends_with('Z') && lines[0].0.len() == 30,
        "time stamp {:?}",
        lines[0].0
    );
    equal(
        "since the second",
        docker.ok(&["logs", "--since", lines[1].0, &id])?,
        "two\nthree\nfour".into(),
    )?;
    equal(
        "until the first",
        docker.ok(&["logs", "--until", lines[0].0, &id])?,
        "one".into(),
    )?;
    let out = docker
        .run(&["logs", "--since", "nonsense", &id])?
        .exits(1)?;
    holds(&out.errors(), "nonsense")
}

fn paused_follower(docker: &Docker) -> Result<()> {
    let (id, _gone) = started(
        docker,
        "while [ ! -e /go ]; do sleep 0.1; done; seq 1 400000",
    )?;
    let mut follower = docker.spawn(&["logs", "-f", &id])?;
    docker.ok(&["exec", &id, "touch", "/go"])?;
    // The follower's pipe is not read; the process ends all the same.
    equal("exit code", docker.ok(&["wait", &id])?, "0".into())?;
    let mut lines = 0u64;
    for line in BufReader::new(follower.stdout.take().expect("stdout was made a pipe")).lines() {
        lines += 1;
        equal("line", line?, lines.to_string())?;
    }
    follower.wait()?;
    equal("lines", lines, 400_000)
}
