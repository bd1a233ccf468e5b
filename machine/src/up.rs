//! `vch up`: starts what is missing, and stays to watch over it unless detached.

use crate::boot::BootFiles;
use crate::interrupt::Interrupt;
use crate::network::{self, Choice, Kind, Layout, holder};
use crate::options::{Network, Options};
use crate::parts::{self, Hypervisor};
use crate::process;
use crate::state::{Part, Record, StateDir, Wanted};
use crate::{Error, down, hypervisor, ports, registry, uplink};
use rustix::process::Signal;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A part that died is started again after this; doubled each time it dies at once, up to a minute.
const PAUSE: Duration = Duration::from_millis(200);

/// Starts a virtual container host, or what is missing of it. Interrupted, it ends what it has started.
///
/// # Errors
/// Whatever keeps a part from starting; what has been started stays, and the next `up` goes on from there.
/// [`Error::Interrupted`] where it was to return when the host serves.
pub async fn run(state: &Path, options: Options, detach: bool) -> Result<(), Error> {
    let mut interrupt = Interrupt::new()?;
    let dir = StateDir::open(state)?;
    let mut record = match dir.load()? {
        Some(mut record) => {
            take_up(state, &mut record, options)?;
            record
        }
        None => Record::new(new_id()?, options),
    };
    dir.save(&record)?;
    let ran = runs(record.hostsim.as_ref()) || runs(record.endpoint.as_ref());
    let interrupted = tokio::select! {
        biased;
        () = interrupt.asked() => true,
        done = ensure(&dir, &mut record) => {
            done?;
            interrupt.has_come().await
        }
    };
    if interrupted {
        // The lock is the end's now.
        drop(dir);
        return leave(state, detach, ran).await;
    }
    registry::announce(&dir, &record);
    announce(&record);
    if detach {
        return Ok(());
    }
    // The lock is for the start and the end only: `vch status` and a second `vch up` work in between.
    drop(dir);
    watch(state, record, interrupt).await
}

/// Ends what an `up` has started that was interrupted; all of the host where that is to stay in the foreground, as later.
async fn leave(state: &Path, detach: bool, ran: bool) -> Result<(), Error> {
    if detach && ran {
        // Its containers run: they are not this command's.
        return Err(Error::Interrupted {
            what: "what ran before runs on",
        });
    }
    eprintln!("ending …");
    down::run(state, 10).await?;
    if detach {
        return Err(Error::Interrupted {
            what: "what had been started is ended",
        });
    }
    Ok(())
}

/// Makes a record that was left behind that of a host that is to run, with these options where nothing is in their way.
fn take_up(state: &Path, record: &mut Record, options: Options) -> Result<(), Error> {
    if record.wanted == Wanted::Ending
        && let Some(endpoint) = record.endpoint.take()
    {
        // It holds its restart policies back, and takes them up again when it starts.
        endpoint.process.stop("endpoint", down::PATIENCE)?;
    }
    record.wanted = Wanted::Up;
    if record.options == options {
        return Ok(());
    }
    if runs(record.endpoint.as_ref()) {
        // Not noted either: a part that ends is started again to fit the others.
        eprintln!(
            "note: it runs with other options; they take effect with the `vch up` after `vch down --state {}`",
            state.display()
        );
        return Ok(());
    }
    // VMs live on without it, and it finds them again.
    if let Some(hostsim) = &record.hostsim {
        hostsim.process.stop("hostsim", down::PATIENCE)?;
    }
    record.options = options;
    Ok(())
}

/// A VCH's identity: 12 hex digits, random.
fn new_id() -> Result<String, Error> {
    let path = Path::new("/proc/sys/kernel/random/uuid");
    let uuid = fs::read_to_string(path).map_err(Error::file("read", path))?;
    Ok(uuid
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(12)
        .collect())
}

