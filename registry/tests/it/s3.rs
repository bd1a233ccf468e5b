//! Blobs in an S3-compatible service: moto's server, which nobody here wrote.

use crate::harness::*;
use registry::blobs::S3Settings;
use registry::gc::{self, Plan};
use reqwest::{Method, StatusCode};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const BUCKET: &str = "blobs";

struct Moto {
    child: Child,
    address: String,
    http: Remote,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Moto {
    /// `None` when it is not installed, which is said.
    async fn start() -> Option<Self> {
        let installed = concat!(env!("CARGO_TARGET_TMPDIR"), "/../clients/bin/moto_server");
        let program = std::env::var_os("MOORING_MOTO").unwrap_or_else(|| installed.into());
        if !PathBuf::from(&program).exists() {
            eprintln!("skipped: moto_server is not installed (make clients)");
            return None;
        }
        let mut child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.unwrap();
            line.split_once("Running on ")
                .map(|(_, address)| address.trim().to_owned())
        });
        let address = address.expect("it says where it serves");
        // It must not be stopped by a pipe that is full.
        std::thread::spawn(move || lines.for_each(drop));
        let http = Remote::new(&address).anonymous();
        let made = http
            .request(Method::PUT, &format!("/{BUCKET}"))
            .send()
            .await
            .unwrap();
        assert_eq!(made.status(), StatusCode::OK);
        Some(Moto {
            child,
            address,
            http,
        })
    }

    fn settings(&self, bucket: &str) -> registry::settings::Settings {
        let mut with = settings();
        with.gc.grace_minutes = 0;
        with.s3 = Some(S3Settings {
            bucket: bucket.into(),
            region: "us-east-1".into(),
            endpoint: Some(self.address.clone()),
            prefix: "registry/a".into(),
            allow_http: true,
            access_key: Some("key".into()),
            secret_key: Some("secret".into()),
        });
        with
    }

    /// The bucket's keys, and the uploads of parts that nobody ended.
    async fn holds(&self) -> (Vec<String>, usize) {
        let get = async |path: String| self.http.get(&path).await.text().await.unwrap();
        let list = get(format!("/{BUCKET}?list-type=2")).await;
        let keys = list.split("<Key>").skip(1);
        let keys = keys.map(|rest| rest.split_once('<').unwrap().0.to_owned());
        let uploads = get(format!("/{BUCKET}?uploads")).await;
        (keys.collect(), uploads.matches("<UploadId>").count())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_kept_in_parts_read_in_ranges_and_collected() {
    let Some(moto) = Moto::start().await else {
        return;
    };
    let r = Running::with(moto.settings(BUCKET)).await;
    let name = "private/a";
    // Of one request, of exactly one part, and of three.
    let sizes = [0, 5, 8 << 20, (17 << 20) + 3];
    let blobs: Vec<Vec<u8>> = sizes.iter().map(|n| bytes(*n as u64, *n)).collect();
    let layers: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
    r.client.push_image(name, "v1", &layers).await;
    // The same again was sent before it was known to be the same; the next collection takes it.
    r.client.push_blob("private/b", &blobs[3]).await;
    let (keys, open) = moto.holds().await;
    assert_eq!((keys.len(), open), (blobs.len() + 2, 0), "{keys:?}");
    assert!(
        keys.iter().all(|key| key.starts_with("registry/a/")),
        "{keys:?}"
    );
    let r = r.restart().await;
    for blob in &blobs {
        let path = format!("/v2/{name}/blobs/{}", sha256(blob));
        let whole = r.client.get(&path).await;
        assert_eq!(whole.status(), StatusCode::OK);
        assert!(
            whole.bytes().await.unwrap() == blob.as_slice(),
            "{} bytes",
            blob.len()
        );
        if blob.len() > 100 {
            let (begin, end) = (blob.len() - 7, blob.len() - 2);
            let part = r
                .client
                .request(Method::GET, &path)
                .header("range", format!("bytes={begin}-{end}"))
                .send()
                .await
                .unwrap();
            assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
            assert_eq!(part.bytes().await.unwrap(), blob[begin..=end]);
        }
    }
    // What is too much for the project is not kept.
    let quota = r.registry.metadata.write(|db| {
        let project = db.project("default-project")?.unwrap();
        db.set_quota(project.id, Some(10))
    });
    quota.await.unwrap();
    let much = bytes(9, 100);
    let path = format!(
        "/v2/default-project/a/blobs/uploads/?digest={}",
        sha256(&much)
    );
    let refusal = r
        .client
        .request(Method::POST, &path)
        .body(much)
        .send()
        .await
        .unwrap();
    refused(refusal, 403, "DENIED").await;
    for (repository, reference) in [
        (name, "v1".to_owned()),
        ("private/b", sha256(&blobs[3]).to_string()),
    ] {
        let kind = if reference == "v1" {
            "manifests"
        } else {
            "blobs"
        };
        let path = format!("/v2/{repository}/{kind}/{reference}");
        assert_eq!(r.client.delete(&path).await.status(), StatusCode::ACCEPTED);
    }
    let mut plan = Plan::from(&r.registry.settings.gc);
    plan.grace = 0;
    plan.untagged = Some(0);
    gc::collect(&r.registry, &plan).await.unwrap();
    assert_eq!(moto.holds().await, (Vec::new(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_says_no_is_a_failed_push_and_leaves_nothing_to_read() {
    let Some(moto) = Moto::start().await else {
        return;
    };
    let r = Running::with(moto.settings("no-such-bucket")).await;
    for size in [5, 9 << 20] {
        let blob = bytes(1, size);
        let digest = sha256(&blob);
        let path = format!("/v2/private/a/blobs/uploads/?digest={digest}");
        let answer = r
            .client
            .request(Method::POST, &path)
            .body(blob)
            .send()
            .await
            .unwrap();
        refused(answer, 500, "UNKNOWN").await;
        let there = r
            .client
            .head(&format!("/v2/private/a/blobs/{digest}"))
            .await;
        assert_eq!(there.status(), StatusCode::NOT_FOUND);
    }
}
