//! One VM's life: boot, the container's process, the end.

use crate::boot::{Fault, clock, config, disk, files, modules::Modules, root, system, volumes};
use crate::console;
use crate::container::cgroup::Cgroup;
use crate::container::spawn::prepare;
use crate::io::partition::Partition;
use crate::io::record::Recorder;
use crate::net::{dial::Dialer, filter, interfaces, leases, power, uevent::Uevents};
use crate::reaper::Reaper;
use crate::restart::first_place;
use crate::sys::process;
use crate::vm::{Boot, End, Vm};
use journal::{Exit, JournalError};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use wire::config::{GuestConfig, MAINTENANCE_IDLE};
use wire::handshake::Credentials;
use wire::keys::{Identity, Key};
use wire::message::{ExitStatus, SessionId, ToHost};

/// Descriptors that the tether may have: as many as the kernel lets a process have (`fs.nr_open`).
const DESCRIPTORS: u64 = 1_048_576;
/// How long a fault of the boot waits for a link that can take it.
const FAULT_DEADLINE: Duration = Duration::from_secs(60);
/// How long a VM that was reset dials before it ends. An endpoint for which the boot is over starts the container anew
/// within this (decision 27).
const AGAIN: Duration = Duration::from_secs(20);
/// How long log streams may stand still once all else is done.
const LOGS_DEADLINE: Duration = Duration::from_secs(10);
/// How long what reads or writes the container's files may go on after the container's end.
const JOBS_DEADLINE: Duration = Duration::from_secs(30);
/// How long the endpoint may take to acknowledge the last messages.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(10);

/// Lives the VM's life; ends with the power off.
pub fn live() -> ! {
    let run = || -> Result<bool, Fault> {
        // Neither the container nor an exec on its way into it may look into this memory, nor
        // into that of a child that is not yet its program.
        process::prctl(libc::PR_SET_DUMPABLE, 0)
            .map_err(Fault::at("modules", "protecting the tether's memory"))?;
        // An exec has four descriptors here, and init begins with 1,024. The container's processes get limits of their own.
        process::limit(libc::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS)
            .map_err(Fault::at("modules", "raising the limit of descriptors"))?;
        system::mount_all()?;
        let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Fault::at("modules", "making the event loop"))?;
        let tasks = tokio::task::LocalSet::new();
        let clean = tasks.block_on(&runtime, vm_life());
        // A serial port that is closed while nobody reads at its other end waits for half a minute (setserial(8),
        // closing_wait); the power off closes nothing.
        std::mem::forget((tasks, runtime));
        clean
    };
    let clean = run().unwrap_or_else(|fault| {
        console(&fault.to_string());
        true
    });
    if clean {
        nix::unistd::sync();
    }
    power_off()
}

fn power_off() -> ! {
    loop {
        match nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_POWER_OFF) {
            Ok(never) => match never {},
            Err(error) => console(&format!("powering off: {error}")),
        }
        // Without a way to power off, at least nothing runs on.
        let _ = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_HALT_SYSTEM);
    }
}

/// Tells whether all is unmounted.
async fn vm_life() -> Result<bool, Fault> {
    // Before the first module: a device may appear at any moment from then on.
    let mut events = Uevents::open().map_err(Fault::at("modules", "listening to device events"))?;
    let reaper = Reaper::start().map_err(Fault::at("modules", "handling SIGCHLD"))?;
    let mut modules = Modules::read()?;
    modules.load_devices()?;
    let mut config = config::read()?;
    // By the VM's own clock: the configuration's is as old as the request.
    if let Some(maintenance) = &config.maintenance
        && crate::io::now() > maintenance.until
    {
        return Err(Fault {
            step: "configuration",
            message: "the request for the container's files is too old".into(),
        });
    }
    clock::set(&config);
    let (credentials, run) = credentials(&mut config)?;
    let dialer = Dialer::new(config.link.transport.clone(), credentials);
    let (vm, ends) = Vm::new(config, reaper);
    tokio::task::spawn_local(keep_linked(Rc::clone(&vm), dialer));
    tokio::task::yield_now().await;

    match boot(&vm, run, &mut events, &mut modules).await {
        Ok(()) => drop(vm.boot.send_replace(Boot::Done)),
        Err(Stop::Again) => {
            // The endpoint has given its keys to the first run: it is told by the VM's end, and by the journal. Where it
            // knew of that run's end, the VM was powered on by someone else, and it has the time to see that it dials.
            console("this boot was begun before, and its VM was reset since: it ends here");
            // The event, if there is one, is the power off.
            tokio::time::sleep(AGAIN).await;
            return Ok(root::unmount(&vm.config, &vm.reaper).await);
        }
        Err(Stop::Fault(fault)) => {
            console(&fault.to_string());
            vm.boot.send_replace(Boot::Failed(fault.clone()));
            tell_fault(&vm, &fault).await;
            return Ok(root::unmount(&vm.config, &vm.reaper).await);
        }
    }
    drop(events);
    vm.modules.replace(modules);
    tokio::task::spawn_local(watch_power_button(Rc::clone(&vm)));
    if vm.config.maintenance.is_some() {
        tokio::task::spawn_local(end_without_link(Rc::clone(&vm)));
    }
    Ok(end(&vm, ends).await)
}

