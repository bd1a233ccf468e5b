//! The shim process: `hostsim vmx`.

use super::control::{LINE_MAX, Reply, Request, VmxState, VmxStatus};
use super::exit::ExitRecord;
use super::handle::{SPEC_FILE, VmxError};
use super::machine::{self, Command};
use super::spec::VmxSpec;
use super::sys;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// How long the shim stays for clients to take their last answer.
const FAREWELL: Duration = Duration::from_secs(5);

/// Arguments of `hostsim vmx`, which hostsim itself starts: nothing for people.
#[derive(Debug, Clone, clap::Args)]
pub struct ShimArgs {
    /// The VM's run folder. The lock is stdin and the control socket is stdout.
    #[arg(long)]
    run_dir: PathBuf,
}

/// The VM's phase, told to whoever waits for it.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// QEMU is there or will be.
    Live(VmxStatus),
    /// It has ended, and the record is on the disk.
    Ended(ExitRecord),
}

/// Be a VM's shim until the VM has ended. Returns at once in the process that was started, which
/// should then end; must be called before any thread is started.
///
/// # Errors
/// The shim was not started by hostsim, or the run folder's files are not what it left there. The
/// end of the VM is never an error.
pub fn run_shim(args: &ShimArgs) -> Result<(), VmxError> {
    let shim = |what| move |source: io::Error| VmxError::Shim { what, source };
    let lock = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(shim("taking the lock from stdin"))?;
    let listener = io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .map_err(shim("taking the socket from stdout"))?;
    let listener = std::os::unix::net::UnixListener::from(listener);
    listener
        .local_addr()
        .and_then(|_| listener.set_nonblocking(true))
        .map_err(shim(
            "stdout is no listening socket (only hostsim itself runs this)",
        ))?;
    std::env::set_current_dir(&args.run_dir).map_err(shim("entering the run folder"))?;
    let text = std::fs::read(SPEC_FILE).map_err(shim("reading spec.json"))?;
    let spec: VmxSpec = serde_json::from_slice(&text)
        .map_err(io::Error::from)
        .map_err(shim("reading spec.json"))?;
    sys::detach().map_err(shim("detaching from hostsim"))?;
    release_standard_files().map_err(shim("releasing stdin and stdout"))?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(shim("starting the runtime"))?;
    let result = runtime.block_on(serve(spec, lock, listener));
    // The threads of the vsock device hold nothing that would be worth waiting for.
    runtime.shutdown_background();
    result
}

/// stdin and stdout were only the way to hand things over.
fn release_standard_files() -> io::Result<()> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    Ok(())
}

async fn serve(
    spec: VmxSpec,
    lock: OwnedFd,
    listener: std::os::unix::net::UnixListener,
) -> Result<(), VmxError> {
    // QEMU gets the one, the shim keeps the other until it ends, exit record and all.
    let _held = lock.try_clone().map_err(|source| VmxError::Shim {
        what: "keeping the lock",
        source,
    })?;
    let listener = UnixListener::from_std(listener).map_err(|source| VmxError::Shim {
        what: "listening",
        source,
    })?;
    let status = VmxStatus {
        state: VmxState::Starting,
        shim_pid: std::process::id(),
        qemu_pid: None,
        running_since: None,
    };
    let (phase, phases) = watch::channel(Phase::Live(status));
    let (commands, command_queue) = mpsc::channel(16);
    let clients = tokio::spawn(accept(listener, phases, commands));

    let name = spec.name.clone();
    let record = machine::run(spec, lock, &phase, command_queue).await;
    eprintln!("vmx: {name}: {}", record.reason);
    let written = record.write(Path::new("."));
    phase.send_replace(Phase::Ended(record));
    drop(phase);
    // A client that went to sleep does not keep the VM's folder locked.
    let _ = tokio::time::timeout(FAREWELL, clients).await;
    written.map_err(|source| VmxError::Shim {
        what: "writing exit.json",
        source,
    })
}

