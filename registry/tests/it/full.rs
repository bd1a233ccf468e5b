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

    let config = r.client.push_blob(NAME, b"{}").await;
    let image0 = image(&config, &[], &serde_json::json!({}));
    let put = r
        .client
        .put_manifest(NAME, "v0", OCI_MANIFEST, image0.clone())
        .await;
    assert_eq!(put.status(), StatusCode::CREATED);
    // The key that signs tokens is made with the first one.
    r.client.with_token(&[]).await;

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
    // Everything else that changes something is refused in the form of its API, and leaves nothing.
    let tag = format!("/v2/{NAME}/manifests/v0");
    for again in 0..20 {
        let more = serde_json::json!({"annotations": {"n": again.to_string().repeat(1000)}});
        let body = image(&config, &[], &more);
        for reference in ["v2".to_owned(), sha256(&body).to_string()] {
            let put = r
                .client
                .put_manifest(NAME, &reference, OCI_MANIFEST, body.clone())
                .await;
            let answer = refused(put, 507, "UNKNOWN").await;
            let message = answer["errors"][0]["message"].as_str().unwrap();
            assert!(message.contains("disk"), "{message}");
        }
        refused(r.client.delete(&tag).await, 507, "UNKNOWN").await;
        let begun = r.client.post(&format!("/v2/{NAME}/blobs/uploads/")).await;
        refused(begun, 507, "UNKNOWN").await;
        let project = serde_json::json!({"name": format!("p{again}")});
        let (status, answer) = r.client.api(Method::POST, "/projects", project).await;
        assert_eq!((status, answer["code"].as_str()), (507, Some("full")));
        let quota = serde_json::json!({"bytes": 1});
        let path = "/projects/default-project/quota";
        let (status, answer) = r.client.api(Method::PUT, path, quota).await;
        assert_eq!((status, answer["code"].as_str()), (507, Some("full")));
    }
    assert_eq!(
        r.client.get("/readyz").await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    // Reads go on, also those by a token and those of the API.
    let token = r
        .client
        .with_token(&[&format!("repository:{NAME}:pull")])
        .await;
    for client in [&r.client, &token, &r.client.anonymous()] {
        assert_eq!(client.get(&tag).await.bytes().await.unwrap(), image0);
        assert_eq!(client.head(&tag).await.status(), StatusCode::OK);
    }
    let (status, log) = r
        .client
        .api(
            Method::GET,
            "/audit?operation=push",
            serde_json::json!(null),
        )
        .await;
    assert_eq!((status, log.as_array().unwrap().len()), (200, 1));
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
    let put = r
        .client
        .put_manifest(NAME, "v2", OCI_MANIFEST, image0.clone())
        .await;
    assert_eq!(put.status(), StatusCode::CREATED);
    assert_eq!(r.client.delete(&tag).await.status(), StatusCode::ACCEPTED);
    let project = serde_json::json!({"name": "later"});
    assert_eq!(
        r.client.api(Method::POST, "/projects", project).await.0,
        201
    );
    // What was refused is not there, and neither are its entries.
    let (_, projects) = r
        .client
        .api(Method::GET, "/projects", serde_json::json!(null))
        .await;
    assert_eq!(projects.as_array().unwrap().len(), 3, "{projects}");
    let quota = r.client.api(
        Method::GET,
        "/projects/default-project",
        serde_json::json!(null),
    );
    assert_eq!(quota.await.1["quota"], serde_json::json!(null));
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