/// Starts every part that does not run.
pub(crate) async fn ensure(dir: &StateDir, record: &mut Record) -> Result<(), Error> {
    let files = BootFiles::find(&record.options.boot)?;
    ensure_network(dir, record)?;
    let hypervisor = ensure_hostsim(dir, record)?;
    // Before the endpoint, which is told its address and whom to trust there.
    registry::ensure(dir, record)?;
    if record.endpoint.as_ref().is_some_and(|p| p.process.alive()) {
        return Ok(());
    }
    let names = hypervisor::upload(dir.path(), &hypervisor, &files).await?;
    let names = [names[0].as_str(), names[1].as_str(), names[2].as_str()];
    let program = process::program(&record.options.programs, "endpoint")?;
    let left = parts::endpoint_words(dir.path());
    process::stop_those_with(&left, "endpoint", down::PATIENCE)?;
    progress("starting the Docker endpoint");
    let folder = dir.path().join("endpoint");
    fs::create_dir_all(&folder).map_err(Error::file("make folder", &folder))?;
    let bridges = bridges(dir, record);
    let args = parts::endpoint(
        dir.path(),
        &record.vch,
        &hypervisor,
        names,
        bridges.as_ref(),
        &registry::trusted(dir, record),
    );
    let (program, args) = as_root(bridges.as_ref(), &program, args);
    let (process, ready) = process::start("endpoint", &program, &args, &folder.join("log"))?;
    record.endpoint = Some(Part { process, ready });
    dir.save(record)
}

/// The names of the network's parts.
pub(crate) fn layout(dir: &StateDir, record: &Record) -> Layout {
    let rootless = record.network == Some(Kind::Rootless);
    let external = record.options.container_networks.port_groups();
    Layout::new(dir.path(), record.options.networks, rootless).with_external(external)
}

/// The same where the network is on bridges.
fn bridges(dir: &StateDir, record: &Record) -> Option<Layout> {
    let bridges = record.network.is_some_and(Kind::has_bridges);
    bridges.then(|| layout(dir, record))
}

/// The command line of a part that works in the network's namespaces, where there are any.
fn as_root(bridges: Option<&Layout>, program: &Path, args: Vec<String>) -> (PathBuf, Vec<String>) {
    match bridges {
        Some(layout) => layout.run_as_root(program, &args),
        None => (program.to_owned(), args),
    }
}

pub(crate) fn runs(part: Option<&Part>) -> bool {
    part.is_some_and(|p| p.process.alive())
}

/// Chooses the network unless something runs on one already, and makes what is missing of it.
fn ensure_network(dir: &StateDir, record: &mut Record) -> Result<(), Error> {
    let running = runs(record.hostsim.as_ref()) || runs(record.endpoint.as_ref());
    if running {
        // What an earlier version started knew one kind.
        return if record.network.is_some_and(Kind::has_bridges) {
            ensure_bridges(dir, record)
        } else {
            Ok(())
        };
    }
    let external = !record.options.container_networks.port_groups().is_empty();
    // Without bridges there are no port groups: what is missing is said.
    let asked = match record.options.network {
        Network::Auto if external => Network::Bridge,
        asked => asked,
    };
    if asked == Network::User && external {
        return Err(Error::Option(
            "--container-network: it takes port groups, which --network user has not; use --network bridge".into(),
        ));
    }
    let mut choice = network::choose(asked)?;
    if choice.kind.has_bridges() {
        // Noted first: what is made from here on is for the next `down`.
        record.network = Some(choice.kind);
        record.network_why = Some(choice.announcement());
        dir.save(record)?;
        match ensure_bridges(dir, record) {
            Err(error) if asked == Network::Auto => {
                choice = Choice {
                    kind: Kind::User,
                    why: error.to_string(),
                };
            }
            other => other?,
        }
    }
    eprintln!("{}", choice.announcement());
    if choice.kind == Kind::User {
        layout(dir, record).remove()?;
        record.uplink = None;
        record.ports = None;
        record.namespaces = None;
        record.network = Some(Kind::User);
        record.network_why = Some(choice.announcement());
        dir.save(record)?;
    }
    Ok(())
}

/// Makes what is missing of the namespaces; whether they are new.
fn ensure_namespaces(dir: &StateDir, record: &mut Record) -> Result<bool, Error> {
    let layout = layout(dir, record);
    let held = |part: &Part| holder::holds(&layout, &part.process);
    let new =
        record.network == Some(Kind::Rootless) && !record.namespaces.as_ref().is_some_and(held);
    if new {
        // With an uplink into namespaces that nobody else gets into any more.
        layout.remove()?;
        record.namespaces = Some(holder::start(&layout, &own_program()?)?);
        dir.save(record)?;
    }
    Ok(layout.ensure()? || new)
}

