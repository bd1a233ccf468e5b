//! Networks, volumes, lists, statistics, archives: whole commands of the stock client, against Debian's dockerd.

use crate::commands::timed;
use crate::lab::{BUSYBOX, Lab, Setup};
use crate::measure::{Alternate, Row};
use anyhow::{Context, Result, ensure};
use std::time::Instant;
use tests::command::{self, DEADLINE};
use tests::docker::{Container, Docker};
use tests::places;

/// Containers of the long list.
const MANY: usize = 1000;
/// The image that is saved, loaded and pushed.
const IMAGE: &str = "debian";

fn both(lab: &mut Lab) -> Result<[Docker; 2]> {
    let ours = lab.host(Setup::link("vsock"))?.docker.clone();
    Ok([ours, lab.dockerd()?])
}

fn pairs(lab: &mut Lab, order: &Alternate, once: impl Fn(&Docker) -> Result<f64>) -> Result<Row> {
    let [ours, peer] = both(lab)?;
    order.run(|| once(&ours), || once(&peer))
}

/// The whole `docker network create`.
///
/// # Errors
/// What could not be measured.
pub fn network(lab: &mut Lab, order: &Alternate) -> Result<Row> {
    pairs(lab, order, |docker| {
        let took = timed(docker, &["network", "create", "bench-net"])?;
        docker.ok(&["network", "rm", "bench-net"])?;
        Ok(took)
    })
}

/// The whole `docker volume create`.
///
/// # Errors
/// What could not be measured.
pub fn volume(lab: &mut Lab, order: &Alternate) -> Result<Row> {
    pairs(lab, order, |docker| {
        let took = timed(docker, &["volume", "create", "bench-volume"])?;
        docker.ok(&["volume", "rm", "bench-volume"])?;
        Ok(took)
    })
}

/// `docker create` and `docker rm`.
///
/// # Errors
/// What could not be measured.
pub fn create_and_remove(lab: &mut Lab, order: &Alternate) -> Result<Row> {
    pairs(lab, order, |docker| {
        let made = timed(docker, &["create", "--name", "bench-rm", BUSYBOX, "true"])?;
        Ok(made + timed(docker, &["rm", "bench-rm"])?)
    })
}

/// `docker ps -a` over 1,000 containers.
///
/// # Errors
/// What could not be measured.
pub fn list(lab: &mut Lab, order: &Alternate) -> Result<Row> {
    let sides = both(lab)?;
    let _held = sides.iter().map(many).collect::<Result<Vec<_>>>()?;
    pairs(lab, order, |docker| {
        timed(docker, &["ps", "--all", "--quiet"])
    })
}

/// Containers that were made for a list.
struct Many(Docker, Vec<String>);

impl Drop for Many {
    fn drop(&mut self) {
        for some in self.1.chunks(100) {
            let ids = some.iter().map(String::as_str);
            let args: Vec<&str> = ["rm"].into_iter().chain(ids).collect();
            if let Err(e) = self.0.run(&args) {
                eprintln!("bench: {e:#}");
            }
        }
    }
}

fn many(docker: &Docker) -> Result<Many> {
    let client = crate::http::Client::new(docker.socket().context("a unix socket")?);
    let mut held = Many(docker.clone(), Vec::new());
    for _ in 0..MANY {
        held.1.push(client.create(BUSYBOX, &["true"])?);
    }
    Ok(held)
}

/// `docker stats --no-stream` of one that runs.
///
/// # Errors
/// What could not be measured.
pub fn stats(lab: &mut Lab, order: &Alternate) -> Result<Row> {
    running(lab, order, &["stats", "--no-stream", RUNS])
}

/// `docker top`.
///
/// # Errors
/// What could not be measured.
pub fn top(lab: &mut Lab, order: &Alternate) -> Result<Row> {
    running(lab, order, &["top", RUNS])
}

const RUNS: &str = "bench-runs";

fn running(lab: &mut Lab, order: &Alternate, args: &[&str]) -> Result<Row> {
    let start = |docker: &Docker| -> Result<Container> {
        let container = docker.container(RUNS);
        docker.ok(&["run", "-d", "--name", RUNS, BUSYBOX, "sleep", "1000000"])?;
        Ok(container)
    };
    let sides = both(lab)?;
    let _held = sides.iter().map(start).collect::<Result<Vec<_>>>()?;
    pairs(lab, order, |docker| timed(docker, args))
}

fn archive() -> Result<String> {
    let archive = places::archive(IMAGE);
    Ok(archive.to_str().context("the archive's path")?.to_owned())
}

/// `docker load` of the image with Debian, redis and nginx, which neither side has a part of.
///
/// # Errors
/// What could not be measured.
pub fn load(lab: &mut Lab, order: &Alternate) -> Result<Row> {
    let name = format!("mooring-test/{IMAGE}");
    let archive = archive()?;
    let row = pairs(lab, order, |docker| {
        docker.run(&["rmi", "-f", &name])?;
        ensure!(
            docker.run(&["image", "inspect", &name])?.code != 0,
            "{name} is still there after docker rmi"
        );
        timed(docker, &["load", "-q", "-i", &archive])
    });
    for docker in both(lab)? {
        docker.run(&["rmi", "-f", &name])?;
    }
    row
}

/// `docker save` of the same image.
///
/// # Errors
/// What could not be measured.
pub fn save(lab: &mut Lab, order: &Alternate) -> Result<Row> {
    let name = format!("mooring-test/{IMAGE}");
    let archive = archive()?;
    for docker in both(lab)? {
        docker.ok(&["load", "-q", "-i", &archive])?;
    }
    let row = pairs(lab, order, |docker| {
        let out = tempfile::NamedTempFile::new()?;
        let path = out.path().to_str().context("the file's path")?;
        timed(docker, &["save", "-o", path, &name])
    });
    for docker in both(lab)? {
        docker.run(&["rmi", "-f", &name])?;
    }
    row
}

/// `docker push` of the same image into a registry that has nothing of it.
///
/// # Errors
/// What could not be measured.
pub fn push(lab: &mut Lab, order: &Alternate) -> Result<Row> {
    let name = format!("mooring-test/{IMAGE}");
    let archive = archive()?;
    for docker in both(lab)? {
        docker.ok(&["load", "-q", "-i", &archive])?;
    }
    let [ours, peer] = both(lab)?;
    let once = |docker: &Docker, namespace: Option<&str>| -> Result<f64> {
        let registry = tests::registry::Registry::inside(namespace)?;
        let to = format!("{}/bench:1", registry.address);
        docker.ok(&["tag", &name, &to])?;
        let begin = Instant::now();
        command::run(docker.command(&["push", "-q", &to]), b"", DEADLINE * 5)?.ok()?;
        let took = begin.elapsed().as_secs_f64();
        docker.ok(&["rmi", &to])?;
        Ok(took)
    };
    let namespace = lab.dockerd_namespace()?;
    let row = order.run(|| once(&ours, None), || once(&peer, Some(&namespace)));
    for docker in both(lab)? {
        docker.run(&["rmi", "-f", &name])?;
    }
    row
}
