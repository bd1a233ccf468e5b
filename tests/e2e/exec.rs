//! `docker exec`: further processes beside the container's own.

use crate::hosts::{BUSYBOX, Hosts, equal, holds, on_both};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use std::sync::Arc;
use tests::docker::{Container, Docker};

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let mut all = Vec::new();
    all.extend(on_both(
        hosts,
        "exec::output_exit_code_and_surroundings",
        basics,
    ));
    all.extend(on_both(hosts, "exec::stdin_and_large_output", large));
    all.extend(on_both(hosts, "exec::many_at_once", many));
    all.extend(on_both(hosts, "exec::failures_are_docker_s", failures));
    all.extend(on_both(
        hosts,
        "exec::one_that_attaches_nothing_is_not_waited_for",
        unattached,
    ));
    all.extend(on_both(
        hosts,
        "exec::a_terminal_is_as_large_as_asked_for",
        sized,
    ));
    all
}

/// A container that runs until it is removed.
pub fn sleeper(docker: &Docker) -> Result<Container> {
    let id = docker.ok(&["run", "-d", BUSYBOX, "sleep", "3600"])?;
    Ok(docker.container(&id))
}

fn basics(docker: &Docker) -> Result<()> {
    let c = sleeper(docker)?;
    let out = docker
        .run(&[
            "exec",
            "-e",
            "A=b c",
            "-w",
            "/tmp",
            "-u",
            "app",
            &c.name,
            "sh",
            "-c",
            "echo \"$A\"; pwd; id -un; echo e >&2; exit 7",
        ])?
        .exits(7)?;
    equal("stdout", out.text(), "b c\n/tmp\napp".into())?;
    equal("stderr", out.errors(), "e".into())?;
    // It is in the container's namespaces: process 1 is the container's own.
    holds(
        &docker.ok(&["exec", &c.name, "cat", "/proc/1/cmdline"])?,
        "sleep",
    )?;
    equal(
        "state",
        docker.inspect(&c.name, "{{.State.Running}}")?,
        "true".into(),
    )
}

/// As docker-java asks for it, with the container in the body, too: the answer's stream ends as soon as the process runs,
/// or with the reason why it does not.
fn unattached(docker: &Docker) -> Result<()> {
    let c = sleeper(docker)?;
    let exec = |command: &str| {
        let body = format!(
            r#"{{"containerId":"{}","Cmd":["{command}","3600"]}}"#,
            c.name
        );
        by_api(docker, &c.name, &body)
    };
    let (id, said) = exec("sleep")?;
    equal("said", said, String::new())?;
    let state = crate::refusals::get(docker, &format!("/v1.50/exec/{id}/json"))?.1;
    holds(&state, "\"Running\":true")?;
    let (_, said) = exec("/no/such/program")?;
    holds(&said, "no such file or directory")
}

/// A terminal is as large as the client's from the start.
fn sized(docker: &Docker) -> Result<()> {
    let c = sleeper(docker)?;
    let body = r#"{"Cmd":["stty","size"],"Tty":true,"AttachStdout":true,"ConsoleSize":[21,77]}"#;
    equal("size", by_api(docker, &c.name, body)?.1, "21 77\r\n".into())
}

/// Makes an exec of this configuration and starts it: its ID, and what its stream brings.
fn by_api(docker: &Docker, container: &str, body: &str) -> Result<(String, String)> {
    let path = format!("/v1.50/containers/{container}/exec");
    let (status, answer) = post(docker, &path, body)?;
    equal("exec", status, 201)?;
    let id = answer.split('"').find(|part| part.len() == 64);
    let id = id
        .with_context(|| format!("an ID in {answer:?}"))?
        .to_owned();
    let (status, said) = post(docker, &format!("/v1.50/exec/{id}/start"), "{}")?;
    equal("start", status, 200)?;
    Ok((id, said))
}

/// A POST; status and body of the answer.
///
/// # Errors
/// No answer.
pub fn post(docker: &Docker, path: &str, body: &str) -> Result<(u16, String)> {
    let head = "Host: d\r\nConnection: close\r\nContent-Type: application/json";
    let length = body.len();
    crate::refusals::http(
        docker,
        &format!("POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}"),
    )
}

fn large(docker: &Docker) -> Result<()> {
    let c = sleeper(docker)?;
    let input: Vec<u8> = (0..300_000u32).map(|i| (i % 253) as u8).collect();
    let out = docker
        .run_with_input(&["exec", "-i", &c.name, "cat"], &input)?
        .ok()?;
    crate::output::same("stdout", &out.stdout, &input)
}

fn many(docker: &Docker) -> Result<()> {
    let c = sleeper(docker)?;
    let mut children = Vec::new();
    for i in 0..12 {
        children.push((
            i,
            docker.spawn(&["exec", &c.name, "sh", "-c", &format!("echo {i}; exit {i}")])?,
        ));
    }
    for (i, child) in children {
        let out = tests::command::finish(
            child,
            format!("docker exec … exit {i}"),
            b"",
            tests::command::DEADLINE,
        )?
        .exits(i)?;
        equal("stdout", out.text(), i.to_string())?;
    }
    Ok(())
}

fn failures(docker: &Docker) -> Result<()> {
    let c = sleeper(docker)?;
    let out = docker
        .run(&["exec", &c.name, "no-such-program"])?
        .exits(127)?;
    holds(
        &(out.text() + &out.errors()),
        r#"exec: "no-such-program": executable file not found in $PATH"#,
    )?;
    docker.run(&["exec", &c.name, "/etc/passwd"])?.exits(126)?;
    docker.ok(&["kill", &c.name])?;
    docker.ok(&["wait", &c.name])?;
    let out = docker.run(&["exec", &c.name, "true"])?.exits(1)?;
    holds(&out.errors(), "is not running")?;
    let out = docker.run(&["exec", "no-such-container", "true"])?;
    ensure!(out.code == 1, "exit code {}", out.code);
    holds(&out.errors(), "No such container: no-such-container")
}
