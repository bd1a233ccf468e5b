//! One run of QEMU, from its start to its exit record.

use super::argv;
use super::control::{VmxState, VmxStatus};
use super::exit::{ExitReason, ExitRecord};
use super::nics::Nics;
use super::qmp::{Event, Qmp};
use super::shim::{Phase, now_ns};
use super::spec::{NicSpec, SerialSpec, VmxSpec, VsockSpec};
use super::{nics, serial, sys, vsock};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// How long QEMU may take to come to run.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long QEMU may take to end by itself once told to.
const QUIT_DEADLINE: Duration = Duration::from_secs(10);
/// How long what the guest sent last may take to be handed over after its end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of QEMU's stderr that are kept for messages.
const STDERR_KEPT: usize = 4096;

/// Tells a client what became of its command.
pub(super) type Done = oneshot::Sender<Result<(), String>>;

/// What a client wants done.
#[derive(Debug)]
pub(super) enum Command {
    /// Pull the plug.
    PowerOff,
    /// Press the ACPI power button.
    ShutdownGuest(Done),
    /// Press the reset button.
    Reset(Done),
    /// Plug a vNIC in.
    PlugNic(NicSpec, Done),
    /// Change a vNIC's port group or connection.
    SetNic(NicSpec, Done),
    /// Take a vNIC out of its slot.
    UnplugNic(u8, Done),
}

/// Run the VM; the current folder is its run folder. Whatever happens becomes the record.
pub(super) async fn run(
    mut spec: VmxSpec,
    lock: OwnedFd,
    phase: &watch::Sender<Phase>,
    mut commands: mpsc::Receiver<Command>,
) -> ExitRecord {
    let mut ran = false;
    let mut reset = None;
    let reason = loop {
        let started = match lock.try_clone() {
            Ok(lock) => start(&spec, lock).await,
            Err(e) => Err(format!("the lock: {e}")),
        };
        let mut vm = match started {
            Ok(vm) => vm,
            Err(message) => {
                break ExitReason::QemuError {
                    status: None,
                    message,
                };
            }
        };
        let end = vm
            .supervise(phase, &mut commands, &mut ran, reset.take())
            .await;
        set_state(phase, |status| status.state = VmxState::Stopping);
        if matches!(end, End::Reset(_)) {
            // What was plugged in and out stays so.
            spec.nics = vm.nics.after_reset();
        }
        vm.drain().await;
        match end {
            End::Ended(reason) => break reason,
            End::Reset(done) => reset = Some(done),
        }
    };
    ExitRecord {
        reason,
        at: now_ns(),
        ran,
    }
}

/// Why a QEMU is no more.
enum End {
    /// The VM has ended.
    Ended(ExitReason),
    /// The VM is to start again. Firmware that finds itself started by a reset makes another one
    /// (SeaBIOS does), which could not be told from the guest's own: so a reset takes a new QEMU.
    Reset(Done),
}

fn set_state(phase: &watch::Sender<Phase>, change: impl FnOnce(&mut VmxStatus)) {
    phase.send_modify(|phase| {
        if let Phase::Live(status) = phase {
            change(status);
        }
    });
}

struct Vm {
    child: Child,
    qmp: Option<UnixStream>,
    stderr: Stderr,
    serials: JoinSet<()>,
    guards: Vec<serial::Guard>,
    vsock: Option<vsock::Device>,
    nics: Nics,
    /// A power-off was asked for, and QEMU may be killed for it.
    power_off: bool,
}

