//! Sizes of files and of memory.

use crate::lab::{BUSYBOX, Lab, Setup};
use crate::measure::Row;
use ::tests::command::eventually;
use ::tests::places;
use anyhow::{Context, Result};
use std::path::Path;

/// What the tether may have (stripped).
const TETHER_MAX: u64 = 2 << 20;
/// Containers that exist while the endpoint's memory is looked at.
const CONTAINERS: usize = 20;

/// Tether, initramfs, ISO and kernel as files.
///
/// # Errors
/// The first one that is missing.
pub fn files() -> Result<Vec<Row>> {
    let tether = places::target().join("x86_64-unknown-linux-gnu/guest/tether");
    let mut rows = vec![Row::size("size-tether", bytes(&tether)?, Some(TETHER_MAX))];
    for (folder, mark) in [
        (places::boot_packaged(), ""),
        (places::boot_fast(), "-fast"),
    ] {
        for (file, name) in [("initrd.img", "initramfs"), ("boot.iso", "iso")] {
            let size = bytes(&folder.join(file))?;
            rows.push(Row::size(&format!("size-{name}{mark}"), size, None));
        }
    }
    Ok(rows)
}

fn bytes(path: &Path) -> Result<u64> {
    let meta = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    Ok(meta.len())
}

/// Resident memory of endpoint and hostsim with 20 containers, one of them running, and of the tether in that one.
///
/// # Errors
/// What could not be measured.
pub fn resident(lab: &mut Lab) -> Result<Vec<Row>> {
    let vch = lab.host(Setup::link("vsock"))?;
    let docker = &vch.docker;
    let mut held = Vec::new();
    for n in 0..CONTAINERS {
        let container = docker.container(&format!("bench-{n}"));
        docker.ok(&[
            "create",
            "--name",
            &container.name,
            BUSYBOX,
            "sleep",
            "1000000",
        ])?;
        held.push(container);
    }
    docker.ok(&["start", "bench-0"])?;
    let mut rows = Vec::new();
    for part in ["endpoint", "hostsim"] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", vch.pid(part)?))?;
        rows.push(Row::size(
            &format!("resident-{part}"),
            field(&status, "VmRSS")?,
            None,
        ));
    }
    let id = docker.inspect("bench-0", "{{.Id}}")?;
    let datastore = vch.datastore();
    // It says so at its end.
    docker.ok(&["kill", "bench-0"])?;
    let mut size = None;
    eventually("the tether says how much memory it has", || {
        size = tether(&datastore, &id)?;
        Ok(size.is_some())
    })?;
    rows.extend(size.map(|size| Row::size("resident-tether", size, None)));
    Ok(rows)
}

/// What the tether says of its own memory in its VM's console log: nothing in a container can see it.
fn tether(datastore: &Path, id: &str) -> Result<Option<u64>> {
    let hosts = datastore.join("mooring");
    for host in std::fs::read_dir(&hosts).with_context(|| hosts.display().to_string())? {
        let path = host?.path().join("containers").join(id).join("console.log");
        let Ok(log) = std::fs::read(&path) else {
            continue;
        };
        let log = String::from_utf8_lossy(&log);
        // A line that is whole.
        let said = log
            .rfind("VmRSS:")
            .and_then(|at| log[at..].split_once('\n'));
        return said.map(|(line, _)| field(line, "VmRSS")).transpose();
    }
    anyhow::bail!("no console.log of container {id} in {}", hosts.display())
}

/// Memory that a program can still have in an idle container with `--memory 128m`.
///
/// # Errors
/// What could not be measured.
pub fn free(lab: &mut Lab) -> Result<Vec<Row>> {
    let docker = &lab.host(Setup::link("vsock"))?.docker;
    let text = docker.ok(&["run", "--rm", "-m", "128m", BUSYBOX, "cat", "/proc/meminfo"])?;
    Ok(vec![Row::size(
        "free-128m-guest",
        field(&text, "MemAvailable")?,
        None,
    )])
}

/// A field `Name: N kB` of /proc, in bytes.
fn field(text: &str, name: &str) -> Result<u64> {
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))
        .with_context(|| format!("no {name} in:\n{text}"))?;
    let kb: u64 = line
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .with_context(|| format!("{name}:{line} is no number"))?;
    Ok(kb << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilobytes_of_proc_become_bytes() {
        let text = "Name:\tx\nVmRSS:\t    1024 kB\nVmRSSx: 1 kB\n";
        assert_eq!(field(text, "VmRSS").unwrap(), 1 << 20);
        assert!(field(text, "VmHWM").is_err());
    }
}
