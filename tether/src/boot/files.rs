//! /etc/hosts, /etc/hostname and /etc/resolv.conf, generated as Docker does, and the VM's host name.
//!
//! The container has the files, too, and may hold leases on them (fcntl(2), `F_SETLEASE`): an open(2) would then wait for
//! as long as it does not give them up, at most /proc/sys/fs/lease-break-time. The event loop must not.

use super::Fault;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::config::GuestConfig;

const STEP: &str = "files";

/// So often it is tried to write a file on which the container has a lease, once a second: the kernel takes a lease away
/// after 45 s, and another one may follow.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_secs(1);

thread_local! {
    /// What is to be written into files that have a lease on them. The event loop has one thread.
    static LATE: RefCell<BTreeMap<PathBuf, String>> = RefCell::default();
}

/// What the files say of the networks as they are now.
#[derive(Debug, Default)]
pub struct Networks {
    /// The container's addresses, with prefix length.
    pub addresses: Vec<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Search domains.
    pub search: Vec<String>,
}

/// Sets the host name and writes the files, which the container's root gets bound over the image's.
///
/// # Errors
/// The fault of the step `files`.
pub fn write(config: &GuestConfig, now: &Networks) -> Result<(), Fault> {
    nix::unistd::sethostname(&config.hostname).map_err(Fault::at(
        STEP,
        format!("setting the host name {:?}", config.hostname),
    ))?;
    if !config.domainname.is_empty() {
        fs::write("/proc/sys/kernel/domainname", &config.domainname).map_err(Fault::at(
            STEP,
            format!("setting the domain name {:?}", config.domainname),
        ))?;
    }
    put("/f/hostname", format!("{}\n", config.hostname))?;
    write_network(config, now)
}

/// Writes the files that name the container's networks, in place: the container has them bound over its own. Where it
/// has a lease on one, that one is written later. Must be called within a `LocalSet`.
///
/// # Errors
/// The fault of the step `files`.
pub fn write_network(config: &GuestConfig, now: &Networks) -> Result<(), Fault> {
    put("/f/hosts", hosts(config, &now.addresses))?;
    put("/f/resolv.conf", resolv_conf(config, now))
}

fn put(path: &str, text: String) -> Result<(), Fault> {
    put_at(Path::new(path), text).map_err(Fault::at(STEP, format!("writing {path}")))
}

fn put_at(path: &Path, text: String) -> io::Result<()> {
    // What was to be written before is out of date.
    let waits = LATE.with_borrow_mut(|late| late.remove(path).is_some());
    match write_now(path, &text) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            LATE.with_borrow_mut(|late| late.insert(path.to_owned(), text));
            if !waits {
                tokio::task::spawn_local(write_late(path.to_owned()));
            }
            Ok(())
        }
        other => other,
    }
}

/// Replaces a file's contents; `WouldBlock` where somebody has a lease on it.
fn write_now(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let mut file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
    file.write_all(text.as_bytes())
}

/// Writes a file once nobody has a lease on it. It is looked at by time, since there is no event.
async fn write_late(path: PathBuf) {
    let text = || LATE.with_borrow(|late| late.get(&path).cloned());
    for _ in 0..TRIES {
        tokio::time::sleep(PAUSE).await;
        // Written by someone else meanwhile.
        let Some(text) = text() else { return };
        match write_now(&path, &text) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            other => {
                if let Err(error) = other {
                    crate::console(&format!("writing {}: {error}", path.display()));
                }
                LATE.with_borrow_mut(|late| late.remove(&path));
                return;
            }
        }
    }
    crate::console(&format!(
        "{} stays as it is: the container has a lease on it",
        path.display()
    ));
    LATE.with_borrow_mut(|late| late.remove(&path));
}

/// Contents of /etc/hosts.
#[must_use]
pub fn hosts(config: &GuestConfig, addresses: &[String]) -> String {
    let mut out = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n".to_owned();
    for (address, names) in &config.hosts {
        let _ = writeln!(out, "{address}\t{}", names.join(" "));
    }
    let own = if config.domainname.is_empty() {
        config.hostname.clone()
    } else {
        format!("{0}.{1} {0}", config.hostname, config.domainname)
    };
    for address in addresses {
        let _ = writeln!(
            out,
            "{}\t{own}",
            address.split('/').next().unwrap_or_default()
        );
    }
    out
}

/// Contents of /etc/resolv.conf.
#[must_use]
pub fn resolv_conf(config: &GuestConfig, now: &Networks) -> String {
    let mut out = String::new();
    for server in &now.dns {
        let _ = writeln!(out, "nameserver {server}");
    }
    if !now.search.is_empty() {
        let _ = writeln!(out, "search {}", now.search.join(" "));
    }
    if !config.dns_options.is_empty() {
        let _ = writeln!(out, "options {}", config.dns_options.join(" "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fs::take_lease;
    use std::os::fd::AsFd;
    use tokio::signal::unix::{SignalKind, signal};
    use tokio::task::LocalSet;

    /// A file with a lease on it, whose holder is told by SIGIO and does nothing. `None` where there can be none.
    fn leased(path: &Path) -> Option<fs::File> {
        fs::write(path, "old").unwrap();
        let file = fs::File::open(path).unwrap();
        match take_lease(file.as_fd()) {
            Ok(()) => Some(file),
            Err(e) => {
                eprintln!("skipped: no lease on a file of {}: {e}", path.display());
                None
            }
        }
    }

    #[tokio::test]
    async fn a_lease_on_a_file_stops_nothing_and_the_last_text_is_written_after_it() {
        // By default SIGIO ends the process.
        let _told = signal(SignalKind::io()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let Some(lease) = leased(&path) else { return };
        let path = path.as_path();
        LocalSet::new()
            .run_until(async {
                // An open that waits would do so for 45 s, with the test's only thread.
                put_at(path, "older".into()).unwrap();
                put_at(path, "newer".into()).unwrap();
                assert_eq!(LATE.with_borrow(BTreeMap::len), 1);
                assert_eq!(fs::metadata(path).unwrap().len(), 3);
                drop(lease);
                while LATE.with_borrow(|late| !late.is_empty()) {
                    tokio::task::yield_now().await;
                }
                assert_eq!(fs::read_to_string(path).unwrap(), "newer");
            })
            .await;
    }

    #[tokio::test]
    async fn what_is_written_at_once_is_not_replaced_by_what_came_late() {
        let _told = signal(SignalKind::io()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let Some(lease) = leased(&path) else { return };
        let path = path.as_path();
        LocalSet::new()
            .run_until(async {
                put_at(path, "late".into()).unwrap();
                drop(lease);
                put_at(path, "at once".into()).unwrap();
                assert_eq!(fs::read_to_string(path).unwrap(), "at once");
                assert!(LATE.with_borrow(BTreeMap::is_empty));
                // That nothing is written any more is seen by time passing.
                tokio::time::sleep(PAUSE * 2).await;
                assert_eq!(fs::read_to_string(path).unwrap(), "at once");
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_never_given_up_is_not_waited_for_for_ever() {
        let _told = signal(SignalKind::io()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let Some(lease) = leased(&path) else { return };
        LocalSet::new()
            .run_until(async {
                put_at(&path, "new".into()).unwrap();
                let before = tokio::time::Instant::now();
                while LATE.with_borrow(|late| !late.is_empty()) {
                    tokio::time::sleep(PAUSE).await;
                }
                assert!(before.elapsed() <= PAUSE * (TRIES as u32 + 1));
            })
            .await;
        drop(lease);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }
}
