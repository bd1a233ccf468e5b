//! `vch status`: which parts of a virtual container host run.

use crate::network::{Kind, holder};
use crate::state::{self, Part};
use crate::{Error, registry, uplink};
use serde::Serialize;
use std::io::Write;
use std::path::Path;

/// One part of a virtual container host, as `vch status --json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartStatus {
    /// `namespaces` (without root), `uplink` and `ports` (on bridges), `hostsim`, `registry` (where it was asked
    /// for) or `endpoint`.
    pub name: &'static str,
    /// Its process ID, while it runs.
    pub pid: Option<u32>,
    /// `running`, `dead` (was started, and is gone) or `not started`.
    pub state: &'static str,
    /// What it serves: the folder of links to the namespaces, the uplink's network namespace, the socket of `ports`, hostsim's URL and
    /// thumbprint, the registry's URL, the endpoint's DOCKER_HOST.
    pub serves: Option<String>,
}

/// The state of all parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Identity of the virtual container host; none where there never was one.
    pub vch: Option<String>,
    /// Whether every part runs.
    pub up: bool,
    /// The network that it was last started with.
    pub network: Option<Kind>,
    /// What that is, and why it was chosen.
    pub network_why: Option<String>,
    /// The parts.
    pub parts: Vec<PartStatus>,
}

/// Reads the status.
///
/// # Errors
/// [`Error::State`] when the state folder's record cannot be read.
pub fn read(state: &Path) -> Result<Status, Error> {
    let record = state::load(state)?;
    let part = |name, part: Option<&Part>| match part {
        Some(p) if p.process.alive() => PartStatus {
            name,
            pid: Some(p.process.pid),
            state: "running",
            serves: Some(p.ready.clone()),
        },
        Some(_) => PartStatus {
            name,
            pid: None,
            state: "dead",
            serves: None,
        },
        None => PartStatus {
            name,
            pid: None,
            state: "not started",
            serves: None,
        },
    };
    let network = record.as_ref().and_then(|r| r.network);
    let mut parts = Vec::new();
    if network == Some(Kind::Rootless) {
        let holder = record.as_ref().and_then(|r| r.namespaces.as_ref());
        parts.push(part(holder::NAME, holder));
    }
    if network.is_some_and(Kind::has_bridges) {
        let uplink = record.as_ref().and_then(|r| r.uplink.as_ref());
        parts.push(part(uplink::NAME, uplink));
        let ports = record.as_ref().and_then(|r| r.ports.as_ref());
        parts.push(part(crate::ports::NAME, ports));
    }
    let hostsim = record.as_ref().and_then(|r| r.hostsim.as_ref());
    parts.push(part("hostsim", hostsim));
    if record.as_ref().is_some_and(registry::is_wanted) {
        let own = record.as_ref().and_then(|r| r.registry.as_ref());
        parts.push(part(registry::NAME, own));
    }
    let endpoint = record.as_ref().and_then(|r| r.endpoint.as_ref());
    parts.push(part("endpoint", endpoint));
    Ok(Status {
        network_why: record.as_ref().and_then(|r| r.network_why.clone()),
        vch: record.map(|r| r.vch),
        up: parts.iter().all(|p| p.pid.is_some()),
        network,
        parts,
    })
}

/// Prints the status.
///
/// # Errors
/// As [`read`].
pub fn run(state: &Path, json: bool) -> Result<(), Error> {
    let status = read(state)?;
    let text = if json {
        // Strings, numbers and booleans always serialise.
        serde_json::to_string_pretty(&status).unwrap_or_default()
    } else {
        table(&status, state)
    };
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // Who reads has read enough (`| head`).
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(Error::file("write to", Path::new("standard output"))),
    }
}

/// The status for people.
fn table(status: &Status, state: &Path) -> String {
    let mut lines = vec![format!(
        "{:<10} {:<12} {:>8}  SERVES",
        "PART", "STATE", "PID"
    )];
    for p in &status.parts {
        let pid = p.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        lines.push(format!(
            "{:<10} {:<12} {:>8}  {}",
            p.name,
            p.state,
            pid,
            p.serves.as_deref().unwrap_or("-")
        ));
    }
    if let Some(network) = &status.network_why {
        lines.push(format!("\n{network}"));
    }
    if !status.up {
        lines.push(format!(
            "\nstart what is missing with: vch up --state {}",
            state.display()
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_host_is_not_up() {
        let dir = tempfile::tempdir().unwrap();
        let status = read(dir.path()).unwrap();
        assert!(!status.up && status.vch.is_none());
        assert!(status.parts.iter().all(|p| p.state == "not started"));
    }
}
