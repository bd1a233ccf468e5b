//! Real connections, bare bytes: what a client that writes first and reads afterwards gets.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::post;
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn connect(router: Router) -> TcpStream {
    let router = router.layer(axum::middleware::from_fn(drain::unread));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    TcpStream::connect(address).await.unwrap()
}

fn refusing() -> Router {
    Router::new().route(
        "/",
        post(|| async { (StatusCode::NOT_IMPLEMENTED, "refused") }),
    )
}

async fn head(stream: &mut TcpStream, extra: &str, length: usize) {
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{extra}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut answer));
    let n = read.await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..n]).into_owned()
}

#[tokio::test]
async fn a_refusal_is_read_by_a_client_that_writes_first() {
    let mut stream = connect(refusing()).await;
    let body = vec![b'x'; 8 << 20];
    // Twice on one connection: it stays usable.
    for _ in 0..2 {
        head(&mut stream, "", body.len()).await;
        stream.write_all(&body).await.unwrap();
        let answer = answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
        assert!(answer.ends_with("refused"), "{answer}");
    }
}

#[tokio::test]
async fn what_is_half_read_is_taken_too() {
    let half = |request: Request| async {
        let mut body: Body = request.into_body();
        let first = body.frame().await.unwrap().unwrap();
        assert!(!first.data_ref().unwrap().is_empty());
        (StatusCode::PAYLOAD_TOO_LARGE, "too large")
    };
    let mut stream = connect(Router::new().route("/", post(half))).await;
    let body = vec![b'x'; 4 << 20];
    head(&mut stream, "", body.len()).await;
    stream.write_all(&body).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn an_endless_body_is_cut_off() {
    let mut stream = connect(refusing()).await;
    head(&mut stream, "", 1 << 40).await;
    let piece = vec![b'x'; 1 << 20];
    let mut sent = 0u64;
    while stream.write_all(&piece).await.is_ok() {
        sent += piece.len() as u64;
        // What the sockets hold comes on top of what was read.
        assert!(
            sent < drain::DRAIN_MAX + (64 << 20),
            "it is read without a limit"
        );
    }
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_is_not_asked_for_what_nobody_wants() {
    let mut stream = connect(refusing()).await;
    head(&mut stream, "Expect: 100-continue\r\n", 1 << 20).await;
    let answer = answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
}

#[tokio::test]
async fn a_body_that_is_read_behind_the_answer_is_the_handlers() {
    let echo = |request: Request| async { Body::new(request.into_body()) };
    let mut stream = connect(Router::new().route("/", post(echo))).await;
    head(&mut stream, "", 10).await;
    stream.write_all(b"hello").await.unwrap();
    let mut seen = answer(&mut stream).await;
    assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
    stream.write_all(b"world").await.unwrap();
    while !seen.contains("world") {
        seen.push_str(&answer(&mut stream).await);
    }
}
