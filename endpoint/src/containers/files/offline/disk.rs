//! A container's disk, opened as the layers that its root consists of.

use super::super::super::{Container, Containers};
use super::tree::Unread;
use crate::{
    volumes::mounts,
    vsphere::{Vsphere, open_chain},
};
use layers::{
    ext4::{Kind, Time, read::Filesystem},
    gpt::Table,
    io::Window,
    overlay::{Branch, Layer, Made, Node, Overlay},
    vmdk::Chain,
};
use std::sync::Arc;

/// A volume's folder that containers see: the tether's `data`.
const DATA: &[u8] = b"data";
/// The ephemeral file system's folder that the container writes to: the tether's `UPPER`.
const UPPER: &[u8] = b"upper";
/// Docker's mark: see the tether's `INIT`.
const MARK: &[u8] = b".dockerenv";

/// What a job is done with.
#[derive(Debug)]
pub struct Opened {
    /// The root, or the upper folder where changes are looked for.
    pub tree: Overlay<'static>,
    /// The image's layers alone, for those who look for changes.
    pub image: Overlay<'static>,
}

/// A partition.
type Part = Window<Arc<Chain>>;

fn unread(error: impl std::fmt::Display) -> Unread {
    Unread::Open(error.to_string())
}

/// What is made here, not read.
fn made(kind: Kind, mode: u16, container: &Container) -> Node {
    Node {
        kind,
        mode,
        uid: 0,
        gid: 0,
        size: 0,
        links: 1,
        mtime: Time::from_secs((container.spec.created / 1_000_000_000) as i64),
        device: (0, 0),
    }
}

struct Partitions {
    chain: Arc<Chain>,
    table: Table,
}

impl Partitions {
    fn open(vsphere: &Arc<Vsphere>, id: &str) -> Result<Self, Unread> {
        let chain = open_chain(vsphere, vsphere.leaf(id)).map_err(unread)?;
        let chain = Arc::new(chain);
        let table = Table::read(&chain).map_err(unread)?;
        Ok(Self { chain, table })
    }

    fn file_system(&self, number: u32) -> Result<Filesystem<Part>, Unread> {
        let partition = self
            .table
            .partition(number)
            .ok_or_else(|| Unread::Open(format!("the disk has no partition {number}")))?;
        let part = Window::new(self.chain.clone(), partition.start, partition.size);
        Ok(Filesystem::open(part.map_err(unread)?)?)
    }
}

impl Containers {
    /// Opens the disk of a container whose VM is off; `changes`: to look for changes. Blocks.
    ///
    /// # Errors
    /// Why it cannot be read here.
    pub(super) fn open_root(&self, container: &Container, changes: bool) -> Result<Opened, Unread> {
        let disk = &container.spec.disk;
        let partitions = Partitions::open(&self.vsphere, container.id())?;
        let layers = || {
            let numbers = disk.layers.iter().rev();
            let opened = numbers.map(|number| {
                let layer = Branch::whole(partitions.file_system(*number)?)?;
                Ok(Box::new(layer) as Box<dyn Layer>)
            });
            opened.collect::<Result<Vec<_>, Unread>>()
        };
        let upper = Branch::folder(partitions.file_system(disk.ephemeral)?, UPPER)?;
        let mark = (MARK.to_vec(), made(Kind::File, 0o755, container));
        let mut root = made(Kind::Directory, 0o755, container);
        if changes {
            let upper: Box<dyn Layer> = match upper {
                Some(upper) => Box::new(upper),
                // It was never on.
                None => Box::new(Made::new(root, Vec::new())),
            };
            return Ok(Opened {
                tree: Overlay::plain(upper),
                image: Overlay::new(layers()?)?,
            });
        }
        let mut all: Vec<Box<dyn Layer>> = Vec::new();
        let layers = layers()?;
        match (upper, layers.first()) {
            (Some(upper), _) => all.push(Box::new(upper)),
            // The first boot will make one that looks like the topmost layer's root.
            (None, Some(top)) => root = top.node(top.top())?,
            (None, None) => {}
        }
        all.push(Box::new(Made::new(root, vec![mark])));
        all.extend(layers);
        Ok(Opened {
            tree: Overlay::new(all)?,
            image: Overlay::new(Vec::new())?,
        })
    }

    /// Opens the disks of a container's volumes, in the order of [`mounts::disks`]. Blocks.
    ///
    /// # Errors
    /// As [`Containers::open_root`].
    pub(super) fn open_volumes(
        &self,
        container: &Container,
    ) -> Result<Vec<(String, Overlay<'static>)>, Unread> {
        let disks = mounts::disks(&container.spec.mounts).into_iter();
        let opened = disks.map(|(mount, _)| {
            let disk = open_chain(&self.vsphere, self.volumes.disk(&mount.volume));
            let fs = Filesystem::open(disk.map_err(unread)?)?;
            let layer: Box<dyn Layer> = match Branch::folder(fs, DATA)? {
                Some(data) => Box::new(data),
                // It was never written to.
                None => Box::new(Made::new(
                    made(Kind::Directory, 0o755, container),
                    Vec::new(),
                )),
            };
            Ok((mount.volume.clone(), Overlay::plain(layer)))
        });
        opened.collect()
    }
}
