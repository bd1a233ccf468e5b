use crate::harness::*;
use registry::digest::Digest;
use reqwest::StatusCode;
use serde_json::{Value, json};

const NAME: &str = "default-project/subject";

/// An artifact of this type that names the subject.
async fn refer(client: &Remote, subject: &Digest, kind: &str, n: u32) -> Digest {
    let config = client.push_blob(NAME, b"{}").await;
    let body = image(
        &config,
        &[],
        &json!({
            "artifactType": kind, "annotations": {"n": n.to_string()},
            "subject": {"mediaType": OCI_MANIFEST, "digest": subject.as_str(), "size": 1},
        }),
    );
    let digest = sha256(&body);
    let put = client
        .put_manifest(NAME, digest.as_str(), OCI_MANIFEST, body)
        .await;
    assert_eq!(put.status(), StatusCode::CREATED);
    assert_eq!(header(&put, "oci-subject"), subject.as_str());
    digest
}

async fn list(client: &Remote, path: &str) -> (Vec<Value>, Option<String>) {
    let answer = client.get(path).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(header(&answer, "content-type"), OCI_INDEX);
    let link = answer.headers().get("link");
    let link = link.map(|l| {
        l.to_str()
            .unwrap()
            .split(['<', '>'])
            .nth(1)
            .unwrap()
            .to_owned()
    });
    let body: Value = answer.json().await.unwrap();
    assert_eq!(
        (&body["schemaVersion"], &body["mediaType"]),
        (&json!(2), &json!(OCI_INDEX))
    );
    (body["manifests"].as_array().unwrap().clone(), link)
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_listed_filtered_and_paged_and_never_404() {
    let r = Running::start().await;
    let subject = sha256(b"not pushed yet");
    let path = format!("/v2/{NAME}/referrers/{subject}");
    assert_eq!(list(&r.client, &path).await, (vec![], None));
    let first = refer(&r.client, &subject, "application/vnd.a", 1).await;
    refer(&r.client, &subject, "application/vnd.b+x", 2).await;
    refer(&r.client, &subject, "application/vnd.a", 3).await;
    refer(&r.client, &sha256(b"another"), "application/vnd.a", 4).await;

    let (all, link) = list(&r.client.anonymous(), &path).await;
    assert_eq!((all.len(), link), (3, None));
    assert_eq!(all[0]["digest"], first.as_str());
    assert_eq!(all[0]["mediaType"], OCI_MANIFEST);
    assert_eq!(all[0]["artifactType"], "application/vnd.a");
    assert_eq!(all[0]["annotations"], json!({"n": "1"}));
    assert!(all[0]["size"].as_u64().unwrap() > 100);

    let filtered = format!("{path}?artifactType=application%2Fvnd.b%2Bx");
    let answer = r.client.get(&filtered).await;
    assert_eq!(header(&answer, "oci-filters-applied"), "artifactType");
    let (some, _) = list(&r.client, &filtered).await;
    assert_eq!(some, all[1..2]);
    assert_eq!(
        list(&r.client, &format!("{path}?artifactType=none"))
            .await
            .0,
        Vec::<Value>::new()
    );

    for filter in ["", "&artifactType=application/vnd.a"] {
        let mut found = Vec::new();
        let mut next = Some(format!("{path}?n=1{filter}"));
        while let Some(path) = next {
            let (page, link) = list(&r.client, &path).await;
            assert_eq!(page.len(), 1);
            found.extend(page);
            next = link;
        }
        let wanted: Vec<_> = all
            .iter()
            .filter(|d| filter.is_empty() || d["artifactType"] == "application/vnd.a")
            .collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), wanted);
    }
    r.client
        .delete(&format!("/v2/{NAME}/manifests/{first}"))
        .await;
    assert_eq!(list(&r.client, &path).await.0, all[1..]);
    refused(
        r.client
            .get(&format!("/v2/{NAME}/referrers/sha256:1"))
            .await,
        400,
        "DIGEST_INVALID",
    )
    .await;
    let nowhere = format!("/v2/default-project/nowhere/referrers/{subject}");
    assert_eq!(list(&r.client, &nowhere).await.0, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_s_config_type_stands_for_its_artifact_type() {
    let r = Running::start().await;
    let config = r.client.push_blob(NAME, b"{}").await;
    let subject = sha256(b"s");
    let body = image(
        &config,
        &[],
        &json!({"subject": {"mediaType": OCI_MANIFEST, "digest": subject.as_str(), "size": 1}}),
    );
    r.client.put_manifest(NAME, "t", OCI_MANIFEST, body).await;
    let (found, _) = list(&r.client, &format!("/v2/{NAME}/referrers/{subject}")).await;
    assert_eq!(
        found[0]["artifactType"],
        "application/vnd.oci.image.config.v1+json"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_older_clients_put_under_the_referrers_tag_is_folded_in() {
    let r = Running::start().await;
    let subject = sha256(b"subject");
    let new = refer(&r.client, &subject, "application/vnd.new", 1).await;
    let old = r.client.push_image(NAME, "old", &[b"old"]).await;
    let entry = |d: &Digest, kind| json!({"mediaType": OCI_MANIFEST, "digest": d.as_str(), "size": 1, "artifactType": kind});
    let body = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests":
        [entry(&old, "application/vnd.old"), entry(&new, "application/vnd.new")]});
    let tag = subject.as_str().replace(':', "-");
    let put = r
        .client
        .put_manifest(NAME, &tag, OCI_INDEX, body.to_string().into())
        .await;
    assert_eq!(put.status(), StatusCode::CREATED);
    let path = format!("/v2/{NAME}/referrers/{subject}");
    let digests = |found: &[Value]| {
        found
            .iter()
            .map(|d| d["digest"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        digests(&list(&r.client, &path).await.0),
        [new.as_str(), old.as_str()]
    );
    let filtered = format!("{path}?artifactType=application/vnd.old");
    assert_eq!(digests(&list(&r.client, &filtered).await.0), [old.as_str()]);
}
