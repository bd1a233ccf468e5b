use crate::harness::*;
use reqwest::StatusCode;
use serde_json::{Value, json};

const NAME: &str = "default-project/tags";

async fn page(client: &Remote, path: &str) -> (Value, Option<String>) {
    let answer = client.get(path).await;
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    let link = answer.headers().get("link").map(|link| {
        let link = link.to_str().unwrap();
        assert!(link.ends_with(">; rel=\"next\""), "{link}");
        link[1..link.len() - ">; rel=\"next\"".len()].to_owned()
    });
    (answer.json().await.unwrap(), link)
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_sorted_and_come_in_pages() {
    let r = Running::start().await;
    let digest = r.client.push_image(NAME, "b", &[b"1"]).await;
    let body = r
        .client
        .get(&format!("/v2/{NAME}/manifests/{digest}"))
        .await
        .bytes()
        .await
        .unwrap();
    for tag in ["v10", "v9", "A", "a", "_", "v1.0", "z-1"] {
        r.client
            .put_manifest(NAME, tag, OCI_MANIFEST, body.to_vec())
            .await;
    }
    let sorted = json!(["A", "_", "a", "b", "v1.0", "v10", "v9", "z-1"]);
    let path = format!("/v2/{NAME}/tags/list");
    assert_eq!(
        page(&r.client.anonymous(), &path).await,
        (json!({"name": NAME, "tags": sorted}), None)
    );
    for n in 1..=9 {
        let mut found = Vec::new();
        let mut next = Some(format!("{path}?n={n}"));
        while let Some(path) = next {
            let (body, link) = page(&r.client, &path).await;
            let tags = body["tags"].as_array().unwrap();
            assert!(tags.len() <= n && !tags.is_empty());
            found.extend(tags.clone());
            next = link;
        }
        assert_eq!(Value::from(found), sorted, "n={n}");
    }
    assert_eq!(
        page(&r.client, &format!("{path}?n=0")).await,
        (json!({"name": NAME, "tags": []}), None)
    );
    assert_eq!(
        page(&r.client, &format!("{path}?last=v1.0")).await.0["tags"],
        json!(["v10", "v9", "z-1"])
    );
    assert_eq!(
        page(&r.client, &format!("{path}?n=2&last=b0")).await.0["tags"],
        json!(["v1.0", "v10"])
    );
    assert_eq!(
        page(&r.client, &format!("{path}?last=zz")).await,
        (json!({"name": NAME, "tags": []}), None)
    );
    refused(
        r.client.get(&format!("{path}?n=-1")).await,
        400,
        "SIZE_INVALID",
    )
    .await;
    let answer = r.client.get("/v2/default-project/nothing/tags/list").await;
    refused(answer, 404, "NAME_UNKNOWN").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_shows_what_the_caller_may_pull() {
    let r = Running::start().await;
    for name in [
        "private/x",
        "default-project/c",
        "default-project/a",
        "default-project/b/c",
    ] {
        r.client.push_image(name, "1", &[b"1"]).await;
    }
    let public = json!([
        "default-project/a",
        "default-project/b/c",
        "default-project/c"
    ]);
    let all = json!([
        "default-project/a",
        "default-project/b/c",
        "default-project/c",
        "private/x"
    ]);
    assert_eq!(
        page(&r.client, "/v2/_catalog").await,
        (json!({"repositories": all}), None)
    );
    let somebody = r.client.signed_in("somebody", PASSWORD);
    for client in [r.client.anonymous(), somebody] {
        assert_eq!(
            page(&client, "/v2/_catalog").await,
            (json!({"repositories": public}), None)
        );
        let (first, link) = page(&client, "/v2/_catalog?n=2").await;
        assert_eq!(
            first["repositories"],
            json!(["default-project/a", "default-project/b/c"])
        );
        let last = page(&client, &link.unwrap()).await;
        assert_eq!(last, (json!({"repositories": ["default-project/c"]}), None));
    }
}
