//! What changes about a container: its record in `mooring.state`, and what is known while it runs.

use super::files::{Reading, maintenance::Maintenance};
use crate::{
    link::Session,
    networks::{attachment::Attachment, publish::Binding},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use wire::{
    handshake::KeyState,
    health::{Health, HealthStatus},
    keys::Key,
    limits::CpuTime,
    message::{ExitStatus, Update},
    restart::{Backoff, RestartPolicy},
};

/// The value of `mooring.state`; written while the VM is off, and for the time that it runs when the process was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Number of the last boot.
    pub boots: u64,
    /// The last boot whose end is in this record.
    pub ended: u64,
    /// When the process was started, in ns since 1970; 0: never.
    pub started: u64,
    /// When it ended; 0: never.
    pub finished: u64,
    /// Exit code, or 128 + signal.
    pub exit_code: i32,
    /// The OOM killer ended it.
    pub oom: bool,
    /// Why it did not start, or ended otherwise than by itself.
    pub error: String,
    /// Restarts by the policy since the last start by a client.
    pub restarts: u32,
    /// A client has stopped it since.
    pub stopped: bool,
}

/// The value of `mooring.changes`: what `docker update` has changed since the creation; `None`: as
/// it was created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// The restart policy.
    pub restart: Option<RestartPolicy>,
    /// Processes and threads at once; 0: without limit.
    pub pids: Option<u64>,
    /// Memory of the VM in MiB.
    pub memory_mib: Option<u32>,
    /// CPUs of the VM.
    pub cpus: Option<u32>,
    /// What of their time there is; counts where they were changed.
    pub cpu: Option<CpuTime>,
}

impl Changes {
    /// What of it the guest carries out.
    pub fn for_guest(&self) -> Update {
        Update {
            restart: self.restart,
            pids: self.pids,
        }
    }
}

/// The value of `mooring.link.prepared`: what one boot's link needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// The boot.
    pub boot: u64,
    /// The per-boot secret, hex.
    pub secret: String,
    /// Where the tether dials; another place means that the boot must be prepared anew.
    pub at: String,
    /// The version of the configuration that was written; one that differs means that, too.
    #[serde(default)]
    pub version: u32,
}

impl Prepared {
    /// The state of the link's keys before its first session.
    pub fn keys(&self) -> Option<KeyState> {
        Key::from_hex(&self.secret).ok().map(KeyState::Fresh)
    }
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Never started, or its start failed.
    Created,
    /// Its VM boots.
    Starting,
    /// Its process runs.
    Running,
    /// Its process has ended, and its tether starts it again after a pause.
    Restarting,
    /// Its process has ended; the VM may still be on.
    Exited,
}

impl Phase {
    /// Docker's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created | Self::Starting => "created",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }
}

/// All that is known of a container besides its [`super::spec::Spec`]. Watched: each change wakes
/// those who wait.
#[derive(Debug, Clone)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub phase: Phase,
    /// The VM is on, as vSphere says.
    pub on: bool,
    /// A tether dials whose boot is over: whether someone else has powered on the VM is being found out.
    pub suspected: bool,
    /// Its record.
    pub record: Record,
    /// What the present or next boot's link needs.
    pub prepared: Option<Prepared>,
    /// The keys of the present boot's link.
    pub link: Option<KeyState>,
    /// The live link.
    pub session: Option<Arc<Session>>,
    /// Process ID in the container's namespace.
    pub pid: u32,
    /// Ends so far, for those who wait for the next one.
    pub exits: u64,
    /// Starts that failed so far, and why the last one did.
    pub start_failures: u64,
    /// Why the last start failed.
    pub start_error: Option<crate::errors::Error>,
    /// Its networks.
    pub networks: Vec<Attachment>,
    /// The ports that its present boot has published.
    pub ports: Vec<Binding>,
    /// Signals on their way to its process, of which no event has told yet.
    pub signalled: Vec<i32>,
    /// Someone asked for its end: `docker stop` and the like.
    pub stopping: bool,
    /// `docker restart` goes on: its end removes no `--rm` container.
    pub restart_asked: bool,
    /// Its VM has ended, and is started again because its policy says so.
    pub revive: bool,
    /// Its start is about to be written down.
    pub keeping_start: bool,
    /// The pauses before such starts.
    pub backoff: Backoff,
    /// Its processes are frozen.
    pub paused: bool,
    /// The OOM killer ended a process in this run, and that was told.
    pub oom: bool,
    /// Its health, where that is checked.
    pub health: Option<Health>,
    /// What was changed since its creation.
    pub changes: Changes,
    /// Its VM is up for its files only.
    pub maintenance: Option<Maintenance>,
    /// Those who read its disk.
    pub reading: Reading,
    /// Its vNICs may not be connected at its next power-on.
    pub nics_off: bool,
    /// Its removal has begun.
    pub removing: bool,
    /// It is gone.
    pub gone: bool,
}

impl Status {
    /// Of a container whose VM is off, without a link, and of which nothing was seen yet.
    pub fn new(
        name: String,
        phase: Phase,
        record: Record,
        prepared: Option<Prepared>,
        networks: Vec<Attachment>,
    ) -> Self {
        Self {
            name,
            phase,
            on: false,
            suspected: false,
            record,
            prepared,
            link: None,
            session: None,
            pid: 0,
            exits: 0,
            start_failures: 0,
            start_error: None,
            networks,
            ports: Vec::new(),
            signalled: Vec::new(),
            stopping: false,
            restart_asked: false,
            revive: false,
            keeping_start: false,
            backoff: Backoff::default(),
            paused: false,
            oom: false,
            health: None,
            changes: Changes::default(),
            maintenance: None,
            reading: Reading::default(),
            nics_off: false,
            removing: false,
            gone: false,
        }
    }

    /// The boot that runs or ran last.
    pub fn boot(&self) -> u64 {
        self.record.boots
    }

    /// Docker's `State.Status`.
    pub fn word(&self) -> &'static str {
        if self.removing {
            "removing"
        } else if self.revive {
            Phase::Restarting.word()
        } else if self.paused {
            "paused"
        } else {
            self.phase.word()
        }
    }

    /// Whether the process runs.
    pub fn running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether the process runs, or will in a moment by itself: Docker's `State.Running`.
    pub fn live(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Restarting)
    }

    /// Whether it is between two runs.
    pub fn restarting(&self) -> bool {
        self.phase == Phase::Restarting || self.revive
    }

    /// The first secret of a boot's link, where that is known.
    pub fn secret(&self, boot: u64) -> Option<Key> {
        let prepared = self.prepared.as_ref().filter(|p| p.boot == boot)?;
        Key::from_hex(&prepared.secret).ok()
    }

    /// The run is over. One that does not run is not healthy: as dockerd has it.
    pub fn end_run(&mut self) {
        self.pid = 0;
        self.paused = false;
        if let Some(health) = &mut self.health {
            health.status = HealthStatus::Unhealthy;
        }
    }

    /// Its process ended so, and its tether starts it again.
    pub fn wait_for_restart(&mut self, exit: ExitStatus) {
        self.record.finished = exit.at;
        self.record.exit_code = exit.code;
        self.record.oom = exit.oom;
        self.phase = Phase::Restarting;
        self.end_run();
    }
}
