//! What is written down of a volume.

use super::{nfs, stores::Placed};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The name of the volume store that is there always: the datastore, unless the administrator has given it to another.
pub const STORE: &str = "default";
/// The driver's name, as clients ask for it.
pub const DRIVER: &str = "local";
/// dockerd's label of volumes that nobody has named.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// A volume as it was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Its name, of its folder too.
    pub name: String,
    /// When, in ns since 1970.
    pub created: u64,
    /// UUID of its file system, 32 hex digits: a guest finds its disk by it.
    pub uuid: String,
    /// Bytes of its disk; 0 where it has none.
    pub capacity: u64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options, as the client gave them.
    pub options: BTreeMap<String, String>,
    /// It is a folder in a store of the administrator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<Placed>,
    /// The container that it was made for, without a name: without that container it is nobody's. None once it was
    /// kept on purpose (`docker rm` without `-v`).
    #[serde(default)]
    pub container: Option<String>,
}

impl VolumeRecord {
    /// Where it is, if that is an NFS server.
    pub fn nfs(&self) -> Option<nfs::Source> {
        if let Some(placed) = &self.placed {
            return Some(placed.source(&self.name));
        }
        // What an older endpoint has taken was read with the same words.
        nfs::Source::read(&self.options).ok().flatten()
    }

    /// Whether nobody has named it.
    pub fn anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }
}
