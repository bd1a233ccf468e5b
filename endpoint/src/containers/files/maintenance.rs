//! The files of a container that does not run: its VM is started for them alone, in maintenance. No process, no
//! network (its vNICs are not connected), volumes read-only where only reading is asked for; for a client the container
//! stays what it was, and no event tells of it. It ends by itself a moment after the last use, before the next start,
//! and, where the endpoint goes, after 30 s without a link.

use super::super::{
    Container, Containers, exit::record_keys, keys, random_hex, start::OFF_LIMIT, state::Status,
};
use crate::{
    errors::{Error, Result},
    link::Session,
    networks::guest::GuestNetwork,
    timestamps,
};
use std::{sync::Arc, time::Duration};
use wire::{
    config::{Maintenance as Request, Restart},
    message::{ToGuest, ToHost},
};

/// How long a VM stays up after the last use of its files: a client's next request is seldom later.
const IDLE: Duration = Duration::from_secs(2);
/// From power-on to the files.
const UP_LIMIT: Duration = Duration::from_secs(300);
/// Without any news for so long, the VM's power state is read.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// How long a request counts, ns.
const REQUEST_LIMIT: u64 = 3_600_000_000_000;

/// A VM that is up for its container's files.
#[derive(Debug, Clone)]
pub struct Maintenance {
    /// The request's; of another endpoint's request: empty.
    pub nonce: String,
    /// The files may be changed.
    pub writes: bool,
    /// The link, once its tether is ready.
    pub session: Option<Arc<Session>>,
    /// Why it did not come up.
    pub fault: Option<Error>,
    /// Jobs that go on.
    pub users: usize,
    /// Jobs so far.
    pub uses: u64,
}

/// How long a start waits for those who copy files.
pub(super) const COPY_LIMIT: Duration = Duration::from_secs(600);

/// The way to a container's files; in maintenance the VM stays up while it is held.
#[derive(Debug)]
pub struct Lease {
    /// The link.
    pub session: Arc<Session>,
    held: Option<(Arc<Containers>, Arc<Container>)>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some((containers, container)) = self.held.take() else {
            return;
        };
        let last = container.modify(|status| {
            let maintenance = status.maintenance.as_mut()?;
            maintenance.users = maintenance.users.saturating_sub(1);
            (maintenance.users == 0).then_some(maintenance.uses)
        });
        if let Some(uses) = last {
            tokio::spawn(containers.end_unused(container, uses));
        }
    }
}

impl Containers {
    /// The way to a container's files, whether it runs or not.
    ///
    /// # Errors
    /// 409 where it is on its way out or another container has its volumes; why the VM could not be brought up.
    pub(super) async fn reach(
        self: &Arc<Self>,
        container: &Arc<Container>,
        writes: bool,
    ) -> Result<Lease> {
        let live = async || {
            let session = container.live_session().await?;
            Ok(Lease {
                session,
                held: None,
            })
        };
        if container.status().live() {
            return live().await;
        }
        let _operation = container.operation.lock().await;
        let status = container.status();
        if status.gone {
            return Err(Error::no_such_container(container.id()));
        }
        if status.removing {
            return Err(marked_for_removal(container));
        }
        if status.live() {
            return live().await;
        }
        if let Some(session) = self.join_maintenance(container, writes) {
            return Ok(self.lease(container, session));
        }
        self.wait_off(container, OFF_LIMIT).await?;
        self.begin_maintenance(container, writes).await?;
        match self.join_maintenance(container, writes) {
            Some(session) => Ok(self.lease(container, session)),
            None => Err(Error::internal(format!(
                "the VM of container {} went off while its files were to be reached",
                container.id()
            ))),
        }
    }

    fn lease(self: &Arc<Self>, container: &Arc<Container>, session: Arc<Session>) -> Lease {
        Lease {
            session,
            held: Some((self.clone(), container.clone())),
        }
    }

    fn join_maintenance(&self, container: &Container, writes: bool) -> Option<Arc<Session>> {
        container.modify(|status| {
            let on = status.on;
            let maintenance = status.maintenance.as_mut()?;
            let session = maintenance.session.clone()?;
            if !on || (writes && !maintenance.writes) {
                return None;
            }
            maintenance.users += 1;
            maintenance.uses += 1;
            Some(session)
        })
    }

