//! A stopped container's journal, read from its disk.

use super::{Container, Containers};
use crate::{
    errors::{Error, Result},
    vsphere::RemoteFile,
};
use journal::{Exit, JournalError, Reader, Record, Step};
use layers::{
    ReadAt,
    gpt::Table,
    io::Window,
    vmdk::{Chain, SparseFile, VmdkError},
};
use std::{io, sync::Arc};
use vim::DatastorePath;

/// What a journal says of the last boot in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LastBoot {
    /// Its number; `None` for an empty journal.
    pub boot: Option<u64>,
    /// When its process was started.
    pub started: u64,
    /// How often its process was started again in it.
    pub restarts: u32,
    /// Its exit record.
    pub exit: Option<Exit>,
}

impl ReadAt for RemoteFile {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_at(offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len())
    }
}

/// The journal's partition, for `journal`.
#[derive(Debug)]
pub struct Partition(Window<Chain>);

impl journal::ReadAt for Partition {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(offset, buf)
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
}

/// Opens a file of a chain from a blocking task.
fn open(containers: &Containers, path: &DatastorePath) -> Result<SparseFile, VmdkError> {
    let file = tokio::runtime::Handle::current()
        .block_on(RemoteFile::open(containers.vsphere.clone(), path.clone()))?;
    SparseFile::open(file)
}

/// The path that a child's hint means: absolute on the datastore, or relative to the child.
fn resolve(child: &DatastorePath, hint: &str) -> DatastorePath {
    if let Ok(path) = hint.parse::<DatastorePath>() {
        return path;
    }
    // An absolute path of the host: /vmfs/volumes/<datastore>/…
    if let Some((_, path)) = hint
        .strip_prefix("/vmfs/volumes/")
        .and_then(|rest| rest.split_once('/'))
    {
        return DatastorePath::new(&child.datastore, path);
    }
    let mut parts: Vec<&str> = match child.path.rsplit_once('/') {
        Some((folder, _)) => folder.split('/').collect(),
        None => Vec::new(),
    };
    for part in hint.split('/') {
        match part {
            "" | "." => {}
            // Above the root there is nothing: the path stays on the datastore.
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    DatastorePath::new(&child.datastore, parts.join("/"))
}

fn failed(id: &str, why: impl std::fmt::Display) -> Error {
    Error::internal(format!(
        "the journal of container {id} cannot be read: {why}"
    ))
}

impl Containers {
    /// Opens the journal of a container whose VM is off. Runs in a blocking task.
    ///
    /// # Errors
    /// Where disk or journal cannot be read.
    pub fn open_journal(&self, container: &Container) -> Result<Reader<Partition>> {
        let id = container.id();
        let mut path = self.vsphere.leaf(id);
        let leaf = open(self, &path).map_err(|e| failed(id, e))?;
        let chain = Chain::open_with(leaf, |hint, _| {
            path = resolve(&path, hint);
            open(self, &path)
        })
        .map_err(|e| failed(id, e))?;
        let table = Table::read(&chain).map_err(|e| failed(id, e))?;
        let number = container.spec.disk.journal;
        let partition = table
            .partition(number)
            .ok_or_else(|| failed(id, format!("the disk has no partition {number}")))?;
        let window =
            Window::new(chain, partition.start, partition.size).map_err(|e| failed(id, e))?;
        Reader::open(Partition(window)).map_err(|e| failed(id, e))
    }

    pub(super) async fn journal_exit(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<LastBoot> {
        let this = self.clone();
        let container = container.clone();
        tokio::task::spawn_blocking(move || {
            let mut reader = this.open_journal(&container)?;
            last_boot(&mut reader).map_err(|e| failed(container.id(), e))
        })
        .await
        .map_err(|e| Error::internal(format!("reading a journal: {e}")))?
    }
}

fn last_boot<S: journal::ReadAt>(reader: &mut Reader<S>) -> Result<LastBoot, JournalError> {
    let mut found = LastBoot::default();
    let mut at = reader.first()?;
    loop {
        match reader.read(at)? {
            Step::Record(record, next) => {
                match record {
                    Record::Start { at, boot } => {
                        let again = found.boot == Some(boot);
                        found = LastBoot {
                            boot: Some(boot),
                            started: at,
                            restarts: if again { found.restarts + 1 } else { 0 },
                            exit: None,
                        };
                    }
                    Record::Exit(exit) => found.exit = Some(exit),
                    Record::Output { .. } => {}
                }
                at = next;
            }
            Step::Lost { next, .. } => at = next,
            Step::End(_) => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_relative_to_its_child_and_stays_on_the_datastore() {
        let child = DatastorePath::new("ds", "a/b/leaf.vmdk");
        for (hint, want) in [
            ("../x.vmdk", "[ds] a/x.vmdk"),
            ("x.vmdk", "[ds] a/b/x.vmdk"),
            ("../../../../x.vmdk", "[ds] x.vmdk"),
            ("[ds] i/seal.vmdk", "[ds] i/seal.vmdk"),
            ("/vmfs/volumes/ds/i/x.vmdk", "[ds] i/x.vmdk"),
        ] {
            assert_eq!(resolve(&child, hint).to_string(), want, "{hint}");
        }
    }
}
