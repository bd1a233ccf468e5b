use crate::harness::*;
use registry::server::tls::generate;
use registry::settings::TlsSettings;
use reqwest::{Certificate, Client, StatusCode, Version};
use std::path::Path;

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_and_metrics() {
    let r = Running::start().await;
    let anyone = r.client.anonymous();
    assert_eq!(anyone.get("/healthz").await.text().await.unwrap(), "ok\n");
    assert_eq!(anyone.get("/readyz").await.text().await.unwrap(), "ready\n");
    assert_eq!(
        anyone.get("/metrics").await.status(),
        StatusCode::UNAUTHORIZED
    );
    r.client.get("/v2/").await;
    let text = r.client.get("/metrics").await.text().await.unwrap();
    for line in [
        "registry_requests_total{method=\"GET\",status=\"200\"}",
        "registry_request_seconds_bucket",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

/// The value of a metric without labels.
fn value(text: &str, name: &str) -> u64 {
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn gauges_tell_what_is_open_and_all_metrics_are_listed() {
    let r = Running::start().await;
    let name = "default-project/a";
    let scrape = async || r.client.get("/metrics").await.text().await.unwrap();
    let text = scrape().await;
    assert_eq!(value(&text, "registry_uploads_open"), 0);
    assert_eq!(value(&text, "registry_gc_last_run_timestamp_seconds"), 0);
    let rows = value(&text, "registry_audit_rows");

    let at = r.client.post(&format!("/v2/{name}/blobs/uploads/")).await;
    let at = header(&at, "location").to_owned();
    r.client.push_blob(name, &bytes(1, 1000)).await;
    let text = scrape().await;
    assert_eq!(value(&text, "registry_uploads_open"), 1);
    assert_eq!(value(&text, "registry_audit_rows"), rows + 1);
    assert_eq!(value(&text, "registry_hashing_waiting"), 0);

    r.client.delete(&at).await;
    let all = serde_json::json!({"grace_minutes": 0});
    let (status, _) = r.client.api(reqwest::Method::POST, "/gc", all).await;
    assert_eq!(status, 200);
    let text = scrape().await;
    assert_eq!(value(&text, "registry_uploads_open"), 0);
    assert_eq!(value(&text, "registry_gc_last_bytes"), 1000);
    assert_eq!(value(&text, "registry_gc_bytes_total"), 1000);
    assert!(value(&text, "registry_gc_last_run_timestamp_seconds") > 1_700_000_000);

    // The list in the documents has all of them, and no others.
    let listed = include_str!("../../../docs/registry-metrics.md");
    let mut listed: Vec<&str> = listed
        .lines()
        .filter_map(|l| l.strip_prefix("| `")?.split('`').next())
        .collect();
    let mut found: Vec<String> = text
        .lines()
        .filter_map(|l| l.strip_prefix("# TYPE "))
        .map(|l| match l.split_once(' ').unwrap() {
            (name, "counter") => format!("{name}_total"),
            (name, _) => name.to_owned(),
        })
        .collect();
    listed.sort_unstable();
    found.sort();
    assert_eq!(found, listed);
}

fn write_certificates(folder: &Path) -> Certificate {
    let made = generate::certificates(&["localhost".into(), "127.0.0.1".into()]).unwrap();
    std::fs::write(folder.join("server.crt"), made.certificate).unwrap();
    std::fs::write(folder.join("server.key"), made.key).unwrap();
    Certificate::from_pem(made.ca.as_bytes()).unwrap()
}

fn client(ca: Certificate) -> Client {
    let builder = Client::builder().no_proxy().tls_built_in_root_certs(false);
    builder.add_root_certificate(ca).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_http_2_and_certificates_that_are_exchanged_while_it_runs() {
    let mut tls = settings();
    tls.tls = Some(TlsSettings {
        certificate: "server.crt".into(),
        key: "server.key".into(),
    });
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), &tls);
    let first = write_certificates(folder.path());
    let r = Running::open(folder).await;
    let url = format!("https://{}/healthz", r.server.address());
    let old = client(first.clone());
    let answer = old.get(&url).send().await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_2);

    let second = write_certificates(r.folder.path());
    r.server.reload().unwrap();
    // An open connection goes on, a new one gets the new certificate.
    assert_eq!(old.get(&url).send().await.unwrap().status(), StatusCode::OK);
    assert!(client(first).get(&url).send().await.is_err());
    assert!(client(second.clone()).get(&url).send().await.is_ok());

    std::fs::write(r.folder.path().join("server.key"), "not a key").unwrap();
    assert!(r.server.reload().is_err());
    assert!(client(second).get(&url).send().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_a_pull_and_a_push_finish() {
    let r = Running::start().await;
    let data = bytes(1, 20_000_000);
    let name = "default-project/a";
    let digest = r.client.push_blob(name, &data).await;
    let mut pull = r.client.get(&format!("/v2/{name}/blobs/{digest}")).await;
    let mut got = pull.chunk().await.unwrap().unwrap().to_vec();

    let at = header(
        &r.client.post(&format!("/v2/{name}/blobs/uploads/")).await,
        "location",
    )
    .to_owned();
    let (feed, mut fed) = tokio::sync::mpsc::channel::<std::io::Result<bytes::Bytes>>(1);
    let stream = futures_util::stream::poll_fn(move |context| fed.poll_recv(context));
    let end = sha256(b"12");
    let push = r
        .client
        .request(reqwest::Method::PUT, &format!("{at}?digest={end}"));
    let push = tokio::spawn(push.body(reqwest::Body::wrap_stream(stream)).send());
    feed.send(Ok(bytes::Bytes::from_static(b"1")))
        .await
        .unwrap();
    // The second one is taken when the first one was: the request is on its way then.
    feed.reserve().await.unwrap().send(Ok(bytes::Bytes::new()));
    while r.registry.metrics.in_flight.get() == 0 {
        tokio::task::yield_now().await;
    }

    let base = r.client.base.clone();
    let down = tokio::spawn(r.server.shutdown());
    while reqwest::Client::new()
        .get(format!("{base}/healthz"))
        .send()
        .await
        .is_ok()
    {
        tokio::task::yield_now().await;
    }
    assert!(!down.is_finished());
    while let Some(more) = pull.chunk().await.unwrap() {
        got.extend_from_slice(&more);
    }
    assert_eq!(sha256(&got), digest);
    feed.send(Ok(bytes::Bytes::from_static(b"2")))
        .await
        .unwrap();
    drop(feed);
    assert_eq!(push.await.unwrap().unwrap().status(), StatusCode::CREATED);
    down.await.unwrap();
}

#[test]
fn a_folder_is_served_by_one_process_only() {
    use registry::registry::{OpenError, Registry};
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), &settings());
    let first = Registry::open(folder.path()).unwrap();
    assert!(matches!(
        Registry::open(folder.path()),
        Err(OpenError::InUse(_))
    ));
    drop(first);
    Registry::open(folder.path()).unwrap();
}
