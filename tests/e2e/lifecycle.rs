//! A container's life: create, start, stop, kill, restart, rename, list, inspect, remove.

use crate::exec::sleeper;
use crate::hosts::{
    BUSYBOX, Hosts, Link, actions, equal, holds, logs_come_to_hold, on, on_both, started,
};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::sync::Arc;
use tests::command::eventually;
use tests::docker::Docker;

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let mut all = Vec::new();
    all.extend(on_both(hosts, "lifecycle::stop_asks_first", stop));
    all.extend(on_both(hosts, "lifecycle::kill_with_any_signal", kill));
    all.extend(on_both(
        hosts,
        "lifecycle::restart_keeps_files_and_logs",
        restart,
    ));
    all.push(on(hosts, Link::Vsock, "lifecycle::ps_and_its_filters", ps));
    all.push(on(
        hosts,
        Link::Vsock,
        "lifecycle::rename_while_it_runs_lasts",
        rename,
    ));
    all.push(on(hosts, Link::Vsock, "lifecycle::names_are_unique", names));
    all.push(on(
        hosts,
        Link::Vsock,
        "lifecycle::inspect_has_what_clients_read",
        inspect,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "lifecycle::top_shows_the_container_s_processes",
        top,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "lifecycle::rm_of_a_running_one_wants_force",
        rm,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "lifecycle::events_tell_the_story",
        events,
    ));
    all.push(on(
        hosts,
        Link::Vsock,
        "lifecycle::attach_to_a_running_one",
        attach,
    ));
    all
}

fn stop(docker: &Docker) -> Result<()> {
    let (id, _gone) = started(
        docker,
        "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done",
    )?;
    logs_come_to_hold(docker, &id, "up")?;
    docker.ok(&["stop", "-t", "60", &id])?;
    equal(
        "exit code",
        docker.inspect(&id, "{{.State.ExitCode}} {{.State.Status}}")?,
        "3 exited".into(),
    )?;
    equal("log", docker.ok(&["logs", &id])?, "up\nbye".into())?;
    // One that does not listen is killed.
    let (deaf, _gone) = started(docker, "trap '' TERM; echo up; while :; do sleep 0.1; done")?;
    logs_come_to_hold(docker, &deaf, "up")?;
    // Who waits for ever keeps nobody else from stopping it.
    let mut patient = docker.command(&["stop", "-t", "-1", &deaf]);
    let mut patient = patient.stdout(std::process::Stdio::null()).spawn()?;
    eventually("the first stop has sent its signal", || {
        let told = actions(docker, &format!("container={deaf}"))?;
        Ok(told.iter().any(|action| action == "kill"))
    })?;
    let stopped = docker.ok(&["stop", "-t", "1", &deaf]);
    if stopped.is_err() {
        patient.kill()?;
    }
    let waited = patient.wait()?;
    stopped?;
    ensure!(waited.success(), "the patient stop: {waited}");
    equal(
        "exit code",
        docker.inspect(&deaf, "{{.State.ExitCode}}")?,
        "137".into(),
    )
}

fn kill(docker: &Docker) -> Result<()> {
    let script = "trap 'echo usr1' USR1; trap 'echo rt' RTMIN+3 2>/dev/null || trap 'echo rt' 37; echo up; while :; do sleep 0.1; done";
    let (id, _gone) = started(docker, script)?;
    logs_come_to_hold(docker, &id, "up")?;
    docker.ok(&["kill", "-s", "SIGUSR1", &id])?;
    logs_come_to_hold(docker, &id, "usr1")?;
    docker.ok(&["kill", "-s", "37", &id])?;
    logs_come_to_hold(docker, &id, "rt")?;
    let out = docker.run(&["kill", "-s", "NOSUCH", &id])?.exits(1)?;
    holds(&out.errors(), "nvalid signal")?;
    docker.ok(&["kill", &id])?;
    equal("exit code", docker.ok(&["wait", &id])?, "137".into())?;
    let out = docker.run(&["kill", &id])?.exits(1)?;
    holds(&out.errors(), "is not running")
}

