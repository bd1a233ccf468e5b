//! Clients that act on a container at once, and clients that leave: nothing hangs, nothing is removed that should stay,
//! and nobody waits for what will never come.

use crate::hosts::{
    BUSYBOX, Hosts, Link, actions, alone, equal, holds, load, logs_come_to_hold, on, started,
};
use crate::process;
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use tests::command::{Outcome, eventually, finish};
use tests::docker::Docker;
use tests::vch::{Frozen, Settings, Vch, kill_process};

/// Far more than a boot takes on a busy machine, far less than the endpoint's own limit for one (300 s).
const HUNG: Duration = Duration::from_secs(150);

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let vsock = |name: &str, test: fn(&Docker) -> Result<()>| on(hosts, Link::Vsock, name, test);
    vec![
        vsock("races::rm_beside_a_start_hangs_neither", rm_beside_start),
        vsock("races::kill_beside_a_start_kills_it", kill_beside_start),
        vsock(
            "races::restart_keeps_one_that_is_to_be_removed",
            restart_of_rm,
        ),
        vsock("races::rm_ends_a_restart_that_waits", rm_beside_restart),
        vsock(
            "races::a_start_that_failed_leaves_nobody_attached",
            failed_start,
        ),
        alone(
            "races::a_container_whose_vm_is_to_start_again_is_not_removed",
            rm_beside_revival,
        ),
        vsock(
            "races::an_attach_beside_a_start_gets_its_output",
            attach_beside_start,
        ),
        vsock(
            "races::logs_are_there_at_any_moment_of_a_boot",
            logs_beside_boot,
        ),
        alone(
            "races::a_container_whose_vm_answers_nothing_is_ended",
            silent_guests,
        ),
        alone("races::an_exec_ends_with_its_vm", exec_of_killed_vm),
        alone("races::clients_that_left_are_forgotten", silent_clients),
    ]
}

/// Starts it, and does something else this much later; gives how either went.
fn beside_a_start(docker: &Docker, id: &str, wait: u64, args: &[&str]) -> Result<[Outcome; 2]> {
    let start = docker.spawn(&["start", id])?;
    // That time passes is what takes the other into the start: nothing tells of its moments.
    std::thread::sleep(Duration::from_millis(wait));
    let other = docker.run_within(args, HUNG)?;
    let start = finish(start, "docker start".into(), &[], HUNG)?;
    Ok([start, other])
}

fn rm_beside_start(docker: &Docker) -> Result<()> {
    for wait in [0, 20, 60, 150, 400, 900] {
        let id = docker.ok(&["create", BUSYBOX, "sleep", "100000"])?;
        let [start, removed] = beside_a_start(docker, &id, wait, &["rm", "-f", &id])?;
        ensure!(removed.code == 0, "after {wait} ms: {}", removed.errors());
        let start = start.errors();
        ensure!(
            start.is_empty()
                || start.contains("marked for removal")
                || start.contains("No such container"),
            "after {wait} ms: {start}"
        );
        ensure!(
            docker.run(&["inspect", &id])?.code != 0,
            "it is still there"
        );
    }
    Ok(())
}

fn kill_beside_start(docker: &Docker) -> Result<()> {
    for wait in [150, 500] {
        let id = docker.ok(&["create", BUSYBOX, "sleep", "100000"])?;
        let _gone = docker.container(&id);
        let [start, killed] = beside_a_start(docker, &id, wait, &["kill", &id])?;
        if killed.code != 0 {
            // It came before the start did.
            holds(&killed.errors(), "is not running")?;
            docker.ok(&["kill", &id])?;
        }
        ensure!(start.code == 0, "{}", start.errors());
        equal("exit code", docker.ok(&["wait", &id])?, "137".into())?;
    }
    Ok(())
}

fn restart_of_rm(docker: &Docker) -> Result<()> {
    let name = "races-restart-of-rm";
    let _gone = docker.container(name);
    // With a published port the start half does more before it boots.
    let port = ["-p", "127.0.0.1::80"];
    let run = ["run", "-d", "--rm", "--name", name];
    docker.ok(&[&run[..], &port, &[BUSYBOX, "sleep", "100000"]].concat())?;
    for _ in 0..3 {
        let out = docker.run_within(&["restart", "-t", "0", name], HUNG)?;
        ensure!(out.code == 0, "{}", out.errors());
        equal(
            "state",
            docker.inspect(name, "{{.State.Running}}")?,
            "true".into(),
        )?;
    }
    docker.ok(&["stop", "-t", "0", name])?;
    eventually("its end removes it", || {
        Ok(docker.run(&["inspect", name])?.code != 0)
    })
}

