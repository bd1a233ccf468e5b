//! The messages that tether and endpoint exchange once the handshake is done.
//!
//! Who may send what is in the type: [`ToGuest`] and [`ToHost`]. Bulk bytes do not travel in
//! messages but on multiplexed streams with credit (see `mux`), each opened by the endpoint with
//! a message that names the stream. Where a channel of a stream ends, and how many bytes a drain
//! left behind, is told in the stream itself (`mux`, link::StreamEvent::End), not by a message.

use crate::config::{Interface, Process};
use crate::files::Job;
use crate::health::{Health, HealthStatus, Probe};
use crate::restart::RestartPolicy;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Longest encoded message in bytes.
pub const MESSAGE_MAX: usize = 512 * 1024;

/// A message could not be encoded or decoded.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MessageError {
    /// It is longer than a message may be.
    #[error("a control message of {0} bytes is over the limit of {MESSAGE_MAX}")]
    TooLong(usize),
    /// Its bytes are no message.
    #[error("no control message: {0}")]
    Malformed(String),
    /// It is one, with something behind it.
    #[error("{0} bytes behind a control message")]
    Trailing(usize),
}

/// Encodes a [`ToGuest`] or [`ToHost`]. All use of postcard is in this file.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, MessageError> {
    let bytes =
        postcard::to_allocvec(message).map_err(|e| MessageError::Malformed(e.to_string()))?;
    if bytes.len() > MESSAGE_MAX {
        return Err(MessageError::TooLong(bytes.len()));
    }
    Ok(bytes)
}

/// Decodes a [`ToGuest`] or [`ToHost`]; nothing is allocated that the bytes do not hold
/// (serde reserves at most 1 MiB ahead of a sequence).
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    if bytes.len() > MESSAGE_MAX {
        return Err(MessageError::TooLong(bytes.len()));
    }
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(MessageError::Trailing(rest.len())),
        Err(e) => Err(MessageError::Malformed(e.to_string())),
    }
}

/// A process under the tether: 0 is the container's own, execs get theirs from the endpoint, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId(pub u32);

impl SessionId {
    /// The container's own process.
    pub const CONTAINER: SessionId = SessionId(0);
}

/// A multiplexed stream. The endpoint numbers them from 1 and never uses a number twice in a link session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId(pub u32);

/// Which of a process's three files a piece of stream data belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Channel {
    /// To the process.
    Stdin,
    /// From the process; also all output of a PTY.
    Stdout,
    /// From the process.
    Stderr,
}

/// A stream onto a session's stdio. Output that the session makes after this message was handled
/// is on the stream, each byte once and in order. A stream that is not read holds the writer back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The stream to use, new.
    pub stream: StreamId,
    /// The endpoint will send stdin.
    pub stdin: bool,
    /// The endpoint wants stdout.
    pub stdout: bool,
    /// The endpoint wants stderr.
    pub stderr: bool,
}

/// Which part of the journal to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRange {
    /// Want stdout.
    pub stdout: bool,
    /// Want stderr.
    pub stderr: bool,
    /// Only records at or after this time (ns since 1970); 0: all.
    pub since: u64,
    /// Only records before or at this time (ns since 1970); 0: all.
    pub until: u64,
    /// At most this many last lines; `None`: all.
    pub tail: Option<u64>,
    /// Go on with what is written later, until the process has ended.
    pub follow: bool,
}

