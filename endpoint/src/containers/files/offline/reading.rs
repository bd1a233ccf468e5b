//! Who reads a container's disk. A VM that is to be powered on waits for them, and a removal ends them.

use super::super::super::{Container, start::OFF_LIMIT, state::Status};
use super::super::maintenance::COPY_LIMIT;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

/// Jobs that read disks at the same time, at most: what a guest has written may make one take some 100 MB. More take VMs.
pub const READERS: usize = 8;

/// Those who read a container's disk.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    users: usize,
    /// Ends them.
    cut: CancellationToken,
    /// One has found what it could not read, in the middle of it. Until the VM was on again.
    refused: bool,
}

impl Reading {
    /// Whether a VM is better for the next one.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// Whether anyone does.
    pub fn is_going_on(&self) -> bool {
        self.users > 0
    }

    /// Ends those who read: the VM is on by another way.
    pub fn cut_off(&mut self) {
        std::mem::take(&mut self.cut).cancel();
    }

    /// The VM is powered on: what its kernel mends is read again.
    pub fn powered_on(&mut self) {
        self.refused = false;
    }
}

/// One who reads.
#[derive(Debug)]
pub struct Reader {
    /// Whose disk.
    pub container: Arc<Container>,
    /// Ends it.
    pub cut: CancellationToken,
    boot: u64,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    /// The VM is off, and the container's operation is held.
    pub fn begin(container: &Arc<Container>, permit: OwnedSemaphorePermit) -> Self {
        let (cut, boot) = container.modify(|status| {
            status.reading.users += 1;
            (status.reading.cut.child_token(), status.boot())
        });
        Self {
            container: container.clone(),
            cut,
            boot,
            _permit: permit,
        }
    }

    /// A VM is better for the next one.
    pub fn refuse(&self) {
        self.container
            .modify(|status| status.reading.refused = true);
    }

    /// Whether that is so.
    pub fn is_refused(&self) -> bool {
        self.container.status().reading.refused
    }

    /// Whether someone has powered on the VM by another way: what was read may be of no one time.
    pub fn disturbed(&self) -> bool {
        let status = self.container.status();
        status.on || status.boot() != self.boot
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.container.modify(|status| {
            status.reading.users = status.reading.users.saturating_sub(1);
        });
    }
}

impl Container {
    /// Waits until nobody reads its disk, for [`COPY_LIMIT`] at most, and cuts off who still does. The caller holds the
    /// container's operation, so that nobody begins.
    pub(in super::super) async fn end_reading(&self) {
        let over = |status: &Status| status.reading.users == 0 || status.gone;
        // A removal waits for no copy.
        let enough = |status: &Status| over(status) || status.removing;
        self.until(Some(COPY_LIMIT), enough).await;
        if over(&self.status()) {
            return;
        }
        self.modify(|status| status.reading.cut_off());
        // One whose disk does not answer finds nobody to tell when it does.
        self.until(Some(OFF_LIMIT), over).await;
    }
}
