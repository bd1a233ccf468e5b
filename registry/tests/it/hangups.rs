//! Clients that hang up or hold their request while something changes.

use crate::harness::*;
use registry::metadata::{AuditEntry, AuditFilter, Error};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Waits for something that comes; a minute is never needed.
pub async fn until(what: &str, mut there: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !there() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Lets no change be made until it is dropped.
pub async fn hold_changes(r: &Running) -> Sender<()> {
    let (release, released) = channel::<()>();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let metadata = r.registry.metadata.clone();
    tokio::spawn(async move {
        let hold = move |_: &registry::metadata::Write<'_>| {
            let _ = begin.send(());
            let _ = released.recv();
            Ok::<_, Error>(())
        };
        metadata.write(hold).await
    });
    begun.await.unwrap();
    release
}

fn entries(r: &Running) -> Vec<AuditEntry> {
    let filter = AuditFilter::default();
    r.registry
        .metadata
        .read(|db| db.audit(&filter, 1000))
        .unwrap()
}

/// A request whose sender sees to the connection.
pub async fn send(r: &Running, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(r.server.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

pub fn basic(user: &str) -> String {
    use base64::Engine as _;
    let text = format!("{user}:{PASSWORD}");
    let text = base64::engine::general_purpose::STANDARD.encode(text);
    format!("Authorization: Basic {text}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_no_change_without_its_entry() {
    let r = Running::start().await;
    let digest = r.client.push_image("private/a", "v1", &[b"1"]).await;
    let before = entries(&r).len();
    let auth = basic(ADMIN);
    let body = r#"{"name":"team"}"#;
    let length = body.len();
    let requests = [
        format!(
            "POST /api/v1/projects HTTP/1.1\r\nHost: x\r\n{auth}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ),
        format!("DELETE /v2/private/a/manifests/{digest} HTTP/1.1\r\nHost: x\r\n{auth}\r\n\r\n"),
    ];
    for (n, request) in requests.iter().enumerate() {
        let held = hold_changes(&r).await;
        let stream = send(&r, request).await;
        until("the change is handed in", || {
            r.registry.metadata.waiting() == 1
        })
        .await;
        drop(stream);
        until("the client's connection is seen to have ended", || {
            r.registry.metrics.in_flight.get() == 0
        })
        .await;
        drop(held);
        until("the entry of a change whose client went", || {
            entries(&r).len() == before + n + 1
        })
        .await;
    }
    let all = entries(&r);
    let told: Vec<_> = all[..2]
        .iter()
        .map(|e| (e.operation.as_str(), e.status))
        .collect();
    assert_eq!(told, [("delete", 202), ("project.create", 201)]);
    r.server.shutdown().await;
}
