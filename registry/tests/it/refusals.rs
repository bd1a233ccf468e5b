use crate::harness::*;
use reqwest::{Method, StatusCode};

const NAME: &str = "default-project/a";

#[tokio::test(flavor = "multi_thread")]
async fn the_base_tells_how_to_sign_in() {
    let r = Running::start().await;
    let answer = r.client.anonymous().get("/v2/").await;
    assert!(header(&answer, "www-authenticate").contains("realm="));
    refused(answer, 401, "UNAUTHORIZED").await;
    assert_eq!(r.client.get("/v2/").await.status(), StatusCode::OK);
    assert_eq!(r.client.get("/v2").await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_refused_even_where_none_are_needed() {
    let r = Running::start().await;
    r.client.push_image(NAME, "v1", &[b"1"]).await;
    let path = format!("/v2/{NAME}/manifests/v1");
    for (user, password) in [
        (ADMIN, "wrong password"),
        ("nobody", PASSWORD),
        (ADMIN, ""),
        ("", "x"),
    ] {
        let answer = r.client.signed_in(user, password).get(&path).await;
        refused(answer, 401, "UNAUTHORIZED").await;
    }
    for header in [
        "Bearer abc",
        "Basic",
        "Basic !!!",
        "Basic Og",
        "basic bm9jb2xvbg==",
    ] {
        let answer = r.client.anonymous().request(Method::GET, &path);
        let answer = answer.header("authorization", header).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{header}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_role_nothing_but_pulling_from_public_projects() {
    let r = Running::start().await;
    for project in ["default-project", "private"] {
        r.client
            .push_image(&format!("{project}/a"), "v1", &[b"1"])
            .await;
    }
    let blob = sha256(b"1");
    let calls = |name: &str| {
        vec![
            (Method::GET, format!("/v2/{name}/manifests/v1"), true),
            (Method::HEAD, format!("/v2/{name}/manifests/v1"), true),
            (Method::GET, format!("/v2/{name}/blobs/{blob}"), true),
            (Method::HEAD, format!("/v2/{name}/blobs/{blob}"), true),
            (Method::GET, format!("/v2/{name}/tags/list"), true),
            (Method::GET, format!("/v2/{name}/referrers/{blob}"), true),
            (Method::POST, format!("/v2/{name}/blobs/uploads/"), false),
            (
                Method::POST,
                format!("/v2/{name}/blobs/uploads/?digest={blob}"),
                false,
            ),
            (
                Method::POST,
                format!("/v2/{name}/blobs/uploads/?mount={blob}&from=default-project/a"),
                false,
            ),
            (Method::GET, format!("/v2/{name}/blobs/uploads/0123"), false),
            (
                Method::PATCH,
                format!("/v2/{name}/blobs/uploads/0123"),
                false,
            ),
            (
                Method::PUT,
                format!("/v2/{name}/blobs/uploads/0123?digest={blob}"),
                false,
            ),
            (
                Method::DELETE,
                format!("/v2/{name}/blobs/uploads/0123"),
                false,
            ),
            (Method::PUT, format!("/v2/{name}/manifests/v2"), false),
            (Method::DELETE, format!("/v2/{name}/manifests/v1"), false),
            (Method::DELETE, format!("/v2/{name}/blobs/{blob}"), false),
        ]
    };
    let somebody = r.client.signed_in("somebody", PASSWORD);
    for (client, status) in [(r.client.anonymous(), 401), (somebody, 403)] {
        for (name, public) in [
            ("default-project/a", true),
            ("private/a", false),
            ("no-project/a", false),
        ] {
            for (method, path, pull) in calls(name) {
                let answer = client.request(method.clone(), &path).send().await.unwrap();
                let wanted = if pull && public { 200 } else { status };
                assert_eq!(answer.status().as_u16(), wanted, "{method} {path}");
            }
        }
    }
    // Whether a project is private or not there cannot be told apart.
    let mut told = Vec::new();
    for name in ["private/a", "no-project/a"] {
        let answer = r
            .client
            .anonymous()
            .get(&format!("/v2/{name}/tags/list"))
            .await;
        told.push((
            format!("{:?}", answer.status()),
            answer.text().await.unwrap(),
        ));
    }
    assert_eq!(told[0], told[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_becomes_private_and_public_at_once() {
    let r = Running::start().await;
    r.client.push_image(NAME, "v1", &[b"1"]).await;
    let path = format!("/v2/{NAME}/manifests/v1");
    for (public, status) in [(false, 401), (true, 200), (false, 401)] {
        r.registry
            .metadata
            .write(move |db| db.set_public("default-project", public))
            .await
            .unwrap();
        assert_eq!(
            r.client.anonymous().get(&path).await.status().as_u16(),
            status
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pushing_into_no_project_is_refused() {
    let r = Running::start().await;
    let digest = sha256(b"x");
    for path in [
        "/v2/nowhere/a/blobs/uploads/".to_owned(),
        format!("/v2/nowhere/a/blobs/uploads/?digest={digest}"),
    ] {
        let answer = r
            .client
            .request(Method::POST, &path)
            .body("x")
            .send()
            .await
            .unwrap();
        refused(answer, 404, "NAME_UNKNOWN").await;
    }
    refused(
        r.client.post("/v2/alone/blobs/uploads/").await,
        400,
        "NAME_INVALID",
    )
    .await;
    let staged = std::fs::read_dir(r.folder.path().join("uploads")).unwrap();
    assert_eq!(staged.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_path_or_no_method_is_refused_in_the_spec_s_shape() {
    let r = Running::start().await;
    for (path, status, code) in [
        ("/v2/UPPER/a/tags/list", 400, "NAME_INVALID"),
        (
            "/v2/default-project/a/manifests/-x",
            400,
            "MANIFEST_INVALID",
        ),
        (
            "/v2/default-project/a/manifests/sha256:zz",
            400,
            "DIGEST_INVALID",
        ),
        ("/v2/default-project/a/blobs/latest", 400, "DIGEST_INVALID"),
        ("/v2/x", 404, "NAME_UNKNOWN"),
    ] {
        refused(r.client.get(path).await, status, code).await;
    }
    // As a client of bad will sends it: reqwest would resolve the dots.
    for path in [
        "/v2/default-project/%2e%2e/a/blobs/x",
        "/v2/../../etc/passwd",
        "/v2/p/..%2f..%2fa/tags/list",
    ] {
        assert!(raw(&r, path).await.starts_with("HTTP/1.1 40"), "{path}");
    }
    for (method, path) in [
        (Method::PUT, "/v2/"),
        (Method::POST, "/v2/_catalog"),
        (Method::DELETE, "/v2/default-project/a/tags/list"),
        (Method::GET, "/v2/default-project/a/blobs/uploads/"),
        (Method::PATCH, "/v2/default-project/a/manifests/v1"),
    ] {
        let answer = r.client.request(method, path).send().await.unwrap();
        assert!(!header(&answer, "allow").is_empty());
        refused(answer, 405, "UNSUPPORTED").await;
    }
}

/// The answer to a `GET` of exactly this path.
async fn raw(r: &Running, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(r.server.address())
        .await
        .unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