fn rm_beside_restart(docker: &Docker) -> Result<()> {
    let (id, _gone) = started(docker, "trap '' TERM; echo up; while :; do sleep 0.1; done")?;
    logs_come_to_hold(docker, &id, "up")?;
    let restart = docker.spawn(&["restart", "-t", "-1", &id])?;
    eventually("the restart has sent its signal", || {
        let told = actions(docker, &format!("container={id}"))?;
        Ok(told.iter().any(|action| action == "kill"))
    })?;
    let removed = docker.run_within(&["rm", "-f", &id], HUNG)?;
    let restart = finish(restart, "docker restart".into(), &[], HUNG)?;
    ensure!(removed.code == 0, "{}", removed.errors());
    ensure!(restart.code != 0, "there is nothing left to start");
    Ok(())
}

fn failed_start(docker: &Docker) -> Result<()> {
    let (holder, waiter) = ("races-port-holder", "races-port-waiter");
    let (_one, _two) = (docker.container(holder), docker.container(waiter));
    let sleep = [BUSYBOX, "sleep", "100000"];
    docker.ok(&[
        &["run", "-d", "--name", holder, "-p", "127.0.0.1::80"][..],
        &sleep,
    ]
    .concat())?;
    let taken = docker.ok(&["port", holder, "80"])?;
    let publish = format!("{taken}:80");
    docker.ok(&[
        "create", "-i", "--name", waiter, "-p", &publish, BUSYBOX, "cat",
    ])?;
    let out = docker.run_with_input(&["start", "-ai", waiter], b"first\n")?;
    ensure!(out.code != 0, "{}", out.text());
    holds(&out.errors(), "port is already allocated")?;
    holds(
        &docker.inspect(
            waiter,
            "{{.State.ExitCode}} {{.State.Status}} {{.State.Error}}",
        )?,
        "128 created ",
    )?;
    holds(
        &docker.inspect(waiter, "{{.State.Error}}")?,
        "port is already allocated",
    )?;
    docker.ok(&["rm", "-f", holder])?;
    // The client that gave up closes nobody's stdin.
    let out = docker.run_with_input(&["start", "-ai", waiter], b"second\n")?;
    equal("output", out.ok()?.text(), "second".into())?;
    equal(
        "state",
        docker.inspect(waiter, "{{.State.ExitCode}}{{.State.Error}}")?,
        "0".into(),
    )
}

fn rm_beside_revival() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    let id = docker.ok(&[
        "run",
        "-d",
        "--restart",
        "always",
        BUSYBOX,
        "sleep",
        "100000",
    ])?;
    let mut refused = 0;
    // Each pause before the next start is twice the last one.
    for _ in 0..7 {
        eventually("it runs", || {
            Ok(docker.inspect(&id, "{{.State.Status}}")? == "running")
        })?;
        kill_process(vch.qemu(&id)?)?;
        eventually("its end is seen", || {
            Ok(docker.inspect(&id, "{{.State.Status}}")? == "restarting")
        })?;
        let removed = docker.run(&["rm", &id])?.exits(1)?;
        if removed.errors().contains("container is restarting") {
            refused += 1;
        }
        docker.ok(&["container", "prune", "-f"])?;
        equal("name", docker.inspect(&id, "{{.Id}}")?, id.clone())?;
    }
    ensure!(refused > 0, "it was never seen between two VMs");
    docker.ok(&["rm", "-f", &id]).map(drop)
}

