//! `registry export`, `registry import`: a repository as an OCI image layout (image spec, "OCI Image Layout
//! Specification"), which other tools read and write as well. Both speak the distribution API. Manifests stay byte for byte:
//! those of Docker's own media types are in the layout as such, which not every tool looks for there.

use super::Common;
use super::call::Session;
use crate::digest::{Digest, Hasher};
use crate::names::{RepositoryName, Tag};
use anyhow::{Context, Result, bail, ensure};
use axum::body::Body;
use clap::Args;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LINK};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Longest manifest, index of a layout, or list.
const MAX: usize = 64 << 20;
/// How deep indexes and referrers may be nested.
const DEEPEST: u32 = 16;
/// The annotation that has a descriptor's tag.
const TAG: &str = "org.opencontainers.image.ref.name";

/// Write a repository into a folder.
#[derive(Args)]
pub(crate) struct Export {
    /// Whole name
    repository: RepositoryName,
    /// A folder that is not there or is empty
    folder: PathBuf,
}

/// Push a layout into a repository.
#[derive(Args)]
pub(crate) struct Import {
    /// Whole name
    repository: RepositoryName,
    /// The layout's folder
    folder: PathBuf,
}

/// What was written or pushed.
#[derive(Debug, Default, Serialize)]
struct Moved {
    tags: usize,
    manifests: usize,
    blobs: usize,
    bytes: u64,
}

impl Moved {
    fn text(&self, done: &str) -> String {
        format!(
            "{done} {} tags, {} manifests, {} blobs, {} bytes",
            self.tags, self.manifests, self.blobs, self.bytes
        )
    }
}

fn run<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(work)
}

/// A repository of the registry.
struct Remote {
    session: Session,
    name: RepositoryName,
}

impl Remote {
    async fn ask(&mut self, method: Method, path: &str, body: Body) -> Result<Response<Body>> {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("host", "localhost").body(body)?;
        self.session.send(request).await
    }

    fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.name)
    }

    /// What is there, and its media type.
    async fn get(&mut self, path: &str) -> Result<(Vec<u8>, http::HeaderMap)> {
        let answer = self.ask(Method::GET, path, Body::empty()).await?;
        let answer = good(answer).await?;
        let headers = answer.headers().clone();
        Ok((whole(answer).await?, headers))
    }

    /// All pages of a list.
    async fn list(&mut self, rest: &str, key: &str) -> Result<Vec<Value>> {
        let (mut all, mut path) = (Vec::new(), self.path(rest));
        loop {
            let (body, headers) = self.get(&path).await?;
            let mut page: Value = serde_json::from_slice(&body)?;
            if let Some(page) = page[key].as_array_mut() {
                all.append(page);
            }
            let link = headers.get(LINK).and_then(|l| l.to_str().ok());
            let next = link.and_then(|l| l.strip_prefix('<')?.split_once('>'));
            match next {
                Some((next, _)) => path = next.to_owned(),
                None => return Ok(all),
            }
        }
    }
}

async fn whole(answer: Response<Body>) -> Result<Vec<u8>> {
    let body = Limited::new(answer.into_body(), MAX).collect().await;
    let body = body.map_err(|e| anyhow::anyhow!("the registry's answer: {e}"))?;
    Ok(body.to_bytes().into())
}

/// An answer that is none is told as the registry told it.
async fn good(answer: Response<Body>) -> Result<Response<Body>> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body: Value = serde_json::from_slice(&whole(answer).await?).unwrap_or_default();
    match body["errors"][0]["message"].as_str() {
        Some(message) => bail!("{message}"),
        None => bail!("the registry answered {status}"),
    }
}

/// Where a layout has what is called so. The name is a digest, so the path is one in the folder.
fn place(folder: &Path, digest: &Digest) -> PathBuf {
    let blobs = folder.join("blobs");
    blobs.join(digest.algorithm().name()).join(digest.hex())
}

fn digest_of(descriptor: &Value) -> Result<Digest> {
    let text = descriptor["digest"].as_str().unwrap_or_default();
    text.parse().with_context(|| format!("digest {text:?}"))
}

/// What a manifest is made of.
struct Parts {
    manifests: Vec<Digest>,
    /// Blobs, with whether each may lie elsewhere.
    blobs: Vec<(Digest, bool)>,
}

