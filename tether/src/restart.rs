//! The container's process, started again as its policy asks: in the same VM, over the same root
//! file system, in namespaces of its own each time.

use crate::container::StartError;
use crate::container::mounts::Plan;
use crate::container::spawn::{Place, prepare};
use crate::sys::process::Ended;
use crate::vm::{End, Vm};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use wire::config::{GuestConfig, Restart};
use wire::message::{ExitStatus, Life, ToHost};
use wire::restart::{Backoff, RestartPolicy};

/// What a VM knows of its restarts.
#[derive(Debug)]
pub struct Restarts {
    policy: Cell<RestartPolicy>,
    count: Cell<u32>,
    backoff: Cell<Backoff>,
    /// The process is not started again, whatever the policy says.
    down: watch::Sender<bool>,
    /// Because a client said so: not because the host goes down.
    by_client: Cell<bool>,
    /// How the run before the next one ended.
    waiting: Cell<Option<ExitStatus>>,
    /// OOM kills that are accounted for.
    oom_kills: Cell<u64>,
}

impl Restarts {
    /// At the first start of a boot.
    #[must_use]
    pub fn new(restart: Restart) -> Restarts {
        Restarts {
            policy: Cell::new(restart.policy),
            count: Cell::new(restart.count),
            backoff: Cell::default(),
            down: watch::Sender::new(false),
            by_client: Cell::new(false),
            waiting: Cell::new(None),
            oom_kills: Cell::new(0),
        }
    }

    /// Another policy, from the next end on.
    pub fn set_policy(&self, policy: RestartPolicy) {
        self.policy.set(policy);
    }

    /// No further start: a client wants it so.
    pub fn stopped_by_client(&self) {
        self.by_client.set(true);
        self.keep_down();
    }

    /// No further start.
    pub fn keep_down(&self) {
        self.down.send_replace(true);
    }

    /// How the last run ended, while the next one is waited for.
    #[must_use]
    pub fn waiting(&self) -> Option<ExitStatus> {
        self.waiting.get()
    }

    /// Why the last run is the last one, for the exit record.
    #[must_use]
    pub fn reason(&self) -> String {
        let reason = if self.by_client.get() {
            journal::STOPPED
        } else {
            ""
        };
        reason.to_owned()
    }
}

/// How the first process of a container gets its place.
#[must_use]
pub fn first_place(config: &GuestConfig) -> Place<'static> {
    Place::First {
        plan: Plan {
            shm_size: config.shm_size,
            read_only: config.disk.read_only,
            cwd: config.process.cwd.clone(),
            tmpfs: config.tmpfs.clone(),
            mounts: crate::boot::volumes::planned(config),
        },
        init: config.init,
    }
}

impl Vm {
    /// What `Ready` does not say.
    #[must_use]
    pub fn life(&self) -> Life {
        Life {
            restarts: self.restarts.count.get(),
            waiting: self.restarts.waiting(),
            health: self
                .config
                .health
                .as_ref()
                .map(|_| self.health.borrow().clone()),
            paused: self.is_paused(),
            oom: self.oom_kills() > self.restarts.oom_kills.get(),
        }
    }

    /// Waits for the ends of the container's process and starts it again, until that is over.
    pub async fn keep_running(self: Rc<Vm>, mut ended: oneshot::Receiver<Ended>) {
        let end = loop {
            let checks = tokio::task::spawn_local(Rc::clone(&self).watch_health());
            let how = ended.await.unwrap_or(Ended::Signaled(libc::SIGKILL));
            checks.abort();
            if self.is_paused() {
                self.set_frozen(false).await;
            }
            let restarts = &self.restarts;
            let asks = restarts
                .policy
                .get()
                .wants(how.code(), restarts.count.get());
            if !asks || *restarts.down.borrow() {
                break End::Exited(self.run_ended(how).await);
            }
            let ran = crate::io::now().saturating_sub(self.container().state().started);
            let status = self.run_ended(how).await;
            self.record_exit(status, String::new());
            restarts.count.set(restarts.count.get().saturating_add(1));
            restarts.waiting.set(Some(status));
            self.tell(ToHost::Restarting {
                status,
                restarts: restarts.count.get(),
            })
            .await;
            // They hold the namespaces of the run that is over.
            self.container().release();
            let mut backoff = restarts.backoff.get();
            let pause = backoff.after(Duration::from_nanos(ran));
            restarts.backoff.set(backoff);
            let mut down = restarts.down.subscribe();
            // The VM holds the sender: an end of the wait before its time is a `true`.
            if tokio::time::timeout(pause, down.wait_for(|down| *down))
                .await
                .is_ok()
            {
                break End::Exited(status);
            }
            match self.run_again().await {
                Ok(next) => ended = next,
                Err(_) if *restarts.down.borrow() => break End::Exited(status),
                Err(error) => break End::NotStarted(error),
            }
        };
        let _ = self.end.send(end);
    }

    /// Notes the end of a run and waits until its output is handed on.
    async fn run_ended(&self, how: Ended) -> ExitStatus {
        let kills = self.oom_kills();
        let oom = kills > self.restarts.oom_kills.replace(kills);
        let container = self.container();
        let status = container.ended(how, oom);
        container.drained().await;
        status
    }

    async fn run_again(&self) -> Result<oneshot::Receiver<Ended>, StartError> {
        let cgroup = self
            .cgroup
            .get()
            .ok_or_else(|| StartError::other("the container has no cgroup"))?;
        let config = &self.config;
        let place = first_place(config);
        let waiting = prepare(&config.process, config, cgroup, &self.reaper, place).await?;
        let session = self.new_run(waiting.pid);
        let recorder = self.output_recorder();
        self.record_start();
        let ended = session.start(waiting, recorder).await?;
        self.restarts.waiting.set(None);
        let state = session.state();
        self.tell(ToHost::Restarted {
            pid: state.pid,
            at: state.started,
        })
        .await;
        Ok(ended)
    }

    /// Appends the start record.
    pub fn record_start(&self) {
        if let Some(recorder) = self.recorder.get()
            && let Err(error) = recorder.start(crate::io::now(), self.config.boot)
        {
            crate::console(&error.to_string());
        }
    }

    /// Appends the exit record of a run, durably.
    pub fn record_exit(&self, status: ExitStatus, reason: String) {
        let exit = journal::Exit {
            code: status.code,
            oom: status.oom,
            at: status.at,
            reason,
        };
        if let Some(Err(error)) = self.recorder.get().map(|r| r.exit(&exit)) {
            crate::console(&error.to_string());
        }
    }
}
