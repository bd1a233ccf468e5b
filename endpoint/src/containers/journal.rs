//! A stopped container's journal, read from its disk.

use super::{Container, Containers};
use crate::{
    errors::{Error, Result},
    vsphere::open_chain,
};
use journal::{Exit, JournalError, Reader, Record, Step};
use layers::{ReadAt, gpt::Table, io::Window, vmdk::Chain};
use std::{io, sync::Arc};
use wire::keys::Key;

/// What a journal says of the last boot in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LastBoot {
    /// Its number; `None` for an empty journal, and where its start has been overwritten.
    pub boot: Option<u64>,
    /// What tells the last boot that opened the journal from others; `None` for an empty journal.
    pub run: Option<u64>,
    /// When its process was started.
    pub started: u64,
    /// How often its process was started again in it.
    pub restarts: u32,
    /// Its exit record.
    pub exit: Option<Exit>,
}

impl LastBoot {
    /// Whether it is of this boot, whose link had this first secret. Where that is not known, only its start tells.
    pub(super) fn is(&self, boot: u64, secret: Option<&Key>) -> bool {
        match self.boot {
            Some(found) => found == boot,
            // What was written since has overwritten it.
            None => self.exit.is_some() && self.is_opened_by(secret).unwrap_or(false),
        }
    }

    /// Whether the boot whose link had this first secret got as far as to open the journal, which is short of the start of
    /// its process; `None` where the secret is not known.
    pub(super) fn is_opened_by(&self, secret: Option<&Key>) -> Option<bool> {
        Some(self.run == Some(secret?.fingerprint()))
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
        let chain = open_chain(&self.vsphere, self.vsphere.leaf(id)).map_err(|e| failed(id, e))?;
        let table = Table::read(&chain).map_err(|e| failed(id, e))?;
        let number = container.spec.disk.journal;
        let partition = table
            .partition(number)
            .ok_or_else(|| failed(id, format!("the disk has no partition {number}")))?;
        // As the guest uses it.
        let size = match container.spec.options.log.size {
            0 => partition.size,
            most => partition.size.min(most),
        };
        let window = Window::new(chain, partition.start, size).map_err(|e| failed(id, e))?;
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
    let run = reader.run()?;
    let mut found = LastBoot {
        run,
        ..LastBoot::default()
    };
    let mut at = reader.first()?;
    loop {
        match reader.read(at)? {
            Step::Record(record, next) => {
                match record {
                    Record::Start { at, boot } => {
                        let again = found.boot == Some(boot);
                        found = LastBoot {
                            boot: Some(boot),
                            run,
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
