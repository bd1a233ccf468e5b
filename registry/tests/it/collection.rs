use crate::harness::*;
use registry::gc::{self, Plan, Report};
use reqwest::StatusCode;

const NAME: &str = "default-project/gc";
const NOW: Plan = Plan {
    grace: -1,
    untagged: Some(-1),
    dry_run: false,
};

fn files(r: &Running) -> usize {
    let blobs = r.folder.path().join("blobs");
    let folders = std::fs::read_dir(blobs).unwrap();
    folders
        .map(|f| std::fs::read_dir(f.unwrap().path()).unwrap().count())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_goes_what_is_needed_stays_and_a_dry_run_tells_it_before() {
    let r = Running::start().await;
    let kept = r.client.push_image(NAME, "kept", &[b"kept"]).await;
    let child = r.client.push_image(NAME, "child", &[b"child"]).await;
    let body = index(&[(child.clone(), 1)]);
    r.client.put_manifest(NAME, "multi", OCI_INDEX, body).await;
    r.client
        .push_image("default-project/gone", "v1", &[b"gone", b"gone too"])
        .await;
    r.client.push_blob(NAME, b"without a manifest").await;
    r.client
        .delete("/v2/default-project/gone/manifests/v1")
        .await;
    r.client
        .delete(&format!("/v2/{NAME}/manifests/child"))
        .await;
    assert_eq!(files(&r), 6);

    // Within the grace time, nothing is garbage.
    let settings = Plan::from(&r.registry.settings.gc);
    assert_eq!(
        gc::collect(&r.registry, &settings).await.unwrap(),
        Report::default()
    );

    let wanted = Report {
        dry_run: true,
        manifests: 1,
        links: 4,
        blobs: 3,
        bytes: 4 + 8 + 18,
        repositories: 1,
    };
    let dry = gc::collect(
        &r.registry,
        &Plan {
            dry_run: true,
            ..NOW
        },
    )
    .await
    .unwrap();
    assert_eq!(dry, wanted);
    assert_eq!(files(&r), 6);
    let done = gc::collect(&r.registry, &NOW).await.unwrap();
    assert_eq!(
        done,
        Report {
            dry_run: false,
            ..wanted
        }
    );
    assert_eq!(files(&r), 3);
    let again = gc::collect(&r.registry, &NOW).await.unwrap();
    assert_eq!(again, Report::default());

    for digest in [kept, child] {
        let path = format!("/v2/{NAME}/manifests/{digest}");
        assert_eq!(r.client.get(&path).await.status(), StatusCode::OK);
    }
    for blob in [&b"kept"[..], b"child", b"{}"] {
        let path = format!("/v2/{NAME}/blobs/{}", sha256(blob));
        assert_eq!(r.client.get(&path).await.bytes().await.unwrap(), blob);
    }
    let answer = r.client.get("/v2/default-project/gone/tags/list").await;
    refused(answer, 404, "NAME_UNKNOWN").await;
    // What was collected can be pushed again.
    r.client
        .push_image("default-project/gone", "v1", &[b"gone"])
        .await;
    let path = format!("/v2/default-project/gone/blobs/{}", sha256(b"gone"));
    assert_eq!(r.client.get(&path).await.text().await.unwrap(), "gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_and_what_refers_to_it_die_together_and_only_then() {
    let r = Running::start().await;
    let child = r.client.push_image(NAME, "child", &[b"child"]).await;
    let body = index(&[(child, 1)]);
    let parent = sha256(&body);
    r.client.put_manifest(NAME, "multi", OCI_INDEX, body).await;
    let config = r.client.push_blob(NAME, b"{}").await;
    let subject = serde_json::json!({"subject": {"mediaType": OCI_INDEX, "digest": parent.as_str(), "size": 1}});
    let body = image(&config, &[], &subject);
    let referrer = sha256(&body);
    r.client
        .put_manifest(NAME, referrer.as_str(), OCI_MANIFEST, body)
        .await;
    r.client
        .delete(&format!("/v2/{NAME}/manifests/child"))
        .await;
    assert_eq!(
        gc::collect(&r.registry, &NOW).await.unwrap(),
        Report::default()
    );
    r.client
        .delete(&format!("/v2/{NAME}/manifests/multi"))
        .await;
    let dry = gc::collect(
        &r.registry,
        &Plan {
            dry_run: true,
            ..NOW
        },
    )
    .await
    .unwrap();
    let done = gc::collect(&r.registry, &NOW).await.unwrap();
    assert_eq!((done.manifests, done.blobs), (3, 2));
    assert_eq!(
        Report {
            dry_run: false,
            ..dry
        },
        done
    );
    assert_eq!(files(&r), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pusher_who_looked_at_a_blob_finds_it_there_for_its_manifest() {
    let r = Running::start().await;
    let layer = r.client.push_blob(NAME, b"layer").await;
    let config = r.client.push_blob(NAME, b"{}").await;
    let grace = Plan {
        grace: 60 * 60 * 1000,
        ..NOW
    };
    let (name, digest) = (NAME.parse().unwrap(), layer.clone());
    // As if they had been pushed long ago.
    let old = [layer.clone(), config.clone()];
    r.registry
        .metadata
        .write(move |db| db.backdate_blobs(0))
        .await
        .unwrap();
    for digest in &old {
        let head = r.client.head(&format!("/v2/{NAME}/blobs/{digest}")).await;
        assert_eq!(head.status(), StatusCode::OK);
    }
    assert!(
        !r.registry
            .metadata
            .read(|db| db.blob_untouched_since(&name, &digest, 0))
            .unwrap()
    );
    assert_eq!(
        gc::collect(&r.registry, &grace).await.unwrap(),
        Report::default()
    );
    let body = image(&config, &[(layer, 5)], &serde_json::json!({}));
    let put = r.client.put_manifest(NAME, "v1", OCI_MANIFEST, body).await;
    assert_eq!(put.status(), StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_goes_on_while_its_blob_is_collected() {
    let r = Running::start().await;
    let data = bytes(1, 20_000_000);
    let digest = r.client.push_blob(NAME, &data).await;
    let mut answer = r.client.get(&format!("/v2/{NAME}/blobs/{digest}")).await;
    let mut got = answer.chunk().await.unwrap().unwrap().to_vec();
    assert_eq!(gc::collect(&r.registry, &NOW).await.unwrap().blobs, 1);
    while let Some(more) = answer.chunk().await.unwrap() {
        got.extend_from_slice(&more);
    }
    assert_eq!(sha256(&got), digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_collected_through_the_api_by_administrators_only() {
    let r = Running::start().await;
    r.client.push_blob(NAME, b"garbage").await;
    let call = |client: Remote| async move {
        let request = client.request(reqwest::Method::POST, "/api/v1/gc");
        request
            .json(&serde_json::json!({"grace_minutes": 60}))
            .send()
            .await
            .unwrap()
    };
    assert_eq!(call(r.client.anonymous()).await.status().as_u16(), 401);
    let somebody = r.client.signed_in("somebody", PASSWORD);
    assert_eq!(call(somebody).await.status().as_u16(), 403);
    let report: Report = call(r.client.clone()).await.json().await.unwrap();
    assert_eq!(report, Report::default());
}
