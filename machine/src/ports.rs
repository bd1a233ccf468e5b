//! The part that holds the published ports: a program of its own, so that they outlive the endpoint. It listens on the
//! machine, and leads into the router's namespace (see the crate `forward`).

use crate::Error;
use crate::network::Layout;
use crate::process;
use crate::state::Part;
use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Its name among the parts.
pub const NAME: &str = "ports";
/// The subcommand of `vch` that it is.
pub const COMMAND: &str = "hold-ports";
/// It ends at once: nothing handles SIGTERM.
const PATIENCE: Duration = Duration::from_secs(5);

fn words(layout: &Layout) -> [String; 2] {
    let socket = layout.publish_api().display().to_string();
    [COMMAND.to_owned(), socket]
}

/// Starts it, with no port open. `vch` is this program.
///
/// # Errors
/// [`Error::Start`] with the end of its log.
pub fn start(layout: &Layout, vch: &Path) -> Result<Part, Error> {
    let folder = layout.ports();
    fs::create_dir_all(&folder).map_err(Error::file("make folder", &folder))?;
    let mut args = words(layout).to_vec();
    args.push(layout.router().display().to_string());
    let (program, args) = layout.run_as_root(vch, &args);
    let (process, ready) = process::start(NAME, &program, &args, &folder.join("log"))?;
    Ok(Part { process, ready })
}

/// Ends every one of this state folder, also one that a `vch` that was killed had no time to note.
///
/// # Errors
/// [`Error::Stop`] where one had to be killed.
pub fn end_all(layout: &Layout) -> Result<(), Error> {
    let ended = process::stop_those_with(&words(layout), NAME, PATIENCE);
    let _ = fs::remove_file(layout.publish_api());
    ended
}

/// The part itself. It does not end.
///
/// # Errors
/// [`Error::Start`] where it cannot listen, or not enter the namespace.
pub fn hold(socket: &Path, router: &Path) -> Result<Infallible, Error> {
    let failed = |reason: std::io::Error| Error::Start {
        name: NAME,
        reason: reason.to_string(),
        log: String::new(),
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let ready = || println!("ready: {}", socket.display());
    runtime
        .block_on(forward::serve(socket, router, ready))
        .map_err(failed)
}
