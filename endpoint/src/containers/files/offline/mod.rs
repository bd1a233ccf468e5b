//! The files of a container whose VM is off, read from its disk and those of its volumes: no VM is started for them. What
//! is on no disk (the machine's own files), and what is not understood here, is left to a VM in maintenance.

mod disk;
mod reading;
mod tree;

pub use reading::{READERS, Reading};

use super::super::{Container, Containers, start::OFF_LIMIT, state::Status};
use crate::errors::Result;
use bytes::Bytes;
use filetree::{Output, system};
use layers::overlay::{Overlay, View};
use reading::Reader;
use std::{
    io::{self, Write},
    sync::Arc,
};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tree::{Disk, Unread};
use wire::files::{Failure, Job, Record};

/// Pieces of some 64 KiB that wait for the client, at most.
const QUEUE: usize = 4;

/// Bytes of stack for a job: a guest may have folders in each other as deep as paths can name.
const STACK: usize = 32 << 20;

/// Runs a job beside all else.
fn on_own_stack(job: impl FnOnce() + Send + 'static) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name("files".to_owned())
        .stack_size(STACK)
        .spawn(job)
}

/// What a job tells, as it comes.
#[derive(Debug)]
pub struct Told {
    /// It came before anything else: with it the job is known to go on.
    first: Option<Bytes>,
    pieces: mpsc::Receiver<Result<Bytes, Unread>>,
    /// The reader ends with this.
    _end: DropGuard,
}

impl Told {
    /// The next bytes of encoded records; `None` where the job was cut.
    pub async fn next(&mut self) -> Option<Bytes> {
        match self.first.take() {
            Some(first) => Some(first),
            None => self.pieces.recv().await?.ok(),
        }
    }
}

/// Whether a VM that is on, or about to be, is the way to the files; or there are none any more.
fn needs_vm(status: &Status) -> bool {
    status.live() || status.maintenance.is_some() && status.on || status.gone || status.removing
}

/// Whether the VM is off, and what that means for the container is known.
fn is_off(status: &Status) -> bool {
    !status.on && status.maintenance.is_none()
}

impl Containers {
    /// Begins a job that only reads. `None`: it takes the container's VM.
    pub(super) async fn read_disk(
        self: &Arc<Self>,
        container: &Arc<Container>,
        job: &Job,
    ) -> Option<Told> {
        let status = container.status();
        if job.writes() || status.live() || status.reading.is_refused() {
            return None;
        }
        let reader = {
            let _operation = container.operation.lock().await;
            let known = |status: &Status| is_off(status) || needs_vm(status);
            let status = container.until(Some(OFF_LIMIT), known).await?;
            if needs_vm(&status) {
                return None;
            }
            let permit = self.readers.clone().try_acquire_owned().ok()?;
            Reader::begin(container, permit)
        };
        let (sender, mut pieces) = mpsc::channel(QUEUE);
        let end = reader.cut.clone().drop_guard();
        let (this, job) = (self.clone(), job.clone());
        let runtime = Handle::current();
        let begun = on_own_stack(move || {
            let _entered = runtime.enter();
            this.tell_files(&reader, &job, sender);
        });
        if let Err(error) = begun {
            tracing::warn!(id = container.id(), %error, "no thread to read its disk");
            return None;
        }
        match pieces.recv().await? {
            Ok(first) => Some(Told {
                first: Some(first),
                pieces,
                _end: end,
            }),
            Err(unread) => {
                tracing::info!(id = container.id(), %unread, "its VM is started for its files");
                None
            }
        }
    }

    /// Does a job from its beginning to its last record. Blocks.
    fn tell_files(
        self: &Arc<Self>,
        reader: &Reader,
        job: &Job,
        sender: mpsc::Sender<Result<Bytes, Unread>>,
    ) {
        let pieces = Pieces {
            sender,
            cut: reader.cut.clone(),
            sent: false,
        };
        let mut out = Output::new(pieces);
        let (done, unread) = self.do_job(reader, job, &mut out);
        if let Some(unread) = unread {
            if !out.to().sent {
                let _nobody_waits = out.to().sender.blocking_send(Err(unread));
                return;
            }
            // The next one is told by the VM, whose kernel may know more of it.
            reader.refuse();
        }
        let last = match done {
            Ok(()) if reader.disturbed() => Record::Failed(system(
                "the container's VM was powered on while its disk was read; repeat the command",
            )),
            Ok(()) => Record::End,
            Err(Failure { kind, message }) if reader.is_refused() => Record::Failed(Failure {
                kind,
                message: format!(
                    "{message}; repeat the command: the container's VM is started for it then"
                ),
            }),
            Err(failure) => Record::Failed(failure),
        };
        let _nobody_reads = out.record(&last).and_then(|()| out.flush());
    }

