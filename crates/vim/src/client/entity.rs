//! The calls that are made often, with their managers filled in.

use super::{Client, Error, manager};
use crate::method::*;
use crate::types::*;
use crate::value::Value;
use crate::{DatastorePath, FaultKind};
use std::collections::BTreeMap;

/// Objects of one answer of the property collector.
const PAGE: i32 = 1000;

/// Inventory and properties.
impl Client {
    /// Reads properties, in as many answers as it takes.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn retrieve(&self, spec: PropertyFilterSpec) -> Result<Vec<ObjectContent>, Error> {
        let this = self.content().property_collector.clone();
        let options = RetrieveOptions {
            max_objects: Some(PAGE),
        };
        let first = RetrievePropertiesEx {
            this: this.clone(),
            spec_set: vec![spec],
            options,
        };
        let Some(mut result) = self.call(&first).await? else {
            return Ok(Vec::new());
        };
        let mut objects = std::mem::take(&mut result.objects);
        while let Some(token) = result.token.take() {
            result = self
                .call(&ContinueRetrievePropertiesEx {
                    this: this.clone(),
                    token,
                })
                .await?;
            objects.append(&mut result.objects);
        }
        Ok(objects)
    }

    /// Reads properties of one object.
    ///
    /// # Errors
    /// As [`Client::call`]; `ManagedObjectNotFound` where it does not exist.
    pub async fn properties(
        &self,
        object: &ManagedObjectReference,
        paths: &[&str],
    ) -> Result<ObjectContent, Error> {
        let found = self
            .retrieve(PropertyFilterSpec::object(object, paths))
            .await?;
        found.into_iter().next().ok_or_else(|| Error::NotFound {
            what: object.to_string(),
        })
    }

    /// Reads one property of one object; `None` where it is not set.
    ///
    /// # Errors
    /// As [`Client::properties`]; [`Error::Property`] where it is no `T`.
    pub async fn property<T: Value>(
        &self,
        object: &ManagedObjectReference,
        path: &str,
    ) -> Result<Option<T>, Error> {
        Ok(self.properties(object, &[path]).await?.get(path)?)
    }

    /// A view of all entities of these types below a container. Ends with the session or [`Client::destroy_view`].
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn container_view(
        &self,
        container: &ManagedObjectReference,
        kinds: &[&str],
    ) -> Result<ManagedObjectReference, Error> {
        let this = manager(&self.content().view_manager, "ViewManager")?;
        let kind = kinds.iter().map(|&k| k.to_owned()).collect();
        self.call(&CreateContainerView {
            this,
            container: container.clone(),
            kind,
            recursive: true,
        })
        .await
    }

    /// Ends a view.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn destroy_view(&self, view: &ManagedObjectReference) -> Result<(), Error> {
        self.call(&DestroyView { this: view.clone() }).await
    }

    /// Properties of all objects of a type below a container.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn list(
        &self,
        container: &ManagedObjectReference,
        kind: &str,
        paths: &[&str],
    ) -> Result<Vec<ObjectContent>, Error> {
        let view = self.container_view(container, &[kind]).await?;
        let found = self
            .retrieve(PropertyFilterSpec::view(&view, kind, paths))
            .await;
        self.destroy_view(&view).await?;
        found
    }

    /// The entity at `datacenter/vm/folder/name`; `None` where there is none.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn find_by_path(&self, path: &str) -> Result<Option<ManagedObjectReference>, Error> {
        let this = manager(&self.content().search_index, "SearchIndex")?;
        self.call(&FindByInventoryPath {
            this,
            inventory_path: path.to_owned(),
        })
        .await
    }

    /// The VM with a BIOS UUID; `None` where there is none.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn find_vm_by_uuid(
        &self,
        uuid: &str,
    ) -> Result<Option<ManagedObjectReference>, Error> {
        let this = manager(&self.content().search_index, "SearchIndex")?;
        let uuid = uuid.to_owned();
        self.call(&FindByUuid {
            this,
            datacenter: None,
            uuid,
            vm_search: true,
            instance_uuid: None,
        })
        .await
    }

    /// The child of an entity with a name; `None` where there is none.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn find_child(
        &self,
        entity: &ManagedObjectReference,
        name: &str,
    ) -> Result<Option<ManagedObjectReference>, Error> {
        let this = manager(&self.content().search_index, "SearchIndex")?;
        self.call(&FindChild {
            this,
            entity: entity.clone(),
            name: name.to_owned(),
        })
        .await
    }

    /// Options of the server below a prefix (`mooring.`); empty where there are none.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn options(&self, prefix: &str) -> Result<Vec<OptionValue>, Error> {
        let Some(this) = self.content().setting.clone() else {
            return Ok(Vec::new());
        };
        match self
            .call(&QueryOptions {
                this,
                name: Some(prefix.to_owned()),
            })
            .await
        {
            // ESXi's way to say that there is no such option.
            Err(e) if matches!(e.kind(), Some(crate::FaultKind::InvalidName { .. })) => {
                Ok(Vec::new())
            }
            other => other,
        }
    }

    /// The VLANs of the hosts' port groups by their names, as [`HostPortGroupSpec::vlan_id`] has them. Port groups of
    /// distributed switches are not among them.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn port_groups(&self) -> Result<BTreeMap<String, i32>, Error> {
        let root = self.content().root_folder.clone();
        let path = "config.network.portgroup";
        let mut vlans = BTreeMap::new();
        for host in self.list(&root, "HostSystem", &[path]).await? {
            // Where hosts share a name they share the VLAN, or VMs could not move between them.
            for group in host.items::<HostPortGroup>(path)? {
                vlans.insert(group.spec.name, group.spec.vlan_id);
            }
        }
        Ok(vlans)
    }

    /// Events that a filter finds, oldest first.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn events(&self, filter: EventFilterSpec) -> Result<Vec<Event>, Error> {
        let this = manager(&self.content().event_manager, "EventManager")?;
        self.call(&QueryEvents { this, filter }).await
    }
}