/// Takes the link's secret out of the configuration; with it, what tells this boot from all others, since no other has
/// its secret.
fn credentials(config: &mut GuestConfig) -> Result<(Credentials, u64), Fault> {
    let secret = std::mem::take(&mut config.link.secret);
    let key = Key::from_hex(&secret).map_err(Fault::at("configuration", "the link's secret"));
    // The text is wiped too; `Key` wipes itself.
    secret.into_bytes().fill(0);
    let identity = Identity::new(&config.id, config.boot)
        .map_err(Fault::at("configuration", "the container's ID"))?;
    let key = key?;
    let run = key.fingerprint();
    Ok((Credentials::new(identity, key), run))
}

/// Volumes, and folders of the machine.
async fn mount_all(
    config: &GuestConfig,
    events: &mut Uevents,
    modules: &mut Modules,
) -> Result<(), Fault> {
    volumes::mount_all(config, events).await?;
    if config.shares.is_empty() {
        return Ok(());
    }
    modules.load_group("share")?;
    volumes::shares::mount_all(config)
}

/// Networks, with what guards them.
async fn join_networks(
    vm: &Rc<Vm>,
    events: &mut Uevents,
    modules: &mut Modules,
) -> Result<(), Fault> {
    let config = &vm.config;
    let network = |message| Fault {
        step: "network",
        message,
    };
    for group in interfaces::modules(&config.networks) {
        modules.load_group(group)?;
    }
    if config.sctp {
        modules.load_group("sctp")?;
    }
    if !config.guards.is_empty() {
        // Before there is an interface that it is for.
        modules.load_group("nft")?;
        filter::set(&config.guards).map_err(network)?;
    }
    interfaces::bring_up(&config.networks, events)
        .await
        .map_err(network)?;
    for interface in config.networks.iter().filter(|i| i.addresses.is_empty()) {
        leases::join(vm, interface).await.map_err(network)?;
    }
    Ok(())
}

/// Why there is nothing to run.
#[derive(Debug)]
enum Stop {
    /// A step failed.
    Fault(Fault),
    /// The VM was reset: its configuration is of a boot that was begun before.
    Again,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Fault(fault)
    }
}

/// Whether this boot was begun before and its container had not ended, which it is recorded to have now; one that was to
/// be started again had not. Where it had, someone has powered the VM on again: that is for the endpoint to see.
fn is_again(recorder: &Rc<Recorder>, run: u64) -> Result<bool, JournalError> {
    if recorder.previous_run() != Some(run) {
        return Ok(false);
    }
    match recorder.reader()?.exit()? {
        Some(exit) if exit.reason != journal::AGAIN => Ok(exit.reason == journal::RESET),
        _ => {
            recorder.exit(&Exit {
                code: 128 + libc::SIGKILL,
                oom: false,
                at: crate::io::now(),
                reason: journal::RESET.into(),
            })?;
            Ok(true)
        }
    }
}

