//! A blob on its way to a client: one bounded buffer at a time, read when the client takes more.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http_body::{Body, Frame, SizeHint};
use rustix::io::ReadWriteFlags;
use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

/// Bytes read at once, and so what a slow client costs: one that is written, one that waits.
const CHUNK: u64 = 64 * 1024;

/// The bytes of a blob's range.
pub struct BlobBody {
    source: Source,
    left: u64,
}

enum Source {
    File {
        file: Arc<File>,
        offset: u64,
        reading: Option<JoinHandle<io::Result<Bytes>>>,
    },
    Stream(BoxStream<'static, Result<Bytes, object_store::Error>>),
}

impl std::fmt::Debug for BlobBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobBody")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl BlobBody {
    pub(super) fn file(file: File, range: Range<u64>) -> Self {
        BlobBody {
            left: range.end.saturating_sub(range.start),
            source: Source::File {
                file: Arc::new(file),
                offset: range.start,
                reading: None,
            },
        }
    }

    pub(super) fn stream(
        stream: BoxStream<'static, Result<Bytes, object_store::Error>>,
        length: u64,
    ) -> Self {
        BlobBody {
            left: length,
            source: Source::Stream(stream),
        }
    }
}

impl Body for BlobBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let bytes = match &mut this.source {
            Source::File {
                file,
                offset,
                reading,
            } => {
                let bytes = ready!(poll_file(file, *offset, this.left, reading, context))?;
                *offset += bytes.len() as u64;
                bytes
            }
            Source::Stream(stream) => match ready!(stream.as_mut().poll_next(context)) {
                Some(bytes) => bytes.map_err(io::Error::other)?,
                None => Bytes::new(),
            },
        };
        if bytes.is_empty() || bytes.len() as u64 > this.left {
            this.left = 0;
            return Poll::Ready(Some(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the stored blob has not the length that was recorded",
            ))));
        }
        this.left -= bytes.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The next bytes: at once if they are in the page cache, else from a thread that may wait for the disk.
fn poll_file(
    file: &Arc<File>,
    offset: u64,
    left: u64,
    reading: &mut Option<JoinHandle<io::Result<Bytes>>>,
    context: &mut Context<'_>,
) -> Poll<io::Result<Bytes>> {
    if reading.is_none() {
        // No more than CHUNK, which fits.
        let length = usize::try_from(left.min(CHUNK)).unwrap_or(0);
        let mut buffer = vec![0; length];
        let read = rustix::io::preadv2(
            &**file,
            &mut [IoSliceMut::new(&mut buffer)],
            offset,
            ReadWriteFlags::NOWAIT,
        );
        if let Ok(n) = read
            && n > 0
        {
            buffer.truncate(n);
            return Poll::Ready(Ok(buffer.into()));
        }
        let file = file.clone();
        *reading = Some(tokio::task::spawn_blocking(move || {
            let n = file.read_at(&mut buffer, offset)?;
            buffer.truncate(n);
            Ok(buffer.into())
        }));
    }
    let Some(task) = reading else {
        return Poll::Pending; // never: it was just set
    };
    let done = ready!(Pin::new(task).poll(context));
    *reading = None;
    Poll::Ready(done.unwrap_or_else(|e| Err(io::Error::other(e))))
}