async fn start(spec: &VmxSpec, lock: OwnedFd) -> Result<Vm, String> {
    argv::prepare(spec)?;
    let vsock = match &spec.vsock {
        Some(VsockSpec::Uds { folder }) => Some(
            vsock::Device::start(argv::VSOCK_SOCKET, argv::GUEST_CID, folder.clone())
                .map_err(|e| format!("vsock device: {e}"))?,
        ),
        _ => None,
    };
    let (qmp, qmp_fd) = StdUnixStream::pair()
        .and_then(|(ours, theirs)| {
            ours.set_nonblocking(true)?;
            Ok((UnixStream::from_std(ours)?, OwnedFd::from(theirs)))
        })
        .map_err(|e| format!("socket pair: {e}"))?;
    let mut ports = Vec::new();
    let mut guards = Vec::new();
    for (n, serial) in spec.serials.iter().enumerate() {
        if let SerialSpec::Uri(uri) = serial {
            let port = serial::Port::new(n, uri, spec)?;
            let (uart, guard) = serial::Uart::create(&argv::fifo(n))
                .map_err(|e| format!("serial port {n}: {e}"))?;
            ports.push((port, uart));
            guards.push(guard);
        }
    }

    let (nics, taps) = Nics::open(&spec.nics).await?;
    let shares = super::shares::open(&spec.shares)?;
    let numbers = |files: &BTreeMap<u8, OwnedFd>| {
        let files = files.iter();
        files.map(|(n, file)| (*n, file.as_raw_fd())).collect()
    };
    let inherited = argv::Inherited {
        qmp: qmp_fd.as_raw_fd(),
        taps: numbers(&taps),
        shares: numbers(&shares),
    };

    let mut command = std::process::Command::new(argv::QEMU);
    command
        .args(argv::build(spec, &inherited)?)
        // The lock is free once shim and QEMU are both gone.
        .stdin(Stdio::from(lock))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let inherit = taps
        .into_values()
        .chain(shares.into_values())
        .chain([qmp_fd])
        .collect();
    sys::tie_to_this_thread(&mut command, inherit);
    let mut command = tokio::process::Command::from(command);
    let mut child = command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            format!("{} is not installed (package qemu-system-x86)", argv::QEMU)
        }
        _ => format!("{}: {e}", argv::QEMU),
    })?;
    // The command still holds our copies of what QEMU inherited, and so would keep it open.
    drop(command);
    let stderr = Stderr::collect(child.stderr.take());
    let mut serials = JoinSet::new();
    for (port, uart) in ports {
        serials.spawn(port.run(uart));
    }
    Ok(Vm {
        child,
        qmp: Some(qmp),
        stderr,
        serials,
        guards,
        vsock,
        nics,
        power_off: false,
    })
}

impl Vm {
    /// From QEMU's start to its end; whoever wanted the start learns that the guest runs.
    async fn supervise(
        &mut self,
        phase: &watch::Sender<Phase>,
        commands: &mut mpsc::Receiver<Command>,
        ran: &mut bool,
        started: Option<Done>,
    ) -> End {
        set_state(phase, |status| status.qemu_pid = self.child.id());
        let qmp = self.qmp.take();
        let connected = tokio::select! {
            connected = tokio::time::timeout(START_DEADLINE, come_to_run(qmp)) => connected,
            // A power-off of a VM that hangs in its start must not wait for it.
            Some(()) = power_off_only(commands) => {
                self.power_off = true;
                self.kill();
                Ok(Err("powered off while it was starting".to_owned()))
            }
        };
        // QEMU has opened its files by now, or never will.
        self.guards.clear();
        let (mut qmp, mut events) = match connected {
            Ok(Ok(both)) => both,
            Ok(Err(why)) => return End::Ended(self.ended_in_start(&why).await),
            Err(_) => {
                self.kill();
                let seconds = START_DEADLINE.as_secs();
                let why = format!("QEMU did not come to run within {seconds} s");
                return End::Ended(self.ended_in_start(&why).await);
            }
        };
        *ran = true;
        set_state(phase, |status| {
            status.state = VmxState::Running;
            status.running_since = Some(now_ns());
        });
        if let Some(started) = started {
            let _ = started.send(Ok(()));
        }

        let mut shutdown = None;
        let mut reset: Option<Done> = None;
        let mut terminate = signal(SignalKind::terminate()).ok();
        let mut quit_by = None;
        let status = loop {
            tokio::select! {
                Some(event) = events.recv() => match nics::deleted(&event) {
                    Some(slot) => self.nics.gone(slot, &mut qmp).await,
                    None => on_event(&event, phase, &mut shutdown),
                },
                status = self.child.wait() => break status,
                Some(command) = commands.recv() => match command {
                    Command::PowerOff => {
                        self.power_off = true;
                        quit_by = Some(quit(&mut qmp).await);
                    }
                    Command::ShutdownGuest(done) => {
                        let result = qmp.execute("system_powerdown", json!({})).await;
                        let _ = done.send(result.map(drop).map_err(|e| e.to_string()));
                    }
                    Command::Reset(done) => {
                        reset = Some(done);
                        quit_by = Some(quit(&mut qmp).await);
                    }
                    Command::PlugNic(nic, done) => {
                        let _ = done.send(self.nics.plug(nic, &mut qmp).await);
                    }
                    Command::SetNic(nic, done) => {
                        let _ = done.send(self.nics.set(nic).await);
                    }
                    Command::UnplugNic(slot, done) => {
                        self.nics.unplug(slot, &mut qmp, done).await;
                    }
                },
                () = terminated(&mut terminate) => {
                    self.power_off = true;
                    quit_by = Some(quit(&mut qmp).await);
                }
                () = deadline(quit_by) => { self.kill(); quit_by = None; }
                () = deadline(self.nics.patience()) => self.nics.give_up().await,
            }
        };
        // What QEMU said last is still on its way.
        while let Some(event) = events.recv().await {
            note_shutdown(&event, &mut shutdown);
        }
        if let Some(done) = reset.filter(|_| !self.power_off) {
            return End::Reset(done);
        }
        End::Ended(match status {
            Ok(status) => self.reason(status, shutdown).await,
            Err(e) => ExitReason::QemuError {
                status: None,
                message: format!("waiting for QEMU: {e}"),
            },
        })
    }

