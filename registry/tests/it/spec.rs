//! The table of the OCI distribution spec 1.1 ("API", its end points by their ids), line by line: each way it ends is
//! asked for once. What lies behind an answer is tested elsewhere.

use crate::harness::*;
use reqwest::{Method, StatusCode};
use serde_json::json;

const NAME: &str = "default-project/spec";

/// What is there before: an image with a tag, a blob that nothing needs, an upload of five bytes.
struct There {
    r: Running,
    manifest: String,
    layer: String,
    lone: String,
    upload: String,
}

async fn there() -> There {
    let r = Running::start().await;
    let manifest = r.client.push_image(NAME, "v1", &[b"layer"]).await;
    let lone = r.client.push_blob(NAME, b"lone").await;
    let begun = r.client.post(&format!("/v2/{NAME}/blobs/uploads/")).await;
    let upload = header(&begun, "location").to_owned();
    let part = r.client.request(Method::PATCH, &upload).body("12345");
    assert_eq!(part.send().await.unwrap().status(), StatusCode::ACCEPTED);
    There {
        r,
        manifest: manifest.to_string(),
        layer: sha256(b"layer").to_string(),
        lone: lone.to_string(),
        upload,
    }
}

/// The spec's id, the request, and what is answered: a status, and for a refusal the spec's code.
type Line = (
    &'static str,
    Method,
    String,
    &'static str,
    u16,
    &'static str,
);