/// Makes what is missing of the namespaces, and starts the uplink if it does not run.
fn ensure_bridges(dir: &StateDir, record: &mut Record) -> Result<(), Error> {
    let new = ensure_namespaces(dir, record)?;
    let layout = layout(dir, record);
    if new && (runs(record.hostsim.as_ref()) || runs(record.endpoint.as_ref())) {
        eprintln!(
            "note: the network's namespaces were gone and are made anew; containers that run are cut off until they are started again"
        );
        // They hold on to what is gone, and take up the new ones when they start.
        let parts = [
            ("endpoint", record.endpoint.take()),
            ("hostsim", record.hostsim.clone()),
        ];
        let mut stopped = Ok(());
        for (name, part) in parts {
            // Both are tried: one that stayed would be taken for one that is in the new ones.
            stopped = stopped.and(part.map_or(Ok(()), |p| p.process.stop(name, down::PATIENCE)));
        }
        stopped?;
    }
    let is_up = |part: &Part| uplink::is_up(&layout, &part.process);
    if !record.uplink.as_ref().is_some_and(is_up) {
        uplink::end_all(&layout)?;
        progress("starting the network's uplink");
        record.uplink = Some(uplink::start(&layout)?);
        dir.save(record)?;
    }
    // One that is in namespaces of before leads nowhere.
    if new || !runs(record.ports.as_ref()) {
        ports::end_all(&layout)?;
        record.ports = Some(ports::start(&layout, &own_program()?)?);
        if let Some(endpoint) = &record.endpoint {
            // Published ports went with the old one: the endpoint asks for them again.
            endpoint.process.signal(Signal::HUP);
        }
        dir.save(record)?;
    }
    Ok(())
}

fn own_program() -> Result<PathBuf, Error> {
    std::env::current_exe().map_err(Error::file("find", "this program"))
}

/// Starts hostsim if it does not run.
pub(crate) fn ensure_hostsim(dir: &StateDir, record: &mut Record) -> Result<Hypervisor, Error> {
    let before = record
        .hostsim
        .as_ref()
        .and_then(|p| Hypervisor::parse(&p.ready));
    if let (Some(part), Some(hypervisor)) = (&record.hostsim, &before)
        && part.process.alive()
    {
        return Ok(hypervisor.clone());
    }
    let program = process::program(&record.options.programs, "hostsim")?;
    let left = parts::hostsim_words(dir.path());
    process::stop_those_with(&left, "hostsim", down::PATIENCE)?;
    let folder = dir.path().join("hostsim");
    fs::create_dir_all(&folder).map_err(Error::file("make folder", &folder))?;
    progress("starting the simulated ESXi host");
    let serving = runs(record.endpoint.as_ref());
    let listen = listen_at(before.as_ref().map(Hypervisor::address), serving);
    let bridges = bridges(dir, record);
    if bridges.is_some() {
        ensure_namespaces(dir, record)?;
    }
    let args = parts::hostsim(dir.path(), listen, bridges.as_ref(), &record.options);
    let (program, args) = as_root(bridges.as_ref(), &program, args);
    let (process, ready) = process::start("hostsim", &program, &args, &folder.join("log"))?;
    let hypervisor = Hypervisor::parse(&ready).ok_or_else(|| Error::Start {
        name: "hostsim",
        reason: format!(
            "it said {ready:?} when it was ready, which names no address and thumbprint"
        ),
        log: String::new(),
    })?;
    record.hostsim = Some(Part { process, ready });
    dir.save(record)?;
    Ok(hypervisor)
}

/// Where hostsim is to listen: where it was before. The endpoint looks for it there; where that does not run, and somebody
/// else has the port meanwhile, any other one.
fn listen_at(before: Option<&str>, serving: bool) -> &str {
    before
        .filter(|before| serving || TcpListener::bind(before).is_ok())
        .unwrap_or("127.0.0.1:0")
}

