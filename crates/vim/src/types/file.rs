//! Files and virtual disks on datastores.

use crate::types::ManagedObjectReference;
use crate::value::{DateTime, DecodeError, Field, Value};
use crate::xml::Element;

data_object! {
    /// What to look for in a folder.
    DatastoreSearchSpec = "HostDatastoreBrowserSearchSpec" {
        /// Which details to report.
        details: Option<FileDetails> = "details",
        /// Ignore case in the patterns.
        search_case_insensitive: Option<bool> = "searchCaseInsensitive",
        /// Patterns with `*` and `?`; none: all files.
        match_pattern: Vec<String> = "matchPattern",
        /// Folders first.
        sort_folders_first: Option<bool> = "sortFoldersFirst",
    }

    /// Which details of a file to report.
    FileDetails = "FileQueryFlags" {
        /// Its type.
        file_type: bool = "fileType",
        /// Its size.
        file_size: bool = "fileSize",
        /// Its time.
        modification: bool = "modification",
        /// Its owner.
        file_owner: Option<bool> = "fileOwner",
    }

    /// What a folder holds.
    DatastoreSearchResults = "HostDatastoreBrowserSearchResults" {
        /// The datastore.
        datastore: Option<ManagedObjectReference> = "datastore",
        /// The folder, `[datastore1] folder/`.
        folder_path: Option<String> = "folderPath",
        /// Its files.
        file: Vec<FileInfo> = "file",
    }

    /// How to make a virtual disk.
    VirtualDiskSpec = "FileBackedVirtualDiskSpec" {
        /// `thin`, `preallocated`, `eagerZeroedThick`.
        disk_type: String = "diskType",
        /// `lsiLogic`, `busLogic`, `ide`.
        adapter_type: String = "adapterType",
        /// Capacity in KiB.
        capacity_kb: Option<i64> = "capacityKb",
    }
}

/// A file or folder in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileInfo {
    /// Type of the file as the API names it: `FileInfo`, `FolderFileInfo`, `VmDiskFileInfo`,
    /// `VmConfigFileInfo`, `IsoImageFileInfo`, `VmLogFileInfo`.
    pub kind: String,
    /// Name in its folder.
    pub path: String,
    /// Bytes.
    pub file_size: Option<i64>,
    /// Time of the last change.
    pub modification: Option<DateTime>,
    /// Owner.
    pub owner: Option<String>,
}

impl FileInfo {
    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.kind == "FolderFileInfo"
    }
}

impl Value for FileInfo {
    const TYPE: &'static str = "FileInfo";
    fn to_element(&self, name: &'static str) -> Element {
        let mut element = Element::new(name);
        element.xsi_type = Some(self.kind.clone().into());
        let out = &mut element.children;
        self.path.write("path", out);
        self.file_size.write("fileSize", out);
        self.modification.write("modification", out);
        self.owner.write("owner", out);
        element
    }
    fn from_element(element: &Element) -> Result<Self, DecodeError> {
        Ok(FileInfo {
            kind: element.xsi_type.as_deref().unwrap_or("FileInfo").to_owned(),
            path: Field::read(element, "path")?,
            file_size: Field::read(element, "fileSize")?,
            modification: Field::read(element, "modification")?,
            owner: Field::read(element, "owner")?,
        })
    }
}

data_object! {
    /// A datastore in short.
    DatastoreSummary = "DatastoreSummary" {
        /// The datastore.
        datastore: Option<ManagedObjectReference> = "datastore",
        /// Name.
        name: String = "name",
        /// URL, `ds:///vmfs/volumes/…/`.
        url: String = "url",
        /// Bytes.
        capacity: i64 = "capacity",
        /// Bytes that are free.
        free_space: i64 = "freeSpace",
        /// Bytes that thin disks may still take.
        uncommitted: Option<i64> = "uncommitted",
        /// It can be used.
        accessible: bool = "accessible",
        /// Several hosts have it.
        multiple_host_access: Option<bool> = "multipleHostAccess",
        /// `VMFS`, `NFS`, …
        kind: String = "type",
        /// `normal`, `inMaintenance`.
        maintenance_mode: Option<String> = "maintenanceMode",
    }

    /// Details of a datastore; travels as `LocalDatastoreInfo` where the kind is asked for.
    DatastoreInfo = "DatastoreInfo" {
        /// Name.
        name: String = "name",
        /// URL.
        url: String = "url",
        /// Bytes that are free.
        free_space: i64 = "freeSpace",
        /// Bytes of the largest file.
        max_file_size: i64 = "maxFileSize",
        /// Time that this was found out.
        timestamp: Option<DateTime> = "timestamp",
    }

    /// What a datastore can do.
    DatastoreCapability = "DatastoreCapability" {
        /// Folders in folders.
        directory_hierarchy_supported: bool = "directoryHierarchySupported",
        /// Raw device mappings.
        raw_disk_mappings_supported: bool = "rawDiskMappingsSupported",
        /// Thin disks.
        per_file_thin_provisioning_supported: bool = "perFileThinProvisioningSupported",
        /// Folders at the top.
        top_level_directory_create_supported: Option<bool> = "topLevelDirectoryCreateSupported",
    }

    /// A host's mount of a datastore.
    DatastoreHostMount = "DatastoreHostMount" {
        /// The host.
        key: ManagedObjectReference = "key",
        /// The mount.
        mount_info: HostMountInfo = "mountInfo",
    }

    /// A mount.
    HostMountInfo = "HostMountInfo" {
        /// Path on the host.
        path: Option<String> = "path",
        /// `readWrite` or `readOnly`.
        access_mode: String = "accessMode",
        /// Mounted.
        mounted: Option<bool> = "mounted",
        /// Usable.
        accessible: Option<bool> = "accessible",
    }
}
