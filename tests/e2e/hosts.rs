//! The hosts that tests share: one for each link, started when first wanted, ended after the last test.

use anyhow::{Context, Result, anyhow};
use libtest_mimic::{Failed, Trial};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};
use tests::command::eventually;
use tests::docker::{Container, Docker};
use tests::interrupt;
use tests::registry::Registry;
use tests::vch::{Settings, Vch};

/// A virtual container host with the test images on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Vsock,
    Serial,
}

impl Link {
    pub const BOTH: [Link; 2] = [Link::Vsock, Link::Serial];

    pub fn name(self) -> &'static str {
        match self {
            Link::Vsock => "vsock",
            Link::Serial => "serial",
        }
    }
}

#[derive(Default)]
pub struct Hosts {
    vsock: Mutex<Option<Arc<Vch>>>,
    serial: Mutex<Option<Arc<Vch>>>,
    registry: Mutex<Option<Arc<Registry>>>,
}

impl Hosts {
    /// The shared host of a link.
    pub fn get(&self, link: Link) -> Result<Arc<Vch>> {
        let place = match link {
            Link::Vsock => &self.vsock,
            Link::Serial => &self.serial,
        };
        once(place, || {
            let vch = Vch::start(Settings::link(link.name()))?;
            load(&vch.docker, "busybox")?;
            Ok(vch)
        })
    }

    /// A client of the shared host of a link.
    pub fn docker(&self, link: Link) -> Result<Docker> {
        Ok(self.get(link)?.docker.clone())
    }

    /// The shared registry, without authentication.
    pub fn registry(&self) -> Result<Arc<Registry>> {
        once(&self.registry, Registry::start)
    }

    /// Ends all.
    pub fn end(&self) {
        lock(&self.vsock).take();
        lock(&self.serial).take();
        lock(&self.registry).take();
    }
}

fn lock<T>(place: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked while it held the lock has left the option as it was.
    place
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn once<T>(place: &Mutex<Option<Arc<T>>>, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
    let mut place = lock(place);
    if let Some(made) = &*place {
        return Ok(made.clone());
    }
    let made = Arc::new(make()?);
    *place = Some(made.clone());
    Ok(made)
}

/// Loads a test image from its archive; its reference is `mooring-test/<name>`.
pub fn load(docker: &Docker, name: &str) -> Result<()> {
    let archive = tests::places::archive(name);
    docker
        .ok(&["load", "-i", archive.to_str().context("archive's path")?])
        .map(|_| ())
}

/// The busybox test image.
pub const BUSYBOX: &str = "mooring-test/busybox";

/// Starts a busybox container, detached, that runs a script; gives its ID, and what removes it when
/// it goes out of scope.
pub fn started(docker: &Docker, script: &str) -> Result<(String, Container)> {
    let id = docker.ok(&["run", "-d", BUSYBOX, "sh", "-c", script])?;
    let gone = docker.container(&id);
    Ok((id, gone))
}

/// Waits until a container's log holds `part`.
pub fn logs_come_to_hold(docker: &Docker, id: &str, part: &str) -> Result<()> {
    eventually(&format!("{part:?} is in the log"), || {
        Ok(docker.ok(&["logs", id])?.contains(part))
    })
}

/// The actions of the last ten minutes' events of one object (`container=ID`), in order.
pub fn actions(docker: &Docker, filter: &str) -> Result<Vec<String>> {
    actions_since(docker, filter, "10m")
}

/// The actions of one object's events since a time, as `docker events --since` takes it, in order.
pub fn actions_since(docker: &Docker, filter: &str, since: &str) -> Result<Vec<String>> {
    // The client has whole seconds only for "0s": before `since`, where that is in the present one.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let told = docker.ok(&[
        "events",
        "--since",
        since,
        "--until",
        &until,
        "--filter",
        filter,
        "--format",
        "{{.Action}}",
    ])?;
    Ok(told.lines().map(str::to_owned).collect())
}

/// A test over one link.
pub fn on(
    hosts: &Arc<Hosts>,
    link: Link,
    name: &str,
    test: impl FnOnce(&Docker) -> Result<()> + Send + 'static,
) -> Trial {
    let hosts = hosts.clone();
    trial(format!("{}::{name}", link.name()), move || {
        test(&hosts.docker(link)?)
    })
}

/// A test over each of the links.
pub fn on_both(hosts: &Arc<Hosts>, name: &str, test: fn(&Docker) -> Result<()>) -> Vec<Trial> {
    Link::BOTH
        .into_iter()
        .map(|link| on(hosts, link, name, test))
        .collect()
}

/// A test that makes its own host, or none.
pub fn alone(name: &str, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    trial(name.to_owned(), test)
}

/// How long each test took that has ended.
static TOOK: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

fn trial(name: String, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name.clone(), move || {
        let began = Instant::now();
        let result = interrupt::check().and_then(|()| test());
        lock(&TOOK).push((began.elapsed(), name));
        result.map_err(|e| Failed::from(format!("{e:#}")))
    })
}

/// Shows which tests took longest: where time is to be won.
pub fn print_slowest() {
    let mut took = lock(&TOOK);
    took.sort_unstable_by(|a, b| b.cmp(a));
    println!("slowest tests:");
    for (time, name) in took.iter().take(12) {
        println!("  {:>4} s  {name}", time.as_secs());
    }
}

/// Fails unless `text` holds `part`.
pub fn holds(text: &str, part: &str) -> Result<()> {
    if text.contains(part) {
        Ok(())
    } else {
        Err(anyhow!("no {part:?} in:\n{text}"))
    }
}

/// Fails unless both are equal.
pub fn equal<T: PartialEq + std::fmt::Debug>(what: &str, is: T, should: T) -> Result<()> {
    if is == should {
        Ok(())
    } else {
        Err(anyhow!("{what} is {is:?} and should be {should:?}"))
    }
}
