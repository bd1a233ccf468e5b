//! The host's fixed objects, with the IDs that ESXi gives them.

use vim::types::{AboutInfo, ManagedObjectReference, ServiceContent};

/// Name of the host.
pub const HOST_NAME: &str = "localhost.localdomain";
/// Name of the datacenter.
pub const DATACENTER_NAME: &str = "ha-datacenter";

macro_rules! objects {
    ($($(#[$meta:meta])* $name:ident = $kind:literal, $id:literal;)*) => {$(
        $(#[$meta])*
        pub fn $name() -> ManagedObjectReference {
            ManagedObjectReference::new($kind, $id)
        }
    )*};
}

objects! {
    /// Root of the inventory.
    root_folder = "Folder", "ha-folder-root";
    /// Its datacenter.
    datacenter = "Datacenter", "ha-datacenter";
    /// Folder of VMs.
    vm_folder = "Folder", "ha-folder-vm";
    /// Folder of compute resources.
    host_folder = "Folder", "ha-folder-host";
    /// Folder of datastores.
    datastore_folder = "Folder", "ha-folder-datastore";
    /// Folder of networks.
    network_folder = "Folder", "ha-folder-network";
    /// The host as a compute resource.
    compute_resource = "ComputeResource", "ha-compute-res";
    /// Its root resource pool.
    resource_pool = "ResourcePool", "ha-root-pool";
    /// The host.
    host = "HostSystem", "ha-host";
    /// The datastore.
    datastore = "Datastore", "ha-datastore-1";
    /// Its browser.
    datastore_browser = "HostDatastoreBrowser", "ha-datastorebrowser-1";
    /// The host's browser (of the same datastore).
    host_browser = "HostDatastoreBrowser", "ha-host-datastorebrowser";
    /// Property collector.
    property_collector = "PropertyCollector", "ha-property-collector";
    /// View manager.
    view_manager = "ViewManager", "ViewManager";
    /// Session manager.
    session_manager = "SessionManager", "ha-sessionmgr";
    /// Task manager.
    task_manager = "TaskManager", "ha-taskmgr";
    /// Event manager.
    event_manager = "EventManager", "ha-eventmgr";
    /// Search index.
    search_index = "SearchIndex", "ha-searchindex";
    /// File manager.
    file_manager = "FileManager", "ha-nfc-file-manager";
    /// Virtual disk manager.
    virtual_disk_manager = "VirtualDiskManager", "ha-vdiskmanager";
    /// Its switches and port groups.
    network_system = "HostNetworkSystem", "networkSystem";
    /// Options.
    option_manager = "OptionManager", "HostAgentSettings";
}

/// A network (port group) by its name.
pub fn network(name: &str) -> ManagedObjectReference {
    ManagedObjectReference::new("Network", format!("HaNetwork-{name}"))
}

/// What the host says it is.
pub fn about() -> AboutInfo {
    AboutInfo {
        name: "VMware ESXi".into(),
        full_name: "VMware ESXi 8.0.1 build-21495797 (simulated by hostsim)".into(),
        vendor: "VMware, Inc.".into(),
        version: "8.0.1".into(),
        build: "21495797".into(),
        os_type: "vmnix-x86".into(),
        product_line_id: "embeddedEsx".into(),
        api_type: "HostAgent".into(),
        api_version: "8.0.1.0".into(),
        instance_uuid: None,
        license_product_name: Some("VMware ESX Server".into()),
        license_product_version: Some("8.0".into()),
    }
}

/// Where the managers are.
pub fn service_content() -> ServiceContent {
    ServiceContent {
        root_folder: root_folder(),
        property_collector: property_collector(),
        view_manager: Some(view_manager()),
        about: about(),
        setting: Some(option_manager()),
        session_manager: Some(session_manager()),
        event_manager: Some(event_manager()),
        task_manager: Some(task_manager()),
        search_index: Some(search_index()),
        file_manager: Some(file_manager()),
        virtual_disk_manager: Some(virtual_disk_manager()),
    }
}

/// Whether a kind of objects is of a type or derived from it.
pub fn is_a(kind: &str, base: &str) -> bool {
    let entity = matches!(
        kind,
        "Folder"
            | "Datacenter"
            | "ComputeResource"
            | "ResourcePool"
            | "HostSystem"
            | "Datastore"
            | "Network"
            | "VirtualMachine"
    );
    match base {
        "ManagedObject" => true,
        "ManagedEntity" => entity,
        "ExtensibleManagedObject" => entity || kind == "Task",
        "View" => matches!(kind, "ContainerView" | "ListView"),
        "ManagedObjectView" => matches!(kind, "ContainerView" | "ListView"),
        _ => kind == base,
    }
}
