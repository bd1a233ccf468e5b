//! Quotas, immutable tags, retention, labels, search.

use crate::harness::*;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

async fn api(r: &Running, method: Method, path: &str, body: Value) -> Value {
    let (status, answer) = r.client.api(method, path, body).await;
    assert!((200..300).contains(&status), "{path}: {status} {answer}");
    answer
}

/// What the project is said to hold, which is what it holds.
async fn used(r: &Running, project: &str) -> u64 {
    let told = api(r, Method::GET, &format!("/projects/{project}"), Value::Null).await;
    let name = project.to_owned();
    let counted = r.registry.metadata.read(|db| {
        let project = db.project(&name)?.unwrap();
        db.recount(project.id)
    });
    let told = told["used"].as_u64().unwrap();
    assert_eq!(told, counted.unwrap());
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_holds_each_blob_once_and_what_goes_is_given_back() {
    let r = Running::start().await;
    assert_eq!(used(&r, "private").await, 0);
    let data = bytes(1, 10_000);
    r.client.push_blob("private/a", &data).await;
    assert_eq!(used(&r, "private").await, 10_000);
    let blob = sha256(&data);
    for name in ["private/b", "default-project/a"] {
        let path = format!("/v2/{name}/blobs/uploads/?mount={blob}&from=private/a");
        assert_eq!(r.client.post(&path).await.status(), StatusCode::CREATED);
    }
    r.client.push_blob("private/a", &data).await;
    assert_eq!(used(&r, "private").await, 10_000);
    assert_eq!(used(&r, "default-project").await, 10_000);
    let before = used(&r, "private").await;
    let digest = r.client.push_image("private/a", "v1", &[b"123"]).await;
    assert!(used(&r, "private").await > before + 3);
    r.client
        .delete(&format!("/v2/private/a/blobs/{blob}"))
        .await;
    assert!(used(&r, "private").await > 10_000, "b has it still");
    r.client
        .delete(&format!("/v2/private/b/blobs/{blob}"))
        .await;
    r.client
        .delete(&format!("/v2/private/a/manifests/{digest}"))
        .await;
    api(&r, Method::POST, "/gc", json!({"grace_minutes": 0})).await;
    assert_eq!(used(&r, "private").await, 0);
    assert_eq!(
        used(&r, "default-project").await,
        0,
        "nothing needs it there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_over_the_quota_is_refused_and_leaves_nothing() {
    let r = Running::start().await;
    let quota = "/projects/private/quota";
    api(&r, Method::PUT, quota, json!({"bytes": 1000})).await;
    r.client.push_blob("private/a", &bytes(1, 600)).await;
    let data = bytes(2, 500);
    let digest = sha256(&data);
    let path = format!("/v2/private/a/blobs/uploads/?digest={digest}");
    let push = async |data: &[u8]| {
        let request = r.client.request(Method::POST, &path).body(data.to_vec());
        request.send().await.unwrap()
    };
    let body = refused(push(&data).await, 403, "DENIED").await;
    assert_eq!(
        body["errors"][0]["detail"],
        json!({"quota": 1000, "used": 1100})
    );
    // In pieces, too.
    let at = r.client.post("/v2/private/a/blobs/uploads/").await;
    let at = header(&at, "location").to_owned();
    let end = r
        .client
        .request(Method::PUT, &format!("{at}?digest={digest}"));
    refused(end.body(data.clone()).send().await.unwrap(), 403, "DENIED").await;
    assert_eq!(r.client.get(&at).await.status(), StatusCode::NOT_FOUND);
    // And by a mount.
    r.client.push_blob("default-project/a", &data).await;
    let mount = format!("/v2/private/a/blobs/uploads/?mount={digest}&from=default-project/a");
    refused(r.client.post(&mount).await, 403, "DENIED").await;
    assert_eq!(used(&r, "private").await, 600);
    let staged = std::fs::read_dir(r.folder.path().join("uploads")).unwrap();
    assert_eq!(staged.count(), 0);
    // A manifest counts as well.
    let config = r.client.push_blob("private/a", b"{}").await;
    let large = image(
        &config,
        &[],
        &json!({"annotations": {"a": "x".repeat(500)}}),
    );
    let answer = r
        .client
        .put_manifest("private/a", "v1", OCI_MANIFEST, large)
        .await;
    refused(answer, 403, "DENIED").await;
    assert_eq!(used(&r, "private").await, 602);
    // What is there stays when the quota sinks, and can be pushed again.
    api(&r, Method::PUT, quota, json!({"bytes": 10})).await;
    r.client.push_blob("private/a", &bytes(1, 600)).await;
    api(&r, Method::PUT, quota, json!({"bytes": null})).await;
    assert_eq!(push(&data).await.status(), StatusCode::CREATED);
    assert_eq!(used(&r, "private").await, 1102);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_counted_exactly_when_many_push_at_once() {
    let r = Running::start().await;
    api(
        &r,
        Method::PUT,
        "/projects/private/quota",
        json!({"bytes": 10_500}),
    )
    .await;
    let tasks: Vec<_> = (0..30_u64)
        .map(|n| {
            let client = r.client.clone();
            tokio::spawn(async move {
                // Each of twenty blobs once or twice, to different repositories.
                let data = bytes(n % 20 + 100, 1000);
                let digest = sha256(&data);
                let path = format!("/v2/private/r{n}/blobs/uploads/?digest={digest}");
                let request = client.request(Method::POST, &path).body(data);
                (n % 20, request.send().await.unwrap().status().as_u16())
            })
        })
        .collect();
    let mut kept = std::collections::HashSet::new();
    for task in tasks {
        match task.await.unwrap() {
            (n, 201) => {
                kept.insert(n);
            }
            (_, status) => assert_eq!(status, 403),
        }
    }
    assert_eq!(kept.len(), 10);
    assert_eq!(used(&r, "private").await, 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_tag_must_not_move_and_not_go() {
    let r = Running::start().await;
    let first = r.client.push_image("private/app", "v1", &[b"1"]).await;
    r.client.push_image("private/app", "dev", &[b"2"]).await;
    let rules = "/projects/private/immutable";
    let rule = api(
        &r,
        Method::POST,
        rules,
        json!({"repositories": "app", "tags": "v*"}),
    )
    .await;
    let get = async |tag: &str| {
        let answer = r
            .client
            .get(&format!("/v2/private/app/manifests/{tag}"))
            .await;
        header(&answer, "docker-content-digest").to_owned()
    };
    // The same again is no change.
    r.client.push_image("private/app", "v1", &[b"1"]).await;
    let config = r.client.push_blob("private/app", b"{}").await;
    let other = image(&config, &[], &json!({}));
    let answer = r
        .client
        .put_manifest("private/app", "v1", OCI_MANIFEST, other.clone())
        .await;
    refused(answer, 403, "DENIED").await;
    for path in [
        "/v2/private/app/manifests/v1".to_owned(),
        format!("/v2/private/app/manifests/{first}"),
    ] {
        refused(r.client.delete(&path).await, 403, "DENIED").await;
    }
    let (status, _) = r
        .client
        .api(
            Method::DELETE,
            "/projects/private/repositories/app",
            Value::Null,
        )
        .await;
    assert_eq!(status, 409);
    assert_eq!(get("v1").await, first.as_str());
    // New ones, other tags and other repositories are as before.
    for (name, tag) in [
        ("private/app", "v2"),
        ("private/app", "dev"),
        ("private/other", "v1"),
    ] {
        r.client.push_blob(name, b"{}").await;
        let answer = r
            .client
            .put_manifest(name, tag, OCI_MANIFEST, other.clone())
            .await;
        assert_eq!(answer.status(), StatusCode::CREATED);
    }
    api(
        &r,
        Method::DELETE,
        &format!("{rules}/{}", rule["id"]),
        Value::Null,
    )
    .await;
    let answer = r
        .client
        .put_manifest("private/app", "v1", OCI_MANIFEST, other)
        .await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    for bad in [json!({"tags": ""}), json!({"tags": "x".repeat(300)})] {
        assert_eq!(r.client.api(Method::POST, rules, bad).await.0, 400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_removes_what_its_dry_run_says_and_nothing_immutable() {
    let r = Running::start().await;
    let mut digests = Vec::new();
    for n in 1..=5 {
        let layer = [n];
        digests.push(
            r.client
                .push_image("private/app", &format!("v{n}"), &[&layer])
                .await,
        );
    }
    r.client.push_image("private/app", "latest", &[&[1]]).await;
    api(
        &r,
        Method::POST,
        "/projects/private/immutable",
        json!({"tags": "v2"}),
    )
    .await;
    let rules = "/projects/private/retention";
    assert_eq!(
        r.client
            .api(Method::POST, rules, json!({"tags": "v*"}))
            .await
            .0,
        400
    );
    api(
        &r,
        Method::POST,
        rules,
        json!({"tags": "v*", "keep_latest": 2}),
    )
    .await;
    let run = "/projects/private/retention/run";
    let names = |answer: &Value| {
        let list = answer.as_array().unwrap().iter();
        let mut names: Vec<_> = list
            .map(|t| t["tag"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let plan = api(&r, Method::POST, run, json!({"dry_run": true})).await;
    assert_eq!(names(&plan), ["v1", "v3"]);
    let tags = async || {
        let answer = r.client.get("/v2/private/app/tags/list").await;
        answer.json::<Value>().await.unwrap()["tags"].clone()
    };
    assert_eq!(tags().await.as_array().unwrap().len(), 6);
    let gone = api(&r, Method::POST, run, json!({})).await;
    assert_eq!(gone, plan);
    assert_eq!(tags().await, json!(["latest", "v2", "v4", "v5"]));
    // A manifest goes with its last tag only.
    for (digest, status) in digests.iter().zip([200, 200, 404, 200, 200]) {
        let answer = r
            .client
            .get(&format!("/v2/private/app/manifests/{digest}"))
            .await;
        assert_eq!(answer.status().as_u16(), status);
    }
    assert_eq!(api(&r, Method::POST, run, json!({})).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_tags_and_labels_are_listed_and_searched_by_who_may_see_them() {
    let r = Running::start().await;
    let digest = r
        .client
        .push_image("private/deep/app", "v1", &[b"123"])
        .await;
    r.client.push_image("private/deep/app", "v2", &[b"4"]).await;
    r.client
        .push_image("default-project/app", "v2", &[b"4"])
        .await;
    let list = api(
        &r,
        Method::GET,
        "/projects/private/repositories",
        Value::Null,
    )
    .await;
    assert_eq!(list[0]["name"], "private/deep/app");
    assert_eq!(list[0]["tags"], 2);
    let label = "/projects/private/labels/good";
    api(&r, Method::PUT, label, json!({"color": "#00ff00"})).await;
    let app = "/projects/private/repositories/deep%2Fapp";
    let developer = r.client.signed_in("developer", PASSWORD);
    let one = format!("{app}/manifests/{digest}/labels/good");
    for _ in 0..2 {
        assert_eq!(developer.api(Method::PUT, &one, json!(null)).await.0, 204);
    }
    let none = one.replace("/good", "/none");
    assert_eq!(developer.api(Method::PUT, &none, json!(null)).await.0, 404);
    let tags = api(
        &r,
        Method::GET,
        &format!("{app}/tags?label=good"),
        Value::Null,
    )
    .await;
    assert_eq!(tags.as_array().unwrap().len(), 1);
    assert_eq!(tags[0]["digest"], digest.as_str());
    assert_eq!(tags[0]["labels"], json!(["good"]));
    assert!(tags[0]["size"].as_u64().unwrap() > 5);
    assert_eq!(
        developer.api(Method::DELETE, &one, json!(null)).await.0,
        204
    );
    let tags = api(
        &r,
        Method::GET,
        &format!("{app}/tags?label=good"),
        Value::Null,
    )
    .await;
    assert_eq!(tags, json!([]));
    for bad in ["a,b", &"x".repeat(65)] {
        let path = format!("/projects/private/labels/{bad}");
        let (status, _) = r
            .client
            .api(Method::PUT, &path, json!({"color": "#000000"}))
            .await;
        assert_eq!(status, 400, "{bad}");
    }
    let (_, labels) = developer
        .api(Method::GET, "/projects/private/labels", json!(null))
        .await;
    assert_eq!(labels, json!([{"name": "good", "color": "#00ff00"}]));

    let search = async |client: &Remote, text: &str| {
        let (_, found) = client
            .api(Method::GET, &format!("/search?text={text}"), json!(null))
            .await;
        let list = found.as_array().unwrap().iter();
        list.map(|f| f["repository"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let both = ["default-project/app", "private/deep/app"];
    assert_eq!(search(&developer, "app").await, both);
    assert_eq!(search(&developer, "V1").await, both[1..]);
    assert_eq!(search(&developer, "%25").await, [""; 0]);
    let stranger = r.client.signed_in("somebody", PASSWORD);
    assert_eq!(search(&stranger, "app").await, both[..1]);
    assert_eq!(search(&r.client.anonymous(), "v2").await, both[..1]);

    api(&r, Method::DELETE, app, Value::Null).await;
    assert_eq!(
        r.client
            .get("/v2/private/deep/app/tags/list")
            .await
            .status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(used(&r, "private").await, 0);
}
