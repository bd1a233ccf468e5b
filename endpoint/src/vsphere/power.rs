//! The power of VMs, and the tasks that vSphere has under way.

use super::{Result, VmRef, Vsphere, VsphereError, call};
use crate::insist::insist;
use std::time::Duration;
use vim::{
    FaultKind,
    method::{Method as _, PowerOnVm},
    types::{PowerState, TaskInfo, TaskInfoState},
};

/// `TaskInfo.descriptionId` of `CreateVM_Task`.
const CREATION: &str = "Folder.createVm";
/// Whether a VM came up whose power-on had no answer is asked for so long.
const ASKING: Duration = Duration::from_secs(60);

impl Vsphere {
    /// Powers a VM on. Where no answer tells of that, it is asked whether the VM is on.
    ///
    /// # Errors
    /// vSphere's. The VM is off then, unless vSphere was away for long.
    pub async fn power_on(&self, vm: &VmRef) -> Result<()> {
        let failed = call(format!("cannot power on {vm}"));
        let request = PowerOnVm {
            this: vm.clone(),
            host: None,
        };
        let unheard = match self.client.call(&request).await {
            Ok(task) => match self.end_of(&task).await {
                Ok(TaskInfo {
                    state: TaskInfoState::Success,
                    ..
                }) => return Ok(()),
                Ok(info) => {
                    let fault = Box::new(info.error.unwrap_or_default());
                    let method = PowerOnVm::NAME;
                    return Err(failed(vim::Error::Fault { method, fault }));
                }
                // Whatever it is, it is not the power-on's.
                Err(error) => error,
            },
            // Nothing was begun: refused, or not even sent.
            Err(error @ (vim::Error::Fault { .. } | vim::Error::Connect { .. })) => {
                return Err(failed(error));
            }
            Err(error) => error,
        };
        tracing::warn!(%vm, error = %unheard, "whether it was powered on is not known: asked for");
        let asked = insist("a look whether a VM came up", &vm.id, || self.settled(vm));
        match tokio::time::timeout(ASKING, asked).await {
            Ok(Some(true)) => Ok(()),
            _ => Err(failed(unheard)),
        }
    }

    async fn end_of(&self, task: &VmRef) -> std::result::Result<TaskInfo, vim::Error> {
        self.client.watch_task(task).await?.end().await
    }

    /// Whether a VM is on, once nothing that vSphere has begun with it changes that.
    async fn settled(&self, vm: &VmRef) -> crate::errors::Result<Option<bool>> {
        self.tasks_over("tasks of a VM", |info| info.entity.as_ref() == Some(vm))
            .await?;
        Ok(self.is_on(vm).await?)
    }

    /// Powers a VM off, hard. One that is off already, or gone, is no error.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn power_off(&self, vm: &VmRef) -> Result<()> {
        match self.client.power_off(vm).await {
            Err(error)
                if error.is_not_found()
                    || matches!(error.kind(), Some(FaultKind::InvalidPowerState { .. })) =>
            {
                Ok(())
            }
            other => other.map_err(call(format!("cannot power off {vm}"))),
        }
    }

    /// Whether a VM is on; `None` where it is gone.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn is_on(&self, vm: &VmRef) -> Result<Option<bool>> {
        match self
            .client
            .property::<PowerState>(vm, "runtime.powerState")
            .await
        {
            Ok(state) => Ok(state.map(|state| state != PowerState::PoweredOff)),
            Err(error) if error.is_not_found() || matches!(error, vim::Error::NotFound { .. }) => {
                Ok(None)
            }
            Err(error) => Err(call(format!("cannot read the power state of {vm}"))(error)),
        }
    }

    /// Waits until every creation of a VM that vSphere has begun by now is over, whoever asked for it. Gives how
    /// many there were. A creation that is cut off from its client goes on in vSphere.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn creations_over(&self) -> Result<usize> {
        self.tasks_over("creations of VMs", |info| info.description_id == CREATION)
            .await
    }

    /// Waits until every task of these that vSphere has begun by now is over. Gives how many there were.
    async fn tasks_over(&self, what: &str, which: impl Fn(&TaskInfo) -> bool) -> Result<usize> {
        let Some(manager) = &self.client.content().task_manager else {
            return Ok(0);
        };
        let failed = || call("cannot read the tasks that run");
        let recent = self
            .client
            .properties(manager, &["recentTask"])
            .await
            .map_err(failed())?
            .items::<VmRef>("recentTask")
            .map_err(|e| VsphereError::Missing(format!("the tasks that run: {e}")))?;
        let mut waits = Vec::new();
        for task in recent {
            let info: Option<TaskInfo> = match self.client.property(&task, "info").await {
                // Long done, and forgotten since.
                Err(e) if e.is_not_found() || matches!(e, vim::Error::NotFound { .. }) => None,
                other => other.map_err(failed())?,
            };
            if info.is_some_and(|i| which(&i) && !i.state.is_final()) {
                waits.push(task);
            }
        }
        if !waits.is_empty() {
            tracing::info!(count = waits.len(), "{what} are under way");
        }
        for task in &waits {
            let mut watched = self.client.watch_task(task).await.map_err(failed())?;
            watched.end().await.map_err(failed())?;
        }
        Ok(waits.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vsphere::fake::{Failure, Fake};
    use http::Method;
    use std::sync::Arc;

    const POWER_ON: &str = "PowerOnVM_Task";

    async fn start() -> (Fake, Arc<Vsphere>) {
        let _set_already = rustls::crypto::ring::default_provider().install_default();
        Fake::start().await
    }

    #[tokio::test]
    async fn a_vm_came_up_though_no_answer_told_of_its_power_on() {
        let (fake, vsphere) = start().await;
        fake.fail(Method::POST, POWER_ON, Failure::Lost);
        // The look has no answer either, the first time.
        fake.fail(Method::POST, "RetrievePropertiesEx", Failure::Lost);
        vsphere.power_on(&Fake::vm()).await.unwrap();
        assert_eq!(fake.is_on(), Some(true));
    }

    #[tokio::test]
    async fn a_vm_came_up_though_its_task_was_lost() {
        let (fake, vsphere) = start().await;
        // Each attempt to watch tasks begins with this; faults are not waited out, as a server that is away is.
        for _ in 0..3 {
            fake.fail(Method::POST, "CreateListView", Failure::Refused);
        }
        vsphere.power_on(&Fake::vm()).await.unwrap();
        assert_eq!(fake.is_on(), Some(true));
    }

    #[tokio::test]
    async fn a_vm_that_did_not_come_up_is_told_so() {
        let (fake, vsphere) = start().await;
        fake.fail(Method::POST, POWER_ON, Failure::Refused);
        let error = vsphere.power_on(&Fake::vm()).await.unwrap_err();
        assert!(error.to_string().contains("cannot power on"), "{error}");
        assert_eq!(fake.is_on(), Some(false));
        vsphere.power_on(&Fake::vm()).await.unwrap();
        assert_eq!(fake.is_on(), Some(true));
    }

    #[tokio::test]
    async fn a_vm_that_runs_all_the_same_is_removed() {
        let (fake, vsphere) = start().await;
        vsphere.power_on(&Fake::vm()).await.unwrap();
        vsphere.remove(&Fake::vm(), "id").await.unwrap();
        assert_eq!(fake.is_on(), None);
        // As often as one likes.
        vsphere.remove(&Fake::vm(), "id").await.unwrap();
    }
}