fn restart(docker: &Docker) -> Result<()> {
    let (id, _gone) = started(docker, "echo x >> /count; wc -l < /count; exec sleep 3600")?;
    tests::command::eventually("it counted to 1", || Ok(docker.ok(&["logs", &id])? == "1"))?;
    docker.ok(&["restart", "-t", "1", &id])?;
    tests::command::eventually("it counted to 2", || {
        Ok(docker.ok(&["logs", &id])? == "1\n2")
    })?;
    docker.ok(&["stop", "-t", "1", &id])?;
    docker.ok(&["start", &id])?;
    tests::command::eventually("it counted to 3", || {
        Ok(docker.ok(&["logs", &id])? == "1\n2\n3")
    })?;
    equal(
        "running",
        docker.inspect(&id, "{{.State.Running}}")?,
        "true".into(),
    )
}

fn ps(docker: &Docker) -> Result<()> {
    let name = "e2e-ps";
    let _gone = docker.container(name);
    docker.ok(&[
        "create",
        "--name",
        name,
        "--label",
        "color=blue",
        BUSYBOX,
        "sh",
        "-c",
        "exit 5",
    ])?;
    let id = docker.ok(&["ps", "-aq", "--no-trunc", "--filter", "name=e2e-ps"])?;
    equal("length of the ID", id.len(), 64)?;
    let listed = |filter: &str| {
        docker
            .ok(&["ps", "-aq", "--no-trunc", "--filter", filter])
            .map(|l| l.lines().any(|l| l == id))
    };
    ensure!(listed("status=created")? && !listed("status=exited")?);
    docker.ok(&["start", name])?;
    docker.ok(&["wait", name])?;
    for (filter, shown) in [
        ("status=exited", true),
        ("status=running", false),
        ("exited=5", true),
        ("exited=0", false),
        ("label=color", true),
        ("label=color=blue", true),
        ("label=color=red", false),
        ("ancestor=mooring-test/busybox", true),
        ("network=bridge", true),
        ("network=none", false),
    ] {
        equal(filter, listed(filter)?, shown)?;
    }
    ensure!(listed(&format!("id={}", &id[..12]))?);
    holds(
        &docker.ok(&["ps", "-a", "--filter", "name=e2e-ps"])?,
        "Exited (5)",
    )?;
    let out = docker.run(&["ps", "--filter", "nonsense=1"])?.exits(1)?;
    holds(&out.errors(), "invalid filter")
}

fn rename(docker: &Docker) -> Result<()> {
    let c = sleeper(docker)?;
    // As `inspect` tells a name.
    docker.ok(&["rename", &c.name, "/e2e-renamed"])?;
    equal(
        "name",
        docker.inspect("e2e-renamed", "{{.Name}}")?,
        "/e2e-renamed".into(),
    )?;
    docker.ok(&["stop", "-t", "1", "e2e-renamed"])?;
    docker.ok(&["start", "e2e-renamed"])?;
    equal(
        "name after a boot",
        docker.inspect(&c.name, "{{.Name}}")?,
        "/e2e-renamed".into(),
    )
}

fn names(docker: &Docker) -> Result<()> {
    let name = "e2e-unique";
    let _gone = docker.container(name);
    let id = docker.ok(&["create", "--name", name, BUSYBOX, "true"])?;
    let out = docker
        .run(&["create", "--name", name, BUSYBOX, "true"])?
        .exits(1)?;
    holds(
        &out.errors(),
        &format!("The container name \"/{name}\" is already in use by container \"{id}\""),
    )?;
    let out = docker
        .run(&["create", "--name", "not/a name", BUSYBOX, "true"])?
        .exits(1)?;
    holds(&out.errors(), "Invalid container name")?;
    // Of many at once with one name, one wins.
    let children = (0..6)
        .map(|_| docker.spawn(&["create", "--name", "e2e-race", BUSYBOX, "true"]))
        .collect::<Result<Vec<_>>>()?;
    let _gone_too = docker.container("e2e-race");
    let mut won = 0;
    for child in children {
        won += usize::from(
            tests::command::finish(child, "docker create".into(), b"", tests::command::DEADLINE)?
                .code
                == 0,
        );
    }
    equal("winners", won, 1)
}

