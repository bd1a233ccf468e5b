use crate::harness::*;
use reqwest::{Method, StatusCode};
use serde_json::json;

const NAME: &str = "default-project/image";

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_kept_byte_for_byte_and_found_by_tag_and_digest() {
    let r = Running::start().await;
    let config = r.client.push_blob(NAME, b"{}").await;
    let mut body = image(&config, &[], &json!({"annotations": {"ü": "é"}}));
    body.extend_from_slice(b"\n \n");
    let digest = sha256(&body);
    let put = r
        .client
        .put_manifest(NAME, "v1", OCI_MANIFEST, body.clone())
        .await;
    assert_eq!(put.status(), StatusCode::CREATED);
    let location = header(&put, "location").to_owned();
    assert_eq!(location, format!("/v2/{NAME}/manifests/{digest}"));
    assert_eq!(header(&put, "docker-content-digest"), digest.as_str());
    for path in [location, format!("/v2/{NAME}/manifests/v1")] {
        let head = r.client.anonymous().head(&path).await;
        assert_eq!(head.status(), StatusCode::OK);
        assert_eq!(header(&head, "content-length"), body.len().to_string());
        assert_eq!(header(&head, "docker-content-digest"), digest.as_str());
        let got = r.client.anonymous().get(&path).await;
        assert_eq!(header(&got, "content-type"), OCI_MANIFEST);
        assert_eq!(header(&got, "docker-content-digest"), digest.as_str());
        let etag = header(&got, "etag").to_owned();
        assert_eq!(got.bytes().await.unwrap(), body);
        let again = r.client.request(Method::GET, &path);
        let again = again.header("if-none-match", etag).send().await.unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_s_manifests_and_lists_are_kept_as_what_they_are() {
    let r = Running::start().await;
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let config = r.client.push_blob(NAME, b"{}").await;
    let layer = r.client.push_blob(NAME, b"layer").await;
    let body = image(&config, &[(layer, 5)], &json!({"mediaType": kind}));
    let put = r
        .client
        .put_manifest(NAME, "docker", kind, body.clone())
        .await;
    assert_eq!(put.status(), StatusCode::CREATED);
    let list = "application/vnd.docker.distribution.manifest.list.v2+json";
    let child = json!({"mediaType": kind, "digest": sha256(&body).as_str(), "size": body.len(),
        "platform": {"architecture": "amd64", "os": "linux"}});
    let text = json!({"schemaVersion": 2, "mediaType": list, "manifests": [child]}).to_string();
    let put = r
        .client
        .put_manifest(NAME, "list", list, text.clone().into())
        .await;
    assert_eq!(put.status(), StatusCode::CREATED);
    let got = r.client.get(&format!("/v2/{NAME}/manifests/list")).await;
    assert_eq!(header(&got, "content-type"), list);
    assert_eq!(got.text().await.unwrap(), text);
    let api = header(
        &r.client.get("/v2/").await,
        "docker-distribution-api-version",
    )
    .to_owned();
    assert_eq!(api, "registry/2.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_manifest_refers_to_must_be_in_its_repository() {
    let r = Running::start().await;
    let config = r.client.push_blob(NAME, b"{}").await;
    let elsewhere = r.client.push_blob("default-project/other", b"layer").await;
    let missing = sha256(b"never pushed");
    let body = image(
        &config,
        &[(elsewhere.clone(), 5), (missing.clone(), 1)],
        &json!({}),
    );
    let answer = r.client.put_manifest(NAME, "v1", OCI_MANIFEST, body).await;
    let error = refused(answer, 400, "MANIFEST_BLOB_UNKNOWN").await;
    assert_eq!(
        error["errors"][0]["detail"]["digests"],
        json!([elsewhere.as_str(), missing.as_str()])
    );
    let answer = r.client.get(&format!("/v2/{NAME}/manifests/v1")).await;
    refused(answer, 404, "MANIFEST_UNKNOWN").await;
    let answer = r
        .client
        .put_manifest(NAME, "i", OCI_INDEX, index(&[(missing.clone(), 1)]))
        .await;
    refused(answer, 400, "MANIFEST_BLOB_UNKNOWN").await;
    // A foreign layer may lie elsewhere.
    let body = image(
        &config,
        &[],
        &json!({"layers": [{
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": missing.as_str(), "size": 1, "urls": ["https://example.invalid/layer"]}]}),
    );
    let answer = r
        .client
        .put_manifest(NAME, "foreign", OCI_MANIFEST, body)
        .await;
    assert_eq!(answer.status(), StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_none_is_refused() {
    let r = Running::start().await;
    let config = r.client.push_blob(NAME, b"{}").await;
    let good = image(&config, &[], &json!({}));
    for (kind, body) in [
        (OCI_MANIFEST, b"not json".to_vec()),
        (OCI_MANIFEST, b"{}".to_vec()),
        (
            OCI_MANIFEST,
            image(&config, &[], &json!({"schemaVersion": 1})),
        ),
        (OCI_MANIFEST, image(&config, &[], &json!({"config": null}))),
        (OCI_MANIFEST, image(&config, &[], &json!({"manifests": []}))),
        (
            OCI_MANIFEST,
            image(
                &config,
                &[],
                &json!({"subject": {"digest": "sha256:1", "size": 1}}),
            ),
        ),
        (
            OCI_MANIFEST,
            image(
                &config,
                &[],
                &json!({"layers": [{"digest": "../../x", "size": 1}]}),
            ),
        ),
        (
            OCI_MANIFEST,
            image(
                &config,
                &[],
                &json!({"layers": [{"digest": config.as_str(), "size": -1}]}),
            ),
        ),
        (OCI_INDEX, good.clone()),
        (
            "application/vnd.docker.distribution.manifest.v1+json",
            good.clone(),
        ),
        ("text/plain", good.clone()),
    ] {
        let answer = r.client.put_manifest(NAME, "bad", kind, body).await;
        refused(answer, 400, "MANIFEST_INVALID").await;
    }
    let other = sha256(b"other").to_string();
    let answer = r
        .client
        .put_manifest(NAME, &other, OCI_MANIFEST, good)
        .await;
    refused(answer, 400, "DIGEST_INVALID").await;
    let tags = r.client.get(&format!("/v2/{NAME}/tags/list")).await;
    assert_eq!(
        tags.json::<serde_json::Value>().await.unwrap()["tags"],
        json!([])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn four_megabytes_of_manifest_are_taken_and_more_are_413() {
    let r = Running::start().await;
    let config = r.client.push_blob(NAME, b"{}").await;
    let mut body = image(&config, &[], &json!({}));
    body.resize(4 << 20, b' ');
    let answer = r
        .client
        .put_manifest(NAME, "large", OCI_MANIFEST, body.clone())
        .await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    body.push(b' ');
    let answer = r
        .client
        .put_manifest(NAME, "larger", OCI_MANIFEST, body.clone())
        .await;
    refused(answer, 413, "MANIFEST_INVALID").await;
    let pieces = body
        .chunks(100_000)
        .map(|c| std::io::Result::Ok(bytes::Bytes::copy_from_slice(c)));
    let stream = futures_util::stream::iter(pieces.collect::<Vec<_>>());
    let answer = r
        .client
        .request(Method::PUT, &format!("/v2/{NAME}/manifests/larger"))
        .header("content-type", OCI_MANIFEST)
        .body(reqwest::Body::wrap_stream(stream));
    refused(answer.send().await.unwrap(), 413, "MANIFEST_INVALID").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_moves_and_goes_without_its_manifest() {
    let r = Running::start().await;
    let first = r.client.push_image(NAME, "latest", &[b"1"]).await;
    let second = r.client.push_image(NAME, "latest", &[b"2"]).await;
    let path = format!("/v2/{NAME}/manifests/latest");
    let digest = header(&r.client.head(&path).await, "docker-content-digest").to_owned();
    assert_eq!(digest, second.as_str());
    assert_eq!(r.client.delete(&path).await.status(), StatusCode::ACCEPTED);
    refused(r.client.get(&path).await, 404, "MANIFEST_UNKNOWN").await;
    refused(r.client.delete(&path).await, 404, "MANIFEST_UNKNOWN").await;
    for digest in [first, second] {
        let path = format!("/v2/{NAME}/manifests/{digest}");
        assert_eq!(r.client.get(&path).await.status(), StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_goes_with_its_tags_unless_an_index_needs_it() {
    let r = Running::start().await;
    let child = r.client.push_image(NAME, "child", &[b"1"]).await;
    let body = index(&[(child.clone(), 1)]);
    let parent = sha256(&body);
    let put = r.client.put_manifest(NAME, "multi", OCI_INDEX, body).await;
    assert_eq!(put.status(), StatusCode::CREATED);
    let path = |digest| format!("/v2/{NAME}/manifests/{digest}");
    refused(r.client.delete(&path(&child)).await, 405, "UNSUPPORTED").await;
    assert_eq!(r.client.get(&path(&child)).await.status(), StatusCode::OK);
    assert_eq!(
        r.client.delete(&path(&parent)).await.status(),
        StatusCode::ACCEPTED
    );
    assert_eq!(
        r.client.delete(&path(&child)).await.status(),
        StatusCode::ACCEPTED
    );
    let tags = r.client.get(&format!("/v2/{NAME}/tags/list")).await;
    assert_eq!(
        tags.json::<serde_json::Value>().await.unwrap()["tags"],
        json!([])
    );
    refused(
        r.client.delete(&path(&child)).await,
        404,
        "MANIFEST_UNKNOWN",
    )
    .await;
}