/// From the endpoint to the tether.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// Attach a stream to a session (before or after its start). Answered.
    Attach {
        /// Number of this request, echoed in the answer.
        request: u32,
        /// The session.
        session: SessionId,
        /// The stream.
        attach: Attach,
    },
    /// Start the container's own process, which waits for this. Answered with `Started` or an error.
    /// A repeated one (after a lost endpoint) is answered with the process that runs.
    Start {
        /// Number of this request.
        request: u32,
    },
    /// Start a further process in the container. Answered with `Started` or an error.
    Exec {
        /// Number of this request.
        request: u32,
        /// Its session, new.
        session: SessionId,
        /// What to run.
        process: Process,
        /// Attached before the process is started.
        attach: Option<Attach>,
    },
    /// Send a signal to a session's process. Answered.
    Signal {
        /// Number of this request.
        request: u32,
        /// The session.
        session: SessionId,
        /// Signal number, 1 to 64.
        signal: i32,
    },
    /// Set the window size of a session's PTY. Answered.
    Resize {
        /// Number of this request.
        request: u32,
        /// The session.
        session: SessionId,
        /// Rows.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// List the container's processes (`docker top`). Answered with `Processes`.
    Processes {
        /// Number of this request.
        request: u32,
    },
    /// Send records of the journal on a stream, as encoded [`LogRecord`](crate::log::LogRecord)s on channel Stdout.
    /// Answered; the stream ends where the range does. Never holds the writer back.
    Logs {
        /// Number of this request.
        request: u32,
        /// The stream, new.
        stream: StreamId,
        /// What of it.
        range: LogRange,
    },
    /// The endpoint no longer wants this stream; the tether drops it.
    CloseStream {
        /// The stream.
        stream: StreamId,
    },
    /// Ask for the state of every session; answered with `Sessions` (used after a reconnect).
    Sessions {
        /// Number of this request.
        request: u32,
    },
    /// Make the container's interfaces these: bring up those that are new (their vNICs may still be on their way), take
    /// down those that are not named, set addresses and routes, and write the files that name them. Answered once all
    /// of it is done.
    Networks {
        /// Number of this request.
        request: u32,
        /// Every interface that is to be there.
        networks: Vec<Interface>,
        /// Name servers for /etc/resolv.conf.
        dns: Vec<String>,
    },
    /// Stop the VM now: SIGKILL to the container, then as after its exit. Answered.
    Shutdown {
        /// Number of this request.
        request: u32,
    },
    /// The container's process is not to be started again after its end, whatever its policy says;
    /// where it waits for its next start, the VM ends as after its exit. Answered.
    KeepDown {
        /// Number of this request.
        request: u32,
    },
    /// Change what a client may change while the container runs. Answered.
    Update {
        /// Number of this request.
        request: u32,
        /// To what.
        update: Update,
    },
    /// Freeze all processes of the container, or let them go on. Answered once it is so.
    Freeze {
        /// Number of this request.
        request: u32,
        /// Freeze them.
        frozen: bool,
    },
    /// What the container uses. Answered with `Stats`.
    Stats {
        /// Number of this request.
        request: u32,
    },
    /// As `Processes`, with all that `ps` may show. Answered with `Table`.
    Table {
        /// Number of this request.
        request: u32,
    },
    /// Read or write the container's files; the stream carries them (see [`files`](crate::files)). Answered once the job
    /// has begun; how it goes is told on the stream, on channel Stdout.
    Files {
        /// Number of this request.
        request: u32,
        /// The stream, new.
        stream: StreamId,
        /// What to do.
        job: Job,
    },
    /// Make the packet filter this, in one step; without guards there is none. Answered. Comes before the `Networks`
    /// that it is for: an interface that it does not name passes nothing.
    Guards {
        /// Number of this request.
        request: u32,
        /// One for each interface ([`Guard::line`](crate::config::Guard::line)).
        guards: Vec<String>,
    },
}

/// What `docker update` changes in the guest; `None` leaves it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// The restart policy.
    pub restart: Option<RestartPolicy>,
    /// Processes and threads at once; 0: without limit.
    pub pids: Option<u64>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// A process was started (or runs already).
    Started {
        /// Its process ID in the container's pid namespace.
        pid: u32,
        /// When, in ns since 1970.
        at: u64,
    },
    /// A process could not be started.
    StartFailed {
        /// Docker's exit code: 126 (not executable), 127 (not found), 125 (anything else).
        code: i32,
        /// Docker's wording, e.g. `exec: "foo": executable file not found in $PATH`.
        message: String,
    },
    /// Rows of `docker top`.
    Processes(Vec<ProcessRow>),
    /// State of the sessions.
    Sessions(Vec<SessionState>),
    /// The request could not be carried out.
    Error(String),
    /// What the container uses.
    Stats(Stats),
    /// Its processes.
    Table(Vec<TableRow>),
}

/// What a container uses, counted since its VM's boot. Times in ns, sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// When this was read, ns since 1970.
    pub at: u64,
    /// Processor time.
    pub cpu: u64,
    /// Of it, in user mode.
    pub cpu_user: u64,
    /// Of it, in the kernel.
    pub cpu_kernel: u64,
    /// Periods of the processor limit.
    pub periods: u64,
    /// Periods in which it held processes back.
    pub throttled: u64,
    /// For how long.
    pub throttled_for: u64,
    /// Time of all processors together since the boot, idle or not.
    pub system: u64,
    /// Processors.
    pub cpus: u32,
    /// Memory.
    pub memory: u64,
    /// Figures of memory.stat (cgroup-v2.rst), by name.
    pub memory_stat: Vec<(String, u64)>,
    /// Processes and threads.
    pub pids: u64,
    /// How many there may be; 0: no limit.
    pub pids_limit: u64,
    /// By device.
    pub io: Vec<Io>,
    /// By interface, without loopback.
    pub networks: Vec<NetworkStats>,
}

/// What went to and from a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// The device's numbers.
    pub major: u32,
    /// See `major`.
    pub minor: u32,
    /// Bytes.
    pub read: u64,
    /// Bytes.
    pub written: u64,
}

