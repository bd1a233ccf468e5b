//! Putting an image's VMDKs where they belong.

use std::future::Future;
use std::io;
use std::path::PathBuf;

use super::{ImagePlan, PlanError};
use crate::spool::GrainImage;
use crate::vmdk::VmdkBody;

/// A place for image VMDKs: a datastore folder by upload, or by disks attached to the endpoint's VM.
///
/// The names are file names without folders. A `put` either places the whole body under the name or leaves nothing.
pub trait BlockSink: Send + Sync {
    /// What can go wrong.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Whether a VMDK of this name is there, whole.
    fn exists(&self, name: &str) -> impl Future<Output = Result<bool, Self::Error>> + Send;
    /// Places a VMDK. [`VmdkBody::reader`] gives its bytes, again for each attempt.
    fn put(
        &self,
        name: &str,
        body: VmdkBody,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
    /// Removes a VMDK; one that is not there is removed already.
    fn delete(&self, name: &str) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// What [`place`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placed {
    /// VMDKs that were put.
    pub put: Vec<String>,
    /// VMDKs that were there.
    pub shared: Vec<String>,
}

/// Why an image could not be placed. What had been put was removed again.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError<E: std::error::Error + 'static> {
    /// A VMDK could not be rendered.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The sink failed.
    #[error("cannot place the VMDK {name}: {source}")]
    Sink {
        /// The VMDK's name.
        name: String,
        /// What the sink says.
        source: E,
    },
}

/// Puts the VMDKs of `plan` that `sink` does not have, parents first. On an error those that this call put are removed
/// again, children first. Two calls at once for images that share layers must be kept apart by the caller.
pub async fn place<S: BlockSink>(
    plan: &ImagePlan,
    sink: &S,
    layer: impl Fn(usize) -> Option<GrainImage> + Send,
) -> Result<Placed, PlaceError<S::Error>> {
    let mut placed = Placed::default();
    for vmdk in &plan.vmdks {
        let name = vmdk.identity.name.as_str();
        let failed = |source| PlaceError::Sink {
            name: name.to_owned(),
            source,
        };
        let result = match sink.exists(name).await {
            Ok(true) => {
                placed.shared.push(name.to_owned());
                continue;
            }
            Ok(false) => match vmdk.body(&layer) {
                Ok(body) => sink.put(name, body).await.map_err(failed),
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(failed(error)),
        };
        if let Err(error) = result {
            for name in placed.put.iter().rev() {
                // The first error is the one to tell; a VMDK that stays has a name that the next pull finds.
                let _ = sink.delete(name).await;
            }
            return Err(error);
        }
        placed.put.push(name.to_owned());
    }
    Ok(placed)
}

/// A local folder as a sink: a datastore's folder on a machine of one's own. Blocks while it writes.
#[derive(Debug, Clone)]
pub struct FolderSink {
    folder: PathBuf,
}

impl FolderSink {
    /// A sink into `folder`, which must exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    fn sync(&self) -> io::Result<()> {
        std::fs::File::open(&self.folder)?.sync_all()
    }
}

impl BlockSink for FolderSink {
    type Error = io::Error;

    async fn exists(&self, name: &str) -> io::Result<bool> {
        self.folder.join(name).try_exists()
    }

    async fn put(&self, name: &str, body: VmdkBody) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        io::copy(&mut body.reader(), &mut file)?;
        file.as_file().sync_all()?;
        file.persist(self.folder.join(name))
            .map_err(|error| error.error)?;
        self.sync()
    }

    async fn delete(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.and_then(|()| self.sync()),
        }
    }
}