fn parts(manifest: &Value) -> Result<Parts> {
    let list = |key: &str| manifest[key].as_array().cloned().unwrap_or_default();
    let manifests = list("manifests");
    let manifests = manifests.iter().map(digest_of);
    let config = Some(&manifest["config"]).filter(|c| c.is_object()).cloned();
    let blobs = config.into_iter().chain(list("layers")).map(|d| {
        let kind = d["mediaType"].as_str().unwrap_or_default();
        let elsewhere = d["urls"].is_array() || kind.contains(".foreign.");
        Ok((
            digest_of(&d)?,
            elsewhere || kind.contains(".nondistributable."),
        ))
    });
    Ok(Parts {
        manifests: manifests.collect::<Result<_>>()?,
        blobs: blobs.collect::<Result<_>>()?,
    })
}

/// Writes a layout.
struct Writer<'a> {
    remote: Remote,
    folder: &'a Path,
    moved: Moved,
    /// Manifests that are written, as `index.json` has them.
    known: HashMap<Digest, Value>,
    blobs: HashSet<Digest>,
    /// What `index.json` has.
    index: Vec<Value>,
}

impl Writer<'_> {
    /// A manifest with all that it is made of, and what refers to it; its descriptor.
    async fn manifest(&mut self, reference: &str, depth: u32) -> Result<Value> {
        ensure!(depth < DEEPEST, "manifests are nested too deep");
        let path = self.remote.path(&format!("manifests/{reference}"));
        let (body, headers) = self.remote.get(&path).await?;
        let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
        let digest: Digest = text("docker-content-digest").unwrap_or_default().parse()?;
        if let Some(known) = self.known.get(&digest) {
            return Ok(known.clone());
        }
        ensure!(
            Digest::of(digest.algorithm(), &body) == digest,
            "manifest {digest} is damaged"
        );
        let kind = text(CONTENT_TYPE.as_str());
        let descriptor = json!({"mediaType": kind, "digest": digest.as_str(), "size": body.len()});
        self.known.insert(digest.clone(), descriptor.clone());
        let Parts { manifests, blobs } = parts(&serde_json::from_slice(&body)?)?;
        for child in manifests {
            Box::pin(self.manifest(child.as_str(), depth + 1)).await?;
        }
        for (blob, elsewhere) in blobs {
            self.blob(&blob, elsewhere).await?;
        }
        let path = place(self.folder, &digest);
        fs::create_dir_all(path.parent().unwrap_or(self.folder))?;
        fs::write(&path, &body).with_context(|| path.display().to_string())?;
        self.moved.manifests += 1;
        let path = format!("referrers/{digest}");
        for referrer in self.remote.list(&path, "manifests").await? {
            let referrer = digest_of(&referrer)?;
            if !self.known.contains_key(&referrer) {
                let found = Box::pin(self.manifest(referrer.as_str(), depth + 1)).await?;
                self.index.push(found);
            }
        }
        Ok(descriptor)
    }

    async fn blob(&mut self, digest: &Digest, elsewhere: bool) -> Result<()> {
        if !self.blobs.insert(digest.clone()) {
            return Ok(());
        }
        let path = self.remote.path(&format!("blobs/{digest}"));
        let answer = self.remote.ask(Method::GET, &path, Body::empty()).await?;
        if elsewhere && answer.status() == StatusCode::NOT_FOUND {
            whole(answer).await?;
            return Ok(());
        }
        let mut body = good(answer).await?.into_body();
        let path = place(self.folder, digest);
        fs::create_dir_all(path.parent().unwrap_or(self.folder))?;
        let mut file = fs::File::create(&path).with_context(|| path.display().to_string())?;
        let mut hasher = Hasher::new(digest.algorithm());
        while let Some(frame) = body.frame().await {
            if let Ok(bytes) = frame?.into_data() {
                hasher.update(&bytes);
                file.write_all(&bytes)?;
                self.moved.bytes += bytes.len() as u64;
            }
        }
        ensure!(hasher.finish() == *digest, "blob {digest} is damaged");
        self.moved.blobs += 1;
        Ok(())
    }
}

pub(crate) fn export(common: &Common, export: &Export) -> Result<()> {
    let folder = &export.folder;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    ensure!(
        fs::read_dir(folder)?.next().is_none(),
        "{} is not empty",
        folder.display()
    );
    let moved = run(async {
        let mut writer = Writer {
            remote: Remote {
                session: Session::open(&common.data).await?,
                name: export.repository.clone(),
            },
            folder,
            moved: Moved::default(),
            known: HashMap::new(),
            blobs: HashSet::new(),
            index: Vec::new(),
        };
        for tag in writer.remote.list("tags/list", "tags").await? {
            let tag = tag.as_str().unwrap_or_default();
            let mut descriptor = writer.manifest(tag, 0).await?;
            descriptor["annotations"] = json!({ TAG: tag });
            writer.index.push(descriptor);
            writer.moved.tags += 1;
        }
        let layout = json!({"imageLayoutVersion": "1.0.0"});
        fs::write(folder.join("oci-layout"), layout.to_string())?;
        let kind = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": writer.index});
        // The last thing: a folder with an index is a whole layout.
        fs::write(folder.join("index.json"), index.to_string())?;
        Ok(writer.moved)
    })?;
    common.print(&moved, |moved| moved.text("wrote"))
}

