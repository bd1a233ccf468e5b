//! Who may do what, cell by cell, over HTTP.

use crate::harness::*;
use reqwest::Method;
use serde_json::json;

/// A request that stands for an action, in a project. What comes of it where it is allowed is of no interest.
struct Cell {
    action: &'static str,
    method: Method,
    path: &'static str,
    body: serde_json::Value,
    /// Who may in the public and in the private project, in the order of `WHO`.
    public: &'static str,
    private: &'static str,
}

/// `r` and `w`: robots that may pull, and push.
const WHO: [&str; 8] = [
    "anonymous",
    "somebody",
    "viewer",
    "developer",
    "devops-admin",
    "admin",
    "r",
    "w",
];

#[rustfmt::skip]
fn cells() -> Vec<Cell> {
    let cell = |action, method, path, body, public, private| Cell { action, method, path, body, public, private };
    use Method as M;
    vec![
        //                                                                                      asvddCrw    asvddCrw
        cell("see",       M::GET,    "/api/v1/projects/P",               json!(null),           "yyyyyyyy", "..yyyy.."),
        cell("pull",      M::GET,    "/v2/P/a/manifests/v1",             json!(null),           "yyyyyyyy", "..yyyyyy"),
        cell("pull",      M::GET,    "/v2/P/a/tags/list",                json!(null),           "yyyyyyyy", "..yyyyyy"),
        cell("push",      M::POST,   "/v2/P/a/blobs/uploads/",           json!(null),           "...yyy.y", "...yyy.y"),
        cell("push",      M::PUT,    "/v2/P/a/manifests/v2",             json!(null),           "...yyy.y", "...yyy.y"),
        cell("see",       M::GET,    "/api/v1/projects/P/repositories",  json!(null),           "yyyyyyyy", "..yyyy.."),
        cell("see",       M::GET,    "/api/v1/projects/P/repositories/a/tags", json!(null),     "yyyyyyyy", "..yyyy.."),
        cell("see",       M::GET,    "/api/v1/projects/P/labels",        json!(null),           "yyyyyyyy", "..yyyy.."),
        cell("label",     M::PUT,    "/api/v1/projects/P/repositories/a/manifests/x/labels/l", json!(null), "...yyy..", "...yyy.."),
        cell("label",     M::DELETE, "/api/v1/projects/P/repositories/a/manifests/x/labels/l", json!(null), "...yyy..", "...yyy.."),
        cell("delete",    M::DELETE, "/api/v1/projects/P/repositories/none", json!(null),       "....yy..", "....yy.."),
        cell("configure", M::PUT,    "/api/v1/projects/P/labels/l",      json!({"color": ""}),  "....yy..", "....yy.."),
        cell("configure", M::DELETE, "/api/v1/projects/P/labels/l",      json!(null),           "....yy..", "....yy.."),
        cell("configure", M::GET,    "/api/v1/projects/P/immutable",     json!(null),           "....yy..", "....yy.."),
        cell("configure", M::POST,   "/api/v1/projects/P/immutable",     json!({"tags": ""}),   "....yy..", "....yy.."),
        cell("configure", M::DELETE, "/api/v1/projects/P/immutable/1",   json!(null),           "....yy..", "....yy.."),
        cell("configure", M::GET,    "/api/v1/projects/P/retention",     json!(null),           "....yy..", "....yy.."),
        cell("configure", M::POST,   "/api/v1/projects/P/retention",     json!({}),             "....yy..", "....yy.."),
        cell("configure", M::DELETE, "/api/v1/projects/P/retention/1",   json!(null),           "....yy..", "....yy.."),
        cell("configure", M::POST,   "/api/v1/projects/P/retention/run", json!({}),             "....yy..", "....yy.."),
        cell("audit",     M::GET,    "/api/v1/projects/P/audit",         json!(null),           "....yy..", "....yy.."),
        cell("administer", M::GET,   "/api/v1/audit",                    json!(null),           ".....y..", ".....y.."),
        cell("administer", M::POST,  "/api/v1/audit/forget",             json!({"keep_days": 0}), ".....y..", ".....y.."),
        cell("administer", M::GET,   "/api/v1/log",                      json!(null),           ".....y..", ".....y.."),
        cell("projects",  M::PUT,    "/api/v1/projects/P/quota",         json!({"bytes": null}), ".....y..", ".....y.."),
        cell("delete",    M::DELETE, "/v2/P/a/manifests/none",           json!(null),           "....yy..", "....yy.."),
        cell("configure", M::PATCH,  "/api/v1/projects/P",               json!({}),             "....yy..", "....yy.."),
        cell("members",   M::GET,    "/api/v1/projects/P/members",       json!(null),           "....yy..", "....yy.."),
        cell("members",   M::PUT,    "/api/v1/projects/P/members/none",  json!({"role": "viewer"}), "....yy..", "....yy.."),
        cell("members",   M::DELETE, "/api/v1/projects/P/members/none",  json!(null),           "....yy..", "....yy.."),
        cell("robots",    M::GET,    "/api/v1/projects/P/robots",        json!(null),           "....yy..", "....yy.."),
        cell("robots",    M::POST,   "/api/v1/projects/P/robots",        json!({"name": "x", "actions": []}), "....yy..", "....yy.."),
        cell("robots",    M::POST,   "/api/v1/projects/P/robots/x/secret", json!({}),           "....yy..", "....yy.."),
        cell("robots",    M::PATCH,  "/api/v1/projects/P/robots/x",      json!({"disabled": true}), "....yy..", "....yy.."),
        cell("robots",    M::DELETE, "/api/v1/projects/P/robots/x",      json!(null),           "....yy..", "....yy.."),
        cell("projects",  M::DELETE, "/api/v1/projects/P",               json!(null),           ".....y..", ".....y.."),
        cell("projects",  M::POST,   "/api/v1/projects",                 json!({"name": "P"}),  ".....y..", ".....y.."),
        cell("users",     M::GET,    "/api/v1/users",                    json!(null),           ".....y..", ".....y.."),
        cell("users",     M::POST,   "/api/v1/users",                    json!({"name": "+"}),  ".....y..", ".....y.."),
        cell("users",     M::GET,    "/api/v1/users/none",               json!(null),           ".....y..", ".....y.."),
        cell("users",     M::PATCH,  "/api/v1/users/none",               json!({}),             ".....y..", ".....y.."),
        cell("users",     M::PUT,    "/api/v1/users/none/password",      json!({}),             ".....y..", ".....y.."),
        cell("users",     M::DELETE, "/api/v1/users/none",               json!(null),           ".....y..", ".....y.."),
        cell("administer", M::POST,  "/api/v1/gc",                       json!({"dry_run": true}), ".....y..", ".....y.."),
        cell("administer", M::POST,  "/api/v1/keys/rotate",              json!({}),             ".....y..", ".....y.."),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_may_what_the_table_says_and_nothing_else() {
    let r = Running::start().await;
    let mut who = Vec::new();
    for name in &WHO[..6] {
        who.push(match *name {
            "anonymous" => r.client.anonymous(),
            name => r.client.signed_in(name, PASSWORD),
        });
    }
    let mut robots = Vec::new();
    for project in ["default-project", "private"] {
        r.client
            .push_image(&format!("{project}/a"), "v1", &[b"1"])
            .await;
        for (name, action) in [("r", "pull"), ("w", "push")] {
            let (status, made) = r
                .client
                .api(
                    Method::POST,
                    &format!("/projects/{project}/robots"),
                    json!({"name": name, "actions": [action]}),
                )
                .await;
            assert_eq!(status, 201, "{made}");
            let text = |key: &str| made[key].as_str().unwrap().to_owned();
            robots.push(r.client.signed_in(&text("login"), &text("secret")));
        }
    }
    let mut wrong = Vec::new();
    for cell in cells() {
        for (place, project, expected) in [
            (0, "default-project", cell.public),
            (2, "private", cell.private),
        ] {
            assert_eq!(expected.len(), WHO.len());
            let all = who.iter().chain(&robots[place..place + 2]);
            for ((name, client), may) in WHO.iter().zip(all).zip(expected.chars()) {
                let path = cell.path.replace('P', project);
                let body: serde_json::Value =
                    serde_json::from_str(&cell.body.to_string().replace('P', project)).unwrap();
                let request = client.request(cell.method.clone(), &path);
                let request = if body.is_null() {
                    request
                } else {
                    request.json(&body)
                };
                let status = request.send().await.unwrap().status().as_u16();
                let refused = if *name == "anonymous" { 401 } else { 403 };
                let good = match may {
                    'y' => status != 401 && status != 403 && status < 500,
                    _ => status == refused,
                };
                if !good {
                    wrong.push(format!(
                        "{name}: {} {} {path}: {status}",
                        cell.action, cell.method
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_robot_must_not_leave_its_project() {
    let r = Running::start().await;
    r.client.push_image("private/a", "v1", &[b"1"]).await;
    let new = json!({"name": "ci", "actions": ["push", "delete"]});
    let (_, made) = r
        .client
        .api(Method::POST, "/projects/default-project/robots", new)
        .await;
    let robot = r.client.signed_in(
        made["login"].as_str().unwrap(),
        made["secret"].as_str().unwrap(),
    );
    robot.push_image("default-project/a", "v1", &[b"1"]).await;
    for (method, path) in [
        (Method::GET, "/v2/private/a/manifests/v1"),
        (Method::POST, "/v2/private/a/blobs/uploads/"),
        (Method::GET, "/v2/no-project/a/manifests/v1"),
    ] {
        let answer = robot.request(method, path).send().await.unwrap();
        refused(answer, 403, "DENIED").await;
    }
    // Nor by a mount from there.
    let blob = sha256(b"1");
    let path = format!("/v2/default-project/b/blobs/uploads/?mount={blob}&from=private/a");
    assert_eq!(robot.post(&path).await.status().as_u16(), 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_must_not_show_private_projects_to_others() {
    let r = Running::start().await;
    for project in ["default-project", "private"] {
        r.client
            .push_image(&format!("{project}/a"), "v1", &[b"1"])
            .await;
    }
    for (client, sees) in [
        (r.client.anonymous(), false),
        (r.client.signed_in("somebody", PASSWORD), false),
        (r.client.signed_in("viewer", PASSWORD), true),
        (r.client.clone(), true),
    ] {
        let catalog = client.get("/v2/_catalog").await.text().await.unwrap();
        assert!(catalog.contains("default-project/a"), "{catalog}");
        assert_eq!(catalog.contains("private/a"), sees, "{catalog}");
        let (_, projects) = client.api(Method::GET, "/projects", json!(null)).await;
        let projects = projects.to_string();
        assert!(projects.contains("default-project"), "{projects}");
        assert_eq!(projects.contains("private"), sees, "{projects}");
    }
    // With a token, too, and only with one for that.
    let viewer = r.client.signed_in("viewer", PASSWORD);
    let token = viewer.with_token(&["registry:catalog:*"]).await;
    let catalog = token.get("/v2/_catalog").await.text().await.unwrap();
    assert!(catalog.contains("private/a"), "{catalog}");
    let other = viewer.with_token(&["repository:private/a:pull"]).await;
    refused(other.get("/v2/_catalog").await, 401, "UNAUTHORIZED").await;
    // What is there and what is not cannot be told apart.
    let stranger = r.client.signed_in("somebody", PASSWORD);
    let mut told = Vec::new();
    for name in ["private", "no-project"] {
        told.push(
            stranger
                .api(Method::GET, &format!("/projects/{name}"), json!(null))
                .await,
        );
    }
    assert_eq!(told[0], told[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_given_changed_and_taken_at_once() {
    let r = Running::start().await;
    let somebody = r.client.signed_in("somebody", PASSWORD);
    let devops = r.client.signed_in("devops-admin", PASSWORD);
    let status = async |client: &Remote| {
        let answer = client.post("/v2/private/a/blobs/uploads/").await;
        answer.status().as_u16()
    };
    let path = "/projects/private/members/somebody";
    assert_eq!(status(&somebody).await, 403);
    for (role, wanted) in [("developer", 202), ("viewer", 403), ("devops-admin", 202)] {
        let (done, answer) = devops.api(Method::PUT, path, json!({"role": role})).await;
        assert_eq!(done, 204, "{answer}");
        assert_eq!(status(&somebody).await, wanted, "{role}");
    }
    // A DevOps administrator's rights end at the project.
    let (done, _) = somebody
        .api(
            Method::PUT,
            "/projects/default-project/members/somebody",
            json!({"role": "viewer"}),
        )
        .await;
    assert_eq!(done, 403);
    assert_eq!(devops.api(Method::DELETE, path, json!(null)).await.0, 204);
    assert_eq!(status(&somebody).await, 403);
    for (role, code) in [("cloud-admin", 422), ("", 422)] {
        assert_eq!(
            devops.api(Method::PUT, path, json!({"role": role})).await.0,
            code
        );
    }
}
