//! The properties of each kind of objects.

use super::view::children;
use crate::host::Host;
use crate::inventory::{self, DATACENTER_NAME, HOST_NAME};
use crate::session::Session;
use crate::state::State;
use crate::vm::info;
use vim::Any;
use vim::types::*;
use vim::value::Field;

/// What can be seen while properties are read.
#[derive(Debug)]
pub struct Scope<'a> {
    /// The host.
    pub host: &'a Host,
    /// Its state.
    pub state: &'a State,
    /// The session that asks.
    pub session: &'a Session,
}

impl<'a> Scope<'a> {
    /// What a session sees of a host in this state.
    pub fn new(host: &'a Host, state: &'a State, session: &'a Session) -> Scope<'a> {
        Scope {
            host,
            state,
            session,
        }
    }
}

/// Why there is no value.
pub enum NoValue {
    /// The object does not exist.
    NoObject,
    /// The type has no such property.
    NoProperty,
    /// It is not set.
    Unset,
}

/// All properties of a kind of objects.
pub fn names(kind: &str) -> &'static [&'static str] {
    match kind {
        "Folder" => &[
            "name",
            "parent",
            "overallStatus",
            "childType",
            "childEntity",
        ],
        "Datacenter" => &[
            "name",
            "parent",
            "overallStatus",
            "vmFolder",
            "hostFolder",
            "datastoreFolder",
            "networkFolder",
            "datastore",
            "network",
        ],
        "ComputeResource" => &[
            "name",
            "parent",
            "overallStatus",
            "resourcePool",
            "host",
            "datastore",
            "network",
            "summary",
        ],
        "ResourcePool" => &[
            "name",
            "parent",
            "overallStatus",
            "owner",
            "resourcePool",
            "vm",
            "summary",
            "config",
        ],
        "HostSystem" => &[
            "name",
            "parent",
            "overallStatus",
            "runtime",
            "summary",
            "vm",
            "datastore",
            "network",
            "datastoreBrowser",
            "config",
            "configManager",
        ],
        "HostNetworkSystem" => &["networkInfo"],
        "Datastore" => &[
            "name",
            "parent",
            "overallStatus",
            "info",
            "summary",
            "host",
            "vm",
            "browser",
            "capability",
        ],
        "Network" => &["name", "parent", "overallStatus", "summary", "host", "vm"],
        "VirtualMachine" => &[
            "name",
            "parent",
            "overallStatus",
            "config",
            "runtime",
            "guest",
            "summary",
            "datastore",
            "network",
            "resourcePool",
            "recentTask",
            "guestHeartbeatStatus",
        ],
        "Task" => &["info"],
        "TaskManager" => &["recentTask", "maxCollector"],
        "EventManager" => &["latestEvent", "maxCollector"],
        "SessionManager" => &["currentSession", "sessionList", "defaultLocale"],
        "OptionManager" => &["setting"],
        "HostDatastoreBrowser" => &["datastore"],
        "ContainerView" => &["view", "container", "type", "recursive"],
        "ListView" => &["view"],
        "ServiceInstance" => &["content", "serverClock"],
        "PropertyCollector" => &["filter"],
        _ => &[],
    }
}

/// One property of an object.
pub fn value(
    scope: &Scope<'_>,
    object: &ManagedObjectReference,
    path: &str,
) -> Result<Any, NoValue> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    if !names(&object.kind).contains(&first) {
        return Err(if names(&object.kind).is_empty() {
            NoValue::NoObject
        } else {
            NoValue::NoProperty
        });
    }
    let found = match object.kind.as_ref() {
        "VirtualMachine" => vm(scope, object, first, rest)?,
        "Task" => scope
            .state
            .task(object)
            .ok_or(NoValue::NoObject)?
            .property(rest),
        "ContainerView" | "ListView" => view(scope, object, first)?,
        kind => {
            if !exists(scope, object) {
                return Err(NoValue::NoObject);
            }
            fixed(scope, kind, object, first, rest)
        }
    };
    found.ok_or(NoValue::Unset)
}

