//! `docker stop`, `kill` and `restart`.

use super::{
    Container, Containers, signals,
    state::{Phase, Status},
};
use crate::errors::{Error, Result};
use crate::link::session::Session;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use wire::{message::SessionId, restart::RestartPolicy};

/// After SIGKILL the process has this long to be gone; then its VM is powered off. A guest that does not answer for so long
/// is not waited for.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(10);

/// The end of a VM that was powered off is known within this: its last messages, then its journal.
const CUT_LIMIT: Duration = Duration::from_secs(60);

impl Containers {
    /// Stops a container: the stop signal, then SIGKILL after `timeout` seconds (negative: never),
    /// then power-off.
    ///
    /// # Errors
    /// 304 where it does not run, 400 for a wrong signal.
    pub async fn stop(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let operation = container.operation.lock().await;
        let Some(limit) = self.begin_stop(container, signal, timeout).await? else {
            return Ok(());
        };
        // It may take its time, or never end: others may pause it, or stop it at once, meanwhile.
        drop(operation);
        let boot = container.status().record.boots;
        let ended =
            move |status: &Status| !status.live() || status.gone || status.record.boots != boot;
        if container.until(limit, ended).await.is_none() {
            let _operation = container.operation.lock().await;
            if !ended(&container.status()) {
                self.force_stop(container).await?;
            }
        }
        self.emit(container, "stop", &[]);
        Ok(())
    }

