//! A container's files: what is done with them for `docker cp`, `diff`, `export` and `commit`. The tether does it while the
//! VM is on; while that is off, what only reads is read from its disk.

pub mod maintenance;
mod offline;
mod pack;
mod unpack;

pub use offline::{READERS, Reading};
pub use pack::Packer;
pub use unpack::unpack;

use super::{Container, Containers};
use crate::{
    errors::{Error, Kind, Result},
    link::session::Stream,
};
use bytes::Bytes;
use link::{StreamEvent, StreamReceiver};
use maintenance::Lease;
use offline::Told;
use std::sync::Arc;
use tokio::sync::mpsc;
use wire::{
    files::{Decoder, Failure, FailureKind, Item, Job, PathStat, Record},
    message::{Channel, ToGuest},
};

/// A job with a container's files that was begun, and what comes of it.
#[derive(Debug)]
pub struct Running {
    source: Source,
    decoder: Decoder,
}

/// Where a job's records come from.
#[derive(Debug)]
enum Source {
    /// The VM, which stays up until the lease is gone.
    Vm { stream: Stream, _lease: Lease },
    /// The disk.
    Disk(Told),
}

/// A failure that a job ends with, apart from what its kind means to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobError {
    /// There is nothing at the path.
    NotFound(String),
    /// Anything else.
    Other(Error),
}

impl From<Error> for JobError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<JobError> for Error {
    fn from(error: JobError) -> Self {
        match error {
            JobError::NotFound(message) => Error::not_found(message),
            JobError::Other(error) => error,
        }
    }
}

impl From<Failure> for JobError {
    fn from(Failure { kind, message }: Failure) -> Self {
        match kind {
            FailureKind::NotFound => Self::NotFound(message),
            FailureKind::Bad => Self::Other(Error::bad(message)),
            FailureKind::System => Self::Other(Error::internal(message)),
        }
    }
}

/// Bytes of records, as they come. Cancel-safe.
trait Pieces {
    fn more(&mut self) -> impl Future<Output = Result<Bytes>> + Send;
}

impl Pieces for StreamReceiver {
    async fn more(&mut self) -> Result<Bytes> {
        match self.recv().await {
            Ok(Some(StreamEvent::Data(_, bytes))) => Ok(bytes),
            _ => Err(cut()),
        }
    }
}

impl Pieces for Source {
    async fn more(&mut self) -> Result<Bytes> {
        match self {
            Self::Vm { stream, .. } => stream.receiver.more().await,
            Self::Disk(told) => told.next().await.ok_or_else(|| {
                Error::new(
                    Kind::Unavailable,
                    "the container was started or removed while its files were copied: what was copied so far is not the whole; repeat the command",
                )
            }),
        }
    }
}

fn cut() -> Error {
    Error::new(
        Kind::Unavailable,
        "the connection to the container's VM was lost while its files were copied: what was copied so far is not the whole; repeat the command",
    )
}

impl Running {
    /// What the job's path means; the first thing that it tells.
    ///
    /// # Errors
    /// As [`Running::next`].
    pub async fn found(&mut self) -> Result<PathStat, JobError> {
        match self.next().await? {
            Some(Item::Record(Record::Found(stat))) => Ok(stat),
            _ => Err(Error::internal("the container's VM did not say what the path is").into()),
        }
    }

    /// Sends encoded entries, the last of them with the end, and waits until the guest is done with them. What comes
    /// with an error ends the job.
    ///
    /// # Errors
    /// As [`Running::next`]; the error that came.
    pub async fn feed(
        mut self,
        mut pieces: mpsc::Receiver<Result<Vec<u8>>>,
    ) -> Result<(), JobError> {
        let Source::Vm { stream, .. } = &mut self.source else {
            return Err(Error::internal("what is read from a disk takes nothing").into());
        };
        let (receiver, decoder) = (&mut stream.receiver, &mut self.decoder);
        loop {
            // A guest that gives up early says why.
            let piece = tokio::select! {
                piece = pieces.recv() => piece,
                early = read(receiver, decoder) => return early_end(early),
            };
            let Some(piece) = piece else { break };
            let mut bytes = Bytes::from(piece?);
            while !bytes.is_empty() {
                let ready = tokio::select! {
                    ready = stream.sender.ready() => ready,
                    early = read(receiver, decoder) => return early_end(early),
                };
                let sent = match ready {
                    Ok(_) => stream.sender.try_send(Channel::Stdin, bytes.clone()),
                    Err(error) => Err(error),
                };
                match sent {
                    Ok(count) => drop(bytes.split_to(count)),
                    // It may have said why.
                    Err(_) => return self.next().await.and(Err(cut().into())),
                }
            }
        }
        self.next().await.map(drop)
    }

    /// The next item before the end; `None` at the end.
    ///
    /// # Errors
    /// What the guest says of a failure; 503 where the link breaks, 500 where the guest breaks the rules.
    pub async fn next(&mut self) -> Result<Option<Item>, JobError> {
        read(&mut self.source, &mut self.decoder).await
    }
}

/// What a guest says before it has all that it was to get.
fn early_end(told: Result<Option<Item>, JobError>) -> Result<(), JobError> {
    let early = "the container's VM was done with the archive before its end";
    told.and(Err(Error::internal(early).into()))
}

/// Cancel-safe.
async fn read(pieces: &mut impl Pieces, decoder: &mut Decoder) -> Result<Option<Item>, JobError> {
    loop {
        let item = decoder.next_item();
        match item.map_err(|e| Error::internal(format!("the container's VM sent {e}")))? {
            Some(Item::Record(Record::End)) => return Ok(None),
            Some(Item::Record(Record::Failed(failure))) => return Err(failure.into()),
            Some(item) => return Ok(Some(item)),
            None => {}
        }
        decoder.push(&pieces.more().await?);
    }
}

impl Containers {
    /// Begins a job with a container's files. Where it does not run, they are read from its disk, or its VM is started for
    /// them.
    ///
    /// # Errors
    /// Those of the start, 503 where the link is away.
    pub async fn job(self: &Arc<Self>, container: &Arc<Container>, job: Job) -> Result<Running> {
        let (Job::Stat { path } | Job::Read { path } | Job::Write { path, .. }) = &job else {
            return self.begin_job(container, job).await;
        };
        super::volumes::check_reachable(container, &String::from_utf8_lossy(path))?;
        self.begin_job(container, job).await
    }

    async fn begin_job(self: &Arc<Self>, container: &Arc<Container>, job: Job) -> Result<Running> {
        if let Some(told) = self.read_disk(container, &job).await {
            return Ok(Running {
                source: Source::Disk(told),
                decoder: Decoder::new(),
            });
        }
        // Whole, even if the client goes: a VM that is on its way up is ended again then.
        let (this, own, writes) = (self.clone(), container.clone(), job.writes());
        let lease = tokio::spawn(async move { this.reach(&own, writes).await })
            .await
            .map_err(|e| Error::internal(format!("the request's task ended: {e}")))??;
        let (stream, both) = lease.session.open()?;
        lease
            .session
            .done(|request| ToGuest::Files {
                request,
                stream,
                job,
            })
            .await?;
        Ok(Running {
            source: Source::Vm {
                stream: both,
                _lease: lease,
            },
            decoder: Decoder::new(),
        })
    }
}