    /// The VM is off.
    async fn begin_maintenance(
        self: &Arc<Self>,
        container: &Arc<Container>,
        writes: bool,
    ) -> Result<()> {
        let _claim = self
            .claim_volumes(container, "reach the files of container")
            .await?;
        let task = container.vm_task.lock().await;
        let status = container.status();
        if status.removing {
            return Err(marked_for_removal(container));
        }
        let mut record = status.record;
        // A boot as any other to the link; its end is known beforehand.
        let boot = record.boots.max(record.ended) + 1;
        (record.boots, record.ended) = (boot, boot);
        let nonce = random_hex()?;
        let request = Request {
            nonce: nonce.clone(),
            until: timestamps::now().saturating_add(REQUEST_LIMIT),
        };
        let network = GuestNetwork::default();
        let (mut vm_keys, prepared) = self.setup.prepare(
            &container.spec,
            boot,
            network,
            Restart::default(),
            |guest| {
                guest.maintenance = Some(request);
                for mount in guest.mounts.iter_mut().filter(|_| !writes) {
                    (mount.read_only, mount.copy) = (true, false);
                }
                for share in guest.shares.iter_mut().filter(|_| !writes) {
                    share.read_only = true;
                }
            },
        )?;
        let text = serde_json::to_string(&record).map_err(|e| Error::internal(e.to_string()))?;
        vm_keys.insert(keys::STATE.to_owned(), text);
        vm_keys.insert(keys::MAINTENANCE.to_owned(), nonce.clone());
        let port = self
            .setup
            .link_port(container.id(), container.status().prepared.as_ref());
        self.vsphere
            .set_keys(&container.vm, &vm_keys, port.as_ref())
            .await?;
        let link = prepared.keys();
        container.modify(|status| {
            status.record = record;
            status.prepared = Some(prepared);
            status.link = link;
            status.on = true;
            status.nics_off = true;
            status.reading.powered_on();
            status.maintenance = Some(Maintenance {
                nonce,
                writes,
                session: None,
                fault: None,
                users: 0,
                uses: 0,
            });
        });
        let on = async {
            self.vsphere.connect_nics(&container.vm, false).await?;
            self.vsphere.power_on(&container.vm).await
        };
        if let Err(error) = on.await {
            container.modify(|status| status.on = false);
            self.settle_maintenance(container).await;
            return Err(error.into());
        }
        drop(task);
        self.await_files(container).await
    }

    async fn await_files(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let deadline = tokio::time::Instant::now() + UP_LIMIT;
        let known = |status: &Status| {
            let maintenance = status.maintenance.as_ref();
            status.gone
                || status.removing
                || maintenance.is_none_or(|m| m.session.is_some() || m.fault.is_some())
        };
        let error = loop {
            if let Some(status) = container.until(Some(CHECK_EVERY), known).await {
                match status.maintenance {
                    Some(Maintenance {
                        fault: Some(fault), ..
                    }) => break fault,
                    Some(Maintenance { session: None, .. }) if !status.gone => {
                        break marked_for_removal(container);
                    }
                    Some(_) if !status.gone => return Ok(()),
                    _ => return Err(self.unreported(container.id()).await),
                }
            }
            self.check_power(container).await;
            if tokio::time::Instant::now() > deadline {
                break Error::internal(format!(
                    "the VM of container {} did not report within {} s of its power-on: see console.log in {}",
                    container.id(),
                    UP_LIMIT.as_secs(),
                    self.vsphere.container_folder(container.id()),
                ));
            }
        };
        self.end_maintenance(container).await?;
        Err(error)
    }

