//! FileManager and HostDatastoreBrowser.

use super::{Answer, Context, answer, decode};
use crate::{datastore, files, inventory};
use vim::Any;
use vim::method::*;
use vim::types::*;
use vim::xml::Element;

impl Context {
    pub(super) async fn file(
        &self,
        name: &str,
        this: &ManagedObjectReference,
        element: &Element,
    ) -> Answer {
        let store = &self.host.store;
        match name {
            "MakeDirectory" => {
                let make: MakeDirectory = decode(element)?;
                let path = store.parse(&make.name)?;
                let parents = make.create_parent_directories.unwrap_or(false);
                self.host
                    .blocking(move |host| host.store.make_folder(&path, parents))
                    .await?;
                answer::<MakeDirectory>(&())
            }
            "DeleteDatastoreFile_Task" => {
                let delete: DeleteDatastoreFile = decode(element)?;
                let path = store.parse(&delete.name)?;
                let id = "FileManager.deleteFile";
                self.task_on_files::<DeleteDatastoreFile>(this, id, move |host| {
                    files::delete(host, &path).map(|()| None)
                })
            }
            "MoveDatastoreFile_Task" => {
                let change: MoveDatastoreFile = decode(element)?;
                let from = store.parse(&change.source_name)?;
                let to = store.parse(&change.destination_name)?;
                let force = change.force.unwrap_or(false);
                self.task_on_files::<MoveDatastoreFile>(this, "FileManager.moveFile", move |host| {
                    files::move_to(host, &from, &to, force).map(|()| None)
                })
            }
            "SearchDatastore_Task" => {
                let search: SearchDatastore = decode(element)?;
                let path = store.parse(&search.datastore_path)?;
                let spec = search.search_spec.unwrap_or_default();
                let id = "HostDatastoreBrowser.search";
                self.task_on_files::<SearchDatastore>(this, id, move |host| {
                    let datastore = inventory::datastore();
                    let found = datastore::search(&host.store, &datastore, &path, &spec, false)?;
                    Ok(found.first().map(Any::of))
                })
            }
            "SearchDatastoreSubFolders_Task" => {
                let search: SearchDatastoreSubFolders = decode(element)?;
                let path = store.parse(&search.datastore_path)?;
                let spec = search.search_spec.unwrap_or_default();
                let id = "HostDatastoreBrowser.searchSubFolders";
                self.task_on_files::<SearchDatastoreSubFolders>(this, id, move |host| {
                    let datastore = inventory::datastore();
                    let found = datastore::search(&host.store, &datastore, &path, &spec, true)?;
                    Ok(Some(Any::list(&found)))
                })
            }
            _ => Err(self.no_method(name, this)),
        }
    }
}
