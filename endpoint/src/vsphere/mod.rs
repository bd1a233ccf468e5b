//! The hypervisor, as the endpoint uses it. Nothing outside of this module knows vSphere's types.

mod disk;
#[cfg(test)]
pub(crate) mod fake;
mod places;
mod power;
mod spec;
mod watch;

pub use disk::{RemoteFile, open_chain};
pub use spec::{Boot, LinkPort, NewVm, Nic, VolumeDisk};
pub use watch::{VmChange, VmUpdate, VmWatch};

use places::Places;

use crate::{
    cli::Serve,
    containers::keys,
    errors::{Error, Kind},
    volumes::shares::Shared,
};
use std::collections::BTreeMap;
use vim::{
    Client, ClientConfig, DatastorePath, FaultKind, ManagedObjectReference, Trust,
    types::{
        Backing, DatastoreSummary, DeviceKind, DeviceOperation, HostHardwareSummary, ObjectContent,
        OptionValue, VirtualDevice, VirtualDeviceConfigSpec, VirtualMachineConfigSpec,
    },
};

/// A VM, by reference.
pub type VmRef = ManagedObjectReference;

/// What the host can do beyond vSphere (docs/decisions/0001, "Capabilities").
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// `mooring.disk.upload`.
    pub disk_upload: bool,
    /// `mooring.link.vsock`: `uds:<folder>` or `kernel`.
    pub vsock: Option<String>,
    /// `mooring.boot.kernel`.
    pub boot_kernel: bool,
    /// `mooring.share.<N>`: folders of the host's machine, which is the endpoint's, too.
    pub shares: Vec<Shared>,
}

/// A logged-in vSphere with the places of this virtual container host.
#[derive(Debug)]
pub struct Vsphere {
    client: Client,
    places: Places,
    capabilities: Capabilities,
    /// `[ds] mooring/<vch>/containers`.
    containers: DatastorePath,
}

/// Why vSphere did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum VsphereError {
    /// A call failed.
    #[error("{what}: {source}")]
    Call {
        /// What was tried, on what.
        what: String,
        /// Why not.
        source: vim::Error,
    },
    /// Something that must be there is not.
    #[error("{0}")]
    Missing(String),
}

impl From<VsphereError> for Error {
    fn from(error: VsphereError) -> Self {
        let kind = match &error {
            VsphereError::Call { source, .. } if source.fault().is_none() => Kind::Unavailable,
            VsphereError::Call { source, .. } if is_locked(source) => Kind::Conflict,
            _ => Kind::Internal,
        };
        Error::new(kind, error.to_string())
    }
}

/// A disk that is to be opened is in use by a VM: what vSphere says of it differs with the way there.
fn is_locked(error: &vim::Error) -> bool {
    match error.kind() {
        Some(FaultKind::FileLocked { .. }) => true,
        Some(FaultKind::GenericVmConfigFault { reason }) => reason == "Failed to lock the file",
        _ => false,
    }
}

type Result<T> = std::result::Result<T, VsphereError>;

fn call(what: impl Into<String>) -> impl FnOnce(vim::Error) -> VsphereError {
    let what = what.into();
    move |source| VsphereError::Call { what, source }
}

/// The VM's keys, and its devices. Not set where its files cannot be read.
const EXTRA_CONFIG: &str = "config.extraConfig";
const DEVICES: &str = "config.hardware.device";

/// The keys of a VM; `None` where its files cannot be read.
fn vm_keys(
    content: &ObjectContent,
) -> std::result::Result<Option<BTreeMap<String, String>>, vim::DecodeError> {
    if !content.prop_set.iter().any(|p| p.name == EXTRA_CONFIG) {
        return Ok(None);
    }
    Ok(Some(watch::to_keys(&content.items(EXTRA_CONFIG)?)))
}

fn devices_in(vm: &VmRef, content: &ObjectContent) -> Result<Vec<VirtualDevice>> {
    if !content.prop_set.iter().any(|p| p.name == DEVICES) {
        return Err(unreadable(vm));
    }
    content
        .items(DEVICES)
        .map_err(|e| VsphereError::Missing(format!("{vm}: {e}")))
}