/// Virtual machines. Each waits for the end of its task.
impl Client {
    /// Makes a VM in a folder and pool.
    ///
    /// # Errors
    /// As [`Client::run`]: `DuplicateName`, `InvalidArgument`, `FileAlreadyExists`, …
    pub async fn create_vm(
        &self,
        folder: &ManagedObjectReference,
        config: VirtualMachineConfigSpec,
        pool: &ManagedObjectReference,
    ) -> Result<ManagedObjectReference, Error> {
        let call = CreateVm {
            this: folder.clone(),
            config,
            pool: pool.clone(),
            host: None,
        };
        task_result(self.run(&call).await?, "CreateVM_Task")
    }

    /// Adds a VM whose files exist.
    ///
    /// # Errors
    /// As [`Client::run`]: `FileNotFound`, `AlreadyExists`, …
    pub async fn register_vm(
        &self,
        folder: &ManagedObjectReference,
        vmx: &DatastorePath,
        pool: &ManagedObjectReference,
    ) -> Result<ManagedObjectReference, Error> {
        let call = RegisterVm {
            this: folder.clone(),
            path: vmx.to_string(),
            pool: Some(pool.clone()),
            ..RegisterVm::default()
        };
        task_result(self.run(&call).await?, "RegisterVM_Task")
    }

