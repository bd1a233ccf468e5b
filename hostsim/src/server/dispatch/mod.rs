//! From a call to what it does, by the kind of managed object that is called.

mod collector;
mod disks;
mod files;
mod search;
mod views;
mod vms;

use crate::host::Host;
use crate::inventory;
use crate::property::{self, Scope};
use crate::session::{Session, not_authenticated};
use crate::state::State;
use std::sync::Arc;
use vim::method::*;
use vim::types::*;
use vim::value::Field;
use vim::xml::Element;
use vim::{Any, DateTime, Fault, FaultKind, soap};

/// A call with who makes it.
pub(super) struct Call {
    pub host: Arc<Host>,
    pub session: Option<Arc<Session>>,
    pub secret: Option<String>,
    /// Secret of a session that this call began.
    pub new_secret: Option<String>,
}

type Answer = Result<String, Fault>;

fn decode<M: Method>(element: &Element) -> Result<M, Fault> {
    M::from_element(element)
        .map_err(|e| Fault::invalid_argument(e.property(), format!("{}: {e}", M::NAME)))
}

fn answer<M: Method>(output: &M::Output) -> Answer {
    Ok(soap::encode_response(M::NAME, output))
}

/// Answers a call.
pub(super) async fn dispatch(call: &mut Call, element: &Element) -> Answer {
    let name = element.name.as_ref();
    match name {
        "RetrieveServiceContent" => {
            return answer::<RetrieveServiceContent>(&inventory::service_content());
        }
        "CurrentTime" => return answer::<CurrentTime>(&DateTime::now()),
        "Login" => {
            let login: Login = decode(element)?;
            let (secret, session) = call
                .host
                .sessions
                .login(&login.user_name, &login.password)?;
            call.new_secret = Some(secret);
            return answer::<Login>(&session.info());
        }
        _ => {}
    }
    let Some(session) = call.session.clone() else {
        return Err(not_authenticated());
    };
    let context = Context {
        host: call.host.clone(),
        session,
    };
    match name {
        "Logout" => {
            if let Some(secret) = &call.secret {
                context.host.sessions.logout(secret);
            }
            answer::<Logout>(&())
        }
        "AcquireGenericServiceTicket" => {
            let ask: AcquireGenericServiceTicket = decode(element)?;
            let id = context.host.sessions.ticket(&context.session, &ask.spec)?;
            let ticket = GenericServiceTicket {
                id,
                ticket_type: Some("HttpService".into()),
                ..Default::default()
            };
            answer::<AcquireGenericServiceTicket>(&ticket)
        }
        _ => context.managed(name, element).await,
    }
}

/// A call within a session.
struct Context {
    host: Arc<Host>,
    session: Arc<Session>,
}

impl Context {
    async fn managed(&self, name: &str, element: &Element) -> Answer {
        let this: ManagedObjectReference = Field::read(element, "_this")
            .map_err(|e| Fault::invalid_argument("_this", e.to_string()))?;
        if name == "Fetch" {
            let fetch: Fetch = decode(element)?;
            let found = property::fetch(&self.scope(&self.host.state()), &this, &fetch.prop)?;
            return answer::<Fetch>(&found);
        }
        match this.kind.as_ref() {
            "PropertyCollector" | "PropertyFilter" => self.collector(name, &this, element).await,
            "ViewManager" | "ContainerView" | "ListView" | "View" | "ManagedObjectView" => {
                self.view(name, &this, element)
            }
            "FileManager" | "HostDatastoreBrowser" => self.file(name, &this, element).await,
            "VirtualDiskManager" => self.disk(name, &this, element).await,
            _ => match name {
                "FindByInventoryPath" | "FindByUuid" | "FindByDatastorePath" | "FindChild" => {
                    self.find(name, element)
                }
                "QueryOptions" => {
                    let query: QueryOptions = decode(element)?;
                    let options = crate::options::query(&self.host, query.name.as_deref())?;
                    answer::<QueryOptions>(&options)
                }
                "QueryEvents" => {
                    let query: QueryEvents = decode(element)?;
                    answer::<QueryEvents>(&crate::events::query(&self.host.state(), &query.filter))
                }
                _ => self.vm(name, &this, element).await,
            },
        }
    }

    fn user(&self) -> &str {
        &self.session.user
    }

    /// What this call may see of a state.
    fn scope<'a>(&'a self, state: &'a State) -> Scope<'a> {
        Scope::new(&self.host, state, &self.session)
    }

    /// Starts a task on a VM, which is the answer.
    fn vm_task<M: Method<Output = Task>>(
        &self,
        vm: &ManagedObjectReference,
        description_id: &str,
        work: impl Future<Output = Result<(), Fault>> + Send + 'static,
    ) -> Answer {
        let work = async { work.await.map(|()| None) };
        let task = self.host.vm_task(vm, description_id, self.user(), work)?;
        answer::<M>(&task)
    }

    /// As [`vm_task`](Self::vm_task), with work that blocks on files.
    fn vm_task_on_files<M: Method<Output = Task>>(
        &self,
        vm: &ManagedObjectReference,
        description_id: &str,
        work: impl FnOnce(&Arc<Host>) -> Result<(), Fault> + Send + 'static,
    ) -> Answer {
        let host = self.host.clone();
        self.vm_task::<M>(vm, description_id, async move { host.blocking(work).await })
    }

    /// Starts a task that blocks on files, and may have a result; the task is the answer.
    fn task_on_files<M: Method<Output = Task>>(
        &self,
        entity: &ManagedObjectReference,
        description_id: &str,
        work: impl FnOnce(&Arc<Host>) -> Result<Option<Any>, Fault> + Send + 'static,
    ) -> Answer {
        let host = self.host.clone();
        let work = async move { host.blocking(work).await };
        let task = self.host.task(entity, description_id, self.user(), work);
        answer::<M>(&task)
    }

    fn no_method(&self, name: &str, this: &ManagedObjectReference) -> Fault {
        let kind = FaultKind::MethodNotFound {
            receiver: this.clone(),
            method: name.to_owned(),
        };
        Fault::new(
            kind,
            format!("hostsim has no method {name} on {}", this.kind),
        )
    }
}
