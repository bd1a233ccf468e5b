//! PropertyCollector and PropertyFilter.

use super::{Answer, Context, answer, decode};
use crate::inventory;
use crate::property::{self, Collector};
use crate::state::not_found;
use std::collections::VecDeque;
use std::sync::Arc;
use vim::Fault;
use vim::method::*;
use vim::types::*;
use vim::xml::Element;

impl Context {
    pub(super) async fn collector(
        &self,
        name: &str,
        this: &ManagedObjectReference,
        element: &Element,
    ) -> Answer {
        let (host, session) = (&self.host, &self.session);
        match name {
            "RetrievePropertiesEx" => {
                let read: RetrievePropertiesEx = decode(element)?;
                let found = property::retrieve(&self.scope(&host.state()), &read.spec_set)?;
                let result = self.page(found.into(), read.options.max_objects);
                answer::<RetrievePropertiesEx>(&Some(result).filter(|r| !r.objects.is_empty()))
            }
            "RetrieveProperties" => {
                let read: RetrieveProperties = decode(element)?;
                let found = property::retrieve(&self.scope(&host.state()), &read.spec_set)?;
                answer::<RetrieveProperties>(&found)
            }
            "ContinueRetrievePropertiesEx" => {
                let read: ContinueRetrievePropertiesEx = decode(element)?;
                let rest = session.objects().pages.remove(&read.token);
                let rest = rest.ok_or_else(|| {
                    let message = "There is no reading to go on with by this token";
                    Fault::invalid_argument("token", message)
                })?;
                let size = read.token.rsplit('/').next().and_then(|n| n.parse().ok());
                answer::<ContinueRetrievePropertiesEx>(&self.page(rest, size))
            }
            "CancelRetrievePropertiesEx" => {
                let read: CancelRetrievePropertiesEx = decode(element)?;
                session.objects().pages.remove(&read.token);
                answer::<CancelRetrievePropertiesEx>(&())
            }
            "CreatePropertyCollector" => {
                let mut objects = session.objects();
                let id = session.new_id(&mut objects);
                objects.collectors.insert(id.clone(), Arc::default());
                let made = ManagedObjectReference::new("PropertyCollector", id);
                answer::<CreatePropertyCollector>(&made)
            }
            "DestroyPropertyCollector" => {
                self.collector_of(this)?.destroy();
                session.objects().collectors.remove(&this.id);
                answer::<DestroyPropertyCollector>(&())
            }
            "CreateFilter" => {
                let make: CreateFilter = decode(element)?;
                let collector = self.collector_of(this)?;
                let id = session.new_id(&mut session.objects());
                let state = host.state();
                let made = collector.add(&self.scope(&state), id, make.spec)?;
                answer::<CreateFilter>(&made)
            }
            "DestroyPropertyFilter" => {
                let all: Vec<Arc<Collector>> =
                    session.objects().collectors.values().cloned().collect();
                if !all.iter().any(|c| c.remove(this)) {
                    return Err(not_found(this));
                }
                answer::<DestroyPropertyFilter>(&())
            }
            "WaitForUpdatesEx" => {
                let wait: WaitForUpdatesEx = decode(element)?;
                let collector = self.collector_of(this)?;
                let (version, options) = (wait.version.as_deref(), wait.options.as_ref());
                let set =
                    property::wait_for_updates(host, session, &collector, version, options).await?;
                answer::<WaitForUpdatesEx>(&set)
            }
            "WaitForUpdates" => {
                let wait: WaitForUpdates = decode(element)?;
                let collector = self.collector_of(this)?;
                let version = wait.version.as_deref();
                let mut set = None;
                while set.is_none() {
                    set = property::wait_for_updates(host, session, &collector, version, None)
                        .await?;
                }
                answer::<WaitForUpdates>(&set.unwrap_or_default())
            }
            "CheckForUpdates" => {
                let check: CheckForUpdates = decode(element)?;
                let collector = self.collector_of(this)?;
                let version = check.version.as_deref();
                let set = property::check_for_updates(host, session, &collector, version)?;
                answer::<CheckForUpdates>(&set)
            }
            "CancelWaitForUpdates" => {
                self.collector_of(this)?.cancel();
                answer::<CancelWaitForUpdates>(&())
            }
            _ => Err(self.no_method(name, this)),
        }
    }

    /// The session's collector of a reference; its default one is made when it is first used.
    fn collector_of(&self, this: &ManagedObjectReference) -> Result<Arc<Collector>, Fault> {
        let collectors = &mut self.session.objects().collectors;
        if *this == inventory::property_collector() {
            return Ok(collectors.entry(this.id.clone()).or_default().clone());
        }
        let found = collectors.get(&this.id).cloned();
        found.ok_or_else(|| not_found(this))
    }

    /// The first objects, and a token for the rest.
    fn page(&self, mut all: VecDeque<ObjectContent>, max: Option<i32>) -> RetrieveResult {
        let size = max
            .and_then(|n| usize::try_from(n).ok())
            .filter(|&n| n > 0)
            .unwrap_or(usize::MAX);
        let objects: Vec<ObjectContent> = all.drain(..all.len().min(size)).collect();
        let mut result = RetrieveResult {
            token: None,
            objects,
        };
        if !all.is_empty() {
            let mut kept = self.session.objects();
            // Readings that a client never goes on with must not pile up.
            if kept.pages.len() >= 16 {
                kept.pages.clear();
            }
            let token = format!("{}/{size}", self.session.new_id(&mut kept));
            kept.pages.insert(token.clone(), all);
            result.token = Some(token);
        }
        result
    }
}
