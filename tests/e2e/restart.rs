//! Restart policies: in place by the tether, of a VM that died by the endpoint, at the host's next start.

use crate::hosts::{
    BUSYBOX, Hosts, Link, actions, alone, equal, holds, load, logs_come_to_hold, on, on_both,
};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::sync::Arc;
use tests::command::eventually;
use tests::docker::Docker;
use tests::vch::{Frozen, Settings, Vch, kill_process};

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let mut all = on_both(
        hosts,
        "restart::on_failure_runs_again_in_the_same_vm_and_gives_up",
        on_failure,
    );
    all.push(on(
        hosts,
        Link::Vsock,
        "restart::stop_and_kill_end_it_for_good",
        for_good,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "restart::update_changes_the_policy_of_one_that_runs",
        update,
    ));
    all.push(alone(
        "restart::a_vm_that_died_is_started_again_and_so_is_the_host_s_next_start",
        died,
    ));
    all
}

const STATE: &str = "{{.State.Status}} {{.State.Running}} {{.State.Restarting}} {{.State.ExitCode}} {{.RestartCount}}";

fn on_failure(docker: &Docker) -> Result<()> {
    // A boot of its own has an ID of its own.
    let script = "echo x >> /c; echo $(wc -l < /c) $(cat /proc/sys/kernel/random/boot_id); exit 4";
    let id = docker.ok(&[
        "run",
        "-d",
        "--restart",
        "on-failure:3",
        BUSYBOX,
        "sh",
        "-c",
        script,
    ])?;
    let _gone = docker.container(&id);
    eventually("it gave up", || {
        Ok(docker.inspect(&id, STATE)? == "exited false false 4 3")
    })?;
    let log = docker.ok(&["logs", &id])?;
    let lines: Vec<(&str, &str)> = log.lines().filter_map(|l| l.split_once(' ')).collect();
    equal(
        "runs over one root",
        lines.iter().map(|l| l.0).collect::<Vec<_>>(),
        vec!["1", "2", "3", "4"],
    )?;
    ensure!(lines.iter().all(|l| l.1 == lines[0].1), "it booted: {log}");
    // The client gives whole seconds: the last of them comes a moment later.
    eventually("4 starts and 4 ends are told", || {
        let told = actions(docker, &format!("container={id}"))?;
        let count = |action: &str| told.iter().filter(|l| *l == action).count();
        Ok((count("start"), count("die")) == (4, 4))
    })?;
    // Where its process ends well, that is the end.
    let id = docker.ok(&["run", "-d", "--restart", "on-failure", BUSYBOX, "true"])?;
    let _gone = docker.container(&id);
    eventually("it has ended", || {
        Ok(docker.inspect(&id, STATE)? == "exited false false 0 0")
    })
}

/// One whose process ends as soon as it is started.
fn restless(docker: &Docker, policy: &str) -> Result<String> {
    let id = docker.ok(&[
        "run",
        "-d",
        "--restart",
        policy,
        BUSYBOX,
        "sh",
        "-c",
        "echo up; exit 1",
    ])?;
    // The pauses grow, so that in the end it is nearly always between two runs.
    eventually("it is restarting", || {
        Ok(docker
            .inspect(&id, "{{.State.Status}} {{.RestartCount}}")?
            .strip_prefix("restarting ")
            .and_then(|n| n.parse::<u32>().ok())
            .is_some_and(|n| n > 4))
    })?;
    Ok(id)
}

fn for_good(docker: &Docker) -> Result<()> {
    let id = restless(docker, "always")?;
    let _gone = docker.container(&id);
    holds(
        &docker.ok(&["ps", "--filter", "status=restarting"])?,
        "Restarting (1)",
    )?;
    let out = docker.run(&["exec", &id, "true"])?.exits(1)?;
    holds(
        &out.errors(),
        "is restarting, wait until the container is running",
    )?;
    let out = docker.run(&["rm", &id])?.exits(1)?;
    holds(
        &out.errors(),
        "container is restarting: stop the container before removing",
    )?;
    docker.ok(&["stop", &id])?;
    holds(&docker.inspect(&id, STATE)?, "exited false false 1 ")?;
    // A start by hand counts from 0.
    docker.ok(&["start", &id])?;
    eventually("it restarts again", || {
        Ok(docker.inspect(&id, "{{.RestartCount}}")? != "0")
    })?;
    docker.ok(&["rm", "-f", &id])?;
    let id = docker.ok(&["run", "-d", "--restart", "always", BUSYBOX, "sleep", "3600"])?;
    let _gone = docker.container(&id);
    docker.ok(&["kill", &id])?;
    equal(
        "killed",
        docker.inspect(&id, STATE)?,
        "exited false false 137 0".into(),
    )?;
    let out = docker
        .run(&["create", "--rm", "--restart", "always", BUSYBOX, "true"])?
        .exits(125)?;
    holds(&out.errors(), "--restart")?;
    let out = docker
        .run(&["create", "--restart", "sometimes", BUSYBOX, "true"])?
        .exits(1)?;
    holds(&out.errors(), "sometimes")
}

