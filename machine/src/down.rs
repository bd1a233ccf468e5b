//! `vch down`: ends the VMs, then the endpoint, then its registry and the simulated host.

use crate::state::{StateDir, Wanted};
use crate::{Error, hypervisor, parts, process, registry, up};
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;

/// How long a part may take to end after SIGTERM.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Ends a virtual container host. Images and stopped containers stay for the next `up`.
///
/// # Errors
/// What could not be ended. All parts are tried.
pub async fn run(state: &Path, seconds: u64) -> Result<(), Error> {
    if !state.exists() {
        eprintln!("there is no virtual container host in {}", state.display());
        return Ok(());
    }
    let dir = StateDir::open(state)?;
    let Some(mut record) = dir.load()? else {
        return Ok(());
    };
    // Whoever watches over it leaves; and an `up` after this was cut short knows of what comes next.
    record.wanted = Wanted::Ending;
    dir.save(&record)?;
    // Or a restart policy would start again what is ended here.
    if let Some(endpoint) = &record.endpoint {
        endpoint.process.signal(Signal::USR1);
    }
    // VMs live on under their own processes when hostsim has died: only through it can they be ended.
    let vms = match up::ensure_hostsim(&dir, &mut record) {
        Ok(h) => {
            hypervisor::shut_down(dir.path(), &h, &record.vch, Duration::from_secs(seconds)).await
        }
        Err(error) => Err(error),
    };
    let endpoint = record
        .endpoint
        .take()
        .map_or(Ok(()), |p| p.process.stop("endpoint", PATIENCE));
    let left = parts::endpoint_words(dir.path());
    let endpoint = endpoint.and(process::stop_those_with(&left, "endpoint", PATIENCE));
    // Behind the endpoint, which may be in the middle of a push.
    let own = registry::end(&dir, &record);
    // Those that were started while the others were ended.
    let late = match (&vms, up::ensure_hostsim(&dir, &mut record)) {
        (Ok(()), Ok(h)) => hypervisor::shut_down(dir.path(), &h, &record.vch, Duration::ZERO).await,
        _ => Ok(()),
    };
    let hostsim = record
        .hostsim
        .as_ref()
        .map_or(Ok(()), |p| p.process.stop("hostsim", PATIENCE));
    // Last, so that containers can say good-bye. Whatever there is of it, whether it was noted or not.
    let network = up::layout(&dir, &record).remove();
    record.uplink = None;
    record.ports = None;
    record.namespaces = None;
    let ended = vms
        .and(endpoint)
        .and(own)
        .and(late)
        .and(hostsim)
        .and(network);
    if ended.is_ok() {
        record.wanted = Wanted::Down;
    }
    dir.save(&record).and(ended)
}
