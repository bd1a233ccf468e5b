//! VirtualDiskManager.

use super::{Answer, Context, answer, decode};
use crate::{datastore, files};
use vim::method::*;
use vim::types::*;
use vim::xml::Element;
use vim::{Any, Fault};

impl Context {
    pub(super) async fn disk(
        &self,
        name: &str,
        this: &ManagedObjectReference,
        element: &Element,
    ) -> Answer {
        let store = &self.host.store;
        match name {
            "CreateVirtualDisk_Task" => {
                let make: CreateVirtualDisk = decode(element)?;
                let path = store.parse(&make.name)?;
                let kib = make.spec.0.capacity_kb;
                let kib = kib
                    .and_then(|k| u64::try_from(k).ok())
                    .filter(|&k| k > 0)
                    .ok_or_else(|| {
                        Fault::invalid_argument("spec.capacityKb", "a disk needs a capacity")
                    })?;
                let id = "VirtualDiskManager.createVirtualDisk";
                self.task_on_files::<CreateVirtualDisk>(this, id, move |host| {
                    let bytes = kib.saturating_mul(1024);
                    host.disks.create(&host.store, &path, None, bytes)?;
                    Ok(Some(Any::from(path.to_string())))
                })
            }
            "DeleteVirtualDisk_Task" => {
                let delete: DeleteVirtualDisk = decode(element)?;
                let path = store.parse(&delete.name)?;
                let id = "VirtualDiskManager.deleteVirtualDisk";
                self.task_on_files::<DeleteVirtualDisk>(this, id, move |host| {
                    files::delete_file(host, &path).map(|()| None)
                })
            }
            "CopyVirtualDisk_Task" => {
                let copy: CopyVirtualDisk = decode(element)?;
                let from = store.parse(&copy.source_name)?;
                let to = store.parse(&copy.dest_name)?;
                let id = "VirtualDiskManager.copyVirtualDisk";
                self.task_on_files::<CopyVirtualDisk>(this, id, move |host| {
                    files::copy_disk(host, &from, &to)?;
                    Ok(Some(Any::from(to.to_string())))
                })
            }
            "QueryVirtualDiskUuid" => {
                let query: QueryVirtualDiskUuid = decode(element)?;
                let path = store.parse(&query.name)?;
                let of = path.clone();
                let disk = self
                    .host
                    .blocking(move |host| host.disks.open(&host.store, &path))
                    .await?;
                answer::<QueryVirtualDiskUuid>(&datastore::disk_uuid(&of, &disk))
            }
            _ => Err(self.no_method(name, this)),
        }
    }
}