    /// Sends the stop signal; how long its end is to be waited for (`None`: for ever), or nothing where it is stopped.
    async fn begin_stop(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<Option<Option<Duration>>> {
        let signal = match signal {
            Some(text) => signals::parse(text)?,
            None => container.spec.stop_signal(),
        };
        let status = container.status();
        if status.revive {
            return self.give_up_restart(container).await.map(|()| None);
        }
        if !status.live() {
            return Err(Error::not_modified());
        }
        let told = self.keep_down(container).await;
        let timeout = timeout.unwrap_or_else(|| container.spec.stop_timeout());
        let limit = u64::try_from(timeout).ok().map(Duration::from_secs);
        // Between two runs there is no process: its tether ends the VM at once.
        if container.status().running() {
            let answer = match limit {
                Some(limit) if told => limit.max(KILL_LIMIT),
                None if told => Duration::MAX,
                _ => KILL_LIMIT,
            };
            let asked = Instant::now();
            if self.signal(container, signal, answer).await.is_ok() {
                self.unpause_to_end(container).await;
                return Ok(Some(limit.map(|l| l.saturating_sub(asked.elapsed()))));
            }
            if asked.elapsed() >= answer {
                return Ok(Some(Some(Duration::ZERO)));
            }
        }
        Ok(Some(Some(KILL_LIMIT)))
    }

    /// SIGKILL where the stop signal was not enough, then power-off.
    async fn force_stop(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let killed = self.signal(container, signals::KILL, KILL_LIMIT);
        if container.status().running() && killed.await.is_ok() {
            let ended = |status: &Status| !status.live() || status.gone;
            if container.until(Some(KILL_LIMIT), ended).await.is_some() {
                return Ok(());
            }
        }
        self.cut(container).await
    }

    /// Stops a container whose VM was to be started again by its policy.
    async fn give_up_restart(&self, container: &Container) -> Result<()> {
        container.modify(|status| {
            status.revive = false;
            status.record.stopped = true;
        });
        let _task = container.vm_task.lock().await;
        self.write_record(container).await?;
        self.emit(container, "stop", &[]);
        Ok(())
    }

    /// Powers the VM off and waits until that is known.
    pub(super) async fn cut(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        container.modify(|status| status.stopping = true);
        self.power_off(container).await?;
        self.check_power(container).await;
        let ended = |status: &Status| !status.live() || status.gone;
        if container.until(Some(CUT_LIMIT), ended).await.is_none() {
            return Err(Error::internal(format!(
                "the VM of container {} was powered off, but how its process ended is not known yet: its disk cannot be read; see the endpoint's log",
                container.id()
            )));
        }
        Ok(())
    }

    /// Sends a signal to the container's process, and tells of it: before an end that comes of it. A guest that has not
    /// answered within `limit` does not.
    async fn signal(&self, container: &Container, signal: i32, limit: Duration) -> Result<()> {
        let session = container.session().await?;
        container.modify(|status| status.signalled.push(signal));
        let sent = tokio::time::timeout(limit, session.signal(SessionId::CONTAINER, signal)).await;
        let sent = sent.unwrap_or_else(|_| Err(Session::silent()));
        container.modify(|status| {
            let at = status.signalled.iter().position(|own| *own == signal);
            // Else an end has told of it.
            let untold = at.map(|at| status.signalled.remove(at)).is_some();
            if sent.is_ok() && untold {
                self.emit_kill(container, &status.name, signal);
            }
        });
        sent
    }

    /// Sends a signal to a container's process; with SIGKILL waits for its end.
    ///
    /// # Errors
    /// 409 where it does not run, 400 for a wrong signal.
    pub async fn kill(
        self: &Arc<Self>,
        container: &Arc<Container>,
        name: &str,
        signal: &str,
    ) -> Result<()> {
        let signal = match signal {
            "" => signals::KILL,
            text => signals::parse(text)?,
        };
        // As with dockerd, whose start holds the container's lock: a signal that comes while it boots is for the process.
        let started = |status: &Status| status.phase != Phase::Starting || status.gone;
        container.until(None, started).await;
        if container.status().revive {
            let _operation = container.operation.lock().await;
            // Unless it was just being started again.
            if container.status().revive {
                return self.give_up_restart(container).await;
            }
        }
        if !container.status().live() {
            return Err(Error::conflict(format!(
                "cannot kill container: {name}: container {} is not running",
                container.id()
            )));
        }
        // As dockerd: any signal is taken for a stop, unless another one was named to be that.
        let stops = container.spec.config.stop_signal.is_none()
            || signal == container.spec.stop_signal()
            || signal == signals::KILL;
        if stops && container.restart_policy() != RestartPolicy::No {
            self.keep_down(container).await;
        }
        let ended = |status: &Status| !status.live() || status.gone;
        if container.status().phase == Phase::Restarting {
            if stops && container.until(Some(KILL_LIMIT), ended).await.is_none() {
                self.cut(container).await?;
            }
            return Ok(());
        }
        let limit = if signal == signals::KILL {
            KILL_LIMIT
        } else {
            Duration::MAX
        };
        let sent = self.signal(container, signal, limit).await;
        if stops && sent.is_ok() {
            self.unpause_to_end(container).await;
        }
        if signal != signals::KILL {
            return sent;
        }
        if sent.is_err() {
            self.emit_kill(container, &container.status().name, signal);
        }
        if sent.is_err() || container.until(Some(KILL_LIMIT), ended).await.is_none() {
            self.cut(container).await?;
        }
        Ok(())
    }

    /// Stops a container if it runs, and starts it.
    ///
    /// # Errors
    /// As [`Containers::stop`] and [`Containers::start`].
    pub async fn restart(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<()> {
        container.modify(|status| status.restart_asked = true);
        let result = self.stop_and_start(container, signal, timeout).await;
        container.modify(|status| status.restart_asked = false);
        result?;
        self.emit(container, "restart", &[]);
        Ok(())
    }

    async fn stop_and_start(
        self: &Arc<Self>,
        container: &Arc<Container>,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let done = |result: Result<()>| match result {
            // Somebody else has stopped or started it meanwhile.
            Err(error) if error.is_not_modified() => Ok(()),
            other => other,
        };
        if container.status().live() {
            done(self.stop(container, signal, timeout).await)?;
        }
        done(self.start(container).await)
    }
}