fn update(docker: &Docker) -> Result<()> {
    let id = docker.ok(&["run", "-d", BUSYBOX, "sh", "-c", "sleep 3600; exit 3"])?;
    let _gone = docker.container(&id);
    docker.ok(&["update", "--restart", "on-failure:1", &id])?;
    equal(
        "policy",
        docker.inspect(&id, "{{.HostConfig.RestartPolicy}}")?,
        "{on-failure 1}".into(),
    )?;
    // It ends with the container that it is in.
    docker.run(&["exec", &id, "killall", "sleep"])?;
    eventually("it was restarted", || {
        Ok(docker.inspect(&id, STATE)? == "running true false 0 1")
    })?;
    docker.ok(&["update", "--restart", "no", &id])?;
    // It ends with the container that it is in.
    docker.run(&["exec", &id, "killall", "sleep"])?;
    eventually("it has ended", || {
        Ok(docker.inspect(&id, STATE)? == "exited false false 3 1")
    })
}

fn died() -> Result<()> {
    let vch = Vch::start(Settings::link("vsock"))?;
    let docker = &vch.docker;
    load(docker, "busybox")?;
    let run = |name: &str, policy: &str| {
        let args = [
            "run",
            "-d",
            "-m",
            "96m",
            "--name",
            name,
            "--restart",
            policy,
        ];
        docker.ok(&[&args[..], &[BUSYBOX, "sleep", "3600"]].concat())
    };
    run("always", "always")?;
    docker.ok(&["stop", "-t", "0", "always"])?;
    run("stopped", "unless-stopped")?;
    docker.ok(&["stop", "-t", "0", "stopped"])?;
    let id = run("kept", "unless-stopped")?;
    let plain = run("plain", "no")?;
    let started = || docker.inspect("plain", "{{.State.Running}} {{.State.StartedAt}}");
    let before = started()?;
    kill_process(vch.qemu(&id)?)?;
    eventually("the VM is started again", || {
        Ok(docker.inspect("kept", STATE)? == "running true false 0 1")
    })?;
    equal(
        "stopped",
        docker.inspect("always", "{{.State.Status}}")?,
        "exited".into(),
    )?;
    // The endpoint finds a VM dead that died while it was away; what was changed while it ran still counts.
    docker.ok(&["update", "--pids-limit", "77", "kept"])?;
    vch.kill("endpoint")?;
    kill_process(vch.qemu(&id)?)?;
    // A VM whose tether cannot dial: what the endpoint knows of it is what was written down.
    let frozen = Frozen::new(vch.qemu(&plain)?)?;
    vch.up()?;
    equal("the start of what runs", started()?, before)?;
    drop(frozen);
    eventually("the VM is started again", || {
        Ok(docker.inspect("kept", "{{.State.Status}}")? == "running")
    })?;
    equal(
        "the limit",
        docker.inspect("kept", "{{.HostConfig.PidsLimit}}")?,
        "77".into(),
    )?;
    equal(
        "the limit in the VM",
        docker.ok(&["exec", "kept", "cat", "/sys/fs/cgroup/pids.max"])?,
        "77".into(),
    )?;
    let stopped = stop_beside_a_kill(&vch)?;
    vch.down()?;
    vch.up()?;
    equal("the stop was the last word", slow(docker)?, stopped)?;
    for (name, is) in [
        ("always", "running"),
        ("kept", "running"),
        ("stopped", "exited"),
        ("slow", "exited"),
        ("plain", "exited"),
    ] {
        eventually(&format!("{name} is {is}"), || {
            Ok(docker.inspect(name, "{{.State.Status}}")? == is)
        })?;
    }
    Ok(())
}

fn slow(docker: &Docker) -> Result<String> {
    docker.inspect("slow", "{{.State.StartedAt}} {{.RestartCount}}")
}

/// The endpoint is killed in the middle of a stop: the one that is started then gets the process's end, and must know that
/// it was wanted.
fn stop_beside_a_kill(vch: &Vch) -> Result<String> {
    let docker = &vch.docker;
    let script = "trap 'echo told; until [ -e /go ]; do sleep 0.1; done; exit 0' TERM; echo up; while :; do sleep 0.1; done";
    let run = "run -d -m 96m --name slow --restart unless-stopped";
    let mut args: Vec<&str> = run.split(' ').collect();
    args.extend([BUSYBOX, "sh", "-c", script]);
    docker.ok(&args)?;
    logs_come_to_hold(docker, "slow", "up")?;
    let before = slow(docker)?;
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| docker.run(&["stop", "-t", "60", "slow"]));
        logs_come_to_hold(docker, "slow", "told")?;
        vch.kill("endpoint")?;
        // It is told that its endpoint is gone.
        let _failed = stop.join();
        anyhow::Ok(())
    })?;
    vch.up()?;
    docker.ok(&["exec", "slow", "touch", "/go"])?;
    eventually("it has ended", || {
        Ok(docker.inspect("slow", "{{.State.Status}}")? == "exited")
    })?;
    Ok(before)
}