/// The line that scripts wait for.
fn announce(record: &Record) {
    if let Some(endpoint) = &record.endpoint {
        println!("ready: {}", endpoint.ready);
    }
}

pub(crate) fn progress(what: &str) {
    eprintln!("{what} …");
}

/// Stays in the foreground: starts again what dies, ends all on Ctrl-C or SIGTERM.
async fn watch(state: &Path, mut record: Record, mut interrupt: Interrupt) -> Result<(), Error> {
    if let Some(endpoint) = &record.endpoint {
        eprintln!("\n  export {}\n\nCtrl-C ends it.", endpoint.ready);
    }
    let mut pause = PAUSE;
    loop {
        status_line(&record);
        let began = std::time::Instant::now();
        let name = tokio::select! {
            () = interrupt.asked() => break,
            name = any_ended(&record) => name,
        };
        pause = if began.elapsed() < Duration::from_secs(10) {
            (pause * 2).min(Duration::from_secs(60))
        } else {
            PAUSE
        };
        let dir = tokio::select! {
            () = interrupt.asked() => break,
            dir = locked_after(state, pause) => dir?,
        };
        let Some(now) = dir.load()?.filter(|r| r.wanted == Wanted::Up) else {
            eprintln!("{name} has ended, as somebody else asked for; nothing is started again");
            return Ok(());
        };
        record = now;
        eprintln!(
            "{name} has ended unexpectedly; starting it again (its log: {})",
            state.join(name).join("log").display()
        );
        if let Err(error) = ensure(&dir, &mut record).await {
            eprintln!("{error}");
        }
    }
    eprintln!("ending …");
    down::run(state, 10).await
}

/// The state folder after a pause (not to spin while something keeps a part from living), once nobody else works on it.
async fn locked_after(state: &Path, pause: Duration) -> Result<StateDir, Error> {
    loop {
        tokio::time::sleep(pause).await;
        match StateDir::open(state) {
            Err(Error::Locked { .. }) => {}
            other => return other,
        }
    }
}

fn status_line(record: &Record) {
    let pid = |p: &Option<Part>| {
        p.as_ref()
            .map_or_else(|| "-".to_owned(), |p| p.process.pid.to_string())
    };
    let first: String = [
        (holder::NAME, &record.namespaces),
        (uplink::NAME, &record.uplink),
        (ports::NAME, &record.ports),
        (registry::NAME, &record.registry),
    ]
    .into_iter()
    .filter_map(|(name, part)| Some((name, part.as_ref()?.process.pid)))
    .map(|(name, pid)| format!("{name} (process {pid}), "))
    .collect();
    eprintln!(
        "running: {first}hostsim (process {}), endpoint (process {})",
        pid(&record.hostsim),
        pid(&record.endpoint)
    );
}

/// Waits until one of the parts has ended; gives its name.
async fn any_ended(record: &Record) -> &'static str {
    tokio::select! {
        () = ended(record.namespaces.as_ref()) => holder::NAME,
        () = ended(record.uplink.as_ref()) => uplink::NAME,
        () = ended(record.ports.as_ref()) => ports::NAME,
        () = ended(record.registry.as_ref()) => registry::NAME,
        () = ended(record.hostsim.as_ref()) => "hostsim",
        () = ended(record.endpoint.as_ref()) => "endpoint",
    }
}

async fn ended(part: Option<&Part>) {
    let Some(process) = part.map(|p| p.process.clone()) else {
        return std::future::pending().await;
    };
    let (send, receive) = tokio::sync::oneshot::channel::<()>();
    // A thread of its own: a blocking task of the runtime would have to end before this program may.
    std::thread::spawn(move || {
        process.wait();
        drop(send);
    });
    // The sender's end is the process's.
    let _ = receive.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_somebody_else_has_is_insisted_on_for_a_running_endpoint_only() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap().to_string();
        assert_eq!(listen_at(Some(&taken), true), taken);
        assert_eq!(listen_at(Some(&taken), false), "127.0.0.1:0");
        drop(other);
        assert_eq!(listen_at(Some(&taken), false), taken);
        assert_eq!(listen_at(None, false), "127.0.0.1:0");
    }
}
