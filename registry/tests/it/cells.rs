//! The table of who may do what, as requests: each line is asked by everybody, in a public and in a private project.

use crate::harness::*;
use registry::access::Action;
use reqwest::Method;
use serde_json::{Value, json};

/// A request that stands for an action, in a project (`P`), to something (`N`) that is made before each attempt.
pub struct Cell {
    pub action: Action,
    pub method: Method,
    pub path: &'static str,
    body: Value,
    /// What an administrator does before: method, path of the API, body. Its answer's `id` is `N`, if it has one.
    before: Vec<(Method, &'static str, Value)>,
    /// What is answered where it is allowed.
    pub status: u16,
    /// Who may in the public and in the private project, in the order of `WHO`.
    pub public: &'static str,
    pub private: &'static str,
}

/// `r`, `w` and `d`: robots that may pull, push, and delete.
pub const WHO: [&str; 9] = [
    "anonymous",
    "somebody",
    "viewer",
    "developer",
    "devops-admin",
    "admin",
    "r",
    "w",
    "d",
];

#[rustfmt::skip]
pub fn cells(digest: &str) -> Vec<Cell> {
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
    let lone = [(M::PUT, "/v2/P/bN/blobs/", n())];
    vec![
        //                                                                                                          asvddCrwd    asvddCrwd
        cell(A::See,     M::GET,    "/api/v1/projects/P",                   n(), &[], 200,                          "yyyyyyyyy", "..yyyy..."),
        cell(A::See,     M::GET,    "/api/v1/projects/P/repositories",      n(), &[], 200,                          "yyyyyyyyy", "..yyyy..."),
        cell(A::See,     M::GET,    "/api/v1/projects/P/repositories/a/tags", n(), &[], 200,                        "yyyyyyyyy", "..yyyy..."),
        cell(A::See,     M::GET,    "/api/v1/projects/P/labels",            n(), &[], 200,                          "yyyyyyyyy", "..yyyy..."),
        cell(A::See,     M::GET,    "/api/v1/projects",                     n(), &[], 200,                          "yyyyyyyyy", "yyyyyyyyy"),
        cell(A::See,     M::GET,    "/api/v1/search?text=v1",               n(), &[], 200,                          "yyyyyyyyy", "yyyyyyyyy"),
        cell(A::See,     M::GET,    "/api/v1/openapi.json",                 n(), &[], 200,                          "yyyyyyyyy", "yyyyyyyyy"),
        cell(A::See,     M::GET,    "/api/v1/users/SELF",                   n(), &[], 200,                          ".yyyyy...", ".yyyyy..."),
        cell(A::See,     M::PUT,    "/api/v1/users/SELF/password",          json!({"current": PASSWORD, "password": PASSWORD}), &[], 200, ".yyyyy...", ".yyyyy..."),
        cell(A::See,     M::GET,    "/v2/",                                 n(), &[], 200,                          ".yyyyyyyy", ".yyyyyyyy"),
        cell(A::See,     M::GET,    "/v2/_catalog",                         n(), &[], 200,                          "yyyyyyyyy", "yyyyyyyyy"),
        cell(A::Pull,    M::GET,    "/token?scope=repository:P/a:pull",     n(), &[], 200,                          "yyyyyyyyy", "yyyyyyyyy"),
        cell(A::Pull,    M::GET,    "/v2/P/a/manifests/DIGEST",             n(), &[], 200,                          "yyyyyyyyy", "..yyyyyy."),
        cell(A::Pull,    M::HEAD,   "/v2/P/a/blobs/BLOB",                   n(), &[], 200,                          "yyyyyyyyy", "..yyyyyy."),
        cell(A::Pull,    M::GET,    "/v2/P/a/manifests/v1",                 n(), &[], 200,                          "yyyyyyyyy", "..yyyyyy."),
        cell(A::Pull,    M::HEAD,   "/v2/P/a/manifests/v1",                 n(), &[], 200,                          "yyyyyyyyy", "..yyyyyy."),
        cell(A::Pull,    M::GET,    "/v2/P/a/blobs/BLOB",                   n(), &[], 200,                          "yyyyyyyyy", "..yyyyyy."),
        cell(A::Pull,    M::GET,    "/v2/P/a/referrers/DIGEST",             n(), &[], 200,                          "yyyyyyyyy", "..yyyyyy."),
        cell(A::Pull,    M::GET,    "/v2/P/a/tags/list",                    n(), &[], 200,                          "yyyyyyyyy", "..yyyyyy."),
        cell(A::Push,    M::POST,   "/v2/P/a/blobs/uploads/",               n(), &[], 202,                          "...yyy.y.", "...yyy.y."),
        cell(A::Push,    M::POST,   "/v2/P/a/blobs/uploads/?digest=BLOB",   json!("1"), &[], 201,                   "...yyy.y.", "...yyy.y."),
        cell(A::Push,    M::POST,   "/v2/P/a/blobs/uploads/?mount=BLOB&from=P/a", n(), &[], 201,                    "...yyy.y.", "...yyy.y."),
        cell(A::Push,    M::PUT,    "LOCATION?digest=BLOB",                 json!("1"), &blob, 201,                 "...yyy.y.", "...yyy.y."),
        cell(A::Push,    M::PUT,    "/v2/P/a/manifests/DIGEST",             json!("manifest"), &[], 201,            "...yyy.y.", "...yyy.y."),
        cell(A::Push,    M::HEAD,   "LOCATION",                             n(), &blob, 204,                        "...yyy.y.", "...yyy.y."),
        cell(A::Push,    M::GET,    "LOCATION",                             n(), &blob, 204,                        "...yyy.y.", "...yyy.y."),
        cell(A::Push,    M::PATCH,  "LOCATION",                             json!("bytes"), &blob, 202,             "...yyy.y.", "...yyy.y."),
        cell(A::Push,    M::DELETE, "LOCATION",                             n(), &blob, 204,                        "...yyy.y.", "...yyy.y."),
        cell(A::Push,    M::PUT,    "/v2/P/a/manifests/tN",                 json!("manifest"), &[], 201,            "...yyy.y.", "...yyy.y."),
        cell(A::Label,   M::PUT,    "/api/v1/projects/P/repositories/a/manifests/DIGEST/labels/lN", n(), &label, 204, "...yyy...", "...yyy..."),
        cell(A::Label,   M::DELETE, "/api/v1/projects/P/repositories/a/manifests/DIGEST/labels/lN", n(), &labelled, 204, "...yyy...", "...yyy..."),
        cell(A::Delete,  M::DELETE, "/api/v1/projects/P/repositories/rN",   n(), &repository, 204,                  "....yy..y", "....yy..y"),
        cell(A::Delete,  M::DELETE, "/v2/P/rN/manifests/DIGEST",            n(), &repository, 202,                  "....yy..y", "....yy..y"),
        cell(A::Delete,  M::DELETE, "/v2/P/bN/blobs/BLOB",                  n(), &lone, 202,                        "....yy..y", "....yy..y"),
        cell(A::Delete,  M::DELETE, "/v2/P/a/manifests/tN",                 n(), &tag, 202,                         "....yy..y", "....yy..y"),
        cell(A::Configure, M::PATCH, "/api/v1/projects/P",                  json!({}), &[], 204,                    "....yy...", "....yy..."),
        cell(A::Configure, M::PUT,  "/api/v1/projects/P/labels/lN",         json!({"color": "#aabbcc"}), &[], 204,  "....yy...", "....yy..."),
        cell(A::Configure, M::DELETE, "/api/v1/projects/P/labels/lN",       n(), &label, 204,                       "....yy...", "....yy..."),
        cell(A::Configure, M::GET,  "/api/v1/projects/P/immutable",         n(), &[], 200,                          "....yy...", "....yy..."),
        cell(A::Configure, M::POST, "/api/v1/projects/P/immutable",         immutable[0].2.clone(), &[], 201,       "....yy...", "....yy..."),
        cell(A::Configure, M::DELETE, "/api/v1/projects/P/immutable/N",     n(), &immutable, 204,                   "....yy...", "....yy..."),
        cell(A::Configure, M::GET,  "/api/v1/projects/P/retention",         n(), &[], 200,                          "....yy...", "....yy..."),
        cell(A::Configure, M::POST, "/api/v1/projects/P/retention",         retention[0].2.clone(), &[], 201,       "....yy...", "....yy..."),
        cell(A::Configure, M::DELETE, "/api/v1/projects/P/retention/N",     n(), &retention, 204,                   "....yy...", "....yy..."),
        cell(A::Configure, M::POST, "/api/v1/projects/P/retention/run",     json!({"dry_run": true}), &[], 200,     "....yy...", "....yy..."),
        cell(A::Audit,   M::GET,    "/api/v1/projects/P/audit",             n(), &[], 200,                          "....yy...", "....yy..."),
        cell(A::Members, M::GET,    "/api/v1/projects/P/members",           n(), &[], 200,                          "....yy...", "....yy..."),
        cell(A::Members, M::PUT,    "/api/v1/projects/P/members/uN",        json!({"role": "viewer"}), &user, 204,  "....yy...", "....yy..."),
        cell(A::Members, M::DELETE, "/api/v1/projects/P/members/uN",        n(), &member, 204,                      "....yy...", "....yy..."),
        cell(A::Robots,  M::GET,    "/api/v1/projects/P/robots",            n(), &[], 200,                          "....yy...", "....yy..."),
        cell(A::Robots,  M::POST,   "/api/v1/projects/P/robots",            json!({"name": "xN", "actions": ["pull"]}), &[], 201, "....yy...", "....yy..."),
        cell(A::Robots,  M::POST,   "/api/v1/projects/P/robots/xN/secret",  json!({}), &robot, 200,                 "....yy...", "....yy..."),
        cell(A::Robots,  M::PATCH,  "/api/v1/projects/P/robots/xN",         json!({"disabled": true}), &robot, 204, "....yy...", "....yy..."),
        cell(A::Robots,  M::DELETE, "/api/v1/projects/P/robots/xN",         n(), &robot, 204,                       "....yy...", "....yy..."),
        cell(A::Projects, M::PUT,   "/api/v1/projects/P/quota",             json!({"bytes": null}), &[], 204,       ".....y...", ".....y..."),
        cell(A::Projects, M::GET,   "/api/v1/projects/P/webhooks",          n(), &[], 200,                          ".....y...", ".....y..."),
        cell(A::Projects, M::POST,  "/api/v1/projects/P/webhooks",          webhook[0].2.clone(), &[], 201,         ".....y...", ".....y..."),
        cell(A::Projects, M::DELETE, "/api/v1/projects/P/webhooks/N",       n(), &webhook, 204,                     ".....y...", ".....y..."),
        // Both have something in them.
        cell(A::Projects, M::DELETE, "/api/v1/projects/P",                  n(), &[], 409,                          ".....y...", ".....y..."),
        cell(A::Projects, M::POST,  "/api/v1/projects",                     json!({"name": "pN"}), &[], 201,        ".....y...", ".....y..."),
        cell(A::Users,   M::GET,    "/api/v1/users",                        n(), &[], 200,                          ".....y...", ".....y..."),
        cell(A::Users,   M::POST,   "/api/v1/users",                        json!({"name": "uN"}), &[], 201,        ".....y...", ".....y..."),
        cell(A::Users,   M::GET,    "/api/v1/users/uN",                     n(), &user, 200,                        ".....y...", ".....y..."),
        cell(A::Users,   M::PATCH,  "/api/v1/users/uN",                     json!({"administrator": true}), &user, 204, ".....y...", ".....y..."),
        cell(A::Users,   M::PUT,    "/api/v1/users/uN/password",            json!({}), &user, 200,                  ".....y...", ".....y..."),
        cell(A::Users,   M::DELETE, "/api/v1/users/uN",                     n(), &user, 204,                        ".....y...", ".....y..."),
        cell(A::Administer, M::GET, "/api/v1/audit",                        n(), &[], 200,                          ".....y...", ".....y..."),
        cell(A::Administer, M::POST, "/api/v1/audit/forget",                json!({"keep_days": 1}), &[], 200,      ".....y...", ".....y..."),
        cell(A::Administer, M::GET, "/api/v1/log",                          n(), &[], 200,                          ".....y...", ".....y..."),
        cell(A::Administer, M::POST, "/api/v1/gc",                          json!({"dry_run": true}), &[], 200,     ".....y...", ".....y..."),
        cell(A::Administer, M::POST, "/api/v1/keys/rotate",                 json!({}), &[], 204,                    ".....y...", ".....y..."),
        cell(A::Administer, M::GET, "/api/v1/archive",                      n(), &[], 200,                          ".....y...", ".....y..."),
        cell(A::Administer, M::POST, "/api/v1/archive",                     json!({}), &[], 400,                    ".....y...", ".....y..."),
        cell(A::Administer, M::GET, "/metrics",                             n(), &[], 200,                          ".....y...", ".....y..."),
    ]
}

/// The registry, who asks it, and an image that is there.
pub struct Stage {
    pub r: Running,
    who: Vec<Remote>,
    pub manifest: Vec<u8>,
}

impl Stage {
    pub async fn set() -> Self {
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
            for (name, action) in [("r", "pull"), ("w", "push"), ("d", "delete")] {
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

    /// `who` in this project, with their names.
    pub fn callers(&self, project: &str) -> Vec<(&'static str, Remote)> {
        let place = if project == "private" { 9 } else { 6 };
        let all = self.who[..6].iter().chain(&self.who[place..place + 3]);
        WHO.into_iter().zip(all.cloned()).collect()
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
                } else if let Some(repository) = rest.strip_suffix("/blobs/") {
                    self.r.client.push_blob(repository, b"1").await;
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
    pub async fn ask(&self, cell: &Cell, client: &Remote, project: &str, n: usize) -> u16 {
        let (name, location) = self.before(cell, project, n).await;
        self.send(cell, client, project, (&name, &location)).await
    }

    /// What somebody is answered where nothing was made before: `N` and where an upload is are made up.
    pub async fn ask_nowhere(&self, cell: &Cell, client: &Remote, project: &str) -> u16 {
        let location = format!("/v2/{project}/a/blobs/uploads/0123");
        self.send(cell, client, project, ("1", &location)).await
    }

    async fn send(
        &self,
        cell: &Cell,
        client: &Remote,
        project: &str,
        (name, location): (&str, &str),
    ) -> u16 {
        let blob = sha256(b"1").to_string();
        let own = client.user.as_ref().map_or(ADMIN, |(user, _)| user);
        // What is put in has no capitals.
        let path = cell
            .path
            .replace("LOCATION", location)
            .replace("BLOB", &blob)
            .replace("SELF", own)
            .replace('P', project)
            .replace('N', name);
        let request = client.request(cell.method.clone(), &path);
        let request = match &cell.body {
            Value::Null => request,
            Value::String(text) if text == "manifest" => request
                .header("content-type", OCI_MANIFEST)
                .body(self.manifest.clone()),
            Value::String(text) => request.body(text.clone()),
            body => {
                let text = body.to_string().replace('N', name);
                request
                    .header("content-type", "application/json")
                    .body(text)
            }
        };
        request.send().await.unwrap().status().as_u16()
    }
}