/// Whether a VM is gone. That a file of it is not there says something else.
fn is_gone(error: &vim::Error) -> bool {
    matches!(error, vim::Error::NotFound { .. })
        || matches!(error.kind(), Some(FaultKind::ManagedObjectNotFound { .. }))
}

fn unreadable(vm: &VmRef) -> VsphereError {
    VsphereError::Missing(format!(
        "vSphere cannot read the files of {vm} now; see its state there, and repeat the command"
    ))
}

impl Vsphere {
    /// Logs in and finds datacenter, pool, datastore and network.
    ///
    /// # Errors
    /// Where the host cannot be reached or trusted, refuses the account, or has no such place.
    pub async fn connect(settings: &Serve, user: &str, password: &str) -> Result<Self> {
        let trust =
            match &settings.thumbprint {
                Some(text) => Trust::thumbprint(text).map_err(call("--thumbprint"))?,
                None => return Err(VsphereError::Missing(
                    "--thumbprint is missing: give the SHA-256 of the vSphere server's certificate"
                        .to_owned(),
                )),
            };
        let config = ClientConfig::new(&settings.vsphere, user, password, trust);
        let client = Client::connect(config)
            .await
            .map_err(call(format!("cannot log in at {}", settings.vsphere)))?;
        let places = Places::find(&client, settings).await?;
        let containers = DatastorePath::new(
            &places.datastore,
            format!("mooring/{}/containers", settings.vch_id),
        );
        let capabilities = capabilities(&client).await?;
        let this = Self {
            places,
            capabilities,
            containers,
            client,
        };
        this.client
            .make_directory(Some(&this.places.datacenter), &this.containers, true)
            .await
            .map_err(call(format!("cannot make folder {}", this.containers)))?;
        Ok(this)
    }

    /// The client, for parts that need more than this module offers (images).
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Name of the datastore of images and containers.
    pub fn datastore(&self) -> &str {
        &self.places.datastore
    }

    /// The datacenter's inventory path, which is how file transfers name it.
    pub fn datacenter_path(&self) -> &str {
        &self.places.datacenter_path
    }

    /// The datacenter.
    pub fn datacenter(&self) -> &VmRef {
        &self.places.datacenter
    }

    /// The datastore's browser.
    pub fn browser(&self) -> &VmRef {
        &self.places.browser
    }