    fn do_job(
        self: &Arc<Self>,
        reader: &Reader,
        job: &Job,
        out: &mut Output<Pieces>,
    ) -> (Result<(), Failure>, Option<Unread>) {
        let changes = matches!(job, Job::Changes | Job::Layer);
        let opened = match self.open_root(&reader.container, changes) {
            Ok(opened) => opened,
            Err(unread) => return (Err(system(unread.to_string())), Some(unread)),
        };
        let mut tree = Disk::new(View::new(&opened.tree), &reader.cut);
        let mut image = Disk::new(View::new(&opened.image), &reader.cut);
        let in_image = &mut |path: &[u8]| image.at(path);
        let done = match job {
            Job::Stat { path } | Job::Read { path } => {
                let whole = matches!(job, Job::Read { .. });
                return self.tell_place(reader, &opened.tree, path, whole, out);
            }
            Job::Export => filetree::export(&mut tree, out),
            Job::Changes => filetree::list(&mut tree, in_image, out),
            Job::Layer => filetree::layer(&mut tree, in_image, out),
            Job::Write { .. } => Err(system("a disk is only read here")),
        };
        (done, tree.unread.take().or(image.unread.take()))
    }

    /// Tells what a path means, and all that is there if it is `whole`.
    fn tell_place(
        self: &Arc<Self>,
        reader: &Reader,
        root: &Overlay<'_>,
        path: &[u8],
        whole: bool,
        out: &mut Output<Pieces>,
    ) -> (Result<(), Failure>, Option<Unread>) {
        let container = &reader.container;
        let mut tree = Disk::new(View::new(root), &reader.cut);
        let done = mount_all(&mut tree, container, &[])
            .and_then(|()| tell_place(&mut tree, path, whole, out));
        if !matches!(tree.unread, Some(Unread::Mount(_))) {
            return (done, tree.unread);
        }
        // Nothing was told: where a path leads is known before.
        let claim = self.claim_volumes(container, "reach the files of container");
        // Why it cannot be had is told by the way that takes the VM.
        let Ok(_claim) = Handle::current().block_on(claim) else {
            return (done, tree.unread);
        };
        let volumes = match self.open_volumes(container) {
            Ok(volumes) => volumes,
            Err(unread) => return (done, Some(unread)),
        };
        let mut tree = Disk::new(View::new(root), &reader.cut);
        let done = mount_all(&mut tree, container, &volumes)
            .and_then(|()| tell_place(&mut tree, path, whole, out));
        (done, tree.unread)
    }
}

fn tell_place(
    tree: &mut Disk<'_>,
    path: &[u8],
    whole: bool,
    out: &mut Output<Pieces>,
) -> Result<(), Failure> {
    if !whole {
        let (found, target) = tree.go(path)?;
        return filetree::stat(&found, target, out);
    }
    let (found, target) = tree.go_whole(path)?;
    filetree::stat(&found, target, out)?;
    filetree::read(tree, &found, out)
}

/// Mounts what a container has mounted, an outer one before what is in it; what is not among the volumes is elsewhere.
fn mount_all<'a>(
    tree: &mut Disk<'a>,
    container: &Container,
    volumes: &'a [(String, Overlay<'static>)],
) -> Result<(), Failure> {
    let spec = &container.spec;
    let mounts = spec.mounts.iter().map(|mount| (&mount.target, Some(mount)));
    let shares = spec.shares.iter().map(|share| (&share.target, None));
    let mut all: Vec<_> = mounts.chain(shares).collect();
    all.sort_by_key(|(target, _)| *target);
    for (target, mount) in all {
        let volume = mount.and_then(|mount| {
            let mut numbered = (1..).zip(volumes);
            let (disk, (_, volume)) = numbered.find(|(_, (name, _))| *name == mount.volume)?;
            Some((disk, volume, &mount.subpath))
        });
        let view = match volume {
            None => None,
            Some((disk, volume, subpath)) => {
                let part = tree.of_another(View::new(volume), |disk| disk.part(subpath))?;
                Some((View::at(volume, part), disk))
            }
        };
        tree.mount(target, view)?;
    }
    Ok(())
}

/// Hands on what a job tells.
struct Pieces {
    sender: mpsc::Sender<Result<Bytes, Unread>>,
    cut: CancellationToken,
    /// Something was handed on.
    sent: bool,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        let sent = Handle::current().block_on(async {
            tokio::select! {
                sent = self.sender.send(Ok(piece)) => sent.is_ok(),
                () = self.cut.cancelled() => false,
            }
        });
        self.sent = true;
        match sent {
            true => Ok(bytes.len()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
