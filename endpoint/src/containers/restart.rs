//! Restart policies on this side of the link: what a tether tells of its restarts, and VMs that are
//! started again because they ended, or because the endpoint starts.

use super::{
    Container, Containers,
    start::OFF_LIMIT,
    state::{Changes, Phase},
    stop::KILL_LIMIT,
};
use crate::{
    errors::{Error, Result},
    link::session::Session,
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use wire::{
    health::Health,
    message::{ExitStatus, Life, ToGuest},
    restart::RestartPolicy,
};

impl Container {
    /// Its restart policy, as created or as changed since.
    pub fn restart_policy(&self) -> RestartPolicy {
        let changed = self.status.borrow().changes.restart;
        changed.unwrap_or(self.spec.options.restart)
    }
}

impl Containers {
    /// A tether's own account, behind its `Ready`.
    pub(super) fn life(&self, container: &Container, boot: u64, life: Life) {
        container.modify(|status| {
            if status.boot() != boot || status.record.ended >= boot {
                return;
            }
            status.record.restarts = life.restarts;
            status.paused = life.paused && status.running();
            status.oom = life.oom;
            status.health = life.health.map(super::health::bounded);
            if let Some(exit) = life.waiting
                && status.phase == Phase::Running
            {
                status.wait_for_restart(exit);
            }
        });
    }

    /// The container's process has ended and is started again by its tether.
    pub(super) fn restarting(
        &self,
        container: &Arc<Container>,
        boot: u64,
        exit: ExitStatus,
        restarts: u32,
    ) {
        self.tell_start_before_end(container, boot, exit.at);
        let news = container.modify(|status| {
            if status.boot() != boot || status.record.ended >= boot {
                return false;
            }
            status.record.restarts = restarts;
            status.exits += 1;
            status.wait_for_restart(exit);
            self.emit_end(container, status);
            true
        });
        if news {
            self.tell_networks(container, false);
        }
    }

    /// It was.
    pub(super) fn restarted(
        self: &Arc<Self>,
        container: &Arc<Container>,
        boot: u64,
        pid: u32,
        at: u64,
    ) {
        let news = container.modify(|status| {
            if status.boot() != boot || status.record.ended >= boot {
                return false;
            }
            status.record.started = at;
            status.pid = pid;
            status.phase = Phase::Running;
            status.health.iter_mut().for_each(Health::restart);
            self.emit_as(container, &status.name, "start", &[]);
            true
        });
        if news {
            self.keep_start(container);
            self.tell_networks(container, true);
        }
    }

    /// Tells a tether that this end is to be the last one; whether it knows. Without a link there is no restart: the
    /// VM is powered off then.
    pub(super) async fn keep_down(&self, container: &Container) -> bool {
        container.modify(|status| {
            status.stopping = true;
            status.record.stopped = true;
            status.revive = false;
        });
        if container.restart_policy() == RestartPolicy::No {
            return true;
        }
        // An endpoint that is started meanwhile is told of the end, not of why.
        if let Err(error) = self.write_state(container).await {
            tracing::warn!(id = container.id(), %error, "that it was stopped could not be written down");
        }
        let told = async {
            let session = container.live_session().await?;
            let done = session.done(|request| ToGuest::KeepDown { request });
            let done = tokio::time::timeout(KILL_LIMIT, done).await;
            done.unwrap_or_else(|_| Err(Session::silent()))
        };
        match told.await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(id = container.id(), %error, "keep down");
                false
            }
        }
    }

    /// Has a container started again whose VM ended; not a part of what settles the end.
    pub(super) fn plan_revival(self: &Arc<Self>, container: &Arc<Container>) {
        tokio::spawn(self.clone().revive(container.clone()));
    }

    /// Starts a container again whose VM ended although its policy wants it to run; after a pause
    /// that grows. Gives way to whoever starts, stops or removes it meanwhile.
    async fn revive(self: Arc<Self>, container: Arc<Container>) {
        let pause = container.modify(|status| {
            let ran = status.record.finished.saturating_sub(status.record.started);
            status.backoff.after(Duration::from_nanos(ran))
        });
        let over = container
            .until(Some(pause), |status| !status.revive || status.gone)
            .await;
        if over.is_some() || self.held.load(Ordering::Acquire) {
            return;
        }
        let _operation = container.operation.lock().await;
        let status = container.status();
        if !status.revive || status.removing || status.phase != Phase::Exited {
            return;
        }
        container
            .modify(|status| status.record.restarts = status.record.restarts.saturating_add(1));
        tracing::info!(id = container.id(), "the restart policy starts it again");
        // Over with the start of its process. An end that came behind that may want the next one.
        if let Err(error) = self.boot_again(&container).await {
            tracing::warn!(id = container.id(), %error, "restart policy");
            container.modify(|status| status.revive = false);
        }
    }

    /// From now on no VM is started because a policy says so: the host is going down. Ends are
    /// recorded as before.
    pub fn hold_restarts(&self) {
        self.held.store(true, Ordering::Release);
    }

    /// Starts what stands still and is to run whenever the endpoint does. Called once, at the start.
    pub async fn autostart(self: Arc<Self>) {
        let starts = self.all().into_iter().filter(|container| {
            let status = container.status();
            status.phase == Phase::Exited
                && !status.on
                && !status.removing
                && !status.revive
                && container
                    .restart_policy()
                    .wants_at_start(status.record.stopped)
        });
        for container in starts {
            let this = self.clone();
            tokio::spawn(async move {
                match this.start(&container).await {
                    Err(error) if !error.is_not_modified() => {
                        tracing::warn!(id = container.id(), %error, "start by the restart policy");
                    }
                    _ => {}
                }
            });
        }
    }

    /// Changes what may be changed of a container, in its VM's keys and at once where it runs.
    ///
    /// # Errors
    /// 409 where it is on its way out; vSphere's.
    pub async fn change(
        self: &Arc<Self>,
        container: &Arc<Container>,
        make: impl FnOnce(&mut Changes),
    ) -> Result<()> {
        let _operation = container.operation.lock().await;
        let status = container.status();
        if status.removing || status.gone {
            return Err(Error::conflict(format!(
                "Cannot update container {}: container is marked for removal and cannot be \"update\"",
                container.id()
            )));
        }
        if matches!(status.phase, Phase::Exited | Phase::Created) {
            // What is changed of a VM that is off stays.
            self.wait_off(container, OFF_LIMIT).await?;
        }
        let status = container.status();
        let mut changes = status.changes.clone();
        make(&mut changes);
        let size = |changes: &Changes| (changes.memory_mib, changes.cpus, changes.cpu);
        let resized = size(&changes) != size(&status.changes);
        if resized {
            // A VM that runs may get neither: its devices were counted at its boot.
            if status.on {
                return Err(Error::conflict(format!(
                    "Cannot update container {}: memory and CPUs are those of its VM, which cannot change while it is on: stop the container first",
                    container.id()
                )));
            }
            let _task = container.vm_task.lock().await;
            self.vsphere
                .resize(
                    &container.vm,
                    changes.memory_mib.unwrap_or(container.spec.memory_mib),
                    changes.cpus.unwrap_or(container.spec.cpus),
                )
                .await?;
        }
        if status.on || self.changes.of(container.id()).is_some() {
            // The key is gone with the VM's power, and the endpoint may be away then.
            self.changes.keep(container.id(), &changes).await?;
        }
        self.keep_changes(container, &changes).await?;
        container.modify(|status| status.changes = changes.clone());
        if matches!(status.phase, Phase::Running | Phase::Restarting) {
            let update = changes.for_guest();
            container
                .live_session()
                .await?
                .done(|request| ToGuest::Update { request, update })
                .await?;
        } else if let Some(policy) = changes.restart
            && policy == RestartPolicy::No
        {
            container.modify(|status| status.revive = false);
        }
        self.emit(container, "update", &[]);
        Ok(())
    }
}
