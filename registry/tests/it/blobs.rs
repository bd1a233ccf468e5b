use crate::harness::*;
use reqwest::{Method, StatusCode};

const NAME: &str = "default-project/a/b";

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_comes_back_as_it_was_pushed_whole_in_parts_and_by_its_head() {
    let r = Running::start().await;
    let data = bytes(1, 300_000);
    let digest = r.client.push_blob(NAME, &data).await;
    let path = format!("/v2/{NAME}/blobs/{digest}");

    let whole = r.client.anonymous().get(&path).await;
    assert_eq!(whole.status(), StatusCode::OK);
    assert_eq!(header(&whole, "content-length"), "300000");
    assert_eq!(header(&whole, "docker-content-digest"), digest.as_str());
    assert_eq!(header(&whole, "accept-ranges"), "bytes");
    assert_eq!(whole.bytes().await.unwrap(), data);

    let head = r.client.anonymous().head(&path).await;
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(header(&head, "content-length"), "300000");
    assert_eq!(header(&head, "docker-content-digest"), digest.as_str());

    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=100000-", 100_000, 300_000),
        ("bytes=-5", 299_995, 300_000),
        ("bytes=65530-65550", 65_530, 65_551),
        ("bytes=299999-400000", 299_999, 300_000),
    ] {
        let part = r.client.request(Method::GET, &path).header("range", range);
        let part = part.send().await.unwrap();
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
        let told = format!("bytes {from}-{}/300000", to - 1);
        assert_eq!(header(&part, "content-range"), told);
        assert_eq!(part.bytes().await.unwrap(), data[from..to], "{range}");
    }
    let none = r.client.request(Method::GET, &path);
    let none = none.header("range", "bytes=300000-").send().await.unwrap();
    assert_eq!(header(&none, "content-range"), "bytes */300000");
    assert_eq!(none.status(), StatusCode::RANGE_NOT_SATISFIABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_the_blob_is_told_so() {
    let r = Running::start().await;
    let digest = r.client.push_blob(NAME, b"data").await;
    let path = format!("/v2/{NAME}/blobs/{digest}");
    let tag = header(&r.client.get(&path).await, "etag").to_owned();
    let again = r.client.request(Method::GET, &path);
    let again = again.header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert!(again.bytes().await.unwrap().is_empty());
    let other = r
        .client
        .request(Method::GET, &path)
        .header("range", "bytes=1-");
    let other = other
        .header("if-range", "\"another\"")
        .send()
        .await
        .unwrap();
    assert_eq!(other.status(), StatusCode::OK);
    assert_eq!(other.text().await.unwrap(), "data");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_blob_is_a_blob() {
    let r = Running::start().await;
    let digest = r.client.push_blob(NAME, b"").await;
    let answer = r.client.get(&format!("/v2/{NAME}/blobs/{digest}")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(header(&answer, "content-length"), "0");
    assert!(answer.bytes().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_not_readable_through_another_repository() {
    let r = Running::start().await;
    let digest = r.client.push_blob("private/a", b"secret").await;
    r.client.push_blob(NAME, b"other").await;
    for name in [NAME, "default-project/never-pushed"] {
        let path = format!("/v2/{name}/blobs/{digest}");
        refused(r.client.get(&path).await, 404, "BLOB_UNKNOWN").await;
        let path = format!("/v2/{name}/blobs/{digest}");
        assert_eq!(r.client.head(&path).await.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_gives_the_blob_and_one_that_cannot_be_done_begins_an_upload() {
    let r = Running::start().await;
    let digest = r.client.push_blob("default-project/from", b"data").await;
    let mount =
        |from: &str| format!("/v2/default-project/into/blobs/uploads/?mount={digest}&from={from}");
    let done = r.client.post(&mount("default-project/from")).await;
    assert_eq!(done.status(), StatusCode::CREATED);
    let location = format!("/v2/default-project/into/blobs/{digest}");
    assert_eq!(header(&done, "location"), location);
    assert_eq!(r.client.get(&location).await.text().await.unwrap(), "data");

    for from in ["default-project/other", "private/a", "NOT A NAME"] {
        let answer = r.client.post(&mount(from).replace("into", "into2")).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{from}");
        assert!(header(&answer, "location").contains("/into2/blobs/uploads/"));
    }
    let without = format!("/v2/default-project/into3/blobs/uploads/?mount={digest}");
    assert_eq!(r.client.post(&without).await.status(), StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_blob_takes_it_from_its_repository_alone() {
    let r = Running::start().await;
    let digest = r.client.push_blob(NAME, b"data").await;
    r.client.push_blob("default-project/other", b"data").await;
    let path = format!("/v2/{NAME}/blobs/{digest}");
    assert_eq!(r.client.delete(&path).await.status(), StatusCode::ACCEPTED);
    refused(r.client.get(&path).await, 404, "BLOB_UNKNOWN").await;
    refused(r.client.delete(&path).await, 404, "BLOB_UNKNOWN").await;
    let other = format!("/v2/default-project/other/blobs/{digest}");
    assert_eq!(r.client.get(&other).await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_a_manifest_needs_must_not_be_deleted() {
    let r = Running::start().await;
    let manifest = r.client.push_image(NAME, "v1", &[b"layer"]).await;
    let path = format!("/v2/{NAME}/blobs/{}", sha256(b"layer"));
    let body = refused(r.client.delete(&path).await, 405, "UNSUPPORTED").await;
    let message = body["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains(manifest.as_str()), "{message}");
    assert_eq!(r.client.get(&path).await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_and_manifests_with_sha512_digests() {
    use registry::digest::{Algorithm, Digest};
    let r = Running::start().await;
    let data = bytes(3, 100_000);
    let digest = Digest::of(Algorithm::Sha512, &data);
    // Told at the first request, with a whole upload, and with the last one.
    for way in ["digest=", "digest-algorithm=sha512", ""] {
        let name = format!("default-project/sha512-{}", way.len());
        let upload = format!("/v2/{name}/blobs/uploads/");
        if way == "digest=" {
            let path = format!("{upload}?digest={digest}");
            let answer = r.client.request(Method::POST, &path).body(data.clone());
            assert_eq!(answer.send().await.unwrap().status(), StatusCode::CREATED);
        } else {
            let location = r.client.post(&format!("{upload}?{way}")).await;
            let location = header(&location, "location").to_owned();
            let part = r
                .client
                .request(Method::PATCH, &location)
                .body(data.clone());
            assert_eq!(part.send().await.unwrap().status(), StatusCode::ACCEPTED);
            let last = r
                .client
                .request(Method::PUT, &format!("{location}?digest={digest}"));
            assert_eq!(last.send().await.unwrap().status(), StatusCode::CREATED);
        }
        let answer = r.client.get(&format!("/v2/{name}/blobs/{digest}")).await;
        assert_eq!(answer.bytes().await.unwrap(), data);
    }
    let name = "default-project/sha512";
    let config = r.client.push_blob(name, b"{}").await;
    let body = image(&config, &[], &serde_json::json!({}));
    let digest = Digest::of(Algorithm::Sha512, &body).to_string();
    let put = r
        .client
        .put_manifest(name, &digest, OCI_MANIFEST, body.clone())
        .await;
    assert_eq!(put.status(), StatusCode::CREATED);
    assert_eq!(header(&put, "docker-content-digest"), digest);
    let got = r
        .client
        .get(&format!("/v2/{name}/manifests/{digest}"))
        .await;
    assert_eq!(got.bytes().await.unwrap(), body);
}
