//! Watching properties as they change.

use super::{Core, Error};
use crate::method;
use crate::types::*;
use std::sync::Arc;

/// What a [`Watch`] tells.
#[derive(Debug, Clone)]
pub enum WatchEvent {
    /// What was told before no longer holds (the session was lost): everything comes anew, as
    /// `enter`. Views of the specification are gone, too, so a watch on a view ends with an error
    /// instead.
    Reset,
    /// Changes, in order.
    Updates(Vec<ObjectUpdate>),
}

/// A filter on a collector of its own, read by long polls.
#[derive(Debug)]
pub struct Watch {
    core: Arc<CoreDebug>,
    spec: PropertyFilterSpec,
    collector: ManagedObjectReference,
    version: Option<String>,
}

/// Gives the core a `Debug` that shows no secrets.
struct CoreDebug(Arc<Core>);

impl std::fmt::Debug for CoreDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.config.url)
    }
}

impl Watch {
    pub(super) async fn new(core: Arc<Core>, spec: PropertyFilterSpec) -> Result<Watch, Error> {
        let collector = set_up(&core, &spec).await?;
        Ok(Watch {
            core: Arc::new(CoreDebug(core)),
            spec,
            collector,
            version: None,
        })
    }

    /// The next changes; waits until there are some. Can be dropped and called again.
    ///
    /// # Errors
    /// Where the server cannot be reached, the connection is lost ([`Error::Http`], or
    /// [`Error::Timeout`] where only silence tells of it), or the watched objects (a view) are gone.
    pub async fn next(&mut self) -> Result<WatchEvent, Error> {
        let core = &self.core.0;
        loop {
            let version = self.version.as_deref();
            match core.wait_for_updates(&self.collector, version).await {
                Ok(None) => {}
                Ok(Some(set)) => {
                    self.version = Some(set.version);
                    let updates = set
                        .filter_set
                        .into_iter()
                        .flat_map(|f| f.object_set)
                        .collect();
                    return Ok(WatchEvent::Updates(updates));
                }
                Err(e)
                    if e.fault()
                        .is_some_and(|f| f.is_not_authenticated() || f.is_not_found()) =>
                {
                    self.collector = set_up(core, &self.spec).await?;
                    self.version = None;
                    return Ok(WatchEvent::Reset);
                }
                Err(e) => return Err(e),
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The server keeps a collector as long as the session; a client that goes on should not
        // leave one behind. Where no runtime is left, the session ends soon anyway.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let core = self.core.clone();
            let this = self.collector.clone();
            runtime.spawn(async move {
                if let Err(error) = core
                    .0
                    .call(&method::DestroyPropertyCollector { this })
                    .await
                {
                    tracing::debug!(%error, "collector of a watch was not destroyed");
                }
            });
        }
    }
}

async fn set_up(core: &Core, spec: &PropertyFilterSpec) -> Result<ManagedObjectReference, Error> {
    let this = core.content().property_collector.clone();
    let collector = core.call(&method::CreatePropertyCollector { this }).await?;
    let filter = method::CreateFilter {
        this: collector.clone(),
        spec: spec.clone(),
        partial_updates: false,
    };
    core.call(&filter).await?;
    Ok(collector)
}
