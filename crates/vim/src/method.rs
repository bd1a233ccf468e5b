//! The methods, each as the data object of its arguments.

use crate::types::*;
use crate::value::{Any, DateTime, Field, Value};

/// A method: its arguments are the data object itself.
pub trait Method: Value {
    /// Name in the API (`PowerOnVM_Task`).
    const NAME: &'static str;
    /// What it returns.
    type Output: Field;
    /// The object that is called.
    fn this(&self) -> &ManagedObjectReference;
}

/// Reference to a task, as all `…_Task` methods return it.
pub type Task = ManagedObjectReference;

methods! {
    /// What the server is. Needs no session.
    RetrieveServiceContent = "RetrieveServiceContent" {} -> ServiceContent;
    /// The server's clock.
    CurrentTime = "CurrentTime" {} -> DateTime;
    /// Begins a session.
    Login = "Login" {
        /// Account.
        user_name: String = "userName",
        /// Password.
        password: String = "password",
        /// Locale.
        locale: Option<String> = "locale",
    } -> UserSession;
    /// Ends the session.
    Logout = "Logout" {} -> ();
    /// A ticket for one HTTP request.
    AcquireGenericServiceTicket = "AcquireGenericServiceTicket" {
        /// What it is to be good for.
        spec: HttpServiceRequestSpec = "spec",
    } -> GenericServiceTicket;
}

methods! {
    /// A view of all entities of some types below a container.
    CreateContainerView = "CreateContainerView" {
        /// Folder, datacenter, compute resource, pool or host.
        container: ManagedObjectReference = "container",
        /// Types; none: all.
        kind: Vec<String> = "type",
        /// Also in what is below.
        recursive: bool = "recursive",
    } -> ManagedObjectReference;
    /// A view of given objects.
    CreateListView = "CreateListView" {
        /// The objects.
        obj: Vec<ManagedObjectReference> = "obj",
    } -> ManagedObjectReference;
    /// Changes a list view; returns the objects that could not be added.
    ModifyListView = "ModifyListView" {
        /// To add.
        add: Vec<ManagedObjectReference> = "add",
        /// To remove.
        remove: Vec<ManagedObjectReference> = "remove",
    } -> Vec<ManagedObjectReference>;
    /// Ends a view.
    DestroyView = "DestroyView" {} -> ();
    /// Reads properties.
    RetrievePropertiesEx = "RetrievePropertiesEx" {
        /// What.
        spec_set: Vec<PropertyFilterSpec> = "specSet",
        /// How much at a time.
        options: RetrieveOptions = "options",
    } -> Option<RetrieveResult>;
    /// Goes on reading.
    ContinueRetrievePropertiesEx = "ContinueRetrievePropertiesEx" {
        /// Where.
        token: String = "token",
    } -> RetrieveResult;
    /// Ends a reading that is not gone on with.
    CancelRetrievePropertiesEx = "CancelRetrievePropertiesEx" {
        /// Which.
        token: String = "token",
    } -> ();
    /// Reads one property of the object that is called (any object; pyVmomi reads this way).
    Fetch = "Fetch" {
        /// Name of the property.
        prop: String = "prop",
    } -> Option<Any>;
    /// Reads properties, in one answer.
    RetrieveProperties = "RetrieveProperties" {
        /// What.
        spec_set: Vec<PropertyFilterSpec> = "specSet",
    } -> Vec<ObjectContent>;
    /// A collector of one's own, with its own versions and filters.
    CreatePropertyCollector = "CreatePropertyCollector" {} -> ManagedObjectReference;
    /// Ends a collector with its filters.
    DestroyPropertyCollector = "DestroyPropertyCollector" {} -> ();
    /// Watches properties.
    CreateFilter = "CreateFilter" {
        /// What.
        spec: PropertyFilterSpec = "spec",
        /// Report changes below a property by themselves.
        partial_updates: bool = "partialUpdates",
    } -> ManagedObjectReference;
    /// Ends a filter.
    DestroyPropertyFilter = "DestroyPropertyFilter" {} -> ();
    /// Waits for a change in the collector's filters.
    WaitForUpdatesEx = "WaitForUpdatesEx" {
        /// Version of the last answer; none: from the start.
        version: Option<String> = "version",
        /// How long, how much.
        options: Option<WaitOptions> = "options",
    } -> Option<UpdateSet>;
    /// As WaitForUpdatesEx, without end.
    WaitForUpdates = "WaitForUpdates" {
        /// Version of the last answer; none: from the start.
        version: Option<String> = "version",
    } -> UpdateSet;
    /// As WaitForUpdatesEx, without waiting.
    CheckForUpdates = "CheckForUpdates" {
        /// Version of the last answer; none: from the start.
        version: Option<String> = "version",
    } -> Option<UpdateSet>;
    /// Ends a wait on this collector with RequestCanceled.
    CancelWaitForUpdates = "CancelWaitForUpdates" {} -> ();
}

