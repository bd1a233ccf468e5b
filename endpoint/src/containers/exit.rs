//! The end of a boot: the VM is off. What the record lacks is read from the journal, then the
//! record goes into the VM's keys.

use super::{
    Container, Containers,
    keys::{self, Keys},
    state::{Changes, Phase, Prepared},
};
use crate::errors::{Error, Result};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use wire::message::ExitStatus;

/// Messages that are still on their way when the VM is off get this long.
const LAST_MESSAGES: Duration = Duration::from_secs(10);

impl Containers {
    /// Reads whether a VM is on, where the watch may have missed it.
    pub(super) async fn check_power(self: &Arc<Self>, container: &Arc<Container>) {
        match self.vsphere.is_on(&container.vm).await {
            Ok(Some(false)) => {
                if container.modify(|status| std::mem::replace(&mut status.on, false)) {
                    self.clone().powered_off(container.clone()).await;
                }
            }
            Ok(Some(true)) => {}
            Ok(None) => {
                let removing = container.status().removing;
                if !removing {
                    self.emit(container, "destroy", &[]);
                    self.forget(container);
                }
            }
            Err(error) => tracing::warn!(id = container.id(), %error, "power state"),
        }
    }

    /// The VM went off. The one place where the end of a boot is settled.
    pub(super) async fn powered_off(self: Arc<Self>, container: Arc<Container>) {
        let _task = container.vm_task.lock().await;
        // The watch may lag behind a start.
        if matches!(self.vsphere.is_on(&container.vm).await, Ok(Some(true))) {
            container.modify(|status| status.on = true);
            return;
        }
        let _in_time = container
            .until(Some(LAST_MESSAGES), |status| {
                status.session.is_none() || status.gone
            })
            .await;
        // Over a serial port a VM that was killed says no goodbye, and nothing else tells its end.
        if let Some(session) = container.modify(|status| status.session.take()) {
            session.end();
        }
        let status = container.status();
        if status.maintenance.is_some() && !status.gone {
            self.settle_maintenance(&container).await;
            return;
        }
        if status.gone || status.removing {
            return;
        }
        let boot = status.boot();
        self.tell_volumes(&container, false);
        if status.record.ended < boot {
            self.settle(&container, boot).await;
        }
        let status = container.status();
        let removes = container.spec.options.auto_remove && !status.restart_asked;
        if removes && status.record.started != 0 {
            self.remove_itself(&container);
            return;
        }
        self.keep_end(&container).await;
    }

    /// Writes down the end of a boot, and starts the VM again where its policy wants that.
    async fn keep_end(self: &Arc<Self>, container: &Arc<Container>) {
        if let Err(error) = self.write_record(container).await {
            tracing::warn!(id = container.id(), %error, "the record could not be written; the journal has it");
        }
        if container.status().revive {
            self.plan_revival(container);
        }
    }

    /// Finds out how a boot ended of which no message came.
    async fn settle(self: &Arc<Self>, container: &Arc<Container>, boot: u64) {
        let found = self.journal_exit(container).await;
        let status = container.status();
        let secret = status.secret(boot);
        let secret = secret.as_ref();
        match found {
            Ok(found) if found.is(boot, secret) && found.exit.is_some() => {
                if let (Some(exit), started) = (found.exit, found.started) {
                    container.modify(|status| {
                        if started != 0 {
                            status.record.started = started;
                        } else if status.record.started == 0 {
                            // Overwritten, and never told.
                            status.record.started = exit.at;
                        }
                        status.record.restarts = status.record.restarts.max(found.restarts);
                        // Told to the tether, but not recorded by the endpoint that told it.
                        status.record.stopped |= exit.reason == journal::STOPPED;
                        if exit.reason == journal::RESET {
                            status.record.error = "the VM was reset while it ran".to_owned();
                        }
                    });
                    self.exited(
                        container,
                        boot,
                        ExitStatus {
                            code: exit.code,
                            oom: exit.oom,
                            at: exit.at,
                        },
                    );
                }
                return;
            }
            Ok(found) if found.is(boot, secret) => {
                container.modify(|status| {
                    status.record.started = found.started;
                    status.record.restarts = status.record.restarts.max(found.restarts);
                });
            }
            // No process ran in this boot, or the disk is too damaged to tell.
            other => {
                // Of an endpoint that was killed while the VM booted, or before it was powered on.
                let opened = other.as_ref().ok().and_then(|f| f.is_opened_by(secret));
                if let Err(error) = other {
                    tracing::warn!(id = container.id(), %error, "the journal cannot be read");
                }
                if status.phase == Phase::Starting || opened == Some(false) {
                    let error = self.unreported(container.id()).await;
                    self.start_failed(container, boot, 128, error);
                    return;
                }
            }
        }
        let reason = if container.status().stopping {
            "the VM was powered off"
        } else {
            "the VM was powered off or ended without the container's process having ended"
        };
        container.modify(|status| status.record.error = reason.to_owned());
        let killed = ExitStatus {
            code: 137,
            oom: false,
            at: crate::timestamps::now(),
        };
        self.exited(container, boot, killed);
        // The process was never seen in the journal: it ran all the same, as far as anyone knows.
        container.modify(|status| {
            status.phase = Phase::Exited;
            if status.record.started == 0 {
                status.record.started = status.record.finished;
            }
        });
    }

