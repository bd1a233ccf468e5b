//! The network namespace that the endpoint routes in. In the appliance VM it is the process's own; beside hostsim it is
//! one that was made for it, so that the machine's own set-up is not touched.

use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A network namespace, kept open.
#[derive(Debug, Clone)]
pub struct Namespace {
    path: PathBuf,
    file: Arc<File>,
}

impl Namespace {
    /// Opens a namespace by its file: `/run/netns/NAME`, or `/proc/self/ns/net` for the process's own.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(File::open(path)?),
        })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` inside. A namespace is entered by one thread, so a thread of its own does it; sockets that it opens
    /// stay in there, whoever uses them. The runtime is at hand for those that need one.
    ///
    /// # Errors
    /// Those of setns(2), and what `work` gives.
    pub async fn enter<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let file = self.file.clone();
        let runtime = tokio::runtime::Handle::current();
        let (answer, answered) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn(move || {
                let _runtime = runtime.enter();
                let result = setns(&*file, CloneFlags::CLONE_NEWNET)
                    .map_err(io::Error::from)
                    .and_then(|()| work());
                let _nobody_waits = answer.send(result);
            })?;
        answered
            .await
            .map_err(|_| io::Error::other("the thread in the namespace ended early"))?
    }
}