/// Serve clients until the VM has ended and each of them has its answer.
async fn accept(
    listener: UnixListener,
    phases: watch::Receiver<Phase>,
    commands: mpsc::Sender<Command>,
) {
    let mut clients = JoinSet::new();
    let mut end = phases.clone();
    loop {
        tokio::select! {
            client = listener.accept() => match client {
                Ok((stream, _)) => {
                    let (phases, commands) = (phases.clone(), commands.clone());
                    clients.spawn(async move {
                        // A client that goes away in the middle needs no answer.
                        let _ = client_session(stream, phases, commands).await;
                    });
                }
                Err(e) => {
                    eprintln!("vmx: control socket: {e}");
                    tokio::task::yield_now().await;
                }
            },
            Some(_) = clients.join_next() => {}
            () = until_ended(&mut end) => break,
        }
    }
    drop(listener);
    while clients.join_next().await.is_some() {}
}

async fn until_ended(phases: &mut watch::Receiver<Phase>) {
    // An error means that the sender is gone, which is an end, too.
    let _ = phases
        .wait_for(|phase| matches!(phase, Phase::Ended(_)))
        .await;
}

async fn client_session(
    stream: UnixStream,
    mut phases: watch::Receiver<Phase>,
    commands: mpsc::Sender<Command>,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        (&mut reader)
            .take(LINE_MAX as u64)
            .read_until(b'\n', &mut line)
            .await?;
        if line.last() != Some(&b'\n') {
            return Ok(());
        }
        let reply = match serde_json::from_slice(&line) {
            Ok(request) => answer(request, &mut phases, &commands).await,
            Err(e) => Reply::Error {
                message: format!("not a request: {e}"),
            },
        };
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        writer.write_all(&line).await?;
    }
}

async fn answer(
    request: Request,
    phases: &mut watch::Receiver<Phase>,
    commands: &mpsc::Sender<Command>,
) -> Reply {
    match request {
        Request::Status => now(phases),
        Request::WaitRunning => {
            let started = |phase: &Phase| match phase {
                Phase::Live(status) => status.state != VmxState::Starting,
                Phase::Ended(_) => true,
            };
            match phases.wait_for(started).await.map(|phase| phase.clone()) {
                // Ending before it ran: the record will say why.
                Ok(Phase::Live(status)) if status.running_since.is_none() => ended(phases).await,
                _ => now(phases),
            }
        }
        Request::WaitExit => ended(phases).await,
        Request::PowerOff => {
            let _ = commands.send(Command::PowerOff).await;
            ended(phases).await
        }
        Request::ShutdownGuest => ordered(phases, commands, Command::ShutdownGuest).await,
        Request::Reset => ordered(phases, commands, Command::Reset).await,
        Request::PlugNic { nic } => {
            ordered(phases, commands, |done| Command::PlugNic(nic, done)).await
        }
        Request::SetNic { nic } => {
            ordered(phases, commands, |done| Command::SetNic(nic, done)).await
        }
        Request::UnplugNic { slot } => {
            ordered(phases, commands, |done| Command::UnplugNic(slot, done)).await
        }
    }
}

fn now(phases: &watch::Receiver<Phase>) -> Reply {
    match &*phases.borrow() {
        Phase::Live(status) => Reply::Status(status.clone()),
        Phase::Ended(record) => Reply::Exited(record.clone()),
    }
}

async fn ended(phases: &mut watch::Receiver<Phase>) -> Reply {
    let end = phases
        .wait_for(|phase| matches!(phase, Phase::Ended(_)))
        .await;
    match end.as_deref() {
        Ok(Phase::Ended(record)) => Reply::Exited(record.clone()),
        _ => Reply::Error {
            message: "the shim is ending".to_owned(),
        },
    }
}

async fn ordered(
    phases: &mut watch::Receiver<Phase>,
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<Result<(), String>>) -> Command,
) -> Reply {
    let (sender, result) = oneshot::channel();
    if commands.send(command(sender)).await.is_err() {
        return ended(phases).await;
    }
    match result.await {
        Ok(Ok(())) => Reply::Done,
        Ok(Err(message)) => Reply::Error { message },
        // The VM ended in the meantime.
        Err(_) => ended(phases).await,
    }
}

/// Nanoseconds since 1970.
pub(super) fn now_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
