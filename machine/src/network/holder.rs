//! The namespaces of an ordinary user: a user namespace, and the router's and the switch's network namespaces in it.
//!
//! A namespace lives as long as something holds on to it. Root gives it a name in `/run/netns`; an ordinary user cannot,
//! so a process does nothing but be in it: the *holder*. Links in the state folder lead to what it holds, so that the
//! paths stay the same when a new holder comes. Whoever is to work in there enters the user namespace first (nsenter(1)),
//! where it is root over these networks and nothing else.

use super::{Layout, choose};
use crate::Error;
use crate::process::{self, Process};
use crate::state::Part;
use nix::sched::{CloneFlags, unshare};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Its name among the parts.
pub const NAME: &str = "namespaces";
/// The subcommand of `vch` that it is.
pub const COMMAND: &str = "hold-namespaces";
/// It ends at once: nothing handles SIGTERM.
const PATIENCE: Duration = Duration::from_secs(5);

/// Links to the namespaces in a folder.
pub(super) fn link(folder: &Path, name: &str) -> PathBuf {
    folder.join(name)
}

fn words(layout: &Layout) -> [String; 2] {
    let folder = layout.links().display().to_string();
    [COMMAND.to_owned(), folder]
}

/// Starts a holder, with new namespaces, and waits until the links lead to them. `vch` is this program.
///
/// # Errors
/// [`Error::Start`] with the holder's words.
pub fn start(layout: &Layout, vch: &Path) -> Result<Part, Error> {
    let folder = layout.links();
    fs::create_dir_all(&folder).map_err(Error::file("make folder", &folder))?;
    let (process, ready) = process::start(NAME, vch, &words(layout), &folder.join("log"))?;
    Ok(Part { process, ready })
}

/// Whether a holder runs and the links lead to its namespaces.
pub fn holds(layout: &Layout, process: &Process) -> bool {
    let of_it = format!("/proc/{}/ns/net", process.pid);
    process.alive() && fs::read_link(layout.router()).is_ok_and(|to| to == Path::new(&of_it))
}

/// Ends every holder of this state folder, also one that a `vch` that was killed had no time to note, and removes the
/// links. The namespaces go when the last process that is in them does.
///
/// # Errors
/// [`Error::Stop`] where one had to be killed.
pub fn end_all(layout: &Layout) -> Result<(), Error> {
    let ended = process::stop_those_with(&words(layout), NAME, PATIENCE);
    for name in ["user", "router", "switch"] {
        let _ = fs::remove_file(link(&layout.links(), name));
    }
    ended
}

/// The holder itself: makes the namespaces, sets the links, says that it is ready, and waits for its end. It has to be
/// called before this process has a second thread (user_namespaces(7)).
///
/// # Errors
/// What the kernel refuses, and why it may have; those of the links.
pub fn hold(folder: &Path) -> Result<std::convert::Infallible, Error> {
    let refused = |what: &'static str| {
        move |source: io::Error| Error::Network {
            action: what.to_owned(),
            reason: format!("{source}{}", choose::hint(Path::new("/proc"))),
        }
    };
    let (user, group) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(io::Error::from)
        .map_err(refused("make a user namespace"))?;
    // In there we are root; everybody else is nobody. Groups stay as they are (user_namespaces(7), "setgroups").
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {user} 1\n")),
        ("gid_map", format!("0 {group} 1\n")),
    ] {
        fs::write(Path::new("/proc/self").join(file), text)
            .map_err(refused("set up the user namespace"))?;
    }
    let network = || unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
    network().map_err(refused("make a network namespace"))?;
    let switch =
        File::open("/proc/self/ns/net").map_err(Error::file("open", "/proc/self/ns/net"))?;
    network().map_err(refused("make a network namespace"))?;
    let proc = PathBuf::from(format!("/proc/{}", std::process::id()));
    // The router's last: it is what `holds` looks at.
    for (name, target) in [
        ("user", proc.join("ns/user")),
        ("switch", proc.join(format!("fd/{}", switch.as_raw_fd()))),
        ("router", proc.join("ns/net")),
    ] {
        let path = link(folder, name);
        let _ = fs::remove_file(&path);
        symlink(target, &path).map_err(Error::file("make the link", &path))?;
    }
    println!("ready: {}", folder.display());
    io::stdout()
        .flush()
        .map_err(Error::file("write to", "standard output"))?;
    loop {
        // Until a signal ends it.
        std::thread::park();
    }
}