    /// A VM that is off and of which the keys know no boot: created only, or its first boot ended
    /// while the endpoint was away.
    pub(super) async fn find_unrecorded_exit(self: Arc<Self>, container: Arc<Container>) {
        let _operation = container.operation.lock().await;
        let status = container.status();
        if status.on || status.phase != Phase::Created || status.record.boots != 0 {
            return;
        }
        match self.journal_exit(&container).await {
            Ok(found) if found.is(1, status.secret(1).as_ref()) => {
                container.modify(|status| {
                    status.record.boots = 1;
                    status.phase = Phase::Running;
                });
                self.settle(&container, 1).await;
                if container.spec.options.auto_remove {
                    self.remove_itself(&container);
                } else {
                    self.keep_end(&container).await;
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(id = container.id(), %error, "the journal cannot be read"),
        }
    }

    pub(super) async fn write_record(&self, container: &Container) -> Result<()> {
        let vm_keys = record_keys(container)?;
        self.vsphere.set_keys(&container.vm, &vm_keys, None).await?;
        Ok(())
    }

    /// Writes down when the process was started, for an endpoint that starts while it runs and shows it before the
    /// tether has dialled again. Goes on beside: no client waits for it.
    pub(super) fn keep_start(self: &Arc<Self>, container: &Arc<Container>) {
        // One that waits writes what is then known: a tether may tell of as many starts as it likes.
        if container.modify(|status| std::mem::replace(&mut status.keeping_start, true)) {
            return;
        }
        let (this, container) = (self.clone(), container.clone());
        self.settling.spawn(async move {
            if let Err(error) = this.write_state(&container).await {
                // It may have ended meanwhile, which is no fault.
                tracing::debug!(id = container.id(), %error, "the start could not be written down; the tether tells it");
            }
        });
    }

    /// Puts the record of a process that runs onto its VM, for the endpoint that starts next. vSphere drops it with the
    /// VM's power; from then on the journal tells.
    pub(super) async fn write_state(&self, container: &Container) -> Result<()> {
        let _task = container.vm_task.lock().await;
        let status = container.modify(|status| {
            status.keeping_start = false;
            status.clone()
        });
        let runs = matches!(status.phase, Phase::Running | Phase::Restarting);
        if !runs || !status.on || status.removing {
            return Ok(());
        }
        let key = json_key(keys::STATE, &status.record)?;
        self.vsphere
            .set_keys(&container.vm, &Keys::from([key]), None)
            .await?;
        Ok(())
    }

    /// Removes a container that is to be removed with its end. By itself: whoever waits for that end may hold the lock that
    /// a removal takes.
    pub(super) fn remove_itself(self: &Arc<Self>, container: &Arc<Container>) {
        let (this, container) = (self.clone(), container.clone());
        self.settling
            .spawn(async move { this.auto_remove(&container).await });
    }

    /// Writes down what was changed. Where the VM is off, its next boot is prepared anew.
    pub(super) async fn keep_changes(
        &self,
        container: &Container,
        changes: &Changes,
    ) -> Result<()> {
        let _task = container.vm_task.lock().await;
        let mut vm_keys = BTreeMap::from([json_key(keys::CHANGES, changes)?]);
        let status = container.status();
        let stale = status
            .prepared
            .filter(|_| !status.on)
            .map(|prepared| Prepared {
                boot: 0,
                ..prepared
            });
        if let Some(prepared) = &stale {
            vm_keys.extend([json_key(keys::PREPARED, prepared)?]);
        }
        self.vsphere.set_keys(&container.vm, &vm_keys, None).await?;
        if stale.is_some() {
            container.modify(|status| status.prepared = stale);
        }
        Ok(())
    }

    pub(super) async fn auto_remove(self: &Arc<Self>, container: &Arc<Container>) {
        if let Err(error) = self.remove(container, true, true).await
            && !container.status().gone
        {
            tracing::warn!(id = container.id(), %error, "auto-remove");
        }
    }
}

/// The record as VM keys, with what was changed since the creation.
pub(super) fn record_keys(container: &Container) -> Result<Keys> {
    let status = container.status();
    let mut vm_keys = Keys::from([json_key(keys::STATE, &status.record)?]);
    if status.changes != Changes::default() {
        // Those made while the VM ran went with its power.
        vm_keys.extend([json_key(keys::CHANGES, &status.changes)?]);
    }
    Ok(vm_keys)
}

/// A VM key with a JSON value.
fn json_key(key: &str, value: &impl serde::Serialize) -> Result<(String, String)> {
    let text = serde_json::to_string(value).map_err(|e| Error::internal(e.to_string()))?;
    Ok((key.to_owned(), text))
}
