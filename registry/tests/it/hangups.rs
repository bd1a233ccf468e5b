//! Clients that hang up or hold their request while something changes.

use crate::harness::*;
use registry::metadata::{AuditEntry, AuditFilter, Error};
use reqwest::Method;
use serde_json::json;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Waits for something that comes; it never takes so long.
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

pub fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    let text = format!("{user}:{password}");
    let text = base64::engine::general_purpose::STANDARD.encode(text);
    format!("Authorization: Basic {text}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_leaves_no_change_without_its_entry() {
    let r = Running::start().await;
    let digest = r.client.push_image("private/a", "v1", &[b"1"]).await;
    let before = entries(&r).len();
    let auth = basic(ADMIN, PASSWORD);
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

/// Sends a request's head, and waits until the registry wants its body: the right was asked for then.
async fn begin(r: &Running, head: &str, length: usize) -> TcpStream {
    let head = format!(
        "{head}\r\nHost: x\r\nContent-Length: {length}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    let mut stream = send(r, &head).await;
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

/// Sends the body; the answer's status.
async fn end(mut stream: TcpStream, body: &[u8]) -> u16 {
    stream.write_all(body).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.strip_prefix("HTTP/1.1 ").unwrap();
    status[..3].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_held_has_no_rights_that_were_taken_meanwhile() {
    let r = Running::start().await;
    let config = r.client.push_blob("private/a", b"{}").await;
    let manifest = image(&config, &[], &json!({}));
    let blob = b"a blob";
    let user = json!({"password": PASSWORD});
    let robot = json!({"name": "ci", "actions": ["push"]});
    let (_, robot) = r
        .client
        .api(Method::POST, "/projects/private/robots", robot)
        .await;
    let robot = (
        robot["login"].as_str().unwrap(),
        robot["secret"].as_str().unwrap(),
    );
    let disabled = json!({"disabled": true});
    let changes = [
        (Method::PATCH, "/users/NAME", disabled.clone(), 401),
        (Method::PUT, "/users/NAME/password", json!({}), 401),
        (
            Method::DELETE,
            "/projects/private/members/NAME",
            json!(null),
            403,
        ),
        (
            Method::PUT,
            "/projects/private/members/NAME",
            json!({"role": "viewer"}),
            403,
        ),
        (Method::DELETE, "/users/NAME", json!(null), 401),
        (
            Method::PATCH,
            "/users/NAME",
            json!({"administrator": false}),
            403,
        ),
        (Method::PATCH, "/projects/private/robots/ci", disabled, 401),
    ];
    for (n, (method, path, change, wanted)) in changes.into_iter().enumerate() {
        let name = format!("held{n}");
        let mut auth = basic(&name, PASSWORD);
        if path.contains("robots") {
            auth = basic(robot.0, robot.1);
        } else {
            let mut new = user.clone();
            new["name"] = json!(name);
            new["administrator"] = json!(change.get("administrator").is_some());
            assert_eq!(r.client.api(Method::POST, "/users", new).await.0, 201);
            let role = json!({"role": "developer"});
            let member = format!("/projects/private/members/{name}");
            if change.get("administrator").is_none() {
                assert_eq!(r.client.api(Method::PUT, &member, role).await.0, 204);
            }
        }
        let digest = sha256(blob);
        let at = r.client.post("/v2/private/a/blobs/uploads/").await;
        let at = header(&at, "location").to_owned();
        let requests = [
            ("PUT /v2/private/a/manifests/v1".to_owned(), &manifest[..]),
            (
                format!("POST /v2/private/a/blobs/uploads/?digest={digest}"),
                blob,
            ),
            (format!("PATCH {at}"), &blob[..3]),
        ];
        let mut held = Vec::new();
        for (request, body) in &requests {
            let head = format!("{request} HTTP/1.1\r\n{auth}");
            held.push((begin(&r, &head, body.len()).await, body));
        }
        let path = path.replace("NAME", &name);
        let (status, _) = r.client.api(method, &path, change).await;
        assert!((200..300).contains(&status), "{path}: {status}");
        for (stream, body) in held {
            assert_eq!(end(stream, body).await, wanted, "{path}");
        }
    }
    let tag = r.client.get("/v2/private/a/manifests/v1").await;
    refused(tag, 404, "MANIFEST_UNKNOWN").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_who_was_demoted_cannot_end_a_request_that_was_held() {
    let r = Running::start().await;
    let new = json!({"name": "second", "password": PASSWORD, "administrator": true});
    assert_eq!(r.client.api(Method::POST, "/users", new).await.0, 201);
    let body = r#"{"name":"mine","password":"another password","administrator":true}"#;
    let auth = basic("second", PASSWORD);
    let head = format!("POST /api/v1/users HTTP/1.1\r\n{auth}\r\nContent-Type: application/json");
    let held = begin(&r, &head, body.len()).await;
    let change = json!({"administrator": false});
    assert_eq!(
        r.client.api(Method::PATCH, "/users/second", change).await.0,
        204
    );
    assert_eq!(end(held, body.as_bytes()).await, 403);
    assert_eq!(
        r.client.get("/api/v1/users/mine").await.status().as_u16(),
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_was_asked_for_with_the_password_before_is_not_given() {
    let r = Running::start().await;
    let developer = r.client.signed_in("developer", PASSWORD);
    // Proved, so that nothing but the writer is waited for.
    assert_eq!(developer.get("/v2/").await.status().as_u16(), 200);
    let held = hold_changes(&r).await;
    let hash = registry::access::password::hash("another password").unwrap();
    let metadata = r.registry.metadata.clone();
    let change = tokio::spawn(async move {
        let change = move |db: &registry::metadata::Write<'_>| db.set_password("developer", &hash);
        metadata.write(change).await.unwrap();
    });
    until("the new password is handed in", || {
        r.registry.metadata.waiting() == 1
    })
    .await;
    let asked = tokio::spawn(async move { developer.get("/token?offline_token=true").await });
    until("the refresh token is handed in", || {
        r.registry.metadata.waiting() == 2
    })
    .await;
    drop(held);
    change.await.unwrap();
    refused(asked.await.unwrap(), 401, "UNAUTHORIZED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_their_role_while_a_change_waited_does_not_make_it() {
    let r = Running::start().await;
    let devops = r.client.signed_in("devops-admin", PASSWORD);
    assert_eq!(devops.get("/v2/").await.status().as_u16(), 200);
    let robot = json!({"name": "ci", "actions": ["push"]});
    let label = json!({"color": "#aabbcc"});
    let role = json!({"role": "devops-admin"});
    let changes = [
        (Method::PUT, "/projects/private/members/somebody", role),
        (Method::POST, "/projects/private/robots", robot),
        (Method::PUT, "/projects/private/labels/a", label),
        (Method::PATCH, "/projects/private", json!({"public": true})),
    ];
    let held = hold_changes(&r).await;
    let metadata = r.registry.metadata.clone();
    let taken = tokio::spawn(async move {
        let take = |db: &registry::metadata::Write<'_>| {
            let project = db.project("private")?.unwrap();
            let user = db.user("devops-admin")?.unwrap();
            db.remove_member(project.id, user.id)
        };
        assert!(metadata.write(take).await.unwrap());
    });
    until("the role is taken", || r.registry.metadata.waiting() == 1).await;
    let mut asked = Vec::new();
    for (method, path, body) in changes {
        let devops = devops.clone();
        asked.push(tokio::spawn(async move {
            devops.api(method, path, body).await.0
        }));
    }
    until("all changes wait", || r.registry.metadata.waiting() == 5).await;
    drop(held);
    taken.await.unwrap();
    for status in asked {
        assert_eq!(status.await.unwrap(), 403);
    }
    let project = r.registry.metadata.read(|db| db.project("private"));
    assert!(!project.unwrap().unwrap().public);
}