methods! {
    /// Makes a folder in a folder.
    CreateFolder = "CreateFolder" {
        /// Name.
        name: String = "name",
    } -> ManagedObjectReference;
    /// Makes a VM in a folder; the task's result is the VM.
    CreateVm = "CreateVM_Task" {
        /// The VM.
        config: VirtualMachineConfigSpec = "config",
        /// Its pool.
        pool: ManagedObjectReference = "pool",
        /// Its host.
        host: Option<ManagedObjectReference> = "host",
    } -> Task;
    /// Adds a VM whose files exist; the task's result is the VM.
    RegisterVm = "RegisterVM_Task" {
        /// Datastore path of its .vmx.
        path: String = "path",
        /// Name; none: as in the .vmx.
        name: Option<String> = "name",
        /// As a template.
        as_template: bool = "asTemplate",
        /// Its pool.
        pool: Option<ManagedObjectReference> = "pool",
        /// Its host.
        host: Option<ManagedObjectReference> = "host",
    } -> Task;
    /// Changes a VM.
    ReconfigVm = "ReconfigVM_Task" {
        /// What to change.
        spec: VirtualMachineConfigSpec = "spec",
    } -> Task;
    /// Renames an entity; a VM's files keep their names.
    Rename = "Rename_Task" {
        /// New name.
        new_name: String = "newName",
    } -> Task;
    /// Removes an entity; of a VM the files, too, disks and all.
    Destroy = "Destroy_Task" {} -> Task;
    /// Removes a VM from the inventory and keeps its files.
    UnregisterVm = "UnregisterVM" {} -> ();
    /// Powers a VM on.
    PowerOnVm = "PowerOnVM_Task" {
        /// On which host.
        host: Option<ManagedObjectReference> = "host",
    } -> Task;
    /// Powers a VM off, hard.
    PowerOffVm = "PowerOffVM_Task" {} -> Task;
    /// Resets a VM.
    ResetVm = "ResetVM_Task" {} -> Task;
    /// Asks the guest to shut down.
    ShutdownGuest = "ShutdownGuest" {} -> ();
    /// Asks a task to stop.
    CancelTask = "CancelTask" {} -> ();
}

