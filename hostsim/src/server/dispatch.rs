//! From a call to what it does.

use crate::host::Host;
use crate::inventory;
use crate::property::{self, Collector, Scope, View};
use crate::session::{Session, not_authenticated};
use crate::state::not_found;
use crate::vm::{create, power, remove};
use std::collections::VecDeque;
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
    M::from_element(element).map_err(|e| {
        let kind = FaultKind::InvalidArgument {
            invalid_property: Some(e.property().to_owned()),
        };
        Fault::new(kind, format!("{}: {e}", M::NAME))
    })
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

struct Context {
    host: Arc<Host>,
    session: Arc<Session>,
}

impl Context {
    fn user(&self) -> &str {
        &self.session.user
    }

    async fn managed(&self, name: &str, element: &Element) -> Answer {
        let this: ManagedObjectReference = Field::read(element, "_this").map_err(|e| {
            let kind = FaultKind::InvalidArgument {
                invalid_property: Some("_this".into()),
            };
            Fault::new(kind, e.to_string())
        })?;
        if name == "Fetch" {
            let fetch: Fetch = decode(element)?;
            let scope = Scope {
                host: &self.host,
                state: &self.host.state(),
                session: &self.session,
            };
            return answer::<Fetch>(&property::fetch(&scope, &this, &fetch.prop)?);
        }
        match this.kind.as_ref() {
            "PropertyCollector" | "PropertyFilter" => self.collector(name, &this, element).await,
            "ViewManager" | "ContainerView" | "ListView" | "View" | "ManagedObjectView" => {
                self.view(name, &this, element)
            }
            "FileManager" | "VirtualDiskManager" | "HostDatastoreBrowser" => {
                self.file(name, &this, element).await
            }
            _ => match name {
                "FindByInventoryPath" | "FindByUuid" | "FindByDatastorePath" | "FindChild" => {
                    self.find(name, element)
                }
                "QueryOptions" => {
                    let query: QueryOptions = decode(element)?;
                    answer::<QueryOptions>(&crate::options::query(
                        &self.host,
                        query.name.as_deref(),
                    )?)
                }
                "QueryEvents" => {
                    let query: QueryEvents = decode(element)?;
                    answer::<QueryEvents>(&crate::events::query(&self.host.state(), &query.filter))
                }
                _ => self.vm(name, &this, element).await,
            },
        }
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

    fn collector_of(&self, this: &ManagedObjectReference) -> Result<Arc<Collector>, Fault> {
        let mut objects = self.session.objects();
        if *this == inventory::property_collector() {
            return Ok(objects
                .collectors
                .entry(this.id.clone())
                .or_default()
                .clone());
        }
        objects
            .collectors
            .get(&this.id)
            .cloned()
            .ok_or_else(|| not_found(this))
    }

    async fn collector(
        &self,
        name: &str,
        this: &ManagedObjectReference,
        element: &Element,
    ) -> Answer {
        let (host, session) = (&self.host, &self.session);
        match name {
            "RetrievePropertiesEx" => {
                let read: RetrievePropertiesEx = decode(element)?;
                let found = property::retrieve(
                    &Scope {
                        host,
                        state: &host.state(),
                        session,
                    },
                    &read.spec_set,
                )?;
                let result = self.page(found.into(), read.options.max_objects);
                answer::<RetrievePropertiesEx>(&Some(result).filter(|r| !r.objects.is_empty()))
            }
            "RetrieveProperties" => {
                let read: RetrieveProperties = decode(element)?;
                let found = property::retrieve(
                    &Scope {
                        host,
                        state: &host.state(),
                        session,
                    },
                    &read.spec_set,
                )?;
                answer::<RetrieveProperties>(&found)
            }
            "ContinueRetrievePropertiesEx" => {
                let read: ContinueRetrievePropertiesEx = decode(element)?;
                let rest = session.objects().pages.remove(&read.token);
                let Some(rest) = rest else {
                    let kind = FaultKind::InvalidArgument {
                        invalid_property: Some("token".into()),
                    };
                    return Err(Fault::new(
                        kind,
                        "There is no reading to go on with by this token",
                    ));
                };
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
                answer::<CreatePropertyCollector>(&ManagedObjectReference::new(
                    "PropertyCollector",
                    id,
                ))
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
                answer::<CreateFilter>(&collector.add(
                    &Scope {
                        host,
                        state: &state,
                        session,
                    },
                    id,
                    make.spec,
                )?)
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
                let mut set = None;
                while set.is_none() {
                    let version = wait.version.as_deref();
                    set = property::wait_for_updates(host, session, &collector, version, None)
                        .await?;
                }
                answer::<WaitForUpdates>(&set.unwrap_or_default())
            }
            "CheckForUpdates" => {
                let check: CheckForUpdates = decode(element)?;
                let collector = self.collector_of(this)?;
                let version = check.version.as_deref();
                answer::<CheckForUpdates>(&property::check_for_updates(
                    host, session, &collector, version,
                )?)
            }
            "CancelWaitForUpdates" => {
                self.collector_of(this)?.cancel();
                answer::<CancelWaitForUpdates>(&())
            }
            _ => Err(self.no_method(name, this)),
        }
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

    fn view(&self, name: &str, this: &ManagedObjectReference, element: &Element) -> Answer {
        let add = |view: View| {
            let mut objects = self.session.objects();
            let id = self.session.new_id(&mut objects);
            let reference = ManagedObjectReference::new(view.kind(), id.clone());
            objects.views.insert(id, view);
            reference
        };
        match name {
            "CreateContainerView" => {
                let make: CreateContainerView = decode(element)?;
                let kinds = [
                    "Folder",
                    "Datacenter",
                    "ComputeResource",
                    "ResourcePool",
                    "HostSystem",
                ];
                if !kinds.contains(&make.container.kind.as_ref()) {
                    let kind = FaultKind::InvalidArgument {
                        invalid_property: Some("container".into()),
                    };
                    return Err(Fault::new(
                        kind,
                        format!("{} is no container", make.container),
                    ));
                }
                let view = View::Container {
                    container: make.container,
                    kinds: make.kind,
                    recursive: make.recursive,
                };
                answer::<CreateContainerView>(&add(view))
            }
            "CreateListView" => {
                let make: CreateListView = decode(element)?;
                answer::<CreateListView>(&add(View::List(make.obj)))
            }
            "ModifyListView" => {
                let modify: ModifyListView = decode(element)?;
                answer::<ModifyListView>(&self.modify_list(this, modify)?)
            }
            "DestroyView" => {
                if self.session.objects().views.remove(&this.id).is_none() {
                    return Err(not_found(this));
                }
                self.host.change(crate::state::State::touch_structure);
                answer::<DestroyView>(&())
            }
            _ => Err(self.no_method(name, this)),
        }
    }

    fn modify_list(
        &self,
        this: &ManagedObjectReference,
        modify: ModifyListView,
    ) -> Result<Vec<ManagedObjectReference>, Fault> {
        self.host.change(|state| {
            let scope = Scope {
                host: &self.host,
                state,
                session: &self.session,
            };
            let (add, unknown): (Vec<_>, Vec<_>) = modify
                .add
                .into_iter()
                .partition(|object| property::exists(&scope, object));
            let mut objects = self.session.objects();
            let Some(View::List(list)) = objects.views.get_mut(&this.id) else {
                return Err(not_found(this));
            };
            list.retain(|object| !modify.remove.contains(object));
            for object in add {
                if !list.contains(&object) {
                    list.push(object);
                }
            }
            drop(objects);
            state.touch_structure();
            Ok(unknown)
        })
    }

    fn find(&self, name: &str, element: &Element) -> Answer {
        let host = &self.host;
        let state = host.state();
        let scope = Scope {
            host,
            state: &state,
            session: &self.session,
        };
        match name {
            "FindByInventoryPath" => {
                let find: FindByInventoryPath = decode(element)?;
                let mut at = Some(inventory::root_folder());
                for part in find.inventory_path.split('/').filter(|p| !p.is_empty()) {
                    at = at.and_then(|parent| property::child_named(&scope, &parent, part));
                }
                answer::<FindByInventoryPath>(&at)
            }
            "FindChild" => {
                let find: FindChild = decode(element)?;
                if !property::exists(&scope, &find.entity) {
                    return Err(not_found(&find.entity));
                }
                answer::<FindChild>(&property::child_named(&scope, &find.entity, &find.name))
            }
            "FindByUuid" => {
                let find: FindByUuid = decode(element)?;
                let instance = find.instance_uuid.unwrap_or(false);
                let is = |vm: &&crate::vm::Vm| {
                    let uuid = if instance {
                        &vm.config.instance_uuid
                    } else {
                        &vm.config.uuid
                    };
                    find.vm_search && uuid.eq_ignore_ascii_case(&find.uuid)
                };
                answer::<FindByUuid>(&state.vms.values().find(is).map(crate::vm::Vm::reference))
            }
            _ => {
                let find: FindByDatastorePath = decode(element)?;
                let path = host.store.parse(&find.path)?;
                let vm = state.vms.values().find(|vm| vm.vmx == path);
                answer::<FindByDatastorePath>(&vm.map(crate::vm::Vm::reference))
            }
        }
    }

    async fn vm(&self, name: &str, this: &ManagedObjectReference, element: &Element) -> Answer {
        let (host, user) = (self.host.clone(), self.user().to_owned());
        let (of, by) = (this.clone(), user.clone());
        match name {
            "CreateVM_Task" => {
                let make: CreateVm = decode(element)?;
                self.check_folder(this)?;
                let work = async move {
                    host.blocking(move |host| create::create(host, &make.config, &by))
                        .await
                        .map(Some)
                };
                answer::<CreateVm>(&self.host.task(this, "Folder.createVm", &user, work))
            }
            "RegisterVM_Task" => {
                let make: RegisterVm = decode(element)?;
                self.check_folder(this)?;
                let work = async move {
                    let register = move |host: &Arc<Host>| {
                        create::register(host, &make.path, make.name.as_deref(), &by)
                    };
                    host.blocking(register).await.map(Some)
                };
                answer::<RegisterVm>(&self.host.task(this, "Folder.registerVm", &user, work))
            }
            "ReconfigVM_Task" => {
                let change: ReconfigVm = decode(element)?;
                let work = async move {
                    let reconfigure =
                        move |host: &Arc<Host>| create::reconfigure(host, &of, &change.spec, &by);
                    host.blocking(reconfigure).await.map(|()| None)
                };
                answer::<ReconfigVm>(&self.host.vm_task(
                    this,
                    "VirtualMachine.reconfigure",
                    &user,
                    work,
                )?)
            }
            "Rename_Task" => {
                let change: Rename = decode(element)?;
                let work = async move {
                    let rename =
                        move |host: &Arc<Host>| create::rename(host, &of, &change.new_name, &by);
                    host.blocking(rename).await.map(|()| None)
                };
                answer::<Rename>(
                    &self
                        .host
                        .vm_task(this, "ManagedEntity.rename", &user, work)?,
                )
            }
            "Destroy_Task" => {
                let work = async move {
                    host.blocking(move |host| remove::destroy(host, &of, &by))
                        .await
                        .map(|()| None)
                };
                answer::<Destroy>(&self.host.vm_task(
                    this,
                    "VirtualMachine.destroy",
                    &user,
                    work,
                )?)
            }
            "PowerOnVM_Task" => {
                let work = async move { power::power_on(&host, &of, &by).await.map(|()| None) };
                answer::<PowerOnVm>(&self.host.vm_task(
                    this,
                    "VirtualMachine.powerOn",
                    &user,
                    work,
                )?)
            }
            "PowerOffVM_Task" => {
                let work = async move { power::power_off(&host, &of, &by).await.map(|()| None) };
                answer::<PowerOffVm>(&self.host.vm_task(
                    this,
                    "VirtualMachine.powerOff",
                    &user,
                    work,
                )?)
            }
            "ResetVM_Task" => {
                let work = async move { power::reset(&host, &of, &by).await.map(|()| None) };
                answer::<ResetVm>(
                    &self
                        .host
                        .vm_task(this, "VirtualMachine.reset", &user, work)?,
                )
            }
            "ShutdownGuest" => {
                power::shutdown_guest(&host, this, &user).await?;
                answer::<ShutdownGuest>(&())
            }
            "UnregisterVM" => {
                self.unregister(this).await?;
                answer::<UnregisterVm>(&())
            }
            "CancelTask" => {
                // None of the tasks here can be cancelled, as ESXi says of most of its own.
                Err(Fault::new(
                    FaultKind::NotSupported {},
                    "The task cannot be cancelled",
                ))
            }
            "CreateFolder" => Err(Fault::new(
                FaultKind::NotSupported {},
                "A host has no folders of folders",
            )),
            _ => Err(self.no_method(name, this)),
        }
    }

    /// Unregisters as a task, so that nothing else works on the VM meanwhile, and waits for it.
    async fn unregister(&self, this: &ManagedObjectReference) -> Result<(), Fault> {
        let (host, of, by) = (self.host.clone(), this.clone(), self.user().to_owned());
        let (done, result) = tokio::sync::oneshot::channel();
        let work = async move {
            let result = host
                .blocking(move |host| remove::unregister(host, &of, &by))
                .await;
            let _ = done.send(result.clone());
            result.map(|()| None)
        };
        self.host
            .vm_task(this, "VirtualMachine.unregister", self.user(), work)?;
        result
            .await
            .map_err(|_| crate::host::system_error("unregistering failed inside of hostsim"))?
    }

    fn check_folder(&self, this: &ManagedObjectReference) -> Result<(), Fault> {
        if *this == inventory::vm_folder() {
            return Ok(());
        }
        if this.kind == "Folder" {
            return Err(Fault::new(
                FaultKind::NotSupported {},
                format!("{this} is no folder of virtual machines"),
            ));
        }
        Err(not_found(this))
    }

    async fn file(&self, name: &str, this: &ManagedObjectReference, element: &Element) -> Answer {
        let (host, user) = (self.host.clone(), self.user());
        match name {
            "MakeDirectory" => {
                let make: MakeDirectory = decode(element)?;
                let path = host.store.parse(&make.name)?;
                let parents = make.create_parent_directories.unwrap_or(false);
                host.blocking(move |host| host.store.make_folder(&path, parents))
                    .await?;
                answer::<MakeDirectory>(&())
            }
            "DeleteDatastoreFile_Task" => {
                let delete: DeleteDatastoreFile = decode(element)?;
                let path = host.store.parse(&delete.name)?;
                let work = async move {
                    host.blocking(move |host| crate::files::delete(host, &path))
                        .await
                        .map(|()| None)
                };
                answer::<DeleteDatastoreFile>(&self.host.task(
                    this,
                    "FileManager.deleteFile",
                    user,
                    work,
                ))
            }
            "MoveDatastoreFile_Task" => {
                let change: MoveDatastoreFile = decode(element)?;
                let from = host.store.parse(&change.source_name)?;
                let to = host.store.parse(&change.destination_name)?;
                let force = change.force.unwrap_or(false);
                let work = async move {
                    host.blocking(move |host| crate::files::move_to(host, &from, &to, force))
                        .await
                        .map(|()| None)
                };
                answer::<MoveDatastoreFile>(&self.host.task(
                    this,
                    "FileManager.moveFile",
                    user,
                    work,
                ))
            }
            "SearchDatastore_Task" => {
                let search: SearchDatastore = decode(element)?;
                let path = host.store.parse(&search.datastore_path)?;
                let spec = search.search_spec.unwrap_or_default();
                let work = async move {
                    let store = inventory::datastore();
                    let found = host
                        .blocking(move |host| {
                            crate::datastore::search(&host.store, &store, &path, &spec, false)
                        })
                        .await?;
                    Ok(found.first().map(Any::of))
                };
                answer::<SearchDatastore>(&self.host.task(
                    this,
                    "HostDatastoreBrowser.search",
                    user,
                    work,
                ))
            }
            "SearchDatastoreSubFolders_Task" => {
                let search: SearchDatastoreSubFolders = decode(element)?;
                let path = host.store.parse(&search.datastore_path)?;
                let spec = search.search_spec.unwrap_or_default();
                let work = async move {
                    let store = inventory::datastore();
                    let found = host
                        .blocking(move |host| {
                            crate::datastore::search(&host.store, &store, &path, &spec, true)
                        })
                        .await?;
                    Ok(Some(Any::list(&found)))
                };
                let task =
                    self.host
                        .task(this, "HostDatastoreBrowser.searchSubFolders", user, work);
                answer::<SearchDatastoreSubFolders>(&task)
            }
            "CreateVirtualDisk_Task" => {
                let make: CreateVirtualDisk = decode(element)?;
                let path = host.store.parse(&make.name)?;
                let kib = make
                    .spec
                    .0
                    .capacity_kb
                    .and_then(|k| u64::try_from(k).ok())
                    .filter(|&k| k > 0);
                let Some(kib) = kib else {
                    let kind = FaultKind::InvalidArgument {
                        invalid_property: Some("spec.capacityKb".into()),
                    };
                    return Err(Fault::new(kind, "a disk needs a capacity"));
                };
                let work = async move {
                    let text = path.to_string();
                    host.blocking(move |host| {
                        host.disks
                            .create(&host.store, &path, None, kib.saturating_mul(1024))
                    })
                    .await?;
                    Ok(Some(Any::from(text)))
                };
                answer::<CreateVirtualDisk>(&self.host.task(
                    this,
                    "VirtualDiskManager.createVirtualDisk",
                    user,
                    work,
                ))
            }
            "DeleteVirtualDisk_Task" => {
                let delete: DeleteVirtualDisk = decode(element)?;
                let path = host.store.parse(&delete.name)?;
                let work = async move {
                    host.blocking(move |host| crate::files::delete_file(host, &path))
                        .await
                        .map(|()| None)
                };
                answer::<DeleteVirtualDisk>(&self.host.task(
                    this,
                    "VirtualDiskManager.deleteVirtualDisk",
                    user,
                    work,
                ))
            }
            "CopyVirtualDisk_Task" => {
                let copy: CopyVirtualDisk = decode(element)?;
                let from = host.store.parse(&copy.source_name)?;
                let to = host.store.parse(&copy.dest_name)?;
                let work = async move {
                    let text = to.to_string();
                    host.blocking(move |host| crate::files::copy_disk(host, &from, &to))
                        .await?;
                    Ok(Some(Any::from(text)))
                };
                answer::<CopyVirtualDisk>(&self.host.task(
                    this,
                    "VirtualDiskManager.copyVirtualDisk",
                    user,
                    work,
                ))
            }
            "QueryVirtualDiskUuid" => {
                let query: QueryVirtualDiskUuid = decode(element)?;
                let path = host.store.parse(&query.name)?;
                let of = path.clone();
                let disk = host
                    .blocking(move |host| host.disks.open(&host.store, &path))
                    .await?;
                answer::<QueryVirtualDiskUuid>(&crate::datastore::disk_uuid(&of, &disk))
            }
            _ => Err(self.no_method(name, this)),
        }
    }
}