/// VMs that stand still answer nothing: who ends their containers powers them off. For one that is to be removed with its
/// end that is while the lock is held which its removal takes.
fn silent_guests() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    let run = |option: &str| docker.ok(&["run", "-d", option, BUSYBOX, "sleep", "100000"]);
    let removed = run("--rm")?;
    let restarted = run("--restart=always")?;
    let killed = run("--init")?;
    let mut frozen = Vec::new();
    for id in [&removed, &restarted, &killed] {
        frozen.push(Frozen::new(vch.qemu(id)?)?);
    }
    let ended = |args: &[&str]| docker.run_within(args, HUNG)?.ok().map(drop);
    std::thread::scope(|scope| {
        let others = [
            scope.spawn(|| ended(&["stop", "-t", "1", &removed])),
            scope.spawn(|| ended(&["stop", "-t", "1", &restarted])),
        ];
        ended(&["kill", &killed])?;
        others
            .into_iter()
            .try_for_each(|other| other.join().map_err(|_| anyhow::anyhow!("a panic"))?)
    })?;
    eventually("it is removed", || {
        Ok(docker.run(&["inspect", &removed])?.code != 0)
    })?;
    for id in [&restarted, &killed] {
        let state = docker.inspect(id, "{{.State.Status}} {{.State.ExitCode}}")?;
        equal("state", state, "exited 137".into())?;
    }
    Ok(())
}

/// A client that comes while the VM boots is attached to the process that is about to be.
fn attach_beside_start(docker: &Docker) -> Result<()> {
    for wait in [150, 400, 900] {
        let id = docker.ok(&["create", BUSYBOX, "sh", "-c", "sleep 2; echo hello"])?;
        let _gone = docker.container(&id);
        let start = docker.spawn(&["start", &id])?;
        // The moment of the second client, as in `beside_a_start`.
        std::thread::sleep(Duration::from_millis(wait));
        let mut output = Vec::new();
        process::attach(docker, &id)?.read_to_end(&mut output)?;
        finish(start, "docker start".into(), &[], HUNG)?.ok()?;
        ensure!(
            output.ends_with(b"hello\n"),
            "after {wait} ms: {:?}",
            String::from_utf8_lossy(&output)
        );
    }
    Ok(())
}

/// What earlier runs wrote is there at any moment of the next boot.
fn logs_beside_boot(docker: &Docker) -> Result<()> {
    let (id, _gone) = started(docker, "echo line; exec sleep 100000")?;
    logs_come_to_hold(docker, &id, "line")?;
    let mut restart = docker.spawn(&["restart", "-t", "0", &id])?;
    while restart.try_wait()?.is_none() {
        let logs = docker.run_within(&["logs", &id], HUNG)?.ok()?;
        holds(&logs.text(), "line")?;
    }
    finish(restart, "docker restart".into(), &[], HUNG)?.ok()?;
    logs_come_to_hold(docker, &id, "line\nline")
}

fn exec_of_killed_vm() -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    let (id, _gone) = started(docker, "exec sleep 100000")?;
    let job = docker.spawn(&["exec", &id, "sh", "-c", "echo up >> /up; sleep 100000"])?;
    eventually("the exec runs", || {
        Ok(docker.run(&["exec", &id, "cat", "/up"])?.text() == "up")
    })?;
    kill_process(vch.qemu(&id)?)?;
    let job = finish(job, "docker exec".into(), &[], HUNG)?;
    equal("exit code", job.code, 137)
}

/// Requests whose answers wait for what does not come.
fn silent_clients() -> Result<()> {
    const EACH: usize = 10;
    let vch = Vch::start(Settings::link("auto"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    let (id, _gone) = started(docker, "exec sleep 100000")?;
    let pid = vch.pid("endpoint")?;
    let open = || Ok::<_, anyhow::Error>(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count());
    let before = open()?;
    let requests = [
        "GET /events".to_owned(),
        format!("GET /containers/{id}/logs?follow=1&stdout=1"),
        format!("POST /containers/{id}/wait"),
        format!("GET /containers/{id}/stats?stream=1"),
    ];
    let mut clients = Vec::new();
    for request in &requests {
        for _ in 0..EACH {
            let mut client = UnixStream::connect(docker.socket().context("a unix socket")?)?;
            write!(
                client,
                "{request} HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n"
            )?;
            let mut head = [0; 12];
            client.read_exact(&mut head)?;
            equal("status", &head[..], b"HTTP/1.1 200")?;
            clients.push(client);
        }
    }
    ensure!(open()? >= before + clients.len(), "they are not connected");
    drop(clients);
    eventually("the endpoint has let them go", || Ok(open()? <= before + 2))?;
    // A client that has said that it sends nothing more gets what is known at once.
    let mut client = UnixStream::connect(docker.socket().context("a unix socket")?)?;
    write!(
        client,
        "GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
    )?;
    client.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    ensure!(answer.ends_with("OK"), "{answer}");
    Ok(())
}
