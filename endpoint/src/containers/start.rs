//! `docker start`: prepare the boot, power on, wait for what the tether says.

use super::{
    Container, Containers,
    keys::{self, Keys},
    state::{Phase, Prepared, Status},
};
use crate::{
    errors::{Error, Result},
    networks::{external, publish::Binding},
};
use std::{sync::Arc, time::Duration};
use wire::{
    config::{CONFIG_VERSION, Restart},
    restart::Backoff,
};

/// A VM that was asked to end by itself gets this long before it is powered off.
pub(super) const OFF_LIMIT: Duration = Duration::from_secs(60);
/// From power-on to the process: a slow machine boots within this, or not at all.
const START_LIMIT: Duration = Duration::from_secs(300);
/// Without any news for so long, the VM's power state is read.
const CHECK_EVERY: Duration = Duration::from_secs(10);

impl Containers {
    /// Starts a container; returns once its process runs.
    ///
    /// # Errors
    /// 304 where it runs, Docker's words where the process cannot be started, the step where the
    /// boot failed.
    pub async fn start(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let _operation = container.operation.lock().await;
        self.start_locked(container).await
    }

    pub(super) async fn start_locked(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let status = container.status();
        if status.removing || status.gone {
            return Err(marked_for_removal(container));
        }
        if status.paused {
            return Err(Error::conflict(
                "cannot start a paused container, try unpause instead",
            ));
        }
        if status.live() || status.phase == Phase::Starting {
            return Err(Error::not_modified());
        }
        container.modify(|status| {
            status.revive = false;
            status.backoff = Backoff::default();
            status.record.restarts = 0;
        });
        self.boot_again(container).await
    }

    /// Boots a container whose process does not run.
    pub(super) async fn boot_again(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        self.wait_off(container, OFF_LIMIT).await?;
        let failures = container.status().start_failures;
        let result = self.boot(container, failures).await;
        if let Err(error) = &result
            && container.status().start_failures == failures
        {
            self.not_begun(container, error).await;
        }
        if result.is_err() && container.spec.options.auto_remove {
            self.wait_off(container, OFF_LIMIT).await?;
            // The lock is held here; the removal takes it when the client has its answer.
            self.remove_itself(container);
        }
        result
    }

    /// A start that failed before its boot began: those who wait for its output are told, and `docker inspect`.
    async fn not_begun(&self, container: &Container, error: &Error) {
        let clients = std::mem::take(&mut *container.pending());
        drop(clients);
        container.modify(|status| {
            status.record.error.clone_from(&error.message);
            // As dockerd: how a run before it has ended is kept.
            if status.record.exit_code == 0 {
                status.record.exit_code = 128;
            }
        });
        let _task = container.vm_task.lock().await;
        if container.status().removing {
            return;
        }
        if let Err(error) = self.write_record(container).await {
            tracing::debug!(id = container.id(), %error, "why it did not start is kept in memory only");
        }
    }

    async fn boot(self: &Arc<Self>, container: &Arc<Container>, failures: u64) -> Result<()> {
        let places = self.networks.renewed(&container.status().networks);
        external::check_capabilities(&container.spec.options.cap_add, &places)?;
        container.modify(|status| status.networks = places);
        // Until it is seen to be on them: one that is removed leaves its port group to another.
        let status = container.status();
        let networks = status.networks.iter().map(|place| place.network.as_str());
        let _claim = self.networks.claim(networks)?;
        let record = status.record;
        let boot = record.boots.max(record.ended) + 1;
        let ports = self.join(container, boot).await?;
        let result = self.boot_with(container, boot, failures, &ports).await;
        if result.is_err() {
            self.leave(container, boot);
        }
        result
    }

