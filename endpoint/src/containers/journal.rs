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

#[cfg(test)]
mod tests {
    use super::*;
    use journal::{Stream, Writer};
    use std::fs::File;

    const SIZE: u64 = 1 << 20;

    /// The journal of two boots: the first one ended, the second one as `second` leaves it.
    fn two_boots(keys: &[Key; 2], second: impl FnOnce(&mut Writer<File>)) -> LastBoot {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        let open = |key: &Key| Writer::open(file.try_clone().unwrap(), key.fingerprint()).unwrap();
        let mut first = open(&keys[0]);
        first.start(1, 1).unwrap();
        first.exit(&exit(0, 2)).unwrap();
        first.flush().unwrap();
        let mut writer = open(&keys[1]);
        second(&mut writer);
        writer.flush().unwrap();
        last_boot(&mut Reader::open(file).unwrap()).unwrap()
    }

    fn exit(code: i32, at: u64) -> Exit {
        Exit {
            code,
            oom: false,
            at,
            reason: String::new(),
        }
    }

    fn keys() -> [Key; 2] {
        ["11", "22"].map(|byte| Key::from_hex(&byte.repeat(32)).unwrap())
    }

    #[test]
    fn an_exit_counts_though_its_start_was_overwritten() {
        let keys = keys();
        let found = two_boots(&keys, |writer| {
            writer.start(3, 2).unwrap();
            for at in 0..64 {
                writer
                    .output(Stream::Stdout, 4 + at, &[b'x'; 65_536])
                    .unwrap();
            }
            writer.exit(&exit(7, 100)).unwrap();
        });
        assert_eq!((found.boot, found.exit.clone()), (None, Some(exit(7, 100))));
        assert!(found.is(2, Some(&keys[1])));
        // Of another boot, or where nobody knows of which.
        assert!(!found.is(1, Some(&keys[0])));
        assert!(!found.is(2, None));
    }

    #[test]
    fn an_earlier_boot_s_end_is_not_that_of_one_that_was_cut_short() {
        let keys = keys();
        // It opened the journal; its process was not started.
        let opened = two_boots(&keys, |_| {});
        assert_eq!(opened.boot, Some(1));
        assert!(!opened.is(2, Some(&keys[1])));
        assert_eq!(opened.is_opened_by(Some(&keys[1])), Some(true));
        // It did not come so far.
        let third = Key::from_hex(&"33".repeat(32)).unwrap();
        assert_eq!(opened.is_opened_by(Some(&third)), Some(false));
        assert_eq!(opened.is_opened_by(None), None);
        // A process that runs has a start and no end.
        let runs = two_boots(&keys, |writer| writer.start(3, 2).unwrap());
        assert!(runs.is(2, None) && runs.exit.is_none());
    }
}