/// The steps from the configuration to a process that waits. Between them the link gets its turn.
async fn boot(
    vm: &Rc<Vm>,
    run: u64,
    events: &mut Uevents,
    modules: &mut Modules,
) -> Result<(), Stop> {
    let config = &vm.config;
    modules.load_group("boot")?;
    modules.load_devices()?;
    if !config.disk.layer_files.is_empty() {
        modules.load_group("loop")?;
    }
    let scan = disk::Scan::begin();
    if config.maintenance.is_none() {
        // While the disk is on its way.
        join_networks(vm, events, modules).await?;
    }
    let found = disk::find(&config.disk, scan, events).await?;
    let found = vm.disk.get_or_init(|| found);
    root::layers(&config.disk, found)?;
    tokio::task::yield_now().await;
    root::ephemeral(&config.disk, found)?;
    root::overlay(&config.disk)?;
    tokio::task::yield_now().await;
    if config.maintenance.is_some() {
        mount_all(config, events, modules).await?;
        return Ok(volumes::nfs::mount_all(config, &vm.reaper).await?);
    }
    let device = found.partition(config.disk.journal);
    let what = format!("partition {} ({})", config.disk.journal, device.display());
    let partition = Partition::open(&device, config.log_size)
        .map_err(Fault::at("journal", format!("opening {what}")))?;
    let recorder = Recorder::open(partition, run).map_err(Fault::at("journal", what.clone()))?;
    if is_again(&recorder, run).map_err(Fault::at("journal", what.clone()))? {
        return Err(Stop::Again);
    }
    mount_all(config, events, modules).await?;
    if !config.nfs.is_empty() {
        modules.load_group("nfs")?;
        volumes::nfs::mount_all(config, &vm.reaper).await?;
    }
    files::write(config, &vm.as_told())?;
    system::set_sysctls(&config.limits.sysctls)?;
    tokio::task::yield_now().await;
    let cgroup = Cgroup::create(&config.limits)
        .map_err(Fault::at("process", "making the container's cgroup"))?;
    // Each is set once, here.
    let (recorder, cgroup) = (
        vm.recorder.get_or_init(|| recorder),
        vm.cgroup.get_or_init(|| cgroup),
    );
    let place = first_place(config);
    let waiting = prepare(&config.process, config, cgroup, &vm.reaper, place)
        .await
        .map_err(|e| Fault {
            step: "process",
            message: e.message,
        })?;
    // Written while the rest was made.
    recorder
        .opened()
        .await
        .map_err(Fault::at("journal", what))?;
    vm.hold(waiting);
    Ok(())
}

/// Dials, serves, dials again: at once after a link that worked, with growing pauses while there is none.
async fn keep_linked(vm: Rc<Vm>, mut dialer: Dialer) {
    const FIRST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_secs(2);
    let mut pause = FIRST;
    loop {
        let error = match dialer.dial().await {
            Ok(link) => {
                pause = FIRST;
                vm.serve(link).await
            }
            Err(error) => error,
        };
        console(&format!("link: {error}; dialling again"));
        // The host tells nobody that it listens now; so ask again, ever more rarely.
        tokio::time::sleep(pause).await;
        pause = LONGEST.min(pause * 2);
    }
}

/// A VM that is up for its container's files only ends once nobody has asked for them for a while.
async fn end_without_link(vm: Rc<Vm>) {
    let mut link = vm.link.subscribe();
    let idle = Duration::from_secs(MAINTENANCE_IDLE);
    while tokio::time::timeout(idle, link.wait_for(Option::is_some))
        .await
        .is_ok()
    {
        // Cannot fail: the VM holds the sender.
        let _ = link.wait_for(Option::is_none).await;
    }
    vm.kill();
}

async fn tell_fault(vm: &Vm, fault: &Fault) {
    let told = async {
        let mut link = vm.link.subscribe();
        loop {
            let Ok(sender) = link.wait_for(Option::is_some).await.map(|l| l.clone()) else {
                return;
            };
            let Some(sender) = sender else { continue };
            let message = ToHost::BootFault {
                step: fault.step.to_owned(),
                message: fault.message.clone(),
            };
            if sender.send(message).await.is_ok() && sender.flush().await.is_ok() {
                return;
            }
            // That link is over; its task takes it away.
            sender.closed().await;
            tokio::task::yield_now().await;
        }
    };
    if tokio::time::timeout(FAULT_DEADLINE, told).await.is_err() {
        console("nobody could be told of this fault: no link to the endpoint");
    }
}

/// The power button, or the hypervisor's guest shutdown: the stop signal, then SIGKILL.
async fn watch_power_button(vm: Rc<Vm>) {
    let events = match power::listen() {
        Ok(events) => events,
        Err(error) => return console(&format!("no power button: {error}")),
    };
    while power::pressed(&events).await.is_ok() {
        vm.restarts.keep_down();
        if vm.container().signal(vm.config.stop_signal).is_err() {
            vm.kill();
            return;
        }
        vm.thaw();
        let this = Rc::clone(&vm);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_secs(this.config.stop_timeout.into())).await;
            this.kill();
        });
    }
}

