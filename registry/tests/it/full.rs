//! A full disk: a small file system of its own in memory, which only root can make.

use crate::harness::*;
use reqwest::{Method, StatusCode};
use std::path::Path;
use std::process::Command;

const NAME: &str = "default-project/full";

/// A mounted file system; unmounted when it goes.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let small = Small(tempfile::tempdir().unwrap());
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"])
            .arg(small.0.path());
        match mount.output() {
            Ok(output) if output.status.success() => Some(small),
            other => {
                eprintln!("skipped: no file system can be mounted here: {other:?}");
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    let page = [1; 4096];
    while file.write_all(&page).is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_507_reads_go_on_and_it_recovers_by_itself() {
    let Some(small) = Small::mount() else { return };
    let folder = tempfile::TempDir::new_in(small.0.path()).unwrap();
    init(folder.path(), &settings());
    let r = Running::open(folder).await;
    let digest = r.client.push_blob(NAME, b"here").await;
    let path = format!("/v2/{NAME}/blobs/{digest}");
    let begin = || async {
        header(
            &r.client.post(&format!("/v2/{NAME}/blobs/uploads/")).await,
            "location",
        )
        .to_owned()
    };

    // More than there is, in one request and as a chunk.
    let large = bytes(1, 20 << 20);
    let whole = format!("/v2/{NAME}/blobs/uploads/?digest={}", sha256(&large));
    let whole = r
        .client
        .request(Method::POST, &whole)
        .body(large.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(whole.status(), StatusCode::INSUFFICIENT_STORAGE);
    let at = begin().await;
    let chunk = r
        .client
        .request(Method::PATCH, &at)
        .body(large)
        .send()
        .await
        .unwrap();
    refused(chunk, 507, "UNKNOWN").await;
    assert_eq!(r.client.get(&path).await.text().await.unwrap(), "here");
    // What did not fit is not kept: the upload is where it was, and its bytes make room when it goes.
    assert_eq!(header(&r.client.get(&at).await, "range"), "0-0");
    assert_eq!(r.client.delete(&at).await.status(), StatusCode::NO_CONTENT);

    // Nothing at all is free: the metadata cannot be written either.
    let at = begin().await;
    let filler = small.0.path().join("filler");
    fill(&filler);
    for n in 0..20 {
        let data = bytes(n, 100_000);
        let push = format!("/v2/{NAME}/blobs/uploads/?digest={}", sha256(&data));
        let push = r
            .client
            .request(Method::POST, &push)
            .body(data)
            .send()
            .await
            .unwrap();
        assert_eq!(push.status(), StatusCode::INSUFFICIENT_STORAGE);
    }
    assert_eq!(r.client.get(&path).await.text().await.unwrap(), "here");
    assert_eq!(r.client.get("/healthz").await.status(), StatusCode::OK);

    std::fs::remove_file(&filler).unwrap();
    let put = r
        .client
        .request(Method::PUT, &format!("{at}?digest={}", sha256(b"later")));
    assert_eq!(
        put.body("later").send().await.unwrap().status(),
        StatusCode::CREATED
    );
    r.client.push_image(NAME, "v1", &[b"layer"]).await;
    assert_eq!(r.client.get("/readyz").await.status(), StatusCode::OK);
    let Running {
        registry,
        server,
        folder,
        ..
    } = r;
    server.shutdown().await;
    drop((registry, folder));
}
