//! `docker pause` and `unpause`.

use super::{Container, Containers};
use crate::errors::{Error, Result};
use std::sync::Arc;
use wire::message::ToGuest;

impl Containers {
    /// Freezes all processes of a container.
    ///
    /// # Errors
    /// 409 where it does not run or is paused already.
    pub async fn pause(&self, container: &Arc<Container>) -> Result<()> {
        let _operation = container.operation.lock().await;
        if container.status().paused {
            return Err(Error::conflict(format!(
                "Container {} is already paused",
                container.id()
            )));
        }
        self.freeze(container, true).await
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// 409 where it is not paused.
    pub async fn unpause(&self, container: &Arc<Container>) -> Result<()> {
        let _operation = container.operation.lock().await;
        if !container.status().paused {
            return Err(Error::conflict(format!(
                "Container {} is not paused",
                container.id()
            )));
        }
        self.freeze(container, false).await
    }

    /// What was sent to a paused one takes effect once it goes on.
    pub(super) async fn unpause_to_end(&self, container: &Container) {
        if container.status().paused
            && let Err(error) = self.freeze(container, false).await
        {
            tracing::debug!(id = container.id(), %error, "unpause");
        }
    }

    async fn freeze(&self, container: &Container, frozen: bool) -> Result<()> {
        let session = container.session().await?;
        session
            .done(|request| ToGuest::Freeze { request, frozen })
            .await?;
        // Its end may have been told meanwhile.
        container.modify(|status| status.paused = frozen && status.running());
        let action = if frozen { "pause" } else { "unpause" };
        self.emit(container, action, &[]);
        Ok(())
    }

    /// The OOM killer was there.
    pub(super) fn oom(&self, container: &Container, boot: u64) {
        let news = container.modify(|status| {
            let news = status.boot() == boot && status.running();
            status.oom |= news;
            news
        });
        if news {
            self.emit(container, "oom", &[]);
        }
    }
}
