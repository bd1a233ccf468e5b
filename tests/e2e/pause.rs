//! What concerns all processes of a container: pause, figures, the OOM killer, `top`.

use crate::exec::sleeper;
use crate::hosts::{BUSYBOX, Hosts, Link, actions, equal, holds, on, on_both, started};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use std::sync::Arc;
use tests::command::eventually;
use tests::docker::Docker;

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let mut all = on_both(hosts, "pause::a_paused_one_stands_still_and_goes_on", pause);
    all.push(on(
        hosts,
        Link::Vsock,
        "pause::a_paused_one_is_stopped_and_killed",
        ends,
    ));
    all.extend(on_both(hosts, "pause::stats_are_sane", stats));
    all.push(on(
        hosts,
        Link::Vsock,
        "pause::the_oom_killer_is_told_of",
        oom,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "pause::top_takes_the_options_of_ps",
        top,
    ));
    all
}

const STATE: &str = "{{.State.Status}} {{.State.Running}} {{.State.Paused}}";

fn lines(docker: &Docker, id: &str) -> Result<usize> {
    Ok(docker.ok(&["logs", id])?.lines().count())
}

fn pause(docker: &Docker) -> Result<()> {
    let (id, _gone) = started(docker, "while :; do echo x; sleep 0.01; done")?;
    eventually("it writes", || Ok(lines(docker, &id)? > 3))?;
    docker.ok(&["pause", &id])?;
    equal(
        "state",
        docker.inspect(&id, STATE)?,
        "paused true true".into(),
    )?;
    holds(
        &docker.ok(&["ps", "--filter", "status=paused"])?,
        "(Paused)",
    )?;
    let before = lines(docker, &id)?;
    for (args, words) in [
        (
            &["exec", &id, "true"][..],
            "is paused, unpause the container before exec",
        ),
        (&["attach", "--no-stdin", &id], "unpause"),
        (&["pause", &id], "is already paused"),
        (
            &["start", &id],
            "cannot start a paused container, try unpause instead",
        ),
        (
            &["rm", &id],
            "container is paused: unpause and then stop the container before removing",
        ),
    ] {
        let out = docker.run(args)?;
        ensure!(out.code != 0, "{args:?} was taken");
        holds(&out.errors(), words)?;
    }
    // All that took a while, and nothing was written.
    equal("lines", lines(docker, &id)?, before)?;
    docker.ok(&["unpause", &id])?;
    equal(
        "state",
        docker.inspect(&id, STATE)?,
        "running true false".into(),
    )?;
    eventually("it goes on", || Ok(lines(docker, &id)? > before + 3))?;
    holds(
        &docker.run(&["unpause", &id])?.exits(1)?.errors(),
        "is not paused",
    )?;
    eventually("both are told", || {
        Ok(actions(docker, &format!("container={id}"))?
            .join("\n")
            .contains("pause\nunpause"))
    })
}

fn ends(docker: &Docker) -> Result<()> {
    let (id, _gone) = started(
        docker,
        "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done",
    )?;
    crate::hosts::logs_come_to_hold(docker, &id, "up")?;
    docker.ok(&["pause", &id])?;
    docker.ok(&["stop", "-t", "60", &id])?;
    equal(
        "exit code",
        docker.inspect(&id, "{{.State.ExitCode}} {{.State.Status}}")?,
        "5 exited".into(),
    )?;
    docker.ok(&["start", &id])?;
    docker.ok(&["pause", &id])?;
    docker.ok(&["kill", &id])?;
    equal(
        "exit code",
        docker.inspect(&id, "{{.State.ExitCode}} {{.State.Status}}")?,
        "137 exited".into(),
    )?;
    holds(
        &docker.run(&["pause", &id])?.exits(1)?.errors(),
        "is not running",
    )
}

fn stats(docker: &Docker) -> Result<()> {
    let id = docker.ok(&[
        "run",
        "-d",
        "-m",
        "128m",
        BUSYBOX,
        "sh",
        "-c",
        "sleep 3600 & while :; do :; done",
    ])?;
    let _gone = docker.container(&id);
    let format = "{{.CPUPerc}} {{.MemUsage}} {{.NetIO}} {{.BlockIO}} {{.PIDs}}";
    let line = docker.ok(&["stats", "--no-stream", "--format", format, &id])?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let percent: f64 = words
        .first()
        .and_then(|w| w.strip_suffix('%'))
        .context("a share")?
        .parse()?;
    // One processor, busy; how busy the machine lets it be is another matter.
    ensure!(percent > 5.0 && percent < 110.0, "{line}");
    ensure!(
        line.contains("/ 128MiB") && !line.contains(" 0B / 128MiB"),
        "{line}"
    );
    equal("PIDs", words.last().copied(), Some("2"))?;
    ensure!(line.matches("0B / 0B").count() == 0, "{line}");
    let (status, body) = crate::refusals::http(
        docker,
        &format!(
            "GET /v1.50/containers/{id}/stats?stream=0&one-shot=1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
        ),
    )?;
    equal("status", status, 200)?;
    holds(&body, "\"system_cpu_usage\"")?;
    docker.ok(&["kill", &id])?;
    let line = docker.ok(&["stats", "--no-stream", "--format", format, &id])?;
    holds(&line, "0.00% 0B / 0B")
}

fn oom(docker: &Docker) -> Result<()> {
    // More children than the VM has room for, each with 30 MB in hand; the container goes on.
    let script = "for i in 1 2 3 4; do dd if=/dev/zero bs=30M count=1 2>/dev/null | sleep 3600 & done; \
        while ! grep -q 'oom_kill [1-9]' /sys/fs/cgroup/memory.events; do sleep 0.1; done; echo went on; wait";
    let id = docker.ok(&["run", "-d", "-m", "96m", BUSYBOX, "sh", "-c", script])?;
    let _gone = docker.container(&id);
    crate::hosts::logs_come_to_hold(docker, &id, "went on")?;
    eventually("it is known", || {
        Ok(docker.inspect(&id, "{{.State.OOMKilled}} {{.State.Running}}")? == "true true")
    })?;
    docker.ok(&["kill", &id])?;
    equal(
        "after its end",
        docker.inspect(&id, "{{.State.OOMKilled}} {{.State.ExitCode}}")?,
        "true 137".into(),
    )?;
    eventually("it is told", || {
        let told = actions(docker, &format!("container={id}"))?;
        Ok(["die", "oom"]
            .iter()
            .all(|want| told.iter().any(|l| l == want)))
    })
}

fn top(docker: &Docker) -> Result<()> {
    let c = sleeper(docker)?;
    let table = docker.ok(&["top", &c.name, "aux"])?;
    let mut lines = table.lines();
    let titles: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    equal(
        "titles",
        titles,
        "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"
            .split(' ')
            .collect(),
    )?;
    holds(lines.next().unwrap_or_default(), "sleep")?;
    let table = docker.ok(&["top", &c.name, "-o", "pid,ppid,user,comm"])?;
    let cells: Vec<&str> = table
        .lines()
        .nth(1)
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    equal("cells", cells, vec!["1", "0", "root", "sleep"])?;
    let out = docker.run(&["top", &c.name, "-o", "comm"])?.exits(1)?;
    holds(&out.errors(), "Couldn't find PID field in ps output")
}
