//! VMs that someone else has powered on, an administrator by hand for instance (decision 27).
//!
//! What such a VM was prepared for is a boot that is over, whose tether has no key that is still good. That it dials tells
//! that it is on, even where vSphere's watch has told of no change.

use super::{
    Container, Containers,
    state::{Phase, Status},
};
use std::{sync::Arc, time::Duration};

/// A tether that was cut off on its way to the end of its boot dials, too: it is admitted, or its VM is off, within this.
const ENDING: Duration = Duration::from_secs(10);

/// Whether there is no boot that a tether could be of.
fn is_over(status: &Status) -> bool {
    let record = &status.record;
    record.ended >= record.boots
        && status.phase != Phase::Starting
        && status.maintenance.is_none()
        && !status.removing
        && !status.gone
}

impl Containers {
    /// A tether that says it is this container's dials; whether it is, is not known.
    pub(super) fn dialled(self: &Arc<Self>, container: &Arc<Container>) {
        // Those who follow the status are not woken by each dial.
        if !is_over(&container.status()) {
            return;
        }
        let boot = container.modify(|status| {
            let fresh = is_over(status) && !std::mem::replace(&mut status.suspected, true);
            fresh.then(|| status.boot())
        });
        let Some(boot) = boot else { return };
        let (this, container) = (self.clone(), container.clone());
        self.settling.spawn(async move {
            let linked = |status: &Status| {
                status.session.is_some() || status.boot() != boot || !is_over(status)
            };
            if container.until(Some(ENDING), linked).await.is_none() {
                this.start_by_another(&container, boot).await;
            }
            container.modify(|status| status.suspected = false);
        });
    }

    /// Starts the container as `docker start` does, if its VM is on; `boot` is its last one.
    async fn start_by_another(self: &Arc<Self>, container: &Arc<Container>, boot: u64) {
        let _operation = container.operation.lock().await;
        let status = container.status();
        let settled = status.boot() != boot || !is_over(&status) || status.session.is_some();
        if settled || !matches!(self.vsphere.is_on(&container.vm).await, Ok(Some(true))) {
            return;
        }
        let id = container.id();
        tracing::warn!(
            id,
            "someone else has powered on the VM: its container is started"
        );
        container.modify(|status| {
            status.on = true;
            status.reading.cut_off();
            // A tether has seen it: for the next one it would be a boot that was begun before.
            status.prepared = None;
        });
        if let Err(error) = self.power_off(container).await {
            tracing::warn!(id, %error, "powering off");
        }
        self.check_power(container).await;
        match self.start_locked(container).await {
            Err(error) if !error.is_not_modified() => {
                tracing::warn!(id, %error, "start of what someone else has powered on");
            }
            _ => {}
        }
    }
}