/// Those that change nothing come first: they are asked in this order.
fn table(t: &There) -> Vec<Line> {
    let (get, head, post) = (Method::GET, Method::HEAD, Method::POST);
    let (patch, put, delete) = (Method::PATCH, Method::PUT, Method::DELETE);
    let (manifest, layer, lone, upload) = (&t.manifest, &t.layer, &t.lone, &t.upload);
    let no = sha256(b"never pushed");
    let (whole, five) = (sha256(b"whole"), sha256(b"12345"));
    let gone = format!("/v2/{NAME}/blobs/uploads/0123");
    let at = |rest: &str| format!("/v2/{NAME}/{rest}");
    vec![
        ("1", get.clone(), "/v2/".into(), "", 200, ""),
        (
            "1",
            get.clone(),
            "/v2/nothing".into(),
            "",
            404,
            "NAME_UNKNOWN",
        ),
        ("2", get.clone(), at(&format!("blobs/{layer}")), "", 200, ""),
        (
            "2",
            head.clone(),
            at(&format!("blobs/{layer}")),
            "",
            200,
            "",
        ),
        (
            "2",
            get.clone(),
            at(&format!("blobs/{no}")),
            "",
            404,
            "BLOB_UNKNOWN",
        ),
        ("2", head.clone(), at(&format!("blobs/{no}")), "", 404, ""),
        (
            "2",
            get.clone(),
            at("blobs/sha256:12"),
            "",
            400,
            "DIGEST_INVALID",
        ),
        ("3", get.clone(), at("manifests/v1"), "", 200, ""),
        ("3", head.clone(), at("manifests/v1"), "", 200, ""),
        (
            "3",
            get.clone(),
            at(&format!("manifests/{manifest}")),
            "",
            200,
            "",
        ),
        (
            "3",
            get.clone(),
            at("manifests/v2"),
            "",
            404,
            "MANIFEST_UNKNOWN",
        ),
        ("3", head.clone(), at("manifests/v2"), "", 404, ""),
        (
            "3",
            get.clone(),
            at(&format!("manifests/{no}")),
            "",
            404,
            "MANIFEST_UNKNOWN",
        ),
        // A blob's digest is no manifest's.
        (
            "3",
            get.clone(),
            at(&format!("manifests/{layer}")),
            "",
            404,
            "MANIFEST_UNKNOWN",
        ),
        ("4a", post.clone(), at("blobs/uploads/"), "", 202, ""),
        (
            "4a",
            post.clone(),
            "/v2/no-project/a/blobs/uploads/".into(),
            "",
            404,
            "NAME_UNKNOWN",
        ),
        (
            "4b",
            post.clone(),
            at(&format!("blobs/uploads/?digest={whole}")),
            "whole",
            201,
            "",
        ),
        (
            "4b",
            post.clone(),
            at(&format!("blobs/uploads/?digest={no}")),
            "whole",
            400,
            "DIGEST_INVALID",
        ),
        (
            "4b",
            post.clone(),
            at("blobs/uploads/?digest=sha256:12"),
            "whole",
            400,
            "DIGEST_INVALID",
        ),
        (
            "4b",
            post.clone(),
            format!("/v2/no-project/a/blobs/uploads/?digest={whole}"),
            "whole",
            404,
            "NAME_UNKNOWN",
        ),
        (
            "5",
            patch.clone(),
            gone.clone(),
            "6",
            404,
            "BLOB_UPLOAD_UNKNOWN",
        ),
        (
            "5",
            patch.clone(),
            format!("{upload}#0-0"),
            "1",
            416,
            "BLOB_UPLOAD_INVALID",
        ),
        (
            "5",
            patch.clone(),
            format!("{upload}#6-6"),
            "7",
            416,
            "BLOB_UPLOAD_INVALID",
        ),
        (
            "5",
            patch.clone(),
            format!("{upload}#5-9"),
            "6",
            400,
            "SIZE_INVALID",
        ),
        ("13", get.clone(), upload.clone(), "", 204, ""),
        (
            "13",
            get.clone(),
            gone.clone(),
            "",
            404,
            "BLOB_UPLOAD_UNKNOWN",
        ),
        ("6", put.clone(), upload.clone(), "", 400, "DIGEST_INVALID"),
        (
            "6",
            put.clone(),
            format!("{gone}?digest={five}"),
            "",
            404,
            "BLOB_UPLOAD_UNKNOWN",
        ),
        (
            "6",
            put.clone(),
            format!("{upload}?digest={five}#6-6"),
            "7",
            416,
            "BLOB_UPLOAD_INVALID",
        ),
        (
            "6",
            put.clone(),
            format!("{upload}?digest={five}"),
            "",
            201,
            "",
        ),
        ("14", delete.clone(), gone, "", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("7", put.clone(), at("manifests/v3"), "manifest", 201, ""),
        (
            "7",
            put.clone(),
            at(&format!("manifests/{manifest}")),
            "manifest",
            201,
            "",
        ),
        (
            "7",
            put.clone(),
            at(&format!("manifests/{no}")),
            "manifest",
            400,
            "DIGEST_INVALID",
        ),
        (
            "7",
            put.clone(),
            at("manifests/v3"),
            "{}",
            400,
            "MANIFEST_INVALID",
        ),
        (
            "7",
            put.clone(),
            "/v2/no-project/a/manifests/v1".into(),
            "manifest",
            404,
            "NAME_UNKNOWN",
        ),
        // What it refers to is not there.
        (
            "7",
            put.clone(),
            "/v2/default-project/other/manifests/v1".into(),
            "manifest",
            400,
            "MANIFEST_BLOB_UNKNOWN",
        ),
        ("8a", get.clone(), at("tags/list"), "", 200, ""),
        (
            "8a",
            get.clone(),
            "/v2/default-project/nothing/tags/list".into(),
            "",
            404,
            "NAME_UNKNOWN",
        ),
        ("8b", get.clone(), at("tags/list?n=1&last=v1"), "", 200, ""),
        (
            "8b",
            get.clone(),
            at("tags/list?n=x"),
            "",
            400,
            "SIZE_INVALID",
        ),
        (
            "11",
            post.clone(),
            format!("/v2/default-project/b/blobs/uploads/?mount={lone}&from={NAME}"),
            "",
            201,
            "",
        ),
        (
            "11",
            post.clone(),
            format!("/v2/default-project/b/blobs/uploads/?mount={no}&from={NAME}"),
            "",
            202,
            "",
        ),
        (
            "11",
            post.clone(),
            format!("/v2/no-project/b/blobs/uploads/?mount={lone}&from={NAME}"),
            "",
            404,
            "NAME_UNKNOWN",
        ),
        (
            "11",
            post,
            at(&format!("blobs/uploads/?mount=12&from={NAME}")),
            "",
            400,
            "DIGEST_INVALID",
        ),
        (
            "12a",
            get.clone(),
            at(&format!("referrers/{manifest}")),
            "",
            200,
            "",
        ),
        (
            "12a",
            get.clone(),
            at(&format!("referrers/{no}")),
            "",
            200,
            "",
        ),
        (
            "12a",
            get.clone(),
            at("referrers/v1"),
            "",
            400,
            "DIGEST_INVALID",
        ),
        (
            "12b",
            get.clone(),
            at(&format!("referrers/{manifest}?artifactType=a/b")),
            "",
            200,
            "",
        ),
        (
            "10",
            delete.clone(),
            at(&format!("blobs/{layer}")),
            "",
            405,
            "UNSUPPORTED",
        ),
        (
            "10",
            delete.clone(),
            at(&format!("blobs/{no}")),
            "",
            404,
            "BLOB_UNKNOWN",
        ),
        (
            "10",
            delete.clone(),
            at("blobs/sha256:12"),
            "",
            400,
            "DIGEST_INVALID",
        ),
        (
            "10",
            delete.clone(),
            at(&format!("blobs/{lone}")),
            "",
            202,
            "",
        ),
        (
            "9",
            delete.clone(),
            at("manifests/v9"),
            "",
            404,
            "MANIFEST_UNKNOWN",
        ),
        (
            "9",
            delete.clone(),
            at(&format!("manifests/{no}")),
            "",
            404,
            "MANIFEST_UNKNOWN",
        ),
        (
            "9",
            delete.clone(),
            at("manifests/sha256:12"),
            "",
            400,
            "DIGEST_INVALID",
        ),
        (
            "9",
            delete.clone(),
            at("manifests/.v1"),
            "",
            400,
            "MANIFEST_INVALID",
        ),
        ("9", delete.clone(), at("manifests/v1"), "", 202, ""),
        (
            "9",
            delete.clone(),
            at(&format!("manifests/{manifest}")),
            "",
            202,
            "",
        ),
        // What the manifest needed is free now.
        ("10", delete, at(&format!("blobs/{layer}")), "", 202, ""),
        ("3", get, at("manifests/v3"), "", 404, "MANIFEST_UNKNOWN"),
        ("3", head, at(&format!("manifests/{manifest}")), "", 404, ""),
        ("-", put, "/v2/".into(), "", 405, "UNSUPPORTED"),
        (
            "-",
            patch,
            "/v2/UPPER/a/manifests/v1".into(),
            "",
            400,
            "NAME_INVALID",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_of_the_table_is_answered_as_the_spec_has_it() {
    let t = there().await;
    let layers = [(t.layer.parse().unwrap(), 5)];
    let manifest = image(&sha256(b"{}"), &layers, &json!({}));
    for (id, method, path, body, status, code) in table(&t) {
        let told = format!("{id}: {method} {path}");
        // What stands behind a # is the chunk's range.
        let (path, range) = path.split_once('#').unwrap_or((&path, ""));
        let mut request = t.r.client.request(method, path);
        if !range.is_empty() {
            request = request.header("content-range", range);
        }
        request = match body {
            "manifest" => request
                .header("content-type", OCI_MANIFEST)
                .body(manifest.clone()),
            "{}" => request.header("content-type", OCI_MANIFEST).body("{}"),
            body => request.body(body),
        };
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{told}");
        if !code.is_empty() {
            refused(answer, status, code).await;
        }
    }
    // 14: one that is there goes, once.
    let begun = t.r.client.post(&format!("/v2/{NAME}/blobs/uploads/")).await;
    let upload = header(&begun, "location").to_owned();
    for status in [204, 404] {
        let answer = t.r.client.delete(&upload).await;
        assert_eq!(answer.status().as_u16(), status, "14: DELETE {upload}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_be_refused_has_its_code() {
    let r = Running::start().await;
    let put = |size: usize| {
        let request = r
            .client
            .request(Method::PUT, &format!("/v2/{NAME}/manifests/v1"));
        request
            .header("content-type", OCI_MANIFEST)
            .body(vec![b' '; size])
            .send()
    };
    refused(put((4 << 20) + 1).await.unwrap(), 413, "MANIFEST_INVALID").await;
    let anonymous = r.client.anonymous();
    let uploads = format!("/v2/{NAME}/blobs/uploads/");
    refused(anonymous.post(&uploads).await, 401, "UNAUTHORIZED").await;
    let somebody = r.client.signed_in("somebody", PASSWORD);
    refused(somebody.post(&uploads).await, 403, "DENIED").await;
    // Whoever guesses passwords is told to wait.
    let guess = r
        .client
        .signed_in("nobody-of-this-name", "a wrong password");
    for _ in 0..10 {
        refused(guess.get("/v2/").await, 401, "UNAUTHORIZED").await;
    }
    let answer = guess.get("/v2/").await;
    assert!(!header(&answer, "retry-after").is_empty());
    refused(answer, 429, "TOOMANYREQUESTS").await;
}