    fn kill(&self) {
        let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) else {
            return;
        };
        // It may have ended just now.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }

    async fn ended_in_start(&mut self, why: &str) -> ExitReason {
        // Without QMP the shim is blind: whatever is left of QEMU has to go. One that is about to
        // end by itself shall say its last words first.
        if tokio::time::timeout(QUIT_DEADLINE, self.child.wait())
            .await
            .is_err()
        {
            self.kill();
        }
        match self.child.wait().await {
            _ if self.power_off => ExitReason::PowerOffRequested,
            Ok(status) if status.success() || status.signal() == Some(libc::SIGKILL) => {
                let message = format!("{why}\n{}", self.stderr.finish().await);
                ExitReason::QemuError {
                    status: status.code(),
                    message: message.trim().to_owned(),
                }
            }
            Ok(status) => self.reason(status, None).await,
            Err(e) => ExitReason::QemuError {
                status: None,
                message: format!("{why}; {e}"),
            },
        }
    }

    async fn reason(&mut self, status: ExitStatus, shutdown: Option<ExitReason>) -> ExitReason {
        if let Some(signal) = status.signal() {
            return match self.power_off && signal == libc::SIGKILL {
                true => ExitReason::PowerOffRequested,
                false => ExitReason::QemuSignal { signal },
            };
        }
        match shutdown {
            Some(reason) if status.success() => reason,
            _ if status.success() && self.power_off => ExitReason::PowerOffRequested,
            _ => ExitReason::QemuError {
                status: status.code(),
                message: self.stderr.finish().await,
            },
        }
    }

    /// Hand over what the guest sent before its end.
    async fn drain(mut self) {
        let vsock = self.vsock.take();
        let work = async { while self.serials.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_DEADLINE, work).await.is_err() {
            eprintln!("vmx: serial port: the proxy did not take the guest's last bytes");
        }
        if let Some(device) = vsock {
            let joined = tokio::task::spawn_blocking(move || device.finish(DRAIN_DEADLINE));
            // Its two steps have their own limits; a thread that hangs in one does not keep the VM.
            match tokio::time::timeout(2 * DRAIN_DEADLINE, joined).await {
                Ok(Ok(Err(e))) => eprintln!("vmx: vsock device: {e}"),
                Err(_) => eprintln!("vmx: vsock device: it does not come to its end"),
                Ok(_) => {}
            }
        }
    }
}

/// The QMP connection of a QEMU whose guest runs.
async fn come_to_run(
    stream: Option<UnixStream>,
) -> Result<(Qmp, mpsc::UnboundedReceiver<Event>), String> {
    let stream = stream.ok_or("QMP is in use already")?;
    let (mut qmp, events) = Qmp::connect(stream).await.map_err(|e| e.to_string())?;
    let status = qmp
        .execute("query-status", json!({}))
        .await
        .map_err(|e| e.to_string())?;
    match status["running"].as_bool() {
        Some(true) => Ok((qmp, events)),
        // So quick a guest has run, too; its events tell how it ended.
        _ if status["status"] == "shutdown" => Ok((qmp, events)),
        _ => Err(format!("QEMU started in the state {}", status["status"])),
    }
}