    async fn boot_with(
        self: &Arc<Self>,
        container: &Arc<Container>,
        boot: u64,
        failures: u64,
        ports: &[Binding],
    ) -> Result<()> {
        container.modify(|status| status.ports = ports.to_vec());
        let _claim = self.claim_volumes(container, "start container").await?;
        let task = container.vm_task.lock().await;
        let status = container.status();
        if status.removing {
            return Err(marked_for_removal(container));
        }
        if status.nics_off {
            // What a maintenance could not put back: with its mark this boot would be taken for one.
            self.vsphere.connect_nics(&container.vm, true).await?;
            let mark = Keys::from([(keys::MAINTENANCE.to_owned(), String::new())]);
            self.vsphere.set_keys(&container.vm, &mark, None).await?;
            container.modify(|status| status.nics_off = false);
        }
        let place = self.setup.link.place();
        let fits = |p: &Prepared| p.boot == boot && p.at == place && p.version == CONFIG_VERSION;
        let linked = self.linked(&status.networks)?;
        let nfs = self
            .nfs_for_guest(&container.spec.mounts, &status.networks)
            .await?;
        let as_created = linked.is_empty()
            && ports.is_empty()
            && status.networks == container.spec.networks
            && boot == 1
            && nfs.is_empty();
        let prepared = match status.prepared.clone().filter(|p| fits(p) && as_created) {
            Some(prepared) => prepared,
            None => {
                let restart = Restart {
                    policy: container.restart_policy(),
                    count: status.record.restarts,
                };
                let network = self
                    .setup
                    .guest_network(&container.spec, &status.networks, linked);
                let (mut vm_keys, prepared) =
                    self.setup
                        .prepare(&container.spec, boot, network, restart, |guest| {
                            if let Some(pids) = status.changes.pids {
                                guest.limits.pids = pids;
                            }
                            guest.limits.cpu = container.cpu();
                            guest.nfs = nfs;
                        })?;
                self.put_record(&mut vm_keys, container, boot)?;
                let text =
                    serde_json::to_string(ports).map_err(|e| Error::internal(e.to_string()))?;
                vm_keys.insert(keys::PORTS.to_owned(), text);
                let port = self
                    .setup
                    .link_port(container.id(), status.prepared.as_ref());
                self.vsphere
                    .set_keys(&container.vm, &vm_keys, port.as_ref())
                    .await?;
                prepared
            }
        };
        let link = prepared.keys();
        container.modify(|status| {
            status.record.boots = boot;
            status.prepared = Some(prepared);
            status.link = link;
            status.phase = Phase::Starting;
            status.stopping = false;
            status.signalled.clear();
            status.record.stopped = false;
            status.start_error = None;
            status.reading.powered_on();
            status.on = true;
        });
        if let Err(error) = self.vsphere.power_on(&container.vm).await
            // Else its tether has told what vSphere did not, and may have ended the VM since.
            && container.status().phase == Phase::Starting
        {
            let mounts = &container.spec.mounts;
            let error = self.volumes.explain(error.into(), mounts).await;
            container.modify(|status| status.on = false);
            self.start_failed(container, boot, 128, error.clone());
            return Err(error);
        }
        drop(task);
        self.tell_volumes(container, true);
        self.await_start(container, boot, failures).await
    }

    async fn await_start(
        self: &Arc<Self>,
        container: &Arc<Container>,
        boot: u64,
        failures: u64,
    ) -> Result<()> {
        let deadline = tokio::time::Instant::now() + START_LIMIT;
        loop {
            let news = container
                .until(Some(CHECK_EVERY), |status| {
                    status.phase != Phase::Starting
                        || status.start_failures > failures
                        || status.removing
                        || status.gone
                })
                .await;
            if let Some(status) = news {
                if status.start_failures > failures {
                    return Err(status
                        .start_error
                        .unwrap_or_else(|| Error::internal("the start failed")));
                }
                if status.gone {
                    return Err(Error::no_such_container(container.id()));
                }
                if status.removing && status.phase == Phase::Starting {
                    // Who removes it waits for this.
                    let error = marked_for_removal(container);
                    self.start_failed(container, boot, 128, error.clone());
                    self.power_off(container).await?;
                    return Err(error);
                }
                return Ok(());
            }
            self.check_power(container).await;
            if tokio::time::Instant::now() > deadline {
                let error = Error::internal(format!(
                    "the VM of container {} did not report within {} s of its power-on: see console.log in {}",
                    container.id(),
                    START_LIMIT.as_secs(),
                    self.vsphere.container_folder(container.id()),
                ));
                self.start_failed(container, boot, 128, error.clone());
                self.power_off(container).await?;
                return Err(error);
            }
        }
    }

    /// The record as it must be in the keys while a boot runs.
    fn put_record(&self, vm_keys: &mut Keys, container: &Container, boot: u64) -> Result<()> {
        let mut record = container.status().record;
        record.boots = boot;
        record.stopped = false;
        let text = serde_json::to_string(&record).map_err(|e| Error::internal(e.to_string()))?;
        vm_keys.insert(super::keys::STATE.to_owned(), text);
        Ok(())
    }

    /// Waits until the VM of a container whose process has ended is off and its end recorded;
    /// powers it off after `limit`. One in maintenance is ended. The caller holds the operation.
    pub(super) async fn wait_off(
        self: &Arc<Self>,
        container: &Arc<Container>,
        limit: Duration,
    ) -> Result<()> {
        self.end_maintenance(container).await?;
        let off = |status: &Status| !status.on || status.gone;
        if container.until(Some(limit), off).await.is_none() {
            self.power_off(container).await?;
            self.check_power(container).await;
        }
        Ok(())
    }

    pub(super) async fn power_off(&self, container: &Container) -> Result<()> {
        let _task = container.vm_task.lock().await;
        Ok(self.vsphere.power_off(&container.vm).await?)
    }
}

fn marked_for_removal(container: &Container) -> Error {
    Error::conflict(format!(
        "container {} is marked for removal and cannot be started",
        container.id()
    ))
}