methods! {
    /// Makes a folder on a datastore.
    MakeDirectory = "MakeDirectory" {
        /// Datastore path.
        name: String = "name",
        /// Datacenter.
        datacenter: Option<ManagedObjectReference> = "datacenter",
        /// Also those above it, which may exist. The folder itself must not in either case: the
        /// fault is `FileAlreadyExists` (govc's `datastore.mkdir -p` passes over it by itself).
        create_parent_directories: Option<bool> = "createParentDirectories",
    } -> ();
    /// Deletes a file, or a folder with all in it.
    DeleteDatastoreFile = "DeleteDatastoreFile_Task" {
        /// Datastore path.
        name: String = "name",
        /// Datacenter.
        datacenter: Option<ManagedObjectReference> = "datacenter",
    } -> Task;
    /// Moves a file or folder.
    MoveDatastoreFile = "MoveDatastoreFile_Task" {
        /// Datastore path.
        source_name: String = "sourceName",
        /// Its datacenter.
        source_datacenter: Option<ManagedObjectReference> = "sourceDatacenter",
        /// New datastore path.
        destination_name: String = "destinationName",
        /// Its datacenter.
        destination_datacenter: Option<ManagedObjectReference> = "destinationDatacenter",
        /// Replace what is there.
        force: Option<bool> = "force",
    } -> Task;
    /// Lists a folder; the task's result is a [`DatastoreSearchResults`].
    SearchDatastore = "SearchDatastore_Task" {
        /// The folder.
        datastore_path: String = "datastorePath",
        /// What to look for.
        search_spec: Option<DatastoreSearchSpec> = "searchSpec",
    } -> Task;
    /// Lists a folder and those below; the task's result is an array of [`DatastoreSearchResults`].
    SearchDatastoreSubFolders = "SearchDatastoreSubFolders_Task" {
        /// The folder.
        datastore_path: String = "datastorePath",
        /// What to look for.
        search_spec: Option<DatastoreSearchSpec> = "searchSpec",
    } -> Task;
    /// Makes a VMDK; the task's result is its path.
    CreateVirtualDisk = "CreateVirtualDisk_Task" {
        /// Datastore path.
        name: String = "name",
        /// Datacenter.
        datacenter: Option<ManagedObjectReference> = "datacenter",
        /// Size and type.
        spec: TypedVirtualDiskSpec = "spec",
    } -> Task;
    /// Deletes a VMDK with all its files.
    DeleteVirtualDisk = "DeleteVirtualDisk_Task" {
        /// Datastore path.
        name: String = "name",
        /// Datacenter.
        datacenter: Option<ManagedObjectReference> = "datacenter",
    } -> Task;
    /// Copies a VMDK, its parents folded in.
    CopyVirtualDisk = "CopyVirtualDisk_Task" {
        /// Datastore path.
        source_name: String = "sourceName",
        /// Its datacenter.
        source_datacenter: Option<ManagedObjectReference> = "sourceDatacenter",
        /// Datastore path of the copy.
        dest_name: String = "destName",
        /// Its datacenter.
        dest_datacenter: Option<ManagedObjectReference> = "destDatacenter",
        /// Type of the copy.
        dest_spec: Option<TypedVirtualDiskSpec> = "destSpec",
        /// Replace what is there.
        force: Option<bool> = "force",
    } -> Task;
    /// UUID of a VMDK, `60 00 C2 9…`.
    QueryVirtualDiskUuid = "QueryVirtualDiskUuid" {
        /// Datastore path.
        name: String = "name",
        /// Datacenter.
        datacenter: Option<ManagedObjectReference> = "datacenter",
    } -> String;
}

methods! {
    /// The entity at `datacenter/vm/folder/name`.
    FindByInventoryPath = "FindByInventoryPath" {
        /// Path.
        inventory_path: String = "inventoryPath",
    } -> Option<ManagedObjectReference>;
    /// The VM or host with a UUID.
    FindByUuid = "FindByUuid" {
        /// Datacenter.
        datacenter: Option<ManagedObjectReference> = "datacenter",
        /// UUID.
        uuid: String = "uuid",
        /// VMs, not hosts.
        vm_search: bool = "vmSearch",
        /// Instance UUID, not BIOS UUID.
        instance_uuid: Option<bool> = "instanceUuid",
    } -> Option<ManagedObjectReference>;
    /// The VM with this .vmx.
    FindByDatastorePath = "FindByDatastorePath" {
        /// Datacenter.
        datacenter: ManagedObjectReference = "datacenter",
        /// Datastore path of the .vmx.
        path: String = "path",
    } -> Option<ManagedObjectReference>;
    /// The child of an entity with a name.
    FindChild = "FindChild" {
        /// Parent.
        entity: ManagedObjectReference = "entity",
        /// Name.
        name: String = "name",
    } -> Option<ManagedObjectReference>;
    /// Options by name; a name that ends in a dot is a prefix.
    QueryOptions = "QueryOptions" {
        /// Name; none: all.
        name: Option<String> = "name",
    } -> Vec<OptionValue>;
    /// Events, oldest first.
    QueryEvents = "QueryEvents" {
        /// Which.
        filter: EventFilterSpec = "filter",
    } -> Vec<Event>;
}

/// A [`VirtualDiskSpec`] that says in `xsi:type` what it is, as the API's base type demands.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TypedVirtualDiskSpec(pub VirtualDiskSpec);

impl Value for TypedVirtualDiskSpec {
    const TYPE: &'static str = "VirtualDiskSpec";
    fn to_element(&self, name: &'static str) -> crate::xml::Element {
        let mut element = self.0.to_element(name);
        element.xsi_type = Some(VirtualDiskSpec::TYPE.into());
        element
    }
    fn from_element(element: &crate::xml::Element) -> Result<Self, crate::value::DecodeError> {
        VirtualDiskSpec::from_element(element).map(TypedVirtualDiskSpec)
    }
    fn property(&self, path: &str) -> Option<Any> {
        Value::property(&self.0, path)
    }
}