    /// The VLAN of each port group of the hosts' virtual switches; 0: untagged.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn port_groups(&self) -> Result<BTreeMap<String, u16>> {
        let found = self.client.port_groups().await;
        Ok(found
            .map_err(call("cannot read the port groups"))?
            .into_iter()
            // What is beyond a VLAN's number is a trunk.
            .filter_map(|(name, vlan)| Some((name, u16::try_from(vlan).ok()?)))
            .collect())
    }

    /// What the host can do beyond vSphere.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// What the host says that it is: name and version.
    pub fn about(&self) -> (&str, &str) {
        let about = &self.client.content().about;
        (&about.full_name, &about.version)
    }

    /// Where a container's VM has its files.
    pub fn container_folder(&self, id: &str) -> DatastorePath {
        self.containers.join(id)
    }

    /// The disk of a container.
    pub fn leaf(&self, id: &str) -> DatastorePath {
        self.container_folder(id).join("leaf.vmdk")
    }

    /// Makes a container's VM with its own disk.
    ///
    /// # Errors
    /// vSphere's, naming the VM.
    pub async fn create(&self, vm: &NewVm) -> Result<VmRef> {
        let what = format!("cannot create VM {}", vm.name);
        self.client
            .create_vm(
                &self.places.vm_folder,
                self.config_spec(vm),
                &self.places.pool,
            )
            .await
            .map_err(call(what))
    }

    /// Sets VM keys (an empty value removes the key), and the link's serial port where it is given.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn set_keys(
        &self,
        vm: &VmRef,
        keys: &BTreeMap<String, String>,
        link: Option<&LinkPort>,
    ) -> Result<()> {
        let spec = VirtualMachineConfigSpec {
            extra_config: options(keys),
            device_change: link
                .map(|port| VirtualDeviceConfigSpec {
                    operation: Some(if port.exists {
                        DeviceOperation::Edit
                    } else {
                        DeviceOperation::Add
                    }),
                    file_operation: None,
                    device: spec::link_port(port),
                })
                .into_iter()
                .collect(),
            ..VirtualMachineConfigSpec::default()
        };
        self.client
            .reconfigure_vm(vm, spec)
            .await
            .map_err(call(format!("cannot reconfigure {vm}")))
    }

    /// Adds a vNIC to a VM, running or not.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn add_nic(&self, vm: &VmRef, nic: &Nic) -> Result<()> {
        let change = VirtualDeviceConfigSpec::add(self.nic(-1, nic));
        self.change_device(
            vm,
            change,
            &format!("cannot add a vNIC on {} to {vm}", nic.port_group),
        )
        .await
    }

    /// Removes a VM's vNIC by its MAC address; one that is not there is no error.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn remove_nic(&self, vm: &VmRef, mac: &str) -> Result<()> {
        let found = self.devices(vm).await?.into_iter().find(|device| {
            matches!(&device.kind, DeviceKind::Vmxnet3(members)
                if members.mac_address.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(mac)))
        });
        let Some(device) = found else { return Ok(()) };
        let change = VirtualDeviceConfigSpec::remove(device);
        self.change_device(vm, change, &format!("cannot remove the vNIC {mac} of {vm}"))
            .await
    }

    /// Has the vNICs of a VM that is off connected when it is powered on, or not.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn connect_nics(&self, vm: &VmRef, connected: bool) -> Result<()> {
        let nics = self.devices(vm).await?.into_iter().filter_map(|mut nic| {
            let is_nic = matches!(nic.kind, DeviceKind::Vmxnet3(_));
            let info = nic.connectable.as_mut().filter(|_| is_nic)?;
            if info.start_connected == connected {
                return None;
            }
            (info.start_connected, info.connected) = (connected, connected);
            Some(VirtualDeviceConfigSpec {
                operation: Some(DeviceOperation::Edit),
                file_operation: None,
                device: nic,
            })
        });
        let spec = VirtualMachineConfigSpec {
            device_change: nics.collect(),
            ..VirtualMachineConfigSpec::default()
        };
        if spec.device_change.is_empty() {
            return Ok(());
        }
        self.client
            .reconfigure_vm(vm, spec)
            .await
            .map_err(call(format!("cannot change the vNICs of {vm}")))
    }

    /// MAC addresses of a VM's vNICs.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn nics(&self, vm: &VmRef) -> Result<Vec<String>> {
        let devices = self.devices(vm).await?;
        Ok(devices
            .into_iter()
            .filter_map(|device| match device.kind {
                DeviceKind::Vmxnet3(members) => members.mac_address,
                _ => None,
            })
            .collect())
    }

    async fn devices(&self, vm: &VmRef) -> Result<Vec<VirtualDevice>> {
        let content = self
            .client
            .properties(vm, &[DEVICES])
            .await
            .map_err(call(format!("cannot read the devices of {vm}")))?;
        devices_in(vm, &content)
    }

    async fn change_device(
        &self,
        vm: &VmRef,
        change: VirtualDeviceConfigSpec,
        what: &str,
    ) -> Result<()> {
        let spec = VirtualMachineConfigSpec {
            device_change: vec![change],
            ..VirtualMachineConfigSpec::default()
        };
        self.client
            .reconfigure_vm(vm, spec)
            .await
            .map_err(call(what))
    }

    /// Renames a VM.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn rename(&self, vm: &VmRef, name: &str) -> Result<()> {
        self.client
            .rename(vm, name)
            .await
            .map_err(call(format!("cannot rename {vm} to {name}")))
    }

    /// Sets memory (MiB) and CPUs of a VM that is off.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn resize(&self, vm: &VmRef, memory_mib: u32, cpus: u32) -> Result<()> {
        let spec = VirtualMachineConfigSpec {
            memory_mb: Some(i64::from(memory_mib)),
            num_cpus: Some(i32::try_from(cpus).unwrap_or(i32::MAX)),
            ..VirtualMachineConfigSpec::default()
        };
        self.client
            .reconfigure_vm(vm, spec)
            .await
            .map_err(call(format!("cannot reconfigure {vm}")))
    }

    /// Whether [`Vsphere::remove`] has marked the VM, and so taken its disks; `None` where it is gone.
    ///
    /// # Errors
    /// vSphere's; where the VM's files cannot be read.
    pub async fn removal_began(&self, vm: &VmRef) -> Result<Option<bool>> {
        match self.client.properties(vm, &[EXTRA_CONFIG]).await {
            Ok(found) => {
                let keys =
                    vm_keys(&found).map_err(|e| VsphereError::Missing(format!("{vm}: {e}")))?;
                let keys = keys.ok_or_else(|| unreadable(vm))?;
                Ok(Some(keys::removing(&keys)))
            }
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(call(format!("cannot read the keys of {vm}"))(error)),
        }
    }

    /// Takes a container's VM away: detaches its disks and marks it, destroys it, deletes its
    /// own disk and folder; powers it off before. May be called again after it was cut short anywhere. What vSphere destroys takes all disks
    /// along that it still has, those of volumes too: so none may be left.
    ///
    /// # Errors
    /// vSphere's; where the VM's files cannot be read.
    pub async fn remove(&self, vm: &VmRef, id: &str) -> Result<()> {
        // Of a power-on whose end nobody was told; a VM that runs cannot be destroyed.
        if self.is_on(vm).await? == Some(true) {
            self.power_off(vm).await?;
        }
        if let Some(disks) = self.disks_of(vm).await? {
            let spec = VirtualMachineConfigSpec {
                device_change: disks
                    .into_iter()
                    .map(VirtualDeviceConfigSpec::remove)
                    .collect(),
                extra_config: vec![OptionValue::text(keys::REMOVING, "true")],
                ..VirtualMachineConfigSpec::default()
            };
            match self.client.reconfigure_vm(vm, spec).await {
                Ok(()) => self.destroy(vm).await?,
                Err(error) if is_gone(&error) => {}
                // Someone has deleted its files: there is nothing to detach from, and nothing to destroy.
                Err(error) if error.is_not_found() => self
                    .client
                    .unregister_vm(vm)
                    .await
                    .or_else(|e| if is_gone(&e) { Ok(()) } else { Err(e) })
                    .map_err(call(format!("cannot take {vm} out of the inventory")))?,
                Err(error) => return Err(call(format!("cannot detach the disks of {vm}"))(error)),
            }
        }
        self.delete_folder(&self.container_folder(id)).await
    }

    /// Destroys a VM that has no disk any more.
    async fn destroy(&self, vm: &VmRef) -> Result<()> {
        match self.disks_of(vm).await? {
            None => return Ok(()),
            Some(disks) if disks.is_empty() => {}
            Some(disks) => {
                return Err(VsphereError::Missing(format!(
                    "{vm} still has {} disks, which its end would delete: it is not destroyed",
                    disks.len()
                )));
            }
        }
        self.client
            .destroy_vm(vm)
            .await
            .or_else(|e| if is_gone(&e) { Ok(()) } else { Err(e) })
            .map_err(call(format!("cannot destroy {vm}")))
    }

    /// The disks of a VM; `None` where it is gone.
    async fn disks_of(&self, vm: &VmRef) -> Result<Option<Vec<VirtualDevice>>> {
        let content = match self.client.properties(vm, &[DEVICES]).await {
            Err(error) if is_gone(&error) => return Ok(None),
            found => found.map_err(call(format!("cannot read the devices of {vm}")))?,
        };
        let is_disk = |device: &VirtualDevice| matches!(device.kind, DeviceKind::Disk(_));
        let disks = devices_in(vm, &content)?.into_iter().filter(is_disk);
        Ok(Some(disks.collect()))
    }

    /// Deletes a folder with all in it; one that is not there is no error.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn delete_folder(&self, folder: &DatastorePath) -> Result<()> {
        match self
            .client
            .delete_file(Some(&self.places.datacenter), folder)
            .await
        {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map_err(call(format!("cannot delete {folder}"))),
        }
    }

    /// Names of the folders of containers that are on the datastore.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn container_folders(&self) -> Result<Vec<String>> {
        let found = self
            .client
            .search_datastore(
                &self.places.browser,
                &self.containers,
                vim::types::DatastoreSearchSpec::default(),
            )
            .await
            .map_err(call(format!("cannot list {}", self.containers)))?;
        Ok(found.file.into_iter().map(|file| file.path).collect())
    }

    /// Whether a VM's configuration is in a container's folder.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn holds_vm(&self, id: &str) -> Result<bool> {
        let folder = self.container_folder(id);
        let spec = vim::types::DatastoreSearchSpec {
            match_pattern: vec!["*.vmx".to_owned()],
            ..vim::types::DatastoreSearchSpec::default()
        };
        match self
            .client
            .search_datastore(&self.places.browser, &folder, spec)
            .await
        {
            Err(error) if error.is_not_found() => Ok(false),
            found => Ok(!found
                .map_err(call(format!("cannot list {folder}")))?
                .file
                .is_empty()),
        }
    }

    /// CPUs and bytes of memory of the hosts that run the VMs.
    ///
    /// # Errors
    /// vSphere's.
    pub async fn hardware(&self) -> Result<(u64, u64)> {
        let root = &self.client.content().root_folder;
        let path = "summary.hardware";
        let hosts = self.client.list(root, "HostSystem", &[path]).await;
        let (mut cpus, mut memory) = (0, 0);
        for host in hosts.map_err(call("cannot read the hosts' hardware"))? {
            let found: Option<HostHardwareSummary> = host
                .get(path)
                .map_err(|e| VsphereError::Missing(format!("{}: {e}", host.obj)))?;
            // A host that is away tells nothing.
            let Some(hardware) = found else { continue };
            cpus += u64::try_from(hardware.num_cpu_threads).unwrap_or(0);
            memory += u64::try_from(hardware.memory_size).unwrap_or(0);
        }
        Ok((cpus, memory))
    }

    /// Bytes that are free on the datastore, by the hypervisor's last look.
    ///
    /// # Errors
    /// vSphere's, or where it has no such datastore.
    pub async fn free_space(&self) -> Result<u64> {
        let root = &self.client.content().root_folder;
        let all = self.client.list(root, "Datastore", &["summary"]).await;
        for datastore in all.map_err(call("cannot list the datastores"))? {
            let summary: Option<DatastoreSummary> = datastore
                .get("summary")
                .map_err(|e| VsphereError::Missing(format!("{}: {e}", datastore.obj)))?;
            if let Some(summary) = summary.filter(|s| s.name == self.places.datastore) {
                return Ok(u64::try_from(summary.free_space).unwrap_or(0));
            }
        }
        Err(VsphereError::Missing(format!(
            "the datastore {}",
            self.places.datastore
        )))
    }

    /// Bytes that a container's own disk takes on the datastore.
    ///
    /// # Errors
    /// Where it is not there.
    pub async fn leaf_size(&self, id: &str) -> Result<u64> {
        let leaf = self.leaf(id);
        let stat = self
            .client
            .file_head(&self.places.datacenter_path, &leaf)
            .await;
        Ok(stat
            .map_err(call(format!("cannot read the size of {leaf}")))?
            .size)
    }

    /// The file of a VM's first disk.
    ///
    /// # Errors
    /// vSphere's, or where it has none.
    pub async fn disk_file(&self, vm: &VmRef) -> Result<String> {
        self.devices(vm)
            .await?
            .into_iter()
            .find_map(|device| match device.backing {
                Some(Backing::Disk(disk)) => Some(disk.file_name),
                _ => None,
            })
            .ok_or_else(|| VsphereError::Missing(format!("{vm} has no disk")))
    }
}

fn options(keys: &BTreeMap<String, String>) -> Vec<OptionValue> {
    keys.iter()
        .map(|(key, value)| OptionValue::text(key, value))
        .collect()
}

async fn capabilities(client: &Client) -> Result<Capabilities> {
    let options = client
        .options("mooring.")
        .await
        .map_err(call("cannot read the host's options"))?;
    let find = |name: &str| {
        options
            .iter()
            .find(|option| option.key == name)
            .map(|option| option.as_text().to_owned())
    };
    Ok(Capabilities {
        disk_upload: find("mooring.disk.upload").as_deref() == Some("true"),
        vsock: find("mooring.link.vsock").filter(|v| !v.is_empty()),
        boot_kernel: find("mooring.boot.kernel").as_deref() == Some("true"),
        shares: options
            .iter()
            .filter(|option| option.key.starts_with("mooring.share."))
            .filter_map(|option| Shared::read(option.as_text()))
            .collect(),
    })
}
