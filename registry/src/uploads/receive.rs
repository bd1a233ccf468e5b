//! From a request's body into the staged file: while one piece is hashed and written on a blocking thread, the next one
//! comes in. Long chunks are synced and recorded on their way, so that a crash costs at most [`STRIDE`].

use super::session::{Session, blocking};
use super::turn::Slot;
use super::{Error, blobs};
use crate::digest::Hasher;
use crate::metadata::Metadata;
use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Bytes hashed and written at once.
const PIECE: usize = 1 << 20;
/// Bytes of a chunk after which it is synced and recorded while more comes in.
const STRIDE: u64 = 32 << 20;

type Written = Result<Hasher, Error>;

impl Session {
    /// Takes in a body. What came before an error is kept, in the file and in the hash alike.
    pub(super) async fn receive<B>(
        &mut self,
        metadata: &Arc<Metadata>,
        slot: &Slot,
        range: Option<(u64, u64)>,
        mut body: B,
    ) -> Result<(), Error>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let wanted = match range {
            Some((begin, _)) if begin != self.received => {
                return Err(Error::OutOfOrder {
                    begin,
                    received: self.received,
                });
            }
            Some((_, length)) => Some(length),
            None => None,
        };
        let mut pump = Pump::new(self, metadata);
        let mut came = 0;
        let ended = loop {
            let frame = tokio::select! {
                biased;
                () = slot.wanted.notified() => {
                    break Err(Error::Cut("another request goes on with this upload".into()));
                }
                frame = body.frame() => frame,
            };
            let bytes = match frame {
                None => break Ok(()),
                Some(Err(e)) => break Err(Error::Cut(e.to_string())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => bytes,
                    Err(_trailers) => continue,
                },
            };
            slot.touch();
            came += bytes.len() as u64;
            if let Some(wanted) = wanted
                && came > wanted
            {
                break Err(Error::Size {
                    found: came,
                    wanted,
                });
            }
            if let Err(e) = pump.push(bytes).await {
                break Err(e);
            }
        };
        // The first failure is the one to tell.
        let finished = pump.finish().await;
        ended.and(finished)?;
        match wanted {
            Some(wanted) if came < wanted => Err(Error::Size {
                found: came,
                wanted,
            }),
            _ => Ok(()),
        }
    }
}

/// What is between the network and the disk.
struct Pump<'a> {
    session: &'a mut Session,
    metadata: &'a Arc<Metadata>,
    gathered: Vec<Bytes>,
    size: usize,
    writing: Option<(JoinHandle<Written>, u64)>,
    /// Gives the bytes that the record tells of now.
    recording: Option<JoinHandle<Option<u64>>>,
    stride: u64,
}

impl<'a> Pump<'a> {
    fn new(session: &'a mut Session, metadata: &'a Arc<Metadata>) -> Self {
        let stride = session.received + STRIDE;
        Pump {
            session,
            metadata,
            gathered: Vec::new(),
            size: 0,
            writing: None,
            recording: None,
            stride,
        }
    }

    async fn push(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.size += bytes.len();
        self.gathered.push(bytes);
        if self.size >= PIECE {
            self.write().await?;
        }
        Ok(())
    }

    /// Hands what was gathered to a blocking thread, once that is done with the piece before.
    async fn write(&mut self) -> Result<(), Error> {
        self.written().await?;
        let Some(hasher) = self.session.hasher.take() else {
            return Err(Error::Broken(format!(
                "{} failed before; begin it again",
                self.session.id()
            )));
        };
        let pieces = std::mem::take(&mut self.gathered);
        let size = std::mem::take(&mut self.size) as u64;
        let (file, offset) = (self.session.file.clone(), self.session.received);
        let id = self.session.id().to_owned();
        let task =
            tokio::task::spawn_blocking(move || write_at(&file, offset, hasher, &pieces, &id));
        self.writing = Some((task, size));
        Ok(())
    }

    /// Waits for the piece that is being written.
    async fn written(&mut self) -> Result<(), Error> {
        let Some((task, size)) = self.writing.take() else {
            return Ok(());
        };
        let hasher = task
            .await
            .unwrap_or_else(|e| Err(Error::Broken(e.to_string())))?;
        self.session.hasher = Some(hasher);
        self.session.received += size;
        if self.session.received >= self.stride && self.session.is_recorded() {
            self.record_aside().await?;
        }
        Ok(())
    }

    /// Syncs and records what is written by now, unless that is still being done for an earlier stride.
    async fn record_aside(&mut self) -> Result<(), Error> {
        if self.recording.as_ref().is_some_and(|r| !r.is_finished()) {
            return Ok(());
        }
        self.recorded().await?;
        self.stride = self.session.received + STRIDE;
        let (file, row, metadata) = (
            self.session.file.clone(),
            self.session.row(),
            self.metadata.clone(),
        );
        self.recording = Some(tokio::spawn(async move {
            let id = row.id.clone();
            let synced = blocking(move || {
                Ok(file
                    .sync_data()
                    .map_err(blobs::Error::file("sync upload", row.id.clone()))
                    .map(|()| row)?)
            })
            .await;
            let recorded = match synced {
                Ok(row) => metadata
                    .write(move |db| db.record_upload(&row).map(|()| row.received))
                    .await
                    .map_err(Error::from),
                Err(e) => Err(e),
            };
            match recorded {
                Ok(received) => Some(received),
                Err(e) => {
                    // The chunk's end syncs and records again, and answers with what went wrong then.
                    tracing::warn!("upload {id} could not be recorded on its way: {e}");
                    None
                }
            }
        }));
        Ok(())
    }

    /// Waits for a record that is being written.
    async fn recorded(&mut self) -> Result<(), Error> {
        if let Some(recording) = self.recording.take() {
            let received = recording.await.map_err(|e| Error::Broken(e.to_string()))?;
            if let Some(received) = received {
                self.session.is_recorded_to(received);
            }
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<(), Error> {
        let mut written = self.written().await;
        if self.size > 0 && self.session.hasher.is_some() {
            written = match self.write().await {
                Ok(()) => self.written().await,
                failed => failed,
            };
        }
        // An older record must not come after the newer one that follows.
        self.recorded().await?;
        written
    }
}

fn write_at(
    file: &File,
    mut offset: u64,
    mut hasher: Hasher,
    pieces: &[Bytes],
    id: &str,
) -> Written {
    for piece in pieces {
        file.write_all_at(piece, offset)
            .map_err(blobs::Error::file("write upload", id))?;
        offset += piece.len() as u64;
        hasher.update(piece);
    }
    Ok(hasher)
}