/// Whether an object exists.
pub fn exists(scope: &Scope<'_>, object: &ManagedObjectReference) -> bool {
    match object.kind.as_ref() {
        "VirtualMachine" => scope.state.vm(object).is_ok(),
        "Task" => scope.state.task(object).is_some(),
        "ContainerView" | "ListView" => scope.session.objects().views.contains_key(&object.id),
        "Network" => scope
            .host
            .settings
            .networks
            .keys()
            .any(|n| inventory::network(n) == *object),
        "Folder" => [
            "ha-folder-root",
            "ha-folder-vm",
            "ha-folder-host",
            "ha-folder-datastore",
            "ha-folder-network",
        ]
        .contains(&object.id.as_str()),
        "HostDatastoreBrowser" => {
            [inventory::datastore_browser(), inventory::host_browser()].contains(object)
        }
        _ => [
            inventory::datacenter(),
            inventory::compute_resource(),
            inventory::resource_pool(),
            inventory::host(),
            inventory::datastore(),
            inventory::task_manager(),
            inventory::event_manager(),
            inventory::session_manager(),
            inventory::option_manager(),
            inventory::network_system(),
            inventory::property_collector(),
            ManagedObjectReference::service_instance(),
        ]
        .contains(object),
    }
}

fn vm(
    scope: &Scope<'_>,
    object: &ManagedObjectReference,
    first: &str,
    rest: &str,
) -> Result<Option<Any>, NoValue> {
    let vm = scope.state.vm(object).map_err(|_| NoValue::NoObject)?;
    Ok(match first {
        "name" => vm.config.name.property(rest),
        "parent" => inventory::vm_folder().property(rest),
        "overallStatus" => ManagedEntityStatus::Green.property(rest),
        "guestHeartbeatStatus" => ManagedEntityStatus::Gray.property(rest),
        "config" => match rest {
            // Asked for with every listing: no need to build the rest.
            "extraConfig" => info::extra_config(vm).property(""),
            "uuid" => vm.config.uuid.property(""),
            "name" => vm.config.name.property(""),
            _ => info::config(scope.host, vm).property(rest),
        },
        "runtime" => match rest {
            "powerState" => vm.power.property(""),
            _ => info::runtime(vm).property(rest),
        },
        "guest" => info::guest(vm).property(rest),
        "summary" => info::summary(scope.host, vm).property(rest),
        "datastore" => vec![inventory::datastore()].property(rest),
        "network" => info::networks(vm).property(rest),
        "resourcePool" => inventory::resource_pool().property(rest),
        "recentTask" => vm.busy.iter().cloned().collect::<Vec<_>>().property(rest),
        _ => None,
    })
}

fn view(
    scope: &Scope<'_>,
    object: &ManagedObjectReference,
    first: &str,
) -> Result<Option<Any>, NoValue> {
    let view = scope
        .session
        .objects()
        .views
        .get(&object.id)
        .cloned()
        .ok_or(NoValue::NoObject)?;
    Ok(match (first, &view) {
        ("view", _) => Some(Any::list(&view.objects(scope.host, scope.state))),
        ("container", super::View::Container { container, .. }) => Some(Any::of(container)),
        ("type", super::View::Container { kinds, .. }) => Some(Any::list(kinds)),
        ("recursive", super::View::Container { recursive, .. }) => Some(Any::of(recursive)),
        _ => None,
    })
}

fn vm_references(state: &State) -> Vec<ManagedObjectReference> {
    state.vms.values().map(crate::vm::Vm::reference).collect()
}