    /// Changes a VM.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn reconfigure_vm(
        &self,
        vm: &ManagedObjectReference,
        spec: VirtualMachineConfigSpec,
    ) -> Result<(), Error> {
        self.run(&ReconfigVm {
            this: vm.clone(),
            spec,
        })
        .await
        .map(drop)
    }

    /// Renames a VM (or another entity).
    ///
    /// # Errors
    /// As [`Client::run`]: `DuplicateName`, …
    pub async fn rename(&self, entity: &ManagedObjectReference, name: &str) -> Result<(), Error> {
        self.run(&Rename {
            this: entity.clone(),
            new_name: name.to_owned(),
        })
        .await
        .map(drop)
    }

    /// Powers a VM on.
    ///
    /// # Errors
    /// As [`Client::run`]: `InvalidPowerState` where it is on, …
    pub async fn power_on(&self, vm: &ManagedObjectReference) -> Result<(), Error> {
        self.run(&PowerOnVm {
            this: vm.clone(),
            host: None,
        })
        .await
        .map(drop)
    }

    /// Powers a VM off, hard.
    ///
    /// # Errors
    /// As [`Client::run`]: `InvalidPowerState` where it is off, …
    pub async fn power_off(&self, vm: &ManagedObjectReference) -> Result<(), Error> {
        self.run(&PowerOffVm { this: vm.clone() }).await.map(drop)
    }

    /// Resets a VM.
    ///
    /// # Errors
    /// As [`Client::run`]: `InvalidPowerState` where it is off, …
    pub async fn reset(&self, vm: &ManagedObjectReference) -> Result<(), Error> {
        self.run(&ResetVm { this: vm.clone() }).await.map(drop)
    }

    /// Asks a VM's guest to shut down; returns before it has.
    ///
    /// # Errors
    /// As [`Client::call`]: `InvalidPowerState`, `ToolsUnavailable`.
    pub async fn shutdown_guest(&self, vm: &ManagedObjectReference) -> Result<(), Error> {
        self.call(&ShutdownGuest { this: vm.clone() }).await
    }

    /// Destroys a VM with its files. Detach every disk first that is not to go with it.
    ///
    /// # Errors
    /// As [`Client::run`]: `InvalidPowerState` where it is on, …
    pub async fn destroy_vm(&self, vm: &ManagedObjectReference) -> Result<(), Error> {
        self.run(&Destroy { this: vm.clone() }).await.map(drop)
    }

    /// Takes a VM out of the inventory and keeps its files.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn unregister_vm(&self, vm: &ManagedObjectReference) -> Result<(), Error> {
        self.call(&UnregisterVm { this: vm.clone() }).await
    }
}

/// Files and virtual disks on datastores. `datacenter` may be `None` on a host.
impl Client {
    /// Makes a folder; with `parents` also those above it, and one that exists is no error.
    ///
    /// vSphere answers `FileAlreadyExists` for a folder that exists whatever
    /// `createParentDirectories` says, so that with `parents` this fault is passed over here, as
    /// govc's `datastore.mkdir -p` does (govmomi, `govc/datastore/mkdir.go`). A file in the folder's
    /// place has the same fault and is found out by what is then done in it.
    ///
    /// # Errors
    /// As [`Client::call`]: `FileAlreadyExists` (not with `parents`), `FileNotFound`.
    pub async fn make_directory(
        &self,
        datacenter: Option<&ManagedObjectReference>,
        path: &DatastorePath,
        parents: bool,
    ) -> Result<(), Error> {
        let call = MakeDirectory {
            this: manager(&self.content().file_manager, "FileManager")?,
            name: path.to_string(),
            datacenter: datacenter.cloned(),
            create_parent_directories: Some(parents),
        };
        match self.call(&call).await {
            Err(e) if parents && matches!(e.kind(), Some(FaultKind::FileAlreadyExists { .. })) => {
                Ok(())
            }
            made => made,
        }
    }

    /// Deletes a file, or a folder with all in it.
    ///
    /// # Errors
    /// As [`Client::run`]: `FileNotFound`, `FileLocked`.
    pub async fn delete_file(
        &self,
        datacenter: Option<&ManagedObjectReference>,
        path: &DatastorePath,
    ) -> Result<(), Error> {
        let this = manager(&self.content().file_manager, "FileManager")?;
        let call = DeleteDatastoreFile {
            this,
            name: path.to_string(),
            datacenter: datacenter.cloned(),
        };
        self.run(&call).await.map(drop)
    }

    /// Moves a file or folder; with `force` replaces what is there.
    ///
    /// # Errors
    /// As [`Client::run`]: `FileNotFound`, `FileAlreadyExists`, `FileLocked`.
    pub async fn move_file(
        &self,
        datacenter: Option<&ManagedObjectReference>,
        from: &DatastorePath,
        to: &DatastorePath,
        force: bool,
    ) -> Result<(), Error> {
        let call = MoveDatastoreFile {
            this: manager(&self.content().file_manager, "FileManager")?,
            source_name: from.to_string(),
            source_datacenter: datacenter.cloned(),
            destination_name: to.to_string(),
            destination_datacenter: datacenter.cloned(),
            force: Some(force),
        };
        self.run(&call).await.map(drop)
    }

