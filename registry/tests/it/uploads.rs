use crate::harness::*;
use bytes::Bytes;
use reqwest::{Body, Method, Response, StatusCode};
use tokio::sync::mpsc;

const NAME: &str = "default-project/up";

async fn begin(client: &Remote) -> String {
    let answer = client.post(&format!("/v2/{NAME}/blobs/uploads/")).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(header(&answer, "range"), "0-0");
    assert!(!header(&answer, "docker-upload-uuid").is_empty());
    header(&answer, "location").to_owned()
}

async fn patch(client: &Remote, at: &str, from: usize, data: &[u8]) -> Response {
    let range = format!("{from}-{}", from + data.len() - 1);
    let request = client.request(Method::PATCH, at).body(data.to_vec());
    request
        .header("content-range", range)
        .header("content-type", "application/octet-stream")
        .send()
        .await
        .unwrap()
}

async fn finish(client: &Remote, at: &str, digest: &str, data: &[u8]) -> Response {
    let request = client.request(Method::PUT, &format!("{at}?digest={digest}"));
    request.body(data.to_vec()).send().await.unwrap()
}

async fn reads(client: &Remote, data: &[u8]) {
    let path = format!("/v2/{NAME}/blobs/{}", sha256(data));
    let answer = client.get(&path).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.bytes().await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn monolithic_with_post_and_put() {
    let r = Running::start().await;
    let at = begin(&r.client).await;
    let data = bytes(1, 5_000_000);
    let digest = sha256(&data);
    let done = finish(&r.client, &at, digest.as_str(), &data).await;
    assert_eq!(done.status(), StatusCode::CREATED);
    assert_eq!(
        header(&done, "location"),
        format!("/v2/{NAME}/blobs/{digest}")
    );
    assert_eq!(header(&done, "docker-content-digest"), digest.as_str());
    reads(&r.client, &data).await;
    refused(r.client.get(&at).await, 404, "BLOB_UPLOAD_UNKNOWN").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunked_with_the_last_chunk_in_the_put_or_before() {
    let r = Running::start().await;
    for last in [0, 1000] {
        let data = bytes(last, 3_000_000);
        let cut = data.len() - last as usize;
        let at = begin(&r.client).await;
        let first = patch(&r.client, &at, 0, &data[..1_000_001]).await;
        assert_eq!(first.status(), StatusCode::ACCEPTED);
        assert_eq!(header(&first, "range"), "0-1000000");
        let at = header(&first, "location").to_owned();
        let second = patch(&r.client, &at, 1_000_001, &data[1_000_001..cut]).await;
        assert_eq!(second.status(), StatusCode::ACCEPTED);
        let status = r.client.get(&at).await;
        assert_eq!(status.status(), StatusCode::NO_CONTENT);
        assert_eq!(header(&status, "range"), format!("0-{}", cut - 1));
        let done = finish(&r.client, &at, sha256(&data).as_str(), &data[cut..]).await;
        assert_eq!(done.status(), StatusCode::CREATED);
        reads(&r.client, &data).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_unknown_length_as_docker_sends_it() {
    let r = Running::start().await;
    let at = begin(&r.client).await;
    let data = bytes(9, 2_500_000);
    let pieces: Vec<std::io::Result<Bytes>> = data
        .chunks(70_000)
        .map(|c| Ok(Bytes::copy_from_slice(c)))
        .collect();
    let body = Body::wrap_stream(futures_util::stream::iter(pieces));
    let sent = r
        .client
        .request(Method::PATCH, &at)
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), StatusCode::ACCEPTED);
    assert_eq!(header(&sent, "range"), "0-2499999");
    let done = finish(&r.client, &at, sha256(&data).as_str(), b"").await;
    assert_eq!(done.status(), StatusCode::CREATED);
    reads(&r.client, &data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_out_of_order_is_416_and_changes_nothing() {
    let r = Running::start().await;
    let at = begin(&r.client).await;
    let data = bytes(4, 4000);
    assert_eq!(
        patch(&r.client, &at, 0, &data[..1000]).await.status(),
        StatusCode::ACCEPTED
    );
    for from in [0, 999, 1001, 2000] {
        let answer = patch(&r.client, &at, from, &data[from..from + 500]).await;
        assert_eq!(header(&answer, "range"), "0-999");
        assert_eq!(header(&answer, "location"), at);
        refused(answer, 416, "BLOB_UPLOAD_INVALID").await;
    }
    let put = r
        .client
        .request(Method::PUT, &format!("{at}?digest={}", sha256(&data)));
    let put = put
        .header("content-range", "2000-3999")
        .body(data[2000..].to_vec());
    refused(put.send().await.unwrap(), 416, "BLOB_UPLOAD_INVALID").await;
    let status = r.client.get(&at).await;
    assert_eq!(header(&status, "range"), "0-999");
    assert_eq!(
        patch(&r.client, &at, 1000, &data[1000..]).await.status(),
        StatusCode::ACCEPTED
    );
    let done = finish(&r.client, &at, sha256(&data).as_str(), b"").await;
    assert_eq!(done.status(), StatusCode::CREATED);
    reads(&r.client, &data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_is_no_range_or_not_the_length_is_refused() {
    let r = Running::start().await;
    let at = begin(&r.client).await;
    let send = |range: &'static str| {
        let request = r.client.request(Method::PATCH, &at).body("12345");
        async move { request.header("content-range", range).send().await.unwrap() }
    };
    refused(send("5-0").await, 416, "BLOB_UPLOAD_INVALID").await;
    refused(send("a-b").await, 416, "BLOB_UPLOAD_INVALID").await;
    refused(send("0-9").await, 400, "SIZE_INVALID").await;
    assert_eq!(send("0-4").await.status(), StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_digest_is_refused_and_nothing_is_kept() {
    let r = Running::start().await;
    let wrong = sha256(b"something else");
    let at = begin(&r.client).await;
    refused(
        finish(&r.client, &at, wrong.as_str(), b"data").await,
        400,
        "DIGEST_INVALID",
    )
    .await;
    refused(r.client.get(&at).await, 404, "BLOB_UPLOAD_UNKNOWN").await;
    let path = format!("/v2/{NAME}/blobs/uploads/?digest={wrong}");
    let whole = r.client.request(Method::POST, &path).body("data");
    refused(whole.send().await.unwrap(), 400, "DIGEST_INVALID").await;
    for digest in [&wrong, &sha256(b"data")] {
        let answer = r.client.get(&format!("/v2/{NAME}/blobs/{digest}")).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    }
    let staged = std::fs::read_dir(r.folder.path().join("uploads")).unwrap();
    assert_eq!(staged.count(), 0);
    let at = begin(&r.client).await;
    for digest in ["", "sha256:12", "md5:0123"] {
        refused(
            finish(&r.client, &at, digest, b"data").await,
            400,
            "DIGEST_INVALID",
        )
        .await;
    }
    let without = r.client.request(Method::PUT, &at).body("data");
    refused(without.send().await.unwrap(), 400, "DIGEST_INVALID").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_upload_is_gone_with_its_bytes() {
    let r = Running::start().await;
    let at = begin(&r.client).await;
    patch(&r.client, &at, 0, b"12345").await;
    assert_eq!(r.client.delete(&at).await.status(), StatusCode::NO_CONTENT);
    refused(r.client.delete(&at).await, 404, "BLOB_UPLOAD_UNKNOWN").await;
    refused(
        patch(&r.client, &at, 5, b"6").await,
        404,
        "BLOB_UPLOAD_UNKNOWN",
    )
    .await;
    let staged = std::fs::read_dir(r.folder.path().join("uploads")).unwrap();
    assert_eq!(staged.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_belongs_to_its_repository() {
    let r = Running::start().await;
    let at = begin(&r.client).await;
    let elsewhere = at.replace("/up/", "/other/");
    refused(r.client.get(&elsewhere).await, 404, "BLOB_UPLOAD_UNKNOWN").await;
    refused(
        patch(&r.client, &elsewhere, 0, b"1").await,
        404,
        "BLOB_UPLOAD_UNKNOWN",
    )
    .await;
    for id in ["x", "0000", "a%2fb", "..%5c.."] {
        let path = format!("/v2/{NAME}/blobs/uploads/{id}");
        let status = r.client.get(&path).await.status();
        assert!(status.is_client_error(), "{id}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_after_a_restart_without_being_read_again() {
    let mut r = Running::start().await;
    let data = bytes(5, 700_000);
    let at = begin(&r.client).await;
    let mut sent = 0;
    for cut in [100_001, 400_000, 700_000] {
        assert_eq!(
            patch(&r.client, &at, sent, &data[sent..cut]).await.status(),
            StatusCode::ACCEPTED
        );
        sent = cut;
        r = r.restart().await;
        let status = r.client.get(&at).await;
        assert_eq!(header(&status, "range"), format!("0-{}", sent - 1));
        // What was synced and hashed is not looked at again: damage there is not found out by the digest.
        if sent == 100_001 {
            let file = std::fs::read_dir(r.folder.path().join("uploads"))
                .unwrap()
                .next();
            assert_eq!(file.unwrap().unwrap().metadata().unwrap().len(), 100_001);
        }
    }
    let done = finish(&r.client, &at, sha256(&data).as_str(), b"").await;
    assert_eq!(done.status(), StatusCode::CREATED);
    let r = r.restart().await;
    reads(&r.client, &data).await;
}

/// A chunk whose connection hangs; returns what feeds it.
fn hanging(
    client: &Remote,
    at: &str,
) -> (
    mpsc::Sender<std::io::Result<Bytes>>,
    tokio::task::JoinHandle<reqwest::Result<Response>>,
) {
    let (feed, mut fed) = mpsc::channel(1);
    let stream = futures_util::stream::poll_fn(move |context| fed.poll_recv(context));
    let request = client
        .request(Method::PATCH, at)
        .body(Body::wrap_stream(stream));
    (feed, tokio::spawn(request.send()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_ends_its_own_hanging_request() {
    let r = Running::start().await;
    let at = begin(&r.client).await;
    let (feed, hangs) = hanging(&r.client, &at);
    feed.send(Ok(Bytes::from_static(b"12345"))).await.unwrap();
    // Two connections have no order: were the hanging request the later one, it would rightly end the other.
    let id = at.rsplit('/').next().unwrap();
    while !r.registry.uploads.is_taken(id) {
        tokio::task::yield_now().await;
    }
    // A chunk that begins where the hanging one has come to: refused until the server has those bytes.
    loop {
        let status = header(&r.client.get(&at).await, "range").to_owned();
        let from = if status == "0-4" { 5 } else { 0 };
        let answer = patch(&r.client, &at, from, &b"1234567890"[from..]).await;
        if answer.status() == StatusCode::ACCEPTED {
            assert_eq!(header(&answer, "range"), "0-9");
            break;
        }
        assert_eq!(answer.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    }
    drop(feed);
    let hung = hangs.await.unwrap();
    assert!(hung.is_err() || hung.unwrap().status() == StatusCode::BAD_REQUEST);
    let done = finish(&r.client, &at, sha256(b"1234567890").as_str(), b"").await;
    assert_eq!(done.status(), StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_upload_is_gone_and_a_busy_one_stays() {
    let r = Running::start().await;
    let at = begin(&r.client).await;
    patch(&r.client, &at, 0, b"12345").await;
    assert_eq!(r.registry.uploads.expire(3_600_000).await.unwrap(), 0);
    assert_eq!(r.client.get(&at).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(r.registry.uploads.expire(0).await.unwrap(), 1);
    refused(r.client.get(&at).await, 404, "BLOB_UPLOAD_UNKNOWN").await;
    let staged = std::fs::read_dir(r.folder.path().join("uploads")).unwrap();
    assert_eq!(staged.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_push_the_same_and_other_blobs_at_once() {
    let r = Running::start().await;
    let mut pushes = Vec::new();
    for n in 0..40u64 {
        let client = r.client.clone();
        pushes.push(tokio::spawn(async move {
            let data = bytes(n % 10, 50_000);
            client
                .push_blob(&format!("default-project/many{}", n % 4), &data)
                .await
        }));
    }
    for (n, push) in pushes.into_iter().enumerate() {
        let digest = push.await.unwrap();
        let path = format!("/v2/default-project/many{}/blobs/{digest}", n % 4);
        assert_eq!(
            sha256(&r.client.get(&path).await.bytes().await.unwrap()),
            digest
        );
    }
    let mut files = 0;
    for folder in std::fs::read_dir(r.folder.path().join("blobs")).unwrap() {
        files += std::fs::read_dir(folder.unwrap().path()).unwrap().count();
    }
    files += std::fs::read_dir(r.folder.path().join("uploads"))
        .unwrap()
        .count();
    assert_eq!(files, 10, "each blob is stored once");
}