    /// Takes what a tether says in maintenance; false: this one is not.
    pub(in super::super) fn in_maintenance(
        self: &Arc<Self>,
        container: &Arc<Container>,
        session: &Arc<Session>,
        message: &ToHost,
    ) -> bool {
        let known = |status: &Status| status.boot() == session.boot && status.maintenance.is_some();
        match message {
            ToHost::Maintenance { nonce } => {
                let expected = container.modify(|status| {
                    let right = known(status);
                    let maintenance = status.maintenance.as_mut();
                    let own = maintenance.filter(|m| right && m.nonce == *nonce);
                    own.map(|m| m.session = Some(session.clone())).is_some()
                });
                if !expected {
                    tracing::warn!(
                        id = container.id(),
                        "its VM is in maintenance unasked: ended"
                    );
                    let session = session.clone();
                    tokio::spawn(async move {
                        let _it_may_be_off =
                            session.done(|request| ToGuest::Shutdown { request }).await;
                    });
                }
                true
            }
            ToHost::BootFault { step, message } => container.modify(|status| {
                if !known(status) {
                    return false;
                }
                let error = super::super::console::boot_fault(container.id(), step, message);
                if let Some(maintenance) = &mut status.maintenance {
                    maintenance.fault = Some(error);
                }
                true
            }),
            ToHost::Answer { .. } => false,
            _ => known(&container.status()),
        }
    }

    async fn end_unused(self: Arc<Self>, container: Arc<Container>, uses: u64) {
        let used = |status: &Status| status.maintenance.as_ref().is_none_or(|m| m.uses != uses);
        if container.until(Some(IDLE), used).await.is_some() {
            return;
        }
        let _operation = container.operation.lock().await;
        if used(&container.status()) {
            return;
        }
        if let Err(error) = self.end_maintenance(&container).await {
            tracing::warn!(id = container.id(), %error, "its VM in maintenance does not end");
        }
    }

    /// Waits until nobody reads the disk or uses the files of a VM in maintenance, for [`COPY_LIMIT`] at most, and ends
    /// that. The caller holds the container's operation, so that no further use begins.
    ///
    /// # Errors
    /// vSphere's.
    pub(in super::super) async fn end_maintenance(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<()> {
        container.end_reading().await;
        let over = |status: &Status| status.maintenance.is_none() || status.gone;
        // A removal waits for no copy, and nothing waits for ever for one whose client has stopped to read.
        let unused = |status: &Status| {
            status.removing || status.maintenance.as_ref().is_none_or(|m| m.users == 0)
        };
        container
            .until(Some(COPY_LIMIT), |status| over(status) || unused(status))
            .await;
        let Some(maintenance) = container.status().maintenance else {
            return Ok(());
        };
        if let Some(session) = maintenance.session {
            let _it_may_be_off = session.done(|request| ToGuest::Shutdown { request }).await;
        } else if maintenance.fault.is_none() {
            self.power_off(container).await?;
        }
        if container.until(Some(OFF_LIMIT), over).await.is_none() {
            self.power_off(container).await?;
            // Boxed: what settles an end may come here again.
            Box::pin(self.check_power(container)).await;
            container.until(Some(OFF_LIMIT), over).await;
        }
        Ok(())
    }

    /// The VM is off; its task is held. What was changed for the maintenance is put back.
    pub(in super::super) async fn settle_maintenance(&self, container: &Container) {
        let put_back = async {
            self.vsphere.connect_nics(&container.vm, true).await?;
            let mut vm_keys = record_keys(container)?;
            vm_keys.insert(keys::MAINTENANCE.to_owned(), String::new());
            Ok::<_, Error>(self.vsphere.set_keys(&container.vm, &vm_keys, None).await?)
        };
        match put_back.await {
            Ok(()) => container.modify(|status| status.nics_off = false),
            Err(error) => {
                tracing::warn!(id = container.id(), %error, "its vNICs and its mark are put right at its next start");
            }
        }
        let over = container.modify(|status| status.maintenance.take());
        if let Some(session) = over.and_then(|maintenance| maintenance.session) {
            session.end();
        }
    }

    /// A VM that an endpoint before this one has left in maintenance.
    pub(in super::super) async fn end_left_maintenance(self: Arc<Self>, container: Arc<Container>) {
        if container.status().on {
            if let Err(error) = self.power_off(&container).await {
                tracing::warn!(id = container.id(), %error, "its VM was left in maintenance");
            }
            self.check_power(&container).await;
        } else {
            self.powered_off(container).await;
        }
    }
}

fn marked_for_removal(container: &Container) -> Error {
    Error::conflict(format!(
        "container {} is marked for removal: its files cannot be reached",
        container.id()
    ))
}

impl Maintenance {
    /// Of another endpoint's request.
    pub fn left() -> Self {
        Self {
            nonce: String::new(),
            writes: false,
            session: None,
            fault: None,
            users: 0,
            uses: 0,
        }
    }
}