/// What went over an interface: bytes, packets, errors, dropped packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStats {
    /// The interface.
    pub name: String,
    /// In.
    pub received: [u64; 4],
    /// Out.
    pub sent: [u64; 4],
}

/// One process, with all that `ps` may show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRow {
    /// What `docker top` shows by itself.
    pub row: ProcessRow,
    /// Effective user ID.
    pub uid: u32,
    /// The kernel's letter for its state.
    pub state: char,
    /// Nice value.
    pub nice: i32,
    /// Threads.
    pub threads: u32,
    /// Address space in bytes.
    pub vsz: u64,
    /// Resident memory in bytes.
    pub rss: u64,
    /// Name of its program.
    pub comm: String,
}

/// One process of `docker top`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRow {
    /// User name where /etc/passwd of the image has one, else the number.
    pub user: String,
    /// Process ID as the container sees it.
    pub pid: u32,
    /// Parent's process ID as the container sees it.
    pub ppid: u32,
    /// CPU use in percent, times 10.
    pub cpu_permille: u32,
    /// Start time, ns since 1970.
    pub started: u64,
    /// `pts/0` or `?`.
    pub tty: String,
    /// CPU time used, ns.
    pub cpu_time: u64,
    /// Command line.
    pub command: String,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// The kernel's OOM killer ended it, or a process of its cgroup.
    pub oom: bool,
    /// When, in ns since 1970.
    pub at: u64,
}

/// State of one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// The session.
    pub session: SessionId,
    /// 0: not started.
    pub pid: u32,
    /// When it was started, ns since 1970; 0: not started.
    pub started: u64,
    /// Set once it has ended.
    pub exit: Option<ExitStatus>,
}

/// The steps of a boot, in their order; [`ToHost::BootFault`] names one. On the VM's console a fault is a line
/// `tether: STEP: MESSAGE`: that is where the endpoint finds one of a step before there is a link.
pub const BOOT_STEPS: [&str; 11] = [
    "modules",
    "configuration",
    "disk",
    "layers",
    "ephemeral",
    "overlay",
    "journal",
    "volumes",
    "network",
    "files",
    "process",
];

/// From the tether to the endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// First message after each handshake: the tether is ready for requests.
    Ready {
        /// Tether's version, for `docker info` and logs.
        version: String,
        /// Milliseconds since the kernel's start.
        uptime_ms: u64,
        /// The container's own process as it stands.
        container: SessionState,
    },
    /// A step of the boot failed; the VM powers off after this was acknowledged. Becomes the error of `docker start`.
    BootFault {
        /// The step, one of [`BOOT_STEPS`].
        step: String,
        /// What failed, on what, why.
        message: String,
    },
    /// The answer to a request.
    Answer {
        /// The request's number.
        request: u32,
        /// What became of it.
        reply: Reply,
    },
    /// A process ended. Comes independently of the end of its streams.
    Exit {
        /// The session.
        session: SessionId,
        /// How.
        status: ExitStatus,
    },
    /// File systems are unmounted; the VM powers off now.
    Goodbye,
    /// How the container stands beyond its process. Second message after each handshake.
    Life(Life),
    /// The container's process has ended, and is started again after a pause. Its streams end.
    Restarting {
        /// How it ended.
        status: ExitStatus,
        /// Restarts since the last start by a client, this one included.
        restarts: u32,
    },
    /// It was started again.
    Restarted {
        /// Its process ID in the container's pid namespace.
        pid: u32,
        /// When, in ns since 1970.
        at: u64,
    },
    /// A health check has ended.
    Probed {
        /// What is known of the health now.
        status: HealthStatus,
        /// Failures in a row.
        streak: u32,
        /// Its result.
        probe: Probe,
    },
    /// The OOM killer ended a process of the container.
    Oom,
    /// This boot is for the container's files only, and they are there. Comes after each handshake, in place of `Ready`
    /// and `Life`.
    Maintenance {
        /// The request's.
        nonce: String,
    },
    /// An interface got an address by DHCP, another one, or lost it. Comes for each again after a handshake.
    Lease {
        /// MAC address of the interface.
        mac: String,
        /// Address with prefix length; `None`: it has none any more.
        address: Option<String>,
        /// The router that the server named.
        gateway: Option<String>,
    },
}

/// How a container stands beyond its process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Restarts since the last start by a client.
    pub restarts: u32,
    /// Its process has ended so, and waits for its next start. The process's state, as `Ready` and
    /// `Sessions` tell it, is without an end then.
    pub waiting: Option<ExitStatus>,
    /// Its health, where that is checked.
    pub health: Option<Health>,
    /// Its processes are frozen.
    pub paused: bool,
    /// The OOM killer ended a process in this run.
    pub oom: bool,
}
