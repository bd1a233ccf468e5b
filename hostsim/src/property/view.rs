//! Views: sets of objects to go through.

use crate::inventory::{self, is_a};
use crate::state::State;
use vim::types::ManagedObjectReference;

/// A view.
#[derive(Debug, Clone)]
pub enum View {
    /// Everything of some types below a container.
    Container {
        /// The container.
        container: ManagedObjectReference,
        /// Types; none: all.
        kinds: Vec<String>,
        /// Also what is further below.
        recursive: bool,
    },
    /// Given objects.
    List(Vec<ManagedObjectReference>),
}

impl View {
    /// Its type in the API.
    pub fn kind(&self) -> &'static str {
        match self {
            View::Container { .. } => "ContainerView",
            View::List(_) => "ListView",
        }
    }

    /// Its objects as they are now.
    pub fn objects(&self, host: &crate::host::Host, state: &State) -> Vec<ManagedObjectReference> {
        match self {
            View::List(objects) => objects.clone(),
            View::Container {
                container,
                kinds,
                recursive,
            } => {
                let mut found = Vec::new();
                collect(host, state, container, kinds, *recursive, &mut found);
                found
            }
        }
    }
}

fn collect(
    host: &crate::host::Host,
    state: &State,
    container: &ManagedObjectReference,
    kinds: &[String],
    recursive: bool,
    found: &mut Vec<ManagedObjectReference>,
) {
    for child in children(host, state, container) {
        if kinds.is_empty() || kinds.iter().any(|kind| is_a(&child.kind, kind)) {
            found.push(child.clone());
        }
        if recursive {
            collect(host, state, &child, kinds, true, found);
        }
    }
}

/// The children of an entity in the inventory's tree.
pub fn children(
    host: &crate::host::Host,
    state: &State,
    parent: &ManagedObjectReference,
) -> Vec<ManagedObjectReference> {
    match parent.id.as_str() {
        "ha-folder-root" => vec![inventory::datacenter()],
        "ha-datacenter" => vec![
            inventory::vm_folder(),
            inventory::host_folder(),
            inventory::datastore_folder(),
            inventory::network_folder(),
        ],
        "ha-folder-vm" => state.vms.values().map(crate::vm::Vm::reference).collect(),
        "ha-folder-host" => vec![inventory::compute_resource()],
        "ha-folder-datastore" => vec![inventory::datastore()],
        "ha-folder-network" => host
            .settings
            .networks
            .keys()
            .map(|n| inventory::network(n))
            .collect(),
        "ha-compute-res" => vec![inventory::resource_pool(), inventory::host()],
        _ => Vec::new(),
    }
}

/// The child of an entity with a name.
pub fn child_named(
    scope: &super::Scope<'_>,
    parent: &ManagedObjectReference,
    name: &str,
) -> Option<ManagedObjectReference> {
    children(scope.host, scope.state, parent)
        .into_iter()
        .find(|child| {
            let value = super::values::value(scope, child, "name").ok();
            value.and_then(|v| v.get::<String>().ok()).as_deref() == Some(name)
        })
}