fn inspect(docker: &Docker) -> Result<()> {
    let c = sleeper(docker)?;
    let all: serde_json::Value = serde_json::from_str(&docker.ok(&["inspect", &c.name])?)?;
    let it = &all[0];
    equal("path", it["Path"].as_str(), Some("sleep"))?;
    equal("arguments", it["Args"].to_string(), "[\"3600\"]".into())?;
    equal("running", it["State"]["Running"].as_bool(), Some(true))?;
    ensure!(
        it["State"]["Pid"].as_u64().is_some_and(|p| p > 0),
        "State.Pid: {}",
        it["State"]
    );
    ensure!(
        it["State"]["StartedAt"]
            .as_str()
            .is_some_and(|s| s.starts_with("20")),
        "State.StartedAt: {}",
        it["State"]
    );
    ensure!(
        it["Image"]
            .as_str()
            .is_some_and(|s| s.starts_with("sha256:")),
        "Image"
    );
    ensure!(
        it["Config"]["Env"]
            .as_array()
            .is_some_and(|e| !e.is_empty()),
        "Config.Env"
    );
    ensure!(
        it["NetworkSettings"]["Networks"]["bridge"]["MacAddress"]
            .as_str()
            .is_some_and(|m| m.len() == 17),
        "MAC address"
    );
    equal(
        "restart policy",
        it["HostConfig"]["RestartPolicy"]["Name"].as_str(),
        Some("no"),
    )
}

fn top(docker: &Docker) -> Result<()> {
    let (id, _gone) = started(docker, "sleep 3599 & exec sleep 3598")?;
    tests::command::eventually("both are there", || {
        let top = docker.ok(&["top", &id])?;
        Ok(top.contains("sleep 3598") && top.contains("sleep 3599"))
    })?;
    let top = docker.ok(&["top", &id])?;
    holds(&top, "PID")?;
    ensure!(!top.contains("tether"), "the tether is shown:\n{top}");
    Ok(())
}

fn rm(docker: &Docker) -> Result<()> {
    let c = sleeper(docker)?;
    let out = docker.run(&["rm", &c.name])?.exits(1)?;
    holds(&out.errors(), "container is running")?;
    docker.ok(&["rm", "-f", &c.name])?;
    let out = docker.run(&["inspect", &c.name])?.exits(1)?;
    holds(&out.errors().to_lowercase(), "no such")
}

fn events(docker: &Docker) -> Result<()> {
    let since = docker.ok(&["info", "--format", "{{.SystemTime}}"])?;
    let name = "e2e-events";
    docker
        .run(&["run", "--rm", "--name", name, BUSYBOX, "sh", "-c", "exit 4"])?
        .exits(4)?;
    let until = docker.ok(&["info", "--format", "{{.SystemTime}}"])?;
    let told = docker.ok(&[
        "events",
        "--since",
        &since,
        "--until",
        &until,
        "--filter",
        "container=e2e-events",
        "--format",
        "{{.Action}}",
    ])?;
    let lines: Vec<_> = told.lines().collect();
    for action in ["create", "attach", "start", "die"] {
        ensure!(lines.contains(&action), "no {action} in {lines:?}");
    }
    Ok(())
}

fn attach(docker: &Docker) -> Result<()> {
    let name = "e2e-attach";
    let _gone = docker.container(name);
    docker.ok(&[
        "run",
        "-d",
        "-i",
        "--name",
        name,
        BUSYBOX,
        "sh",
        "-c",
        "read line; echo \"got $line\"; exit 9",
    ])?;
    let out = docker
        .run_with_input(&["attach", name], b"a word\n")?
        .exits(9)?;
    equal("stdout", out.text(), "got a word".into())
}
