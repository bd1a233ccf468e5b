//! `docker commit`: a container's changes as a layer of a new image.

use super::{Container, Containers, config::Config, files::Packer, instructions};
use crate::{
    errors::{Error, Result},
    images::{Images, Reference, commit::Described},
};
use futures_util::TryStreamExt;
use layers::Digest;
use std::sync::Arc;
use wire::files::Job;

/// What a client asks for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Name of the new image.
    pub name: Option<Reference>,
    /// For its history.
    pub comment: String,
    /// Who made it.
    pub author: String,
    /// The container is not to run meanwhile.
    pub pause: bool,
    /// Configuration in place of the container's.
    pub config: Option<Config>,
    /// Instructions of a Dockerfile that change it.
    pub changes: Vec<String>,
}

impl Containers {
    /// Makes an image of a container. Its ID.
    ///
    /// # Errors
    /// 400 for a wrong change, 409 where the container is on its way out, those of reading and placing the layer.
    pub async fn commit(
        self: &Arc<Self>,
        container: &Arc<Container>,
        images: &Arc<Images>,
        wanted: Wanted,
    ) -> Result<Digest> {
        let own = &container.spec.config;
        let given = wanted.config.is_some();
        let mut config = wanted.config.unwrap_or_else(|| own.clone());
        instructions::apply(&mut config, &wanted.changes)?;
        if given {
            // As for a new container; one without a command is an image all the same.
            let _no_command = config.merge(own);
        }
        images.can_place()?;
        images.registry().check_unsigned("docker commit")?;
        let frozen = wanted.pause && container.status().running() && !container.status().paused;
        if frozen {
            self.pause(container).await?;
        }
        let tar = self.spool_changes(container, images).await;
        if frozen && let Err(error) = self.unpause(container).await {
            // It may have ended, or been unpaused by someone else.
            tracing::debug!(id = container.id(), %error, "unpause after a commit");
        }
        let created = time::OffsetDateTime::now_utc()
            .format(&time::format_description::well_known::Rfc3339)
            .map_err(|e| Error::internal(e.to_string()))?;
        let described = Described {
            author: wanted.author,
            comment: wanted.comment.clone(),
            created,
            created_by: own.cmd.clone().unwrap_or_default().join(" "),
            config: serde_json::to_value(&config).map_err(|e| Error::internal(e.to_string()))?,
            container: container.id().to_owned(),
        };
        let name = wanted.name.as_ref();
        let id = images
            .commit_layer(&container.spec.image, tar?, described, name)
            .await?;
        let more = [
            ("comment", wanted.comment),
            ("imageID", id.to_string()),
            (
                "imageRef",
                name.and_then(Reference::tagged).unwrap_or_default(),
            ),
        ];
        self.tell(container, "commit", &more);
        Ok(id)
    }

    /// The container's changes as a tar in the spool.
    async fn spool_changes(
        self: &Arc<Self>,
        container: &Arc<Container>,
        images: &Images,
    ) -> Result<std::fs::File> {
        let job = self.job(container, Job::Layer).await?;
        let layer = Packer::new(job, Vec::new())
            .stream()
            .map_err(|e| e.to_string());
        // What broke off is the guest's: not the request's fault.
        images
            .receive(Box::pin(layer))
            .await
            .map_err(|e| Error::internal(format!("the container's changes: {}", e.message)))
    }
}
