//! `vch up`: starts what is missing, and stays to watch over it unless detached.

use crate::boot::BootFiles;
use crate::options::Options;
use crate::parts::{self, Hypervisor};
use crate::process;
use crate::state::{Part, Record, StateDir};
use crate::{Error, down, hypervisor};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// A part that died is started again after this; doubled each time it dies at once, up to a minute.
const PAUSE: Duration = Duration::from_millis(200);

/// Starts a virtual container host, or what is missing of it.
///
/// # Errors
/// Whatever keeps a part from starting; what has been started stays, and the next `up` goes on from there.
pub async fn run(state: &Path, options: Options, detach: bool) -> Result<(), Error> {
    let dir = StateDir::open(state)?;
    let mut record = match dir.load()? {
        Some(mut record) => {
            if record.options != options
                && record.endpoint.as_ref().is_some_and(|p| p.process.alive())
            {
                eprintln!(
                    "note: it runs with other options; they take effect after `vch down --state {}`",
                    state.display()
                );
            }
            record.options = options;
            record
        }
        None => Record::new(new_id()?, options),
    };
    dir.save(&record)?;
    ensure(&dir, &mut record).await?;
    announce(&record);
    if detach {
        return Ok(());
    }
    // The lock is for the start and the end only: `vch status` and a second `vch up` work in between.
    drop(dir);
    watch(state, record).await
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
    let hypervisor = ensure_hostsim(dir, record)?;
    if record.endpoint.as_ref().is_some_and(|p| p.process.alive()) {
        return Ok(());
    }
    let names = hypervisor::upload(dir.path(), &hypervisor, &files).await?;
    let names = [names[0].as_str(), names[1].as_str(), names[2].as_str()];
    let program = process::program(&record.options.programs, "endpoint")?;
    progress("starting the Docker endpoint");
    let folder = dir.path().join("endpoint");
    fs::create_dir_all(&folder).map_err(Error::file("make folder", &folder))?;
    let args = parts::endpoint(dir.path(), &record.vch, &hypervisor, names, &record.options);
    let (process, ready) = process::start("endpoint", &program, &args, &folder.join("log"))?;
    record.endpoint = Some(Part { process, ready });
    dir.save(record)
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
    let folder = dir.path().join("hostsim");
    fs::create_dir_all(&folder).map_err(Error::file("make folder", &folder))?;
    progress("starting the simulated ESXi host");
    // Where it was before, so that the endpoint finds it again.
    let listen = before.as_ref().map_or("127.0.0.1:0", Hypervisor::address);
    let args = parts::hostsim(dir.path(), listen, &record.options);
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

/// The line that scripts wait for.
fn announce(record: &Record) {
    if let Some(endpoint) = &record.endpoint {
        println!("ready: {}", endpoint.ready);
    }
}

fn progress(what: &str) {
    eprintln!("{what} …");
}

/// Stays in the foreground: starts again what dies, ends all on Ctrl-C or SIGTERM.
async fn watch(state: &Path, mut record: Record) -> Result<(), Error> {
    let handler = |kind| signal(kind).map_err(Error::file("handle signals of", "this process"));
    let (mut interrupt, mut terminate) = (
        handler(SignalKind::interrupt())?,
        handler(SignalKind::terminate())?,
    );
    if let Some(endpoint) = &record.endpoint {
        eprintln!("\n  export {}\n\nCtrl-C ends it.", endpoint.ready);
    }
    let mut pause = PAUSE;
    loop {
        status_line(&record);
        let began = std::time::Instant::now();
        let name = tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            name = any_ended(&record) => name,
        };
        eprintln!(
            "{name} has ended unexpectedly; starting it again (its log: {})",
            state.join(name).join("log").display()
        );
        pause = if began.elapsed() < Duration::from_secs(10) {
            (pause * 2).min(Duration::from_secs(60))
        } else {
            PAUSE
        };
        // Not to spin while something keeps it from living.
        tokio::time::sleep(pause).await;
        let dir = StateDir::open(state)?;
        record = dir.load()?.unwrap_or(record);
        if let Err(error) = ensure(&dir, &mut record).await {
            eprintln!("{error}");
        }
    }
    eprintln!("ending …");
    down::run(state, 10).await
}

fn status_line(record: &Record) {
    let pid = |p: &Option<Part>| {
        p.as_ref()
            .map_or_else(|| "-".to_owned(), |p| p.process.pid.to_string())
    };
    eprintln!(
        "running: hostsim (process {}), endpoint (process {})",
        pid(&record.hostsim),
        pid(&record.endpoint)
    );
}

/// Waits until one of the parts has ended; gives its name.
async fn any_ended(record: &Record) -> &'static str {
    tokio::select! {
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
