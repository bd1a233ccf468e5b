//! Who may do what, cell by cell, over HTTP.

use crate::harness::*;
use registry::access::Action;
use reqwest::Method;
use serde_json::{Value, json};

/// A request that stands for an action, in a project (`P`), to something (`N`) that is made before each attempt.
struct Cell {
    action: Action,
    method: Method,
    path: &'static str,
    body: Value,
    /// What an administrator does before: method, path of the API, body. Its answer's `id` is `N`, if it has one.
    before: Vec<(Method, &'static str, Value)>,
    /// What is answered where it is allowed.
    status: u16,
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
fn cells(digest: &str) -> Vec<Cell> {
    use {Action as A, Method as M};
    let cell = |action, method, path: &str, body, before: &[(Method, &'static str, Value)], status, public, private| {
        let path = path.replace("DIGEST", digest).leak();
        Cell { action, method, path, body, before: before.to_vec(), status, public, private }
    };
    let n = || json!(null);
    let label = [(M::PUT, "/projects/P/labels/lN", json!({"color": "#aabbcc"}))];
    let labelled = [label[0].clone(), (M::PUT, format!("/projects/P/repositories/a/manifests/{digest}/labels/lN").leak(), n())];
    let user = [(M::POST, "/users", json!({"name": "uN", "password": PASSWORD}))];
    let member = [user[0].clone(), (M::PUT, "/projects/P/members/uN", json!({"role": "viewer"}))];
    let robot = [(M::POST, "/projects/P/robots", json!({"name": "xN", "actions": ["pull"]}))];
    let immutable = [(M::POST, "/projects/P/immutable", json!({"repositories": "none", "tags": "none"}))];
    let retention = [(M::POST, "/projects/P/retention", json!({"repositories": "none", "tags": "none", "keep_days": 1}))];
    let webhook = [(M::POST, "/projects/P/webhooks", json!({"url": "http://127.0.0.1:1/"}))];
    let tag = [(M::PUT, "/v2/P/a/manifests/tN", n())];
    let repository = [(M::PUT, "/v2/P/rN/manifests/v1", n())];
    let blob = [(M::POST, "/v2/P/bN/blobs/uploads/", n())];
    vec![
        //                                                                                                          asvddCrw    asvddCrw
        cell(A::See,     M::GET,    "/api/v1/projects/P",                   n(), &[], 200,                          "yyyyyyyy", "..yyyy.."),
        cell(A::See,     M::GET,    "/api/v1/projects/P/repositories",      n(), &[], 200,                          "yyyyyyyy", "..yyyy.."),
        cell(A::See,     M::GET,    "/api/v1/projects/P/repositories/a/tags", n(), &[], 200,                        "yyyyyyyy", "..yyyy.."),
        cell(A::See,     M::GET,    "/api/v1/projects/P/labels",            n(), &[], 200,                          "yyyyyyyy", "..yyyy.."),
        cell(A::Pull,    M::GET,    "/v2/P/a/manifests/v1",                 n(), &[], 200,                          "yyyyyyyy", "..yyyyyy"),
        cell(A::Pull,    M::HEAD,   "/v2/P/a/manifests/v1",                 n(), &[], 200,                          "yyyyyyyy", "..yyyyyy"),
        cell(A::Pull,    M::GET,    "/v2/P/a/blobs/BLOB",                   n(), &[], 200,                          "yyyyyyyy", "..yyyyyy"),
        cell(A::Pull,    M::GET,    "/v2/P/a/referrers/DIGEST",             n(), &[], 200,                          "yyyyyyyy", "..yyyyyy"),
        cell(A::Pull,    M::GET,    "/v2/P/a/tags/list",                    n(), &[], 200,                          "yyyyyyyy", "..yyyyyy"),
        cell(A::Push,    M::POST,   "/v2/P/a/blobs/uploads/",               n(), &[], 202,                          "...yyy.y", "...yyy.y"),
        cell(A::Push,    M::GET,    "LOCATION",                             n(), &blob, 204,                        "...yyy.y", "...yyy.y"),
        cell(A::Push,    M::PATCH,  "LOCATION",                             json!("bytes"), &blob, 202,             "...yyy.y", "...yyy.y"),
        cell(A::Push,    M::DELETE, "LOCATION",                             n(), &blob, 204,                        "...yyy.y", "...yyy.y"),
        cell(A::Push,    M::PUT,    "/v2/P/a/manifests/tN",                 json!("manifest"), &[], 201,            "...yyy.y", "...yyy.y"),
        cell(A::Label,   M::PUT,    "/api/v1/projects/P/repositories/a/manifests/DIGEST/labels/lN", n(), &label, 204, "...yyy..", "...yyy.."),
        cell(A::Label,   M::DELETE, "/api/v1/projects/P/repositories/a/manifests/DIGEST/labels/lN", n(), &labelled, 204, "...yyy..", "...yyy.."),
        cell(A::Delete,  M::DELETE, "/api/v1/projects/P/repositories/rN",   n(), &repository, 204,                  "....yy..", "....yy.."),
        cell(A::Delete,  M::DELETE, "/v2/P/a/manifests/tN",                 n(), &tag, 202,                         "....yy..", "....yy.."),
        cell(A::Configure, M::PATCH, "/api/v1/projects/P",                  json!({}), &[], 204,                    "....yy..", "....yy.."),
        cell(A::Configure, M::PUT,  "/api/v1/projects/P/labels/lN",         json!({"color": "#aabbcc"}), &[], 204,  "....yy..", "....yy.."),
        cell(A::Configure, M::DELETE, "/api/v1/projects/P/labels/lN",       n(), &label, 204,                       "....yy..", "....yy.."),
        cell(A::Configure, M::GET,  "/api/v1/projects/P/immutable",         n(), &[], 200,                          "....yy..", "....yy.."),
        cell(A::Configure, M::POST, "/api/v1/projects/P/immutable",         immutable[0].2.clone(), &[], 201,       "....yy..", "....yy.."),
        cell(A::Configure, M::DELETE, "/api/v1/projects/P/immutable/N",     n(), &immutable, 204,                   "....yy..", "....yy.."),
        cell(A::Configure, M::GET,  "/api/v1/projects/P/retention",         n(), &[], 200,                          "....yy..", "....yy.."),
        cell(A::Configure, M::POST, "/api/v1/projects/P/retention",         retention[0].2.clone(), &[], 201,       "....yy..", "....yy.."),
        cell(A::Configure, M::DELETE, "/api/v1/projects/P/retention/N",     n(), &retention, 204,                   "....yy..", "....yy.."),
        cell(A::Configure, M::POST, "/api/v1/projects/P/retention/run",     json!({"dry_run": true}), &[], 200,     "....yy..", "....yy.."),
        cell(A::Audit,   M::GET,    "/api/v1/projects/P/audit",             n(), &[], 200,                          "....yy..", "....yy.."),
        cell(A::Members, M::GET,    "/api/v1/projects/P/members",           n(), &[], 200,                          "....yy..", "....yy.."),
        cell(A::Members, M::PUT,    "/api/v1/projects/P/members/uN",        json!({"role": "viewer"}), &user, 204,  "....yy..", "....yy.."),
        cell(A::Members, M::DELETE, "/api/v1/projects/P/members/uN",        n(), &member, 204,                      "....yy..", "....yy.."),
        cell(A::Robots,  M::GET,    "/api/v1/projects/P/robots",            n(), &[], 200,                          "....yy..", "....yy.."),
        cell(A::Robots,  M::POST,   "/api/v1/projects/P/robots",            json!({"name": "xN", "actions": ["pull"]}), &[], 201, "....yy..", "....yy.."),
        cell(A::Robots,  M::POST,   "/api/v1/projects/P/robots/xN/secret",  json!({}), &robot, 200,                 "....yy..", "....yy.."),
        cell(A::Robots,  M::PATCH,  "/api/v1/projects/P/robots/xN",         json!({"disabled": true}), &robot, 204, "....yy..", "....yy.."),
        cell(A::Robots,  M::DELETE, "/api/v1/projects/P/robots/xN",         n(), &robot, 204,                       "....yy..", "....yy.."),
        cell(A::Projects, M::PUT,   "/api/v1/projects/P/quota",             json!({"bytes": null}), &[], 204,       ".....y..", ".....y.."),
        cell(A::Projects, M::GET,   "/api/v1/projects/P/webhooks",          n(), &[], 200,                          ".....y..", ".....y.."),
        cell(A::Projects, M::POST,  "/api/v1/projects/P/webhooks",          webhook[0].2.clone(), &[], 201,         ".....y..", ".....y.."),
        cell(A::Projects, M::DELETE, "/api/v1/projects/P/webhooks/N",       n(), &webhook, 204,                     ".....y..", ".....y.."),
        // Both have something in them.
        cell(A::Projects, M::DELETE, "/api/v1/projects/P",                  n(), &[], 409,                          ".....y..", ".....y.."),
        cell(A::Projects, M::POST,  "/api/v1/projects",                     json!({"name": "pN"}), &[], 201,        ".....y..", ".....y.."),
        cell(A::Users,   M::GET,    "/api/v1/users",                        n(), &[], 200,                          ".....y..", ".....y.."),
        cell(A::Users,   M::POST,   "/api/v1/users",                        json!({"name": "uN"}), &[], 201,        ".....y..", ".....y.."),
        cell(A::Users,   M::GET,    "/api/v1/users/uN",                     n(), &user, 200,                        ".....y..", ".....y.."),
        cell(A::Users,   M::PATCH,  "/api/v1/users/uN",                     json!({"administrator": true}), &user, 204, ".....y..", ".....y.."),
        cell(A::Users,   M::PUT,    "/api/v1/users/uN/password",            json!({}), &user, 200,                  ".....y..", ".....y.."),
        cell(A::Users,   M::DELETE, "/api/v1/users/uN",                     n(), &user, 204,                        ".....y..", ".....y.."),
        cell(A::Administer, M::GET, "/api/v1/audit",                        n(), &[], 200,                          ".....y..", ".....y.."),
        cell(A::Administer, M::POST, "/api/v1/audit/forget",                json!({"keep_days": 1}), &[], 200,      ".....y..", ".....y.."),
        cell(A::Administer, M::GET, "/api/v1/log",                          n(), &[], 200,                          ".....y..", ".....y.."),
        cell(A::Administer, M::POST, "/api/v1/gc",                          json!({"dry_run": true}), &[], 200,     ".....y..", ".....y.."),
        cell(A::Administer, M::POST, "/api/v1/keys/rotate",                 json!({}), &[], 204,                    ".....y..", ".....y.."),
        cell(A::Administer, M::GET, "/metrics",                             n(), &[], 200,                          ".....y..", ".....y.."),
    ]
}

/// The registry, who asks it, and an image that is there.
struct Stage {
    r: Running,
    who: Vec<Remote>,
    manifest: Vec<u8>,
}

impl Stage {
    async fn set() -> Self {
        let r = Running::start().await;
        let mut who: Vec<Remote> = WHO[..6]
            .iter()
            .map(|name| match *name {
                "anonymous" => r.client.anonymous(),
                name => r.client.signed_in(name, PASSWORD),
            })
            .collect();
        let config = sha256(b"{}");
        let manifest = image(&config, &[(sha256(b"1"), 1)], &json!({}));
        for project in ["default-project", "private"] {
            let name = format!("{project}/a");
            r.client.push_image(&name, "v1", &[b"1"]).await;
            for (name, action) in [("r", "pull"), ("w", "push")] {
                let path = format!("/projects/{project}/robots");
                let body = json!({"name": name, "actions": [action]});
                let (status, made) = r.client.api(Method::POST, &path, body).await;
                assert_eq!(status, 201, "{made}");
                let text = |key: &str| made[key].as_str().unwrap().to_owned();
                who.push(r.client.signed_in(&text("login"), &text("secret")));
            }
        }
        Stage { r, who, manifest }
    }

    /// Makes what is asked for; its name, and where an upload is.
    async fn before(&self, cell: &Cell, project: &str, n: usize) -> (String, String) {
        let (mut name, mut location) = (n.to_string(), String::new());
        for (method, path, body) in &cell.before {
            let fill = |text: &str| text.replace('P', project).replace('N', &name);
            // Names of repositories have no capitals, and of digests neither.
            let path = fill(path);
            if let Some(rest) = path.strip_prefix("/v2/") {
                if rest.contains("/manifests/") {
                    let repository = rest.split_once("/manifests/").unwrap().0;
                    self.r.client.push_image(repository, "v1", &[b"1"]).await;
                    let tag = path.rsplit('/').next().unwrap();
                    let (kind, body) = (OCI_MANIFEST, self.manifest.clone());
                    let done = self
                        .r
                        .client
                        .put_manifest(repository, tag, kind, body)
                        .await;
                    assert_eq!(done.status().as_u16(), 201);
                } else {
                    let begun = self.r.client.post(&path).await;
                    location = header(&begun, "location").to_owned();
                }
                continue;
            }
            let body = serde_json::from_str(&body.to_string().replace('N', &name)).unwrap();
            let (status, made) = self.r.client.api(method.clone(), &path, body).await;
            assert!(
                (200..300).contains(&status),
                "{method} {path}: {status} {made}"
            );
            if let Some(id) = made["id"].as_i64() {
                name = id.to_string();
            }
        }
        (name, location)
    }

    /// What somebody is answered.
    async fn ask(&self, cell: &Cell, client: &Remote, project: &str, n: usize) -> u16 {
        let (name, location) = self.before(cell, project, n).await;
        let blob = sha256(b"1").to_string();
        let path = match cell.path {
            "LOCATION" => location,
            // What is put in has no capitals.
            path => path
                .replace("BLOB", &blob)
                .replace('P', project)
                .replace('N', &name),
        };
        let request = client.request(cell.method.clone(), &path);
        let request = match &cell.body {
            Value::Null => request,
            Value::String(text) if text == "manifest" => request
                .header("content-type", OCI_MANIFEST)
                .body(self.manifest.clone()),
            Value::String(text) => request.body(text.clone()),
            body => {
                let text = body.to_string().replace('N', &name);
                request
                    .header("content-type", "application/json")
                    .body(text)
            }
        };
        request.send().await.unwrap().status().as_u16()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_may_what_the_table_says_and_nothing_else() {
    let stage = Stage::set().await;
    let digest = sha256(&stage.manifest).to_string();
    let cells = cells(&digest);
    for action in Action::ALL {
        let tried = cells.iter().any(|cell| cell.action == action);
        assert!(tried, "{} is in no cell", action.name());
    }
    let (mut wrong, mut n) = (Vec::new(), 0);
    for cell in cells {
        for (place, project, expected) in [
            (6, "default-project", cell.public),
            (8, "private", cell.private),
        ] {
            assert_eq!(expected.len(), WHO.len());
            let all = stage.who[..6].iter().chain(&stage.who[place..place + 2]);
            for ((name, client), may) in WHO.iter().zip(all).zip(expected.chars()) {
                n += 1;
                let status = stage.ask(&cell, client, project, n).await;
                let wanted = match may {
                    'y' => cell.status,
                    // The operations' page knows one answer.
                    _ if *name == "anonymous" || cell.path == "/metrics" => 401,
                    _ => 403,
                };
                if status != wanted {
                    let (action, method) = (cell.action.name(), &cell.method);
                    let path = cell.path;
                    let line = format!(
                        "{name}: {action} {method} {path} in {project}: {status}, not {wanted}"
                    );
                    wrong.push(line);
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
