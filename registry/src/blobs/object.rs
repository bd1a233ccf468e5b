//! Blobs in an S3-compatible service.

use super::{BlobBody, Error, Folder};
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;
use tokio::io::AsyncReadExt;

/// Bytes of one part: above S3's least (5 MiB), and 10,000 of them hold 80 GB.
const PART: usize = 8 << 20;
/// Parts on their way at once.
const PARTS_AT_ONCE: usize = 4;

/// Which bucket, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Settings {
    /// Bucket.
    pub bucket: String,
    /// Region; `us-east-1` where the service does not care.
    #[serde(default = "default_region")]
    pub region: String,
    /// Address of a service other than Amazon's, as `https://host:port`.
    pub endpoint: Option<String>,
    /// Put before each key.
    #[serde(default)]
    pub prefix: String,
    /// Whether `http://` will do.
    #[serde(default)]
    pub allow_http: bool,
    /// Access key; without it, `AWS_ACCESS_KEY_ID` or the machine's own role.
    pub access_key: Option<String>,
    /// Its secret; without it, `AWS_SECRET_ACCESS_KEY`.
    pub secret_key: Option<String>,
}

fn default_region() -> String {
    "us-east-1".into()
}

/// The service.
#[derive(Debug)]
pub struct Objects {
    service: Arc<dyn ObjectStore>,
    prefix: Path,
    staging: Folder,
}

impl Objects {
    /// A client of the service; nothing is asked of it yet.
    ///
    /// # Errors
    /// When the settings do not make sense.
    pub fn s3(settings: &S3Settings, staging: Folder) -> Result<Self, Error> {
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_allow_http(settings.allow_http);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(key) = &settings.access_key {
            builder = builder.with_access_key_id(key);
        }
        if let Some(secret) = &settings.secret_key {
            builder = builder.with_secret_access_key(secret);
        }
        Ok(Objects {
            service: Arc::new(builder.build()?),
            prefix: Path::from(settings.prefix.as_str()),
            staging,
        })
    }

    pub(super) fn staging(&self) -> &Folder {
        &self.staging
    }

    fn path(&self, key: &str) -> Path {
        self.prefix.clone().join(key)
    }

    /// Sends the staged file: in one request if it is one part, else as a multipart upload.
    pub(super) async fn upload(&self, key: &str) -> Result<(), Error> {
        let file = self.staging.open(key)?;
        let reading = Error::file("read the staged upload", key);
        let mut file = tokio::fs::File::from_std(file);
        let mut part = Vec::with_capacity(PART.min(64 << 10));
        let first = (&mut file).take(PART as u64).read_to_end(&mut part).await;
        if first.map_err(reading)? < PART {
            self.service
                .put(&self.path(key), PutPayload::from(part))
                .await?;
            return Ok(());
        }
        let upload = self.service.put_multipart(&self.path(key)).await?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        loop {
            upload.wait_for_capacity(PARTS_AT_ONCE).await?;
            upload.put(part.into());
            part = Vec::with_capacity(PART);
            let read = (&mut file).take(PART as u64).read_to_end(&mut part).await;
            match read {
                Ok(0) => break,
                Ok(_) => {}
                Err(e) => {
                    upload.abort().await?;
                    return Err(Error::file("read the staged upload", key)(e));
                }
            }
        }
        upload.finish().await?;
        Ok(())
    }

    pub(super) async fn open(&self, key: &str, range: Range<u64>) -> Result<BlobBody, Error> {
        let length = range.end.saturating_sub(range.start);
        if length == 0 {
            return Ok(BlobBody::stream(futures_util::stream::empty().boxed(), 0));
        }
        let options = GetOptions {
            range: Some(range.into()),
            ..GetOptions::default()
        };
        let found = self.service.get_opts(&self.path(key), options).await?;
        Ok(BlobBody::stream(
            found.into_stream().into_stream().boxed(),
            length,
        ))
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), Error> {
        self.staging.discard(key)?;
        match self.service.delete(&self.path(key)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            done => Ok(done?),
        }
    }
}