/// Reads a layout.
struct Reader<'a> {
    remote: Remote,
    folder: &'a Path,
    moved: Moved,
    known: HashSet<Digest>,
}

/// A file of at most [`MAX`] bytes.
fn read(path: &Path) -> Result<Vec<u8>> {
    let at = || path.display().to_string();
    let mut bytes = Vec::new();
    let file = fs::File::open(path).with_context(at)?;
    file.take(MAX as u64 + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() <= MAX, "{} is too long", at());
    Ok(bytes)
}

impl Reader<'_> {
    async fn manifest(
        &mut self,
        digest: &Digest,
        kind: &str,
        tag: Option<&Tag>,
        depth: u32,
    ) -> Result<()> {
        ensure!(depth < DEEPEST, "manifests are nested too deep");
        let body = read(&place(self.folder, digest))?;
        let manifest: Value = serde_json::from_slice(&body).with_context(|| digest.to_string())?;
        if self.known.insert(digest.clone()) {
            let Parts { blobs, .. } = parts(&manifest)?;
            for child in manifest["manifests"].as_array().into_iter().flatten() {
                let kind = child["mediaType"].as_str().unwrap_or_default();
                Box::pin(self.manifest(&digest_of(child)?, kind, None, depth + 1)).await?;
            }
            for (blob, elsewhere) in blobs {
                self.blob(&blob, elsewhere).await?;
            }
            self.moved.manifests += 1;
        } else if tag.is_none() {
            return Ok(());
        }
        let reference = tag.map_or(digest.as_str(), Tag::as_str);
        let path = self.remote.path(&format!("manifests/{reference}"));
        let own = manifest["mediaType"].as_str().unwrap_or(kind);
        let request = Request::builder().method(Method::PUT).uri(path);
        let request = request
            .header("host", "localhost")
            .header(CONTENT_TYPE, own);
        let answer = self.remote.session.send(request.body(body.into())?).await?;
        whole(good(answer).await?).await?;
        Ok(())
    }

    async fn blob(&mut self, digest: &Digest, elsewhere: bool) -> Result<()> {
        let there = self.remote.path(&format!("blobs/{digest}"));
        let answer = self.remote.ask(Method::HEAD, &there, Body::empty()).await?;
        if answer.status().is_success() {
            return Ok(());
        }
        let path = place(self.folder, digest);
        let file = match tokio::fs::File::open(&path).await {
            Err(e) if elsewhere && e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            file => file.with_context(|| path.display().to_string())?,
        };
        let size = file.metadata().await?.len();
        let body = Body::from_stream(tokio_util::io::ReaderStream::new(file));
        let path = self.remote.path(&format!("blobs/uploads/?digest={digest}"));
        let request = Request::builder().method(Method::POST).uri(path);
        let request = request
            .header("host", "localhost")
            .header(CONTENT_LENGTH, size);
        let answer = self.remote.session.send(request.body(body)?).await?;
        whole(good(answer).await?).await?;
        self.moved.blobs += 1;
        self.moved.bytes += size;
        Ok(())
    }
}

pub(crate) fn import(common: &Common, import: &Import) -> Result<()> {
    let index: Value = serde_json::from_slice(&read(&import.folder.join("index.json"))?)
        .context("index.json is no index")?;
    let moved = run(async {
        let mut reader = Reader {
            remote: Remote {
                session: Session::open(&common.data).await?,
                name: import.repository.clone(),
            },
            folder: &import.folder,
            moved: Moved::default(),
            known: HashSet::new(),
        };
        for descriptor in index["manifests"].as_array().into_iter().flatten() {
            let tag = descriptor["annotations"][TAG].as_str();
            let tag: Option<Tag> = tag.map(str::parse).transpose()?;
            let kind = descriptor["mediaType"].as_str().unwrap_or_default();
            let digest = digest_of(descriptor)?;
            reader.manifest(&digest, kind, tag.as_ref(), 0).await?;
            reader.moved.tags += usize::from(tag.is_some());
        }
        Ok(reader.moved)
    })?;
    common.print(&moved, |moved| moved.text("pushed"))
}