fn fixed(
    scope: &Scope<'_>,
    kind: &str,
    object: &ManagedObjectReference,
    first: &str,
    rest: &str,
) -> Option<Any> {
    let Scope {
        host,
        state,
        session,
    } = *scope;
    let networks = || -> Vec<_> {
        host.settings
            .networks
            .keys()
            .map(|n| inventory::network(n))
            .collect()
    };
    match (kind, first) {
        (_, "overallStatus") => ManagedEntityStatus::Green.property(rest),
        ("ServiceInstance", "content") => inventory::service_content().property(rest),
        ("ServiceInstance", "serverClock") => vim::DateTime::now().property(rest),
        ("Folder", "name") => match object.id.as_str() {
            "ha-folder-root" => "ha-folder-root",
            "ha-folder-vm" => "vm",
            "ha-folder-host" => "host",
            "ha-folder-datastore" => "datastore",
            _ => "network",
        }
        .to_owned()
        .property(rest),
        ("Folder", "parent") => (object.id != "ha-folder-root")
            .then(inventory::datacenter)?
            .property(rest),
        ("Folder", "childEntity") => children(host, state, object).property(rest),
        ("Folder", "childType") => match object.id.as_str() {
            "ha-folder-root" => vec!["Datacenter".to_owned()],
            "ha-folder-vm" => vec!["VirtualMachine".to_owned()],
            "ha-folder-host" => vec!["ComputeResource".to_owned()],
            "ha-folder-datastore" => vec!["Datastore".to_owned()],
            _ => vec!["Network".to_owned()],
        }
        .property(rest),
        ("Datacenter", "name") => DATACENTER_NAME.to_owned().property(rest),
        ("Datacenter", "parent") => inventory::root_folder().property(rest),
        ("Datacenter", "vmFolder") => inventory::vm_folder().property(rest),
        ("Datacenter", "hostFolder") => inventory::host_folder().property(rest),
        ("Datacenter", "datastoreFolder") => inventory::datastore_folder().property(rest),
        ("Datacenter", "networkFolder") => inventory::network_folder().property(rest),
        ("Datacenter" | "ComputeResource" | "HostSystem", "datastore") => {
            vec![inventory::datastore()].property(rest)
        }
        ("Datacenter" | "ComputeResource" | "HostSystem", "network") => networks().property(rest),
        ("ComputeResource" | "HostSystem", "name") => HOST_NAME.to_owned().property(rest),
        ("ComputeResource", "parent") => inventory::host_folder().property(rest),
        ("ComputeResource", "resourcePool") => inventory::resource_pool().property(rest),
        ("ComputeResource", "host") => vec![inventory::host()].property(rest),
        ("ComputeResource", "summary") => crate::machine::compute_summary().property(rest),
        ("ResourcePool", "name") => "Resources".to_owned().property(rest),
        ("ResourcePool", "parent" | "owner") => inventory::compute_resource().property(rest),
        ("ResourcePool", "resourcePool") => Vec::<ManagedObjectReference>::new().property(rest),
        ("ResourcePool" | "HostSystem" | "Datastore", "vm") => vm_references(state).property(rest),
        ("ResourcePool", "summary") => crate::machine::pool_summary().property(rest),
        ("ResourcePool", "config") => crate::machine::pool_summary().config.property(rest),
        ("HostSystem", "parent") => inventory::compute_resource().property(rest),
        ("HostSystem", "runtime") => crate::machine::host_runtime(host).property(rest),
        ("HostSystem", "summary") => crate::machine::host_summary(host).property(rest),
        ("HostSystem", "config") => crate::network::config(host).property(rest),
        ("HostSystem", "configManager") => crate::network::managers().property(rest),
        ("HostNetworkSystem", "networkInfo") => crate::network::info(host).property(rest),
        ("HostSystem", "datastoreBrowser") => inventory::host_browser().property(rest),
        ("Datastore", "name") => host.store.name().to_owned().property(rest),
        ("Datastore", "parent") => inventory::datastore_folder().property(rest),
        ("Datastore", "summary") => crate::machine::datastore_summary(host).property(rest),
        ("Datastore", "info") => crate::machine::datastore_info(host).property(rest),
        ("Datastore", "browser") => inventory::datastore_browser().property(rest),
        ("Datastore", "capability") => crate::machine::datastore_capability().property(rest),
        ("Datastore", "host") => vec![crate::machine::datastore_mount(host)].property(rest),
        ("Network", "name") => network_name(host, object).property(rest),
        ("Network", "parent") => inventory::network_folder().property(rest),
        ("Network", "host") => vec![inventory::host()].property(rest),
        ("Network", "summary") => NetworkSummary {
            network: Some(object.clone()),
            name: network_name(host, object),
            accessible: true,
            ip_pool_name: String::new(),
        }
        .property(rest),
        ("Network", "vm") => {
            let of = |vm: &&crate::vm::Vm| info::networks(vm).contains(object);
            state
                .vms
                .values()
                .filter(of)
                .map(crate::vm::Vm::reference)
                .collect::<Vec<_>>()
                .property(rest)
        }
        ("TaskManager", "recentTask") => {
            // All that are at work, and the last ones that are not.
            let newest = state.tasks.values().rev().enumerate();
            let recent = newest.filter(|(age, t)| *age < 20 || !t.state.is_final());
            let tasks = recent.map(|(_, t)| t.task.clone());
            tasks.collect::<Vec<_>>().property(rest)
        }
        ("TaskManager" | "EventManager", "maxCollector") => 100i32.property(rest),
        ("EventManager", "latestEvent") => state.events.back()?.property(rest),
        ("SessionManager", "currentSession") => session.info().property(rest),
        ("SessionManager", "sessionList") => vec![session.info()].property(rest),
        ("SessionManager", "defaultLocale") => "en".to_owned().property(rest),
        ("OptionManager", "setting") => crate::options::all(host).property(rest),
        ("HostDatastoreBrowser", "datastore") => vec![inventory::datastore()].property(rest),
        ("PropertyCollector", "filter") => Vec::<ManagedObjectReference>::new().property(rest),
        _ => None,
    }
}

fn network_name(host: &Host, object: &ManagedObjectReference) -> String {
    host.settings
        .networks
        .keys()
        .find(|n| inventory::network(n) == *object)
        .cloned()
        .unwrap_or_default()
}
