//! Webhooks: what is told, how often, and to whom it is not.

use crate::harness::*;
use registry::webhooks::signature;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::HashMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Who is told: answers requests one by one, with what the test says.
struct Receiver {
    listener: TcpListener,
}

type Request = (HashMap<String, String>, String);

impl Receiver {
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        (Receiver { listener }, url)
    }

    /// Answers the next request that comes whole; a registry that ends cuts one off.
    async fn answer(&self, answer: &str) -> Request {
        loop {
            let (mut stream, _) = self.listener.accept().await.unwrap();
            if let Some(request) = read(&mut stream).await {
                let answer =
                    format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
                return request;
            }
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut text = String::new();
    loop {
        let mut bytes = [0; 4096];
        let n = stream.read(&mut bytes).await.unwrap_or(0);
        if n == 0 {
            return None;
        }
        text += std::str::from_utf8(&bytes[..n]).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let headers: HashMap<String, String> = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned()))
            .collect();
        if body.len() == headers["content-length"].parse::<usize>().unwrap() {
            return Some((headers, body.to_owned()));
        }
    }
}

async fn hook(r: &Running, url: &str) -> (i64, String) {
    let body = json!({"url": url});
    let (status, made) = r
        .client
        .api(Method::POST, "/projects/private/webhooks", body)
        .await;
    assert_eq!(status, 201, "{made}");
    let secret = made["secret"].as_str().unwrap().to_owned();
    (made["id"].as_i64().unwrap(), secret)
}

fn quick() -> registry::settings::Settings {
    let mut with = settings();
    with.webhooks.retry_seconds = 0;
    with.webhooks.attempts = 3;
    with
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_and_a_removal_are_told_signed_in_order_and_until_they_are_taken() {
    let r = Running::with(quick()).await;
    let (receiver, url) = Receiver::start().await;
    let (id, secret) = hook(&r, &url).await;
    let developer = r.client.signed_in("developer", PASSWORD);
    let digest = developer.push_image("private/a", "v1", &[b"1"]).await;
    let (headers, body) = receiver.answer("503 Busy").await;
    assert_eq!(headers["x-mooring-signature"], signature(&secret, &body));
    assert_eq!(headers["content-type"], "application/json");
    // What waits is there after a restart, and is the same.
    let r = r.restart().await;
    let developer = r.client.signed_in("developer", PASSWORD);
    let (again, same) = receiver
        .answer("302 Elsewhere\r\nLocation: http://127.0.0.1:1/")
        .await;
    assert_eq!(
        (&again["x-mooring-delivery"], &same),
        (&headers["x-mooring-delivery"], &body)
    );
    receiver.answer("204 Good").await;
    let mut told: Value = serde_json::from_str(&body).unwrap();
    assert!(told["time"].as_i64().unwrap() > 0);
    told["time"] = json!(0);
    let wanted = json!({
        "event": "push", "time": 0, "by": "developer", "project": "private", "repository": "private/a",
        "artifact": {"digest": digest.as_str(), "tag": "v1"},
    });
    assert_eq!(told, wanted);
    // What is refused, and what happens elsewhere, is not told.
    developer.delete("/v2/private/a/manifests/v1").await;
    developer
        .push_image("default-project/a", "v1", &[b"1"])
        .await;
    let gone = r.client.delete("/v2/private/a/manifests/v1").await;
    assert_eq!(gone.status().as_u16(), 202);
    let (_, body) = receiver.answer("200 Good").await;
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&told["event"], &told["artifact"]["reference"]),
        (&json!("delete"), &json!("v1"))
    );
    assert_eq!(told["by"], "admin");
    let one = format!("/projects/private/webhooks/{id}");
    assert_eq!(r.client.api(Method::DELETE, &one, json!(null)).await.0, 204);
    assert_eq!(r.client.api(Method::DELETE, &one, json!(null)).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_never_answers_well_is_given_up_and_holds_up_no_other() {
    let r = Running::with(quick()).await;
    let (bad, bad_url) = Receiver::start().await;
    let (good, good_url) = Receiver::start().await;
    let (id, _) = hook(&r, &bad_url).await;
    hook(&r, &good_url).await;
    r.client.push_image("private/a", "v1", &[b"1"]).await;
    good.answer("200 Good").await;
    for _ in 0..3 {
        bad.answer("500 Bad").await;
    }
    let path = "/projects/private/webhooks";
    let waiting = async || {
        let (_, found) = r.client.api(Method::GET, path, json!(null)).await;
        found
            .as_array()
            .unwrap()
            .iter()
            .map(|w| w["waiting"].as_i64().unwrap())
            .sum::<i64>()
    };
    while waiting().await > 0 {
        tokio::task::yield_now().await;
    }
    let (_, log) = r
        .client
        .api(Method::GET, "/audit?operation=webhook", json!(null))
        .await;
    assert_eq!(log[0]["operation"], "webhook.give-up", "{log}");
    assert_eq!(log[0]["target"], id.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_answer_holds_up_no_other() {
    let mut with = quick();
    with.webhooks.timeout_seconds = 600;
    let r = Running::with(with).await;
    let (silent, silent_url) = Receiver::start().await;
    let (good, good_url) = Receiver::start().await;
    hook(&r, &silent_url).await;
    hook(&r, &good_url).await;
    r.client.push_image("private/a", "v1", &[b"1"]).await;
    let (_held, _) = silent.listener.accept().await.unwrap();
    for tag in ["v1", "v2", "v3"] {
        if tag != "v1" {
            r.client.push_image("private/a", tag, &[b"1"]).await;
        }
        let (_, body) = good.answer("200 Good").await;
        let told: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(told["artifact"]["tag"], tag);
    }
    // Nor the end.
    r.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_cloud_administrators_say_where_requests_go_and_the_queue_is_bounded() {
    let r = Running::with(quick()).await;
    let path = "/projects/private/webhooks";
    let devops = r.client.signed_in("devops-admin", PASSWORD);
    let body = json!({"url": "http://127.0.0.1/"});
    assert_eq!(devops.api(Method::POST, path, body.clone()).await.0, 403);
    assert_eq!(devops.api(Method::GET, path, json!(null)).await.0, 403);
    for bad in [
        json!({"url": "file:///etc/passwd"}),
        json!({"url": "http://a:b@example.org/"}),
        json!({"url": "http://example.org/", "secret": "short"}),
    ] {
        assert_eq!(r.client.api(Method::POST, path, bad).await.0, 400);
    }
    for n in 0..11 {
        let (status, _) = r.client.api(Method::POST, path, body.clone()).await;
        assert_eq!(status, if n < 10 { 201 } else { 409 });
    }
    let (_, log) = r
        .client
        .api(Method::GET, "/audit?operation=webhook", json!(null))
        .await;
    assert!(!log.to_string().contains("hook_"), "{log}");
    let folder = tempfile::tempdir().unwrap();
    let metadata = registry::metadata::Metadata::open(&folder.path().join("m.sqlite")).unwrap();
    let waiting = metadata.write(|db| {
        let project = db.create_project(&"p".parse().unwrap(), false)?.unwrap();
        db.add_webhook(project, "http://h/", "secret")?;
        for _ in 0..1100 {
            db.queue_event(project, || "{}".into())?;
        }
        Ok::<_, registry::metadata::Error>(db.webhooks(project)?[0].waiting)
    });
    assert_eq!(waiting.await.unwrap(), 1000);
}