async fn power_off_only(commands: &mut mpsc::Receiver<Command>) -> Option<()> {
    loop {
        match commands.recv().await? {
            Command::PowerOff => return Some(()),
            Command::ShutdownGuest(done)
            | Command::Reset(done)
            | Command::PlugNic(_, done)
            | Command::SetNic(_, done)
            | Command::UnplugNic(_, done) => {
                let _ = done.send(Err("the VM is still being started".to_owned()));
            }
        }
    }
}

/// Tell QEMU to end; when its time is up, which it is whether QEMU answers or not.
async fn quit(qmp: &mut Qmp) -> tokio::time::Instant {
    let until = tokio::time::Instant::now() + QUIT_DEADLINE;
    // Without QMP it is either ending or will be killed at the deadline.
    let _ = tokio::time::timeout_at(until, qmp.execute("quit", json!({}))).await;
    until
}

fn on_event(event: &Event, phase: &watch::Sender<Phase>, shutdown: &mut Option<ExitReason>) {
    match event.name.as_str() {
        "STOP" => set_state(phase, |status| status.state = VmxState::Paused),
        "RESUME" => set_state(phase, |status| status.state = VmxState::Running),
        "BLOCK_IO_ERROR" => eprintln!("vmx: disk error: {}", event.data),
        _ => note_shutdown(event, shutdown),
    }
}

/// What a SHUTDOWN event says about the end (qapi/run-state.json, ShutdownCause).
fn note_shutdown(event: &Event, shutdown: &mut Option<ExitReason>) {
    if event.name != "SHUTDOWN" {
        return;
    }
    let reason = event.data["reason"].as_str().unwrap_or_default();
    *shutdown = match reason {
        "guest-shutdown" => Some(ExitReason::GuestPowerOff),
        "guest-reset" | "subsystem-reset" => Some(ExitReason::GuestReset),
        "guest-panic" => Some(ExitReason::GuestPanic),
        "host-qmp-quit" => Some(ExitReason::PowerOffRequested),
        // QEMU takes SIGINT, SIGHUP and SIGTERM as a wish; nobody here sends them.
        "host-signal" => Some(ExitReason::QemuSignal {
            signal: libc::SIGTERM,
        }),
        other => Some(ExitReason::QemuError {
            status: None,
            message: format!("shut down: {other}"),
        }),
    };
}

async fn terminated(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

async fn deadline(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// QEMU's stderr: copied to the shim's log, the last bytes kept.
struct Stderr {
    kept: Arc<Mutex<VecDeque<u8>>>,
    copier: Option<tokio::task::JoinHandle<()>>,
}

impl Stderr {
    fn collect(pipe: Option<tokio::process::ChildStderr>) -> Stderr {
        let kept = Arc::new(Mutex::new(VecDeque::with_capacity(STDERR_KEPT)));
        let copier = pipe.map(|mut pipe| {
            let kept = kept.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
                    let bytes = buffer.get(..n).unwrap_or_default();
                    eprint!("{}", String::from_utf8_lossy(bytes));
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.extend(bytes);
                    let excess = kept.len().saturating_sub(STDERR_KEPT);
                    kept.drain(..excess);
                }
            })
        });
        Stderr { kept, copier }
    }

    /// All that was said, once QEMU has ended.
    async fn finish(&mut self) -> String {
        if let Some(copier) = self.copier.take() {
            // It ends with QEMU's own end of the pipe.
            let _ = tokio::time::timeout(DRAIN_DEADLINE, copier).await;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(kept.make_contiguous())
            .trim()
            .to_owned();
        if text.is_empty() {
            "QEMU said nothing".to_owned()
        } else {
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_qemu_that_hangs_has_no_more_than_its_time_to_end() {
        let (mut qmp, _qemu) = super::super::qmp::tests::hanging().await;
        let told = Instant::now();
        let limit = Duration::from_secs(60);
        let until = tokio::time::timeout(limit, quit(&mut qmp)).await.unwrap();
        assert_eq!(until - told, QUIT_DEADLINE);
        assert!(told.elapsed() < QUIT_DEADLINE + Duration::from_secs(1));
    }
}
