//! The container's process, started again as its policy asks: in the same VM, over the same root
//! file system, in namespaces of its own each time. What the last run did to networks (with `NET_ADMIN`) stays.

use crate::boot::files;
use crate::container::StartError;
use crate::container::mounts::Plan;
use crate::container::spawn::{Place, prepare};
use crate::session::Session;
use crate::sys::process::{self, Ended};
use crate::vm::{End, Vm};
use std::cell::Cell;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use wire::config::{GuestConfig, Restart};
use wire::message::{ExitStatus, Life, SessionId, ToHost};
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

    fn is_down(&self) -> bool {
        *self.down.borrow()
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
            let policy = restarts.policy.get();
            let again = !restarts.is_down() && policy.wants(how.code(), restarts.count.get());
            let container = self.container();
            let ran = crate::io::now().saturating_sub(container.state().started);
            let status = self.end_run(how, again);
            container.drained().await;
            if !again {
                break End::Exited(status);
            }
            self.record_exit(status, journal::AGAIN.to_owned());
            self.tell(ToHost::Restarting {
                status,
                restarts: restarts.count.get(),
            })
            .await;
            // They hold the namespaces of the run that is over.
            container.release();
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
                Ok(Some(next)) => ended = next,
                Ok(None) => break End::Exited(status),
                Err(_) if restarts.is_down() => break End::Exited(status),
                Err(error) => break End::NotStarted(error),
            }
        };
        if let End::Exited(_) = end {
            // The last run's end is the container's, for a link that comes from now on, too. A start that failed is an end of
            // its own, which the journal tells.
            self.restarts.waiting.set(None);
        }
        let _ = self.end.send(end);
    }

    /// Notes the end of a run. Whether another one follows is noted in the same step: a link that comes before the
    /// output is drained must not take this end for the container's.
    fn end_run(&self, how: Ended, again: bool) -> ExitStatus {
        let restarts = &self.restarts;
        let kills = self.oom_kills();
        let oom = kills > restarts.oom_kills.replace(kills);
        let status = self.container().ended(how, oom);
        if again {
            restarts.count.set(restarts.count.get().saturating_add(1));
            restarts.waiting.set(Some(status));
        }
        status
    }

    /// Starts the next run; `None` where it is to stay down, of which it may be told at any moment until it runs. Until
    /// then the last run is the one that is told of.
    async fn run_again(self: &Rc<Vm>) -> Result<Option<oneshot::Receiver<Ended>>, StartError> {
        let cgroup = self
            .cgroup
            .get()
            .ok_or_else(|| StartError::other("the container has no cgroup"))?;
        let config = &self.config;
        // As at each start of a container: what the last run made of its files, and of the VM's name, is over.
        files::write(config, &self.as_told()).map_err(|fault| StartError::other(fault.message))?;
        let place = first_place(config);
        let mut waiting = prepare(&config.process, config, cgroup, &self.reaper, place).await?;
        let pidfd = waiting
            .pidfd
            .try_clone()
            .map_err(|e| StartError::system("start", "a process", &e))?;
        let kill = || {
            // It may have ended by itself.
            let _ = process::signal(pidfd.as_fd(), libc::SIGKILL);
        };
        if self.restarts.is_down() {
            // It has not begun: there is no run to record. Its mounts go with it.
            kill();
            let _ = (&mut waiting.ended).await;
            return Ok(None);
        }
        let pid = waiting.pid;
        let session = Session::new(SessionId::CONTAINER, config.process.clone());
        self.record_start();
        let start = session.start(waiting, self.output_recorder());
        tokio::pin!(start);
        let mut down = self.restarts.down.subscribe();
        let started = tokio::select! {
            // What is told before the start is over is heeded, even if both are there at once.
            biased;
            // The VM holds the sender: this is a `true`.
            _ = down.wait_for(|down| *down) => None,
            started = &mut start => Some(started?),
        };
        let Some(ended) = started else {
            kill();
            self.let_go(Rc::clone(&session));
            if let Ok(ended) = start.await {
                let _ = ended.await;
            }
            session.ended(Ended::Signaled(libc::SIGKILL), false);
            session.drained().await;
            return Ok(None);
        };
        self.replace_run(pid, Rc::clone(&session));
        self.restarts.waiting.set(None);
        let state = session.state();
        self.tell(ToHost::Restarted {
            pid: state.pid,
            at: state.started,
        })
        .await;
        Ok(Some(ended))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::tests::{linked, on_a_loop, up};
    use wire::message::{Reply, ToGuest};

    #[tokio::test]
    async fn a_link_that_comes_before_the_output_is_drained_is_told_of_the_restart() {
        on_a_loop(async {
            let (vm, _ends) = up(RestartPolicy::Always);
            let status = vm.end_run(Ended::Exited(3), true);
            let (mut host, container, life) = linked(&vm).await;
            assert_eq!(container.exit, None);
            assert_eq!((life.restarts, life.waiting), (1, Some(status)));
            // The session itself has ended: nothing is asked of it any more.
            let signal = ToGuest::Signal {
                request: 1,
                session: SessionId::CONTAINER,
                signal: libc::SIGTERM,
            };
            host.send(signal).await.unwrap();
            let answer = host.recv().await.unwrap();
            assert!(
                matches!(&answer, ToHost::Answer { reply: Reply::Error(why), .. } if why.contains("no process")),
                "{answer:?}"
            );
        })
        .await;
    }

    #[tokio::test]
    async fn an_end_after_which_nothing_follows_is_told_as_the_end() {
        on_a_loop(async {
            let (vm, mut ends) = up(RestartPolicy::OnFailure { most: 0 });
            let (tell, ended) = oneshot::channel();
            tokio::task::spawn_local(Rc::clone(&vm).keep_running(ended));
            tell.send(Ended::Exited(0)).unwrap();
            let end = ends.recv().await;
            assert!(
                matches!(end, Some(End::Exited(ExitStatus { code: 0, .. }))),
                "{end:?}"
            );
            let (_host, container, life) = linked(&vm).await;
            assert_eq!(container.exit.map(|exit| exit.code), Some(0));
            assert_eq!((life.restarts, life.waiting), (0, None));
        })
        .await;
    }

    /// The clock stands still while there is something to do, so the pause is not over before it is told.
    #[tokio::test(start_paused = true)]
    async fn told_to_stay_down_between_two_runs_the_last_end_is_the_container_s() {
        on_a_loop(async {
            let (vm, mut ends) = up(RestartPolicy::Always);
            let (mut host, ..) = linked(&vm).await;
            let (tell, ended) = oneshot::channel();
            tokio::task::spawn_local(Rc::clone(&vm).keep_running(ended));
            tell.send(Ended::Exited(3)).unwrap();
            let told = host.recv().await.unwrap();
            let ToHost::Restarting { status, restarts } = told else {
                panic!("{told:?}")
            };
            assert_eq!((status.code, restarts), (3, 1));
            host.send(ToGuest::KeepDown { request: 1 }).await.unwrap();
            let end = ends.recv().await;
            assert!(
                matches!(&end, Some(End::Exited(s)) if *s == status),
                "{end:?}"
            );
            assert_eq!(vm.restarts.reason(), journal::STOPPED);
            let (_again, container, life) = linked(&vm).await;
            assert_eq!((container.exit, life.waiting), (Some(status), None));
        })
        .await;
    }

    /// There is no cgroup to start it in.
    #[tokio::test(start_paused = true)]
    async fn a_next_run_that_fails_has_an_end_of_its_own() {
        on_a_loop(async {
            let (vm, mut ends) = up(RestartPolicy::Always);
            let (tell, ended) = oneshot::channel();
            tokio::task::spawn_local(Rc::clone(&vm).keep_running(ended));
            tell.send(Ended::Exited(3)).unwrap();
            let end = ends.recv().await;
            assert!(matches!(end, Some(End::NotStarted(_))), "{end:?}");
            let (_host, container, life) = linked(&vm).await;
            assert_eq!(container.exit, None, "not of the run before");
            assert_eq!(life.waiting.map(|status| status.code), Some(3));
        })
        .await;
    }
}
