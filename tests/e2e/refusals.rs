//! What is not there yet is refused by name, never ignored; versions are negotiated.

use crate::hosts::{BUSYBOX, Hosts, Link, alone, equal, holds, on};
use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use tests::docker::Docker;
use tests::vch::{Settings, Vch};

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    vec![
        on(
            hosts,
            Link::Vsock,
            "refusals::an_unsupported_option_is_named",
            options,
        ),
        on(
            hosts,
            Link::Vsock,
            "refusals::an_api_version_out_of_range",
            versions,
        ),
        on(
            hosts,
            Link::Vsock,
            "refusals::unknown_paths_and_bodies",
            bodies,
        ),
        alone(
            "refusals::a_second_up_changes_nothing_and_down_leaves_nothing",
            up_and_down,
        ),
    ]
}

fn options(docker: &Docker) -> Result<()> {
    for (option, name) in [
        (&["--privileged"][..], "privileged"),
        (&["--device", "/dev/sda"], "device"),
        (&["-v", "/etc:/mnt"], "volume"),
        (&["--pid", "host"], "pid"),
        (&["--network", "host"], "host"),
        (&["--cgroup-parent", "x"], "cgroup"),
        (&["--ipc", "host"], "ipc"),
        (&["--userns", "host"], "userns"),
        (&["--storage-opt", "size=1g"], "storage"),
    ] {
        let args = [&["create"], option, &[BUSYBOX, "true"]].concat();
        let out = docker.run(&args)?;
        ensure!(out.code != 0, "docker create {option:?} was taken");
        holds(&out.errors().to_lowercase(), name)?;
    }
    Ok(())
}

/// A plain HTTP request on the endpoint's socket; status and body.
pub fn http(docker: &Docker, request: &str) -> Result<(u16, String)> {
    let mut s = UnixStream::connect(docker.socket().context("a unix socket")?)?;
    s.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    s.read_to_end(&mut bytes)?;
    // Some answers are frames of a stream.
    let text = String::from_utf8_lossy(&bytes);
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .with_context(|| format!("a status line in {text:?}"))?;
    Ok((
        status,
        text.split_once("\r\n\r\n")
            .map(|b| b.1.to_owned())
            .unwrap_or_default(),
    ))
}

/// Gets what is at a path: status and body.
///
/// # Errors
/// No answer.
pub fn get(docker: &Docker, path: &str) -> Result<(u16, String)> {
    http(
        docker,
        &format!("GET {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"),
    )
}

fn versions(docker: &Docker) -> Result<()> {
    for path in [
        "/_ping",
        "/v1.24/_ping",
        "/v1.50/_ping",
        "/v1.41/version",
        "/version",
        "/v1.24/containers/json",
    ] {
        equal(path, get(docker, path)?.0, 200)?;
    }
    let (status, body) = get(docker, "/v1.23/version")?;
    equal("1.23", status, 400)?;
    holds(&body, "client version 1.23 is too old")?;
    let (status, body) = get(docker, "/v1.99/version")?;
    equal("1.99", status, 400)?;
    holds(&body, "client version 1.99 is too new")?;
    equal(
        "negotiated",
        docker.ok(&[
            "version",
            "--format",
            "{{.Server.APIVersion}} {{.Server.MinAPIVersion}}",
        ])?,
        "1.50 1.24".into(),
    )
}

fn bodies(docker: &Docker) -> Result<()> {
    let (status, body) = get(docker, "/v1.50/no/such/path")?;
    equal("unknown path", status, 404)?;
    holds(&body, "\"message\"")?;
    let (status, body) = http(
        docker,
        "POST /v1.50/containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{\"Image\":",
    )?;
    equal("half a body", status, 400)?;
    holds(&body, "\"message\"")?;
    let (status, _) = get(docker, "/v1.50/containers/%2e%2e%2f%2e%2e/json")?;
    equal("a path out", status, 404)
}

fn up_and_down() -> Result<()> {
    let vch = Vch::start(Settings {
        more: vec!["--memory".into(), "160m".into()],
        ..Settings::link("auto")
    })?;
    let before = (vch.pid("hostsim")?, vch.pid("endpoint")?);
    vch.up()?;
    equal(
        "processes",
        (vch.pid("hostsim")?, vch.pid("endpoint")?),
        before,
    )?;
    crate::hosts::load(&vch.docker, "busybox")?;
    // `--memory` is that of containers that ask for none. The kernel keeps some for itself.
    let total = ["awk", "/MemTotal/ {print int($2 / 1024)}", "/proc/meminfo"];
    for (asked, most) in [(&[][..], 160), (&["-m", "96m"], 96)] {
        let args = [&["run", "--rm"], asked, &[BUSYBOX], &total].concat();
        let has: u32 = vch.docker.ok(&args)?.trim().parse()?;
        ensure!(
            has > most - 40 && has < most,
            "{has} MiB of the {most} that {asked:?} gives"
        );
    }
    let id = vch.docker.ok(&["run", "-d", BUSYBOX, "sleep", "3600"])?;
    let qemu = vch.qemu(&id)?;
    vch.down()?;
    for pid in [before.0, before.1, qemu] {
        ensure!(
            !std::path::Path::new(&format!("/proc/{pid}")).exists() || gone(pid)?,
            "process {pid} is left"
        );
    }
    vch.up()?;
    equal(
        "the container",
        vch.docker.inspect(&id, "{{.State.Status}}")?,
        "exited".into(),
    )?;
    equal(
        "an image",
        vch.docker.ok(&["run", "--rm", BUSYBOX, "echo", "again"])?,
        "again".into(),
    )
}

fn gone(pid: u32) -> Result<bool> {
    Ok(std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |s| s.contains(") Z")))
}
