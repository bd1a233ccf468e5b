//! Health checks: run in the guest, shown by the endpoint.

use crate::hosts::{BUSYBOX, Hosts, Link, actions, alone, equal, holds, load, on, on_both};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::sync::Arc;
use tests::command::eventually;
use tests::docker::Docker;
use tests::vch::{Settings, Vch};

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let mut all = on_both(
        hosts,
        "health::a_check_makes_healthy_and_unhealthy",
        both_ways,
    );
    all.push(on(
        hosts,
        Link::Vsock,
        "health::a_check_that_takes_too_long_or_cannot_run_fails",
        failures,
    ));
    all.push(alone(
        "health::is_known_again_after_a_restart_of_the_endpoint",
        known_again,
    ));
    all
}

const STATUS: &str = "{{.State.Health.Status}}";

/// One whose health is whether /well exists.
fn patient(docker: &Docker, more: &[&str]) -> Result<String> {
    let options = [
        "run",
        "-d",
        "--health-interval",
        "100ms",
        "--health-retries",
        "2",
    ];
    let check = ["--health-cmd", "cat /well"];
    docker.ok(&[
        &options[..],
        &check,
        more,
        &[
            BUSYBOX,
            "sh",
            "-c",
            "echo all is well > /well; exec sleep 3600",
        ][..],
    ]
    .concat())
}

fn comes_to(docker: &Docker, id: &str, health: &str) -> Result<()> {
    eventually(&format!("it is {health}"), || {
        Ok(docker.inspect(id, STATUS)? == health)
    })
}

fn both_ways(docker: &Docker) -> Result<()> {
    let id = patient(docker, &[])?;
    let _gone = docker.container(&id);
    comes_to(docker, &id, "healthy")?;
    holds(
        &docker.ok(&["ps", "--filter", "health=healthy"])?,
        "(healthy)",
    )?;
    equal(
        "last result",
        docker.inspect(&id, "{{.State.Health.FailingStreak}} {{(index .State.Health.Log 0).ExitCode}} {{(index .State.Health.Log 0).Output}}")?,
        "0 0 all is well".into(),
    )?;
    docker.ok(&["exec", &id, "rm", "/well"])?;
    comes_to(docker, &id, "unhealthy")?;
    eventually("5 results are kept", || {
        Ok(docker.inspect(&id, "{{len .State.Health.Log}}")? == "5")
    })?;
    holds(
        &docker.inspect(&id, "{{(index .State.Health.Log 4).Output}}")?,
        "can't open '/well'",
    )?;
    eventually("both are told", || {
        let mut told = actions(docker, &format!("container={id}"))?;
        told.retain(|action| action.starts_with("health"));
        Ok(told == ["health_status: healthy", "health_status: unhealthy"])
    })?;
    let id = docker.ok(&["run", "-d", "--no-healthcheck", BUSYBOX, "sleep", "3600"])?;
    let _gone = docker.container(&id);
    equal(
        "health",
        docker.inspect(&id, "{{.State.Health}}")?,
        "<nil>".into(),
    )
}

fn failures(docker: &Docker) -> Result<()> {
    let id = patient(
        docker,
        &[
            "--health-timeout",
            "200ms",
            "--health-cmd",
            "echo slow; sleep 60",
        ],
    )?;
    let _gone = docker.container(&id);
    comes_to(docker, &id, "unhealthy")?;
    equal(
        "result",
        docker.inspect(
            &id,
            "{{(index .State.Health.Log 0).ExitCode}} {{(index .State.Health.Log 0).Output}}",
        )?,
        "-1 Health check exceeded timeout (200ms): slow".into(),
    )?;
    // In its grace a failure does not count; what is written beyond 4,096 bytes is cut.
    let grace = [
        "--health-start-period",
        "1h",
        "--health-start-interval",
        "100ms",
        "--health-interval",
        "1h",
    ];
    let id = patient(
        docker,
        &[
            &grace[..],
            &[
                "--health-cmd",
                "head -c 9000 /dev/zero | tr '\\0' x; exit 1",
            ],
        ]
        .concat(),
    )?;
    let _gone = docker.container(&id);
    eventually("3 checks failed", || {
        Ok(docker
            .inspect(&id, "{{len .State.Health.Log}}")?
            .parse::<u32>()?
            >= 3)
    })?;
    equal(
        "health",
        docker.inspect(
            &id,
            "{{.State.Health.Status}} {{.State.Health.FailingStreak}}",
        )?,
        "starting 0".into(),
    )?;
    holds(&docker.ok(&["ps"])?, "(health: starting)")?;
    let output = docker.inspect(&id, "{{(index .State.Health.Log 0).Output}}")?;
    equal("bytes", output.len(), 4096 + 3)?;
    ensure!(output.ends_with("x..."));
    let out = docker.run(&[
        "create",
        "--health-cmd",
        "x",
        "--health-interval",
        "1us",
        BUSYBOX,
        "true",
    ])?;
    ensure!(out.code != 0);
    holds(&out.errors(), "1ms")
}

fn known_again() -> Result<()> {
    let vch = Vch::start(Settings::link("vsock"))?;
    load(&vch.docker, "busybox")?;
    let docker = &vch.docker;
    let id = docker.ok(&[
        "run",
        "-d",
        "--health-interval",
        "100ms",
        "--health-cmd",
        "echo x >> /checks; test $(wc -l < /checks) -lt 40",
        "--health-retries",
        "1",
        BUSYBOX,
        "sleep",
        "3600",
    ])?;
    comes_to(docker, &id, "healthy")?;
    vch.kill("endpoint")?;
    vch.up()?;
    comes_to(docker, &id, "unhealthy")?;
    equal(
        "results",
        docker.inspect(&id, "{{len .State.Health.Log}}")?,
        "5".into(),
    )
}
