//! One layer's conversion, as this module uses it.

use super::progress::{Meter, Progress};
use crate::errors::{Error, Result};
use layers::Digest;
use layers::convert::{ConvertError, Expectations, Folders, Limits};
use layers::spool::{Blob, GrainImage, Spool};
use std::io::{self, Read};
use tokio::sync::oneshot;

/// A layer that was converted and is not yet on the datastore.
#[derive(Debug, Clone)]
pub(super) struct Converted {
    /// Digest of its blob.
    pub digest: Digest,
    /// Size of its blob, in bytes.
    pub compressed: u64,
    /// Its partition.
    pub image: GrainImage,
    /// Size of the partition, in bytes.
    pub partition: u64,
    /// Size of the tar, in bytes.
    pub unpacked: u64,
    /// Bytes of its files.
    pub content: u64,
    /// What rebuilds the tar.
    pub recipe: Blob,
    /// Lower layers must not be seen below it.
    pub hides_lower_layers: bool,
    /// The folders of this layer and those below it.
    pub folders: std::sync::Arc<Folders>,
}

/// What is known of a layer beforehand.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    /// Digest of the blob.
    pub digest: Option<Digest>,
    /// Size of the blob.
    pub size: Option<u64>,
    /// Digest of the tar.
    pub diff_id: Digest,
}

/// A reader that fails once the client has gone.
struct Watched<R> {
    inner: R,
    progress: Progress,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.progress.is_closed() {
            return Err(io::Error::other("the client has gone"));
        }
        self.inner.read(buf)
    }
}

/// What a layer above one that was refused is refused with.
pub(super) const LOWER_FAILED: &str = "a layer below it could not be converted";

/// Converts a layer above others, whose folders `lower` gives; blocks.
///
/// # Errors
/// [`ConvertError`]; nothing is left behind.
pub(super) fn convert(
    reader: impl Read + Send,
    expected: &Expected,
    spool: &Spool,
    lower: impl FnOnce() -> io::Result<std::sync::Arc<Folders>>,
    progress: &Progress,
    meter: Option<Meter>,
) -> std::result::Result<Converted, ConvertError> {
    let expectations = Expectations {
        digest: expected.digest,
        size: expected.size,
        diff_id: Some(expected.diff_id),
    };
    let reader = Watched {
        inner: reader,
        progress: progress.clone(),
    };
    let meter = std::sync::Mutex::new(meter);
    let layer = layers::convert::convert_above(
        reader,
        &expectations,
        spool,
        &Limits::default(),
        lower,
        move |bytes| {
            if let Ok(mut meter) = meter.lock()
                && let Some(meter) = meter.as_mut()
            {
                meter.at(bytes);
            }
        },
    )?;
    Ok(Converted {
        digest: layer.digest,
        compressed: layer.size,
        partition: layer.partition_size(),
        unpacked: layer.tar_size,
        content: layer.file_bytes,
        recipe: layer.recipe,
        hides_lower_layers: layer.hides_lower_layers,
        folders: layer.folders,
        image: layer.image,
    })
}

/// Runs something that may block for long, for a client or a registry, on a thread of its own. The runtime's threads
/// for what blocks are 512, and what waits on one of them for what has none yet waits for ever: the conversion of a
/// layer for that of the layer below it.
///
/// # Errors
/// Where there is no thread, or it panicked.
pub(super) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let (send, done) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    std::thread::Builder::new()
        .name("images".to_owned())
        .spawn(move || {
            let _runtime = runtime.enter();
            // Nobody may wait any more.
            let _ = send.send(work());
        })
        .map_err(|e| {
            Error::internal(format!(
                "no thread could be started: {e}; wait until other pulls are done"
            ))
        })?;
    done.await
        .map_err(|_| Error::internal("a thread of the endpoint ended early; its log says why"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::sync::{mpsc, watch};

    type Below = (watch::Receiver<Option<Arc<Folders>>>, mpsc::Sender<()>);

    /// Converts an empty layer above the one that `below` tells of, and says so once it waits for that.
    async fn converted(spool: &Spool, below: Option<Below>) -> Converted {
        let tar = vec![0; 1024];
        let expected = Expected {
            digest: None,
            size: None,
            diff_id: Digest::of(&tar),
        };
        let (progress, _listens) = Progress::new();
        let spool = spool.clone();
        let lower = move || {
            let Some((mut below, waits)) = below else {
                return Ok(Arc::default());
            };
            waits.blocking_send(()).map_err(io::Error::other)?;
            tokio::runtime::Handle::current()
                .block_on(below.wait_for(Option::is_some))
                .map(|folders| folders.clone().unwrap())
                .map_err(io::Error::other)
        };
        on_a_thread(move || convert(&tar[..], &expected, &spool, lower, &progress, None))
            .await
            .unwrap()
            .unwrap()
    }

    #[test]
    fn layers_that_wait_for_those_below_them_leave_these_a_thread() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path(), 1 << 30).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .max_blocking_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (send, below) = watch::channel(None);
            let (waits, mut waiting) = mpsc::channel(4);
            let upper: Vec<_> = (0..4)
                .map(|_| {
                    let (spool, below) = (spool.clone(), (below.clone(), waits.clone()));
                    tokio::spawn(async move { converted(&spool, Some(below)).await })
                })
                .collect();
            let all = async {
                // As many as the runtime has threads for.
                for _ in 0..2 {
                    waiting.recv().await.unwrap();
                }
                // Something else that blocks is done, too.
                tokio::task::spawn_blocking(|| ()).await.unwrap();
                let lowest = converted(&spool, None).await;
                send.send(Some(lowest.folders)).unwrap();
                for one in upper {
                    one.await.unwrap();
                }
            };
            let done = tokio::time::timeout(Duration::from_secs(60), all).await;
            assert!(done.is_ok(), "the lowest layer was not converted");
        });
    }
}
