//! Projects of real programs under Docker Compose: up, really answering, down, nothing left; and one under which the
//! host's parts are killed.

use crate::hosts::{Hosts, Link, alone, equal};
use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tests::command::eventually;
use tests::compose::{self, Project, Pushed};
use tests::docker::Docker;
use tests::random::{self, Random};
use tests::vch::{Settings, Vch};

/// Projects of a run that is no soak.
const SAMPLE: usize = 2;
/// The project that has files of its own in its containers, for which the host has to share its folder.
const SHARING: &str = "mounted";

pub fn tests(hosts: &Arc<Hosts>) -> Vec<Trial> {
    let pushed = Arc::new(Pushed::default());
    let mut trials: Vec<Trial> = chosen()
        .into_iter()
        .map(|name| {
            let (hosts, pushed) = (hosts.clone(), pushed.clone());
            alone(&format!("compose::{name}"), move || {
                project(&hosts, &pushed, &name)
            })
        })
        .collect();
    let hosts = hosts.clone();
    trials.push(alone(
        "compose::goes_on_while_endpoint_and_hostsim_are_killed",
        move || killed(&hosts, &pushed),
    ));
    trials
}

/// All projects in a soak, or where they are asked for by name; else a sample by the seed.
fn chosen() -> Vec<String> {
    // Without the folder there is no checkout, and `missing` has said so.
    let mut all = compose::all().unwrap_or_default();
    let asked = std::env::args().any(|a| a.contains("compose::"));
    if asked || std::env::var_os("MOORING_SOAK").is_some() {
        return all;
    }
    let sample = Random::seeded(4, |mut random| {
        while all.len() > SAMPLE {
            let index = random.below(all.len() as u64);
            all.remove(usize::try_from(index)?);
        }
        Ok(all)
    });
    // A seed that is no number: the tests that use one say so.
    sample.unwrap_or_default()
}

fn project(hosts: &Hosts, pushed: &Pushed, name: &str) -> Result<()> {
    if name == SHARING {
        let mut settings = Settings::link("auto");
        let folder = compose::folder().join(name);
        settings.more = vec!["--share".into(), folder.display().to_string()];
        let vch = Vch::start(settings)?;
        return whole(&vch.docker, hosts, pushed, name);
    }
    whole(&hosts.docker(Link::Vsock)?, hosts, pushed, name)
}

fn whole(docker: &Docker, hosts: &Hosts, pushed: &Pushed, name: &str) -> Result<()> {
    let project = Project::new(docker, &*hosts.registry()?, pushed, name)?;
    project.up()?;
    project.check()?;
    project.down()
}

/// What must be the same afterwards: addresses, and that nothing was started anew.
fn identity(vch: &Vch) -> Result<String> {
    let ids = vch.docker.ok(&["ps", "--quiet", "--no-trunc"])?;
    let format = "{{.Name}} {{.State.StartedAt}} {{.RestartCount}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{.MacAddress}}{{end}} {{json .NetworkSettings.Ports}}";
    let mut args = vec!["inspect", "--format", format];
    args.extend(ids.lines());
    vch.docker.ok(&args)
}

fn ping(connection: &mut BufReader<TcpStream>) -> Result<()> {
    connection.get_mut().write_all(b"PING\r\n")?;
    let mut line = String::new();
    connection.read_line(&mut line)?;
    ensure!(line == "+PONG\r\n", "instead of a pong: {line:?}");
    Ok(())
}

fn connect(address: &str) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(BufReader::new(stream))
}

/// New connections to the published port, one after the other until told to stop; how many were made.
fn knock(address: &str, stop: &AtomicBool) -> Result<u32> {
    let mut made = 0;
    while !stop.load(Ordering::Relaxed) {
        ping(&mut connect(address)?).with_context(|| format!("new connection {}", made + 1))?;
        made += 1;
        // Twenty a second, and not as many as there can be: the VM has one CPU.
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(made)
}

fn killed(hosts: &Hosts, pushed: &Pushed) -> Result<()> {
    let vch = Vch::start(Settings::link("auto"))?;
    let project = Project::new(&vch.docker, &*hosts.registry()?, pushed, "steady")?;
    project.up()?;
    project.check()?;
    let address = project.compose(&["port", "redis", "6379"])?;
    let before = identity(&vch)?;
    let mut held = connect(&address)?;
    ping(&mut held)?;
    // Its connection was held, and no name was missed twice in a row: it would have ended.
    let beats = || -> Result<usize> {
        let log = project.compose(&["logs", "--no-log-prefix", "asker"])?;
        let strangers = log.lines().skip_while(|line| line.starts_with("beat :"));
        let strangers: Vec<&str> = strangers.collect();
        ensure!(strangers.is_empty(), "the asker: {}", strangers.join("\n"));
        Ok(log.lines().count())
    };
    for round in 1..=random::times(1, 10) {
        for part in ["endpoint", "hostsim"] {
            let stop = AtomicBool::new(false);
            let made = std::thread::scope(|scope| {
                let knocking = scope.spawn(|| knock(&address, &stop));
                let back = vch
                    .kill(part)
                    .and_then(|()| ping(&mut held).context("the connection that was held"))
                    .and_then(|()| vch.up());
                stop.store(true, Ordering::Relaxed);
                let made = knocking.join();
                back?;
                match made {
                    Ok(made) => made,
                    Err(_) => bail!("the thread that knocks panicked"),
                }
            })
            .with_context(|| format!("kill -9 of {part}, round {round}"))?;
            ensure!(made > 0, "no new connection while {part} was away");
            ping(&mut held).with_context(|| format!("behind {part}, round {round}"))?;
            equal("addresses and starts", identity(&vch)?, before.clone())
                .with_context(|| format!("{part}, round {round}\n{}", project.state()))?;
            // A question that this one left unanswered must not meet the next one when it is repeated, which the C
            // library does once, five seconds later. The second beat from now has asked since then.
            let now = beats()?;
            eventually("the asker goes on", || Ok(beats()? > now + 1))
                .with_context(|| format!("behind {part}, round {round}"))?;
        }
    }
    project.up()?;
    equal("compose up changes nothing", identity(&vch)?, before)?;
    project.down()
}
