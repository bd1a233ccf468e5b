//! `exec`, `create`, `pull`: whole commands of the stock client, against Debian's dockerd.

use crate::lab::{BUSYBOX, Lab, Setup};
use crate::measure::{Alternate, Row};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};
use tests::docker::{Container, Docker};

/// A pull may take long on a machine that is busy.
const PULL_DEADLINE: Duration = Duration::from_secs(900);

/// The whole `docker exec CONTAINER true`.
///
/// # Errors
/// What could not be measured.
pub fn exec(lab: &mut Lab, link: &'static str, order: &Alternate) -> Result<Row> {
    let ours = lab.host(Setup::link(link))?.docker.clone();
    let peer = lab.dockerd()?;
    let _held = [sleeper(&ours)?, sleeper(&peer)?];
    order.run(
        || timed(&ours, &["exec", SLEEPER, "true"]),
        || timed(&peer, &["exec", SLEEPER, "true"]),
    )
}

const SLEEPER: &str = "bench-exec";

fn sleeper(docker: &Docker) -> Result<Container> {
    let container = docker.container(SLEEPER);
    docker.ok(&["run", "-d", "--name", SLEEPER, BUSYBOX, "sleep", "1000000"])?;
    Ok(container)
}

/// The whole `docker create`.
///
/// # Errors
/// What could not be measured.
pub fn create(lab: &mut Lab, order: &Alternate) -> Result<Row> {
    let ours = lab.host(Setup::link("vsock"))?.docker.clone();
    let peer = lab.dockerd()?;
    let once = |docker: &Docker| {
        let container = docker.container("bench-create");
        timed(
            docker,
            &["create", "--name", &container.name, BUSYBOX, "true"],
        )
    };
    order.run(|| once(&ours), || once(&peer))
}

/// The whole `docker pull` of the image with Debian, redis and nginx, which neither side has a part of.
///
/// # Errors
/// What could not be measured.
pub fn pull(lab: &mut Lab, order: &Alternate) -> Result<Row> {
    let reference = lab.pushed("debian")?;
    let ours = lab.host(Setup::link("vsock"))?.docker.clone();
    let peer = lab.dockerd()?;
    let once = |docker: &Docker| {
        // There is none before the first time.
        docker.run(&["rmi", "-f", &reference])?;
        ensure!(
            docker.run(&["image", "inspect", &reference])?.code != 0,
            "{reference} is still there after docker rmi"
        );
        let begin = Instant::now();
        docker
            .run_within(&["pull", "-q", &reference], PULL_DEADLINE)?
            .ok()?;
        Ok(begin.elapsed().as_secs_f64())
    };
    let row = order.run(|| once(&ours), || once(&peer));
    for docker in [&ours, &peer] {
        docker.run(&["rmi", "-f", &reference])?;
    }
    row
}

/// Seconds that a command takes, which must succeed.
///
/// # Errors
/// When it does not.
pub fn timed(docker: &Docker, args: &[&str]) -> Result<f64> {
    let begin = Instant::now();
    docker.ok(args)?;
    Ok(begin.elapsed().as_secs_f64())
}
