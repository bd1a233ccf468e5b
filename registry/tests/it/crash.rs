//! `kill -9` at random moments: what was acknowledged is there, what was not is whole or absent.

use crate::harness::*;
use reqwest::{Method, StatusCode};
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

const NAME: &str = "default-project/crash";

/// A registry in a process of its own.
pub struct Process {
    child: Child,
    pub base: String,
    pub client: Remote,
}

impl Process {
    pub fn start(folder: &std::path::Path) -> Self {
        Self::spawn(folder, &[])
    }

    /// At this address, whatever the settings say.
    pub fn start_at(folder: &std::path::Path, address: &str) -> Self {
        Self::spawn(folder, &["--listen", address])
    }

    fn spawn(folder: &std::path::Path, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_registry"))
            .args(["serve", "--log", "warn", "--data"])
            .arg(folder)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let base = line
            .trim()
            .strip_prefix("ready: ")
            .expect("it says where it serves");
        Process {
            client: Remote::new(base),
            base: base.to_owned(),
            child,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL: nothing is flushed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The pushes of one tag by clients beside each other. Those that overlapped may have been done in either order.
#[derive(Default)]
struct Pushes {
    /// Counts every sending and every answer.
    clock: usize,
    /// What the tag may hold: its manifest, when it was sent, when it was acknowledged.
    held: Vec<(Vec<u8>, usize, Option<usize>)>,
}

impl Pushes {
    /// A push goes out; what it gives names it to [`Pushes::acknowledged`] and [`Pushes::refused`].
    fn sent(&mut self, manifest: &[u8]) -> usize {
        self.clock += 1;
        self.held.push((manifest.to_vec(), self.clock, None));
        self.clock
    }

    /// Everything that had been acknowledged before this one was sent is behind it.
    fn acknowledged(&mut self, push: usize) {
        self.clock += 1;
        for (_, sent, acknowledged) in &mut self.held {
            if *sent == push {
                *acknowledged = Some(self.clock);
            }
        }
        self.held
            .retain(|(_, _, acknowledged)| acknowledged.is_none_or(|at| at > push));
    }

    fn refused(&mut self, push: usize) {
        self.held.retain(|(_, sent, _)| *sent != push);
    }

    /// Whether any push was acknowledged: the tag has to be there.
    fn must_exist(&self) -> bool {
        self.held
            .iter()
            .any(|(_, _, acknowledged)| acknowledged.is_some())
    }

    fn may_hold(&self, manifest: &[u8]) -> bool {
        self.held.iter().any(|(held, _, _)| held == manifest)
    }
}

/// What the registry said yes to.
#[derive(Default)]
struct Acknowledged {
    /// Bytes of blobs.
    blobs: Vec<Vec<u8>>,
    tags: HashMap<String, Pushes>,
    /// An upload: its location, its bytes, how many were acknowledged.
    upload: Option<(String, Vec<u8>, usize)>,
}

type Said = Arc<Mutex<Acknowledged>>;

async fn send(request: reqwest::RequestBuilder) -> Option<reqwest::Response> {
    request.timeout(Duration::from_secs(120)).send().await.ok()
}

/// Pushes blobs, chunk by chunk, until the registry is no more.
async fn uploads(client: Remote, said: Said, mut random: Random) {
    loop {
        let going = said.lock().unwrap().upload.clone();
        let (at, data, mut sent) = match going {
            Some(going) => going,
            None => {
                let begin = client.request(Method::POST, &format!("/v2/{NAME}/blobs/uploads/"));
                let Some(answer) = send(begin).await else {
                    return;
                };
                assert_eq!(answer.status(), StatusCode::ACCEPTED);
                let at = header(&answer, "location").to_owned();
                let length = 1 + random.below(600_000);
                (at, bytes(random.next(), length), 0)
            }
        };
        while sent < data.len() {
            said.lock().unwrap().upload = Some((at.clone(), data.clone(), sent));
            let end = data.len().min(sent + 1 + random.below(200_000));
            let patch = client
                .request(Method::PATCH, &at)
                .body(data[sent..end].to_vec());
            let range = format!("{sent}-{}", end - 1);
            let Some(answer) = send(patch.header("content-range", range)).await else {
                return;
            };
            assert_eq!(answer.status(), StatusCode::ACCEPTED);
            sent = end;
        }
        said.lock().unwrap().upload = Some((at.clone(), data.clone(), sent));
        let put = client.request(Method::PUT, &format!("{at}?digest={}", sha256(&data)));
        let Some(answer) = send(put).await else {
            return;
        };
        assert_eq!(answer.status(), StatusCode::CREATED);
        let mut said = said.lock().unwrap();
        said.blobs.push(data);
        said.upload = None;
    }
}

/// Pushes images and moves tags until the registry is no more.
async fn tags(client: Remote, said: Said, mut random: Random) {
    loop {
        let layer = bytes(random.next(), 1 + random.below(50_000));
        for blob in [&layer[..], b"{}"] {
            let path = format!("/v2/{NAME}/blobs/uploads/?digest={}", sha256(blob));
            let push = client.request(Method::POST, &path).body(blob.to_vec());
            let Some(answer) = send(push).await else {
                return;
            };
            assert_eq!(answer.status(), StatusCode::CREATED);
        }
        let body = image(
            &sha256(b"{}"),
            &[(sha256(&layer), layer.len())],
            &serde_json::json!({}),
        );
        let tag = format!("t{}", random.below(5));
        let push = {
            said.lock()
                .unwrap()
                .tags
                .entry(tag.clone())
                .or_default()
                .sent(&body)
        };
        let put = client.request(Method::PUT, &format!("/v2/{NAME}/manifests/{tag}"));
        let put = put.header("content-type", OCI_MANIFEST).body(body);
        let Some(answer) = send(put).await else {
            return;
        };
        // A collection may have taken the blobs of a push that took longer than its grace time, which is none here.
        if answer.status() == StatusCode::CREATED {
            let mut said = said.lock().unwrap();
            said.blobs.push(layer);
            said.tags.entry(tag).or_default().acknowledged(push);
        } else {
            said.lock()
                .unwrap()
                .tags
                .entry(tag)
                .or_default()
                .refused(push);
            refused(answer, 400, "MANIFEST_BLOB_UNKNOWN").await;
        }
    }
}

/// Collects garbage, with a grace time that uploads need and manifests do not, until the registry is no more.
async fn collections(client: Remote) {
    let request = serde_json::json!({"grace_minutes": 60, "untagged_hours": 0});
    loop {
        let post = client.request(Method::POST, "/api/v1/gc").json(&request);
        let Some(answer) = send(post).await else {
            return;
        };
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

/// Compares; what is left in `said` is what the next round starts from: what each tag holds.
async fn check(client: &Remote, said: &Said) {
    let mut round = std::mem::take(&mut *said.lock().unwrap());
    for blob in &round.blobs {
        let answer = client
            .get(&format!("/v2/{NAME}/blobs/{}", sha256(blob)))
            .await;
        assert_eq!(
            answer.status(),
            StatusCode::OK,
            "a blob that was acknowledged"
        );
        assert_eq!(answer.bytes().await.unwrap(), *blob);
    }
    for (tag, pushes) in &round.tags {
        let answer = client.get(&format!("/v2/{NAME}/manifests/{tag}")).await;
        if !pushes.must_exist() && answer.status() == StatusCode::NOT_FOUND {
            continue;
        }
        assert_eq!(
            answer.status(),
            StatusCode::OK,
            "a tag that was acknowledged"
        );
        let found = answer.bytes().await.unwrap();
        assert!(pushes.may_hold(&found), "tag {tag}");
        let mut settled = Pushes::default();
        let push = settled.sent(&found);
        settled.acknowledged(push);
        said.lock().unwrap().tags.insert(tag.clone(), settled);
        let manifest: serde_json::Value = serde_json::from_slice(&found).unwrap();
        let layer = manifest["layers"][0]["digest"].as_str().unwrap();
        let answer = client.get(&format!("/v2/{NAME}/blobs/{layer}")).await;
        assert_eq!(sha256(&answer.bytes().await.unwrap()).as_str(), layer);
    }
    if let Some((at, data, sent)) = round.upload.take() {
        let status = client.get(&at).await;
        if status.status() == StatusCode::NOT_FOUND {
            // The last request was done, but not answered.
            assert_eq!(sent, data.len());
            let answer = client
                .get(&format!("/v2/{NAME}/blobs/{}", sha256(&data)))
                .await;
            assert_eq!(answer.bytes().await.unwrap(), data);
            return;
        }
        let end: usize = header(&status, "range")[2..].parse().unwrap();
        let received = if end == 0 { 0 } else { end + 1 };
        assert!(
            received >= sent || sent == 1,
            "{sent} bytes were acknowledged, {received} are there"
        );
        let put = client.request(Method::PUT, &format!("{at}?digest={}", sha256(&data)));
        // One byte and none are told the same way.
        let received = if sent == 1 { 1 } else { received };
        let answer = put.body(data[received..].to_vec()).send().await.unwrap();
        assert_eq!(
            answer.status(),
            StatusCode::CREATED,
            "the upload goes on where it was"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_that_was_acknowledged_and_leaves_nothing_half_made() {
    let kills = count(10, 1000);
    let mut random = Random(seed());
    let folder = TempDir::new().unwrap();
    init(folder.path(), &settings());
    let said = Said::default();
    for _ in 0..kills {
        let process = Process::start(folder.path());
        let client = process.client.clone();
        let work = [
            tokio::spawn(uploads(client.clone(), said.clone(), Random(random.next()))),
            tokio::spawn(tags(client.clone(), said.clone(), Random(random.next()))),
            tokio::spawn(tags(client.clone(), said.clone(), Random(random.next()))),
            tokio::spawn(collections(client)),
        ];
        // The random moment of the kill.
        tokio::time::sleep(Duration::from_millis(random.next() % 400)).await;
        drop(process);
        for task in work {
            task.await.unwrap();
        }
        let process = Process::start(folder.path());
        check(&process.client, &said).await;
    }
    // Every file is a blob's or gone: a collection and a start later, none is left over.
    let process = Process::start(folder.path());
    drop(process);
    let staged = std::fs::read_dir(folder.path().join("uploads")).unwrap();
    let metadata =
        registry::metadata::Metadata::open(&folder.path().join("metadata.sqlite")).unwrap();
    for file in staged {
        let key = file.unwrap().file_name().into_string().unwrap();
        assert!(
            metadata.read(|db| db.upload(&key)).unwrap().is_some(),
            "{key} is nobody's"
        );
    }
    for folder in std::fs::read_dir(folder.path().join("blobs")).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let key = file.unwrap().file_name().into_string().unwrap();
            let kept = metadata.read(|db| db.is_stored(&key)).unwrap();
            let thrown = metadata.read(|db| db.trash(true, 100_000)).unwrap();
            assert!(
                kept || thrown.iter().any(|t| t.key == key),
                "{key} is nobody's"
            );
        }
    }
}