/// Waits for the end and carries it out: exit record synced and told, streams sent, file systems unmounted, farewell.
/// Tells whether all is unmounted.
async fn end(vm: &Rc<Vm>, mut ends: mpsc::UnboundedReceiver<End>) -> bool {
    // The VM holds a sender, so there is an end.
    let Some(end) = ends.recv().await else {
        return true;
    };
    match end {
        End::Exited(status) => {
            vm.record_exit(status, vm.restarts.reason());
            vm.tell(ToHost::Exit {
                session: SessionId::CONTAINER,
                status,
            })
            .await;
        }
        End::NotStarted(error) => {
            vm.container().drained().await;
            let status = ExitStatus {
                code: error.code,
                oom: false,
                at: crate::io::now(),
            };
            vm.record_exit(status, error.message);
        }
        End::Shutdown => {}
    }
    finish_streams(vm).await;
    tell_memory();
    vm.container().release();
    drop(vm.waiting.borrow_mut().take());
    let link = vm.link.borrow().clone();
    if let Some(link) = &link {
        let _ = tokio::time::timeout(GOODBYE_DEADLINE, link.flush()).await;
    }
    let clean = root::unmount(&vm.config, &vm.reaper).await;
    if let Some(link) = &link
        && link.send(ToHost::Goodbye).await.is_ok()
    {
        let _ = tokio::time::timeout(GOODBYE_DEADLINE, link.flush()).await;
    }
    clean
}

/// Says on the console how much memory the tether has: nothing in the container can see it.
fn tell_memory() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(line) = status.lines().find(|line| line.starts_with("VmRSS:")) {
        console(line);
    }
}

/// Waits until every stream is wholly sent. A paused reader is waited for, as long as there is a
/// link and no `Shutdown`; one that reads logs only, no longer than it stands still for a while:
/// the journal stays for the endpoint to read.
async fn finish_streams(vm: &Vm) {
    let mut live = vm.live.subscribe();
    // Cannot fail: the VM holds the sender.
    let _ = live.wait_for(|n| *n == 0).await;
    let mut logs = vm.logs.subscribe();
    let _ = tokio::time::timeout(LOGS_DEADLINE, logs.wait_for(|n| *n == 0)).await;
    let mut jobs = vm.jobs.subscribe();
    if tokio::time::timeout(JOBS_DEADLINE, jobs.wait_for(|n| *n == 0))
        .await
        .is_err()
    {
        vm.cut.send_replace(true);
        // A child that was killed holds what it has mounted until it is reaped.
        let _ = jobs.wait_for(|n| *n == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(file: &tempfile::NamedTempFile, run: u64) -> Rc<Recorder> {
        Recorder::open(Partition::open(file.path(), 0).unwrap(), run).unwrap()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_vm_that_is_reset_between_two_runs_of_its_container_ends_as_within_one() {
        let set = tokio::task::LocalSet::new();
        set.run_until(async {
            // What the last run's exit says, and whether the boot after it is the same one again.
            let cases = [
                (None, true),
                (Some(journal::AGAIN), true),
                (Some(""), false),
                (Some(journal::STOPPED), false),
            ];
            for (reason, again) in cases {
                let file = tempfile::NamedTempFile::new().unwrap();
                file.as_file().set_len(4 << 20).unwrap();
                let first = opened(&file, 7);
                first.start(1, 1).unwrap();
                if let Some(reason) = reason {
                    let exit = Exit {
                        code: 3,
                        oom: false,
                        at: 2,
                        reason: reason.into(),
                    };
                    first.exit(&exit).unwrap();
                }
                first.opened().await.unwrap();
                drop(first);
                let next = opened(&file, 7);
                assert_eq!(is_again(&next, 7).unwrap(), again, "{reason:?}");
                let exit = next.reader().unwrap().exit().unwrap().unwrap();
                assert_eq!(exit.reason == journal::RESET, again, "{reason:?}");
                // A boot of its own is none of this.
                assert!(!is_again(&next, 8).unwrap());
            }
        })
        .await;
    }
}
