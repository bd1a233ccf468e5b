//! The uplink: slirp4netns, which is the router's way out. It is a process of its own, so that the network outlives
//! hostsim and the endpoint.

use crate::Error;
use crate::network::{Layout, PUBLIC};
use crate::process::{self, Process};
use crate::state::Part;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Its name among the parts.
pub const NAME: &str = "uplink";
/// The program.
const PROGRAM: &str = "slirp4netns";
/// Largest packet in bytes. Between the router and the program there is no wire: large ones are few.
const MTU: u32 = 65520;
/// How long it may take to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts it. It has the address 10.0.2.100/24, the gateway 10.0.2.2 and the name server 10.0.2.3.
///
/// # Errors
/// [`Error::Start`] with the end of its log.
pub fn start(layout: &Layout) -> Result<Part, Error> {
    let folder = layout.uplink();
    fs::create_dir_all(&folder).map_err(Error::file("make folder", &folder))?;
    let router = layout.router();
    let args = [
        // Its sandbox unmounts what it does not need, and would do so for the whole machine where mounts are shared, as
        // those of namespaces are.
        "--mount",
        "--propagation",
        "private",
        "--",
        PROGRAM,
        "--configure",
        &format!("--mtu={MTU}"),
        // Containers must not reach what listens on the machine's loopback.
        "--disable-host-loopback",
        "--enable-ipv6",
        "--enable-sandbox",
        "--enable-seccomp",
        "--netns-type=path",
        // The pipe that it says it is ready on.
        "--ready-fd=0",
        &router.display().to_string(),
        PUBLIC,
    ]
    .map(str::to_owned);
    let log = folder.join("log");
    let (program, args) = layout.run_as_root(Path::new("unshare"), &args);
    let process = process::start_with_pipe(NAME, &program, &args, &log)?;
    Ok(Part {
        process,
        ready: router.display().to_string(),
    })
}

/// Ends every uplink of these namespaces, also one that a `vch` that was killed had no time to note.
///
/// # Errors
/// [`Error::Stop`] where one had to be killed.
pub fn end_all(layout: &Layout) -> Result<(), Error> {
    let router = layout.router();
    let words = [PROGRAM.to_owned(), router.display().to_string()];
    process::stop_those_with(&words, NAME, PATIENCE)
}

/// Whether it runs and the router has its interface.
pub fn is_up(layout: &Layout, process: &Process) -> bool {
    process.alive() && layout.has_public()
}