    /// Lists a folder through a datastore's (or host's) browser.
    ///
    /// # Errors
    /// As [`Client::run`]: `FileNotFound`.
    pub async fn search_datastore(
        &self,
        browser: &ManagedObjectReference,
        folder: &DatastorePath,
        spec: DatastoreSearchSpec,
    ) -> Result<DatastoreSearchResults, Error> {
        let call = SearchDatastore {
            this: browser.clone(),
            datastore_path: folder.to_string(),
            search_spec: Some(spec),
        };
        task_result(self.run(&call).await?, "SearchDatastore_Task")
    }

    /// Lists a folder and those below it.
    ///
    /// # Errors
    /// As [`Client::run`]: `FileNotFound`.
    pub async fn search_datastore_sub_folders(
        &self,
        browser: &ManagedObjectReference,
        folder: &DatastorePath,
        spec: DatastoreSearchSpec,
    ) -> Result<Vec<DatastoreSearchResults>, Error> {
        let call = SearchDatastoreSubFolders {
            this: browser.clone(),
            datastore_path: folder.to_string(),
            search_spec: Some(spec),
        };
        let info = self.run(&call).await?;
        Ok(info
            .result
            .map(|r| r.items())
            .transpose()?
            .unwrap_or_default())
    }

    /// Makes an empty VMDK.
    ///
    /// # Errors
    /// As [`Client::run`]: `FileAlreadyExists`, `InsufficientStorageSpace`.
    pub async fn create_virtual_disk(
        &self,
        datacenter: Option<&ManagedObjectReference>,
        path: &DatastorePath,
        capacity_kib: i64,
    ) -> Result<(), Error> {
        let spec = VirtualDiskSpec {
            disk_type: "thin".to_owned(),
            adapter_type: "lsiLogic".to_owned(),
            capacity_kb: Some(capacity_kib),
        };
        let call = CreateVirtualDisk {
            this: manager(&self.content().virtual_disk_manager, "VirtualDiskManager")?,
            name: path.to_string(),
            datacenter: datacenter.cloned(),
            spec: TypedVirtualDiskSpec(spec),
        };
        self.run(&call).await.map(drop)
    }

    /// Deletes a VMDK with its files.
    ///
    /// # Errors
    /// As [`Client::run`]: `FileNotFound`, `FileLocked` where it is in use or has children.
    pub async fn delete_virtual_disk(
        &self,
        datacenter: Option<&ManagedObjectReference>,
        path: &DatastorePath,
    ) -> Result<(), Error> {
        let this = manager(&self.content().virtual_disk_manager, "VirtualDiskManager")?;
        let call = DeleteVirtualDisk {
            this,
            name: path.to_string(),
            datacenter: datacenter.cloned(),
        };
        self.run(&call).await.map(drop)
    }

    /// Copies a VMDK, its parents folded in.
    ///
    /// # Errors
    /// As [`Client::run`]: `FileNotFound`, `FileAlreadyExists`.
    pub async fn copy_virtual_disk(
        &self,
        datacenter: Option<&ManagedObjectReference>,
        from: &DatastorePath,
        to: &DatastorePath,
    ) -> Result<(), Error> {
        let call = CopyVirtualDisk {
            this: manager(&self.content().virtual_disk_manager, "VirtualDiskManager")?,
            source_name: from.to_string(),
            source_datacenter: datacenter.cloned(),
            dest_name: to.to_string(),
            dest_datacenter: datacenter.cloned(),
            dest_spec: None,
            force: None,
        };
        self.run(&call).await.map(drop)
    }
}

fn task_result<T: Value>(info: TaskInfo, method: &'static str) -> Result<T, Error> {
    let result = info.result.ok_or_else(|| Error::NotFound {
        what: format!("result of {method}"),
    })?;
    Ok(result.get()?)
}
