//! Three projects, and what is secret in each.

use super::callers::{Caller, Writes, callers};
use super::requests::Hostile;
use crate::harness::*;
use reqwest::{Method, StatusCode};
use rusqlite::{Connection, OpenFlags, types::Value as Cell};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The first is public. In the first two the users have their roles; in the last nobody has one.
pub const PROJECTS: [&str; 3] = ["default-project", "private", "theirs"];

pub struct World {
    pub r: Running,
    outer: TempDir,
    pub callers: Vec<Caller>,
    /// Of layers and manifests; those of `theirs` first.
    pub digests: Vec<String>,
    /// An upload that was begun in `theirs/a`.
    pub upload: String,
}

/// What is in a repository: a layer, a manifest.
pub fn content(project: &str, repository: &str) -> (Vec<u8>, Vec<u8>) {
    let layer = format!("secret-{project}-content-{repository}-layer").into_bytes();
    let note = format!("secret-{project}-content-{repository}-manifest");
    let layers = [(sha256(&layer), layer.len())];
    let manifest = image(
        &sha256(b"{}"),
        &layers,
        &json!({"annotations": {"x": note}}),
    );
    (layer, manifest)
}

async fn fill(client: &Remote, project: &str) {
    let named = format!("secret-{project}-name");
    for repository in ["a", "hidden", &named] {
        let (layer, manifest) = content(project, repository);
        let name = format!("{project}/{repository}");
        client.push_blob(&name, &layer).await;
        client.push_blob(&name, b"{}").await;
        let tag = format!("secret-{project}-content-{repository}-tag");
        for tag in ["v1", &tag] {
            let put = client
                .put_manifest(&name, tag, OCI_MANIFEST, manifest.clone())
                .await;
            assert_eq!(put.status(), StatusCode::CREATED);
        }
    }
}

impl World {
    pub async fn new() -> Self {
        let outer = TempDir::new().unwrap();
        std::fs::write(outer.path().join("secret-outside"), "never-shown").unwrap();
        let folder = TempDir::new_in(outer.path()).unwrap();
        init(folder.path(), &settings());
        let r = Running::open(folder).await;
        let api = async |method, path: String, body| {
            let (status, answer) = r.client.api(method, &path, body).await;
            assert!((200..300).contains(&status), "{path}: {answer}");
            answer
        };
        api(Method::POST, "/projects".into(), json!({"name": "theirs"})).await;
        let mut digests = Vec::new();
        for project in PROJECTS.into_iter().rev() {
            fill(&r.client, project).await;
            for repository in ["a", "hidden"] {
                let (layer, manifest) = content(project, repository);
                digests.extend([sha256(&layer).to_string(), sha256(&manifest).to_string()]);
            }
            let at = |rest: &str| format!("/projects/{project}/{rest}");
            let secret = |kind: &str| format!("secret-{project}-{kind}");
            let member = json!({"name": secret("conf-member"), "password": PASSWORD});
            api(Method::POST, "/users".into(), member).await;
            let member = at(&format!("members/{}", secret("conf-member")));
            api(Method::PUT, member, json!({"role": "viewer"})).await;
            let robot = json!({"name": secret("conf-robot"), "actions": ["pull"]});
            api(Method::POST, at("robots"), robot).await;
            let rule = json!({"repositories": secret("conf-rule"), "tags": "*"});
            api(Method::POST, at("immutable"), rule).await;
            let rule = json!({"repositories": secret("conf-rule"), "tags": "*", "keep_days": 1});
            api(Method::POST, at("retention"), rule).await;
            let label = at(&format!("labels/{}", secret("see-label")));
            api(Method::PUT, label, json!({"color": "#aabbcc"})).await;
            let url = format!("http://127.0.0.1:1/{}", secret("cloud-hook"));
            api(Method::POST, at("webhooks"), json!({"url": url})).await;
        }
        let begun = r.client.post("/v2/theirs/a/blobs/uploads/").await;
        let at = header(&begun, "location").to_owned();
        let part = r.client.request(Method::PATCH, &at).body("12345");
        assert_eq!(part.send().await.unwrap().status(), StatusCode::ACCEPTED);
        let upload = at.rsplit('/').next().unwrap().to_owned();
        let callers = callers(&r).await;
        World {
            r,
            outer,
            callers,
            digests,
            upload,
        }
    }

    /// What this caller must not change, by tables.
    pub fn kept(&self, caller: &Caller) -> BTreeMap<&'static str, Vec<String>> {
        // From where, and whose project a row is.
        const CONTENT: [(&str, &str, &str); 6] = [
            ("repositories", "repositories t", "t.project"),
            (
                "blob_links",
                "blob_links t JOIN repositories r ON r.id = t.repository",
                "r.project",
            ),
            (
                "manifests",
                "manifests t JOIN repositories r ON r.id = t.repository",
                "r.project",
            ),
            (
                "tags",
                "tags t JOIN repositories r ON r.id = t.repository",
                "r.project",
            ),
            (
                "manifest_labels",
                "manifest_labels t JOIN manifests m ON m.id = t.manifest JOIN repositories r ON r.id = m.repository",
                "r.project",
            ),
            (
                "uploads",
                "uploads t JOIN projects p ON t.repository LIKE p.name || '/%'",
                "p.id",
            ),
        ];
        const SETTINGS: [(&str, &str, &str); 5] = [
            ("members", "members t", "t.project"),
            ("robots", "robots t", "t.project"),
            ("labels", "labels t", "t.project"),
            ("immutable_rules", "immutable_rules t", "t.project"),
            ("retention_rules", "retention_rules t", "t.project"),
        ];
        const ALWAYS: [(&str, &str); 5] = [
            ("users", "SELECT * FROM users"),
            ("settings", "SELECT * FROM settings"),
            ("token_keys", "SELECT * FROM token_keys"),
            ("webhooks", "SELECT * FROM webhooks"),
            ("quotas", "SELECT id, name, quota FROM projects"),
        ];
        let path = self.r.folder.path().join("metadata.sqlite");
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        db.busy_timeout(Duration::from_secs(10)).unwrap();
        let (of_content, of_settings): (&[&str], &[&str]) = match caller.writes {
            None => (&[], &[]),
            Some(Writes::Content(projects)) => (projects, &[]),
            Some(Writes::Projects(projects)) => (projects, projects),
        };
        let mut kept = BTreeMap::new();
        let tables = CONTENT.iter().map(|t| (t, of_content));
        for ((table, from, whose), but) in tables.chain(SETTINGS.iter().map(|t| (t, of_settings))) {
            let but: Vec<String> = but.iter().map(|p| format!("'{p}'")).collect();
            let but = but.join(",");
            let query = format!(
                "SELECT t.* FROM {from} WHERE {whose} NOT IN (SELECT id FROM projects WHERE name IN ({but}))"
            );
            kept.insert(*table, rows(&db, &query));
        }
        for (table, query) in ALWAYS {
            kept.insert(table, rows(&db, query));
        }
        let but = of_settings.first().map_or("", |_| "WHERE name = 'theirs'");
        kept.insert(
            "projects",
            rows(&db, &format!("SELECT id, name, public FROM projects {but}")),
        );
        if caller.writes.is_none() {
            kept.insert("blobs", rows(&db, "SELECT * FROM blobs"));
        }
        kept
    }

    /// In how many repositories elsewhere blobs of `theirs` are.
    pub fn strangers(&self) -> usize {
        let path = self.r.folder.path().join("metadata.sqlite");
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let query = format!(
            "SELECT r.name FROM blob_links l JOIN blobs b ON b.id = l.blob JOIN repositories r ON r.id = l.repository
             WHERE b.digest IN ('{}', '{}') AND r.name NOT LIKE 'theirs/%'",
            self.digests[0], self.digests[2]
        );
        rows(&db, &query).len()
    }

    /// What lies beside the registry's folder, and what its own folder has at the top. What it keeps has names of its own
    /// making.
    pub fn outside(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let data = self.r.folder.path();
        for path in list(self.outer.path()) {
            let inside = path
                .strip_prefix(data)
                .ok()
                .filter(|p| !p.as_os_str().is_empty());
            let Some(inside) = inside else {
                let bytes = std::fs::read(&path).unwrap_or_default();
                found.insert(path, bytes);
                continue;
            };
            let mut parts = inside.iter().map(|p| p.to_string_lossy().into_owned());
            let first = parts.next().unwrap();
            let rest: Vec<String> = parts.collect();
            if matches!(first.as_str(), "blobs" | "uploads") {
                let plain = |p: &String| p.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
                assert!(rest.iter().all(plain), "{}", path.display());
                assert!(!path.is_symlink(), "{}", path.display());
            } else if !first.ends_with("-wal") && !first.ends_with("-shm") {
                found.insert(path, Vec::new());
            }
        }
        found
    }

    /// Sets right what those who write may have set up otherwise.
    pub async fn heal(&self) {
        let members = ["viewer", "developer", "devops-admin"];
        let metadata = &self.r.registry.metadata;
        let done: Result<(), registry::metadata::Error> = metadata
            .write(move |db| {
                for (project, public) in [("default-project", true), ("private", false)] {
                    db.set_public(project, public)?;
                    let row = db.project(project)?.unwrap();
                    for member in db.members(row.id)? {
                        let user = db.user(&member.user)?.unwrap();
                        let own = member.user == format!("secret-{project}-conf-member");
                        if !own && !members.contains(&member.user.as_str()) {
                            db.remove_member(row.id, user.id)?;
                        }
                    }
                    for (name, role) in members.into_iter().zip(registry::access::Role::ALL) {
                        let user = db.user(name)?.unwrap();
                        db.set_member(row.id, user.id, role)?;
                    }
                }
                Ok(())
            })
            .await;
        done.unwrap();
        for project in ["default-project", "private"] {
            let there = async |repository: &str| {
                let path = format!("/v2/{project}/{repository}/manifests/v1");
                let head = self.r.client.head(&path).await;
                let (_, manifest) = content(project, repository);
                let found = head.headers().get("docker-content-digest");
                found.is_some_and(|d| d == sha256(&manifest).as_str())
            };
            if !there("a").await || !there("hidden").await {
                let path = format!("/projects/{project}/immutable");
                let (_, rules) = self.r.client.api(Method::GET, &path, json!(null)).await;
                for rule in rules.as_array().unwrap() {
                    let path = format!("{path}/{}", rule["id"]);
                    self.r.client.api(Method::DELETE, &path, json!(null)).await;
                }
                fill(&self.r.client, project).await;
            }
        }
    }

    /// Everything of `theirs` is as it was.
    pub async fn unharmed(&self) {
        let client = &self.r.client;
        for repository in ["a", "hidden"] {
            let (layer, manifest) = content("theirs", repository);
            for (path, wanted) in [
                (format!("blobs/{}", sha256(&layer)), &layer),
                ("manifests/v1".into(), &manifest),
                (
                    format!("manifests/secret-theirs-content-{repository}-tag"),
                    &manifest,
                ),
            ] {
                let answer = client.get(&format!("/v2/theirs/{repository}/{path}")).await;
                assert_eq!(answer.bytes().await.unwrap(), *wanted, "{path}");
            }
        }
        let at = format!("/v2/theirs/a/blobs/uploads/{}", self.upload);
        assert_eq!(header(&client.get(&at).await, "range"), "0-4");
    }
}

fn rows(db: &Connection, query: &str) -> Vec<String> {
    let mut statement = db.prepare(query).unwrap();
    let columns = statement.column_count();
    let found = statement.query_map([], |row| {
        let cells: Result<Vec<Cell>, _> = (0..columns).map(|n| row.get(n)).collect();
        Ok(format!("{:?}", cells?))
    });
    let mut all: Vec<String> = found.unwrap().map(Result::unwrap).collect();
    all.sort();
    all
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            all.extend(list(&path));
        }
        all.push(path);
    }
    all
}

pub struct Answer {
    /// 0: none came.
    pub status: u16,
    /// Head and body.
    pub text: String,
}

impl Answer {
    /// What is secret in it.
    pub fn secrets(&self) -> Vec<String> {
        let mut found = Vec::new();
        for project in PROJECTS {
            let begin = format!("secret-{project}-");
            for (at, _) in self.text.match_indices(&begin) {
                let secret: String = self.text[at..]
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
                    .collect();
                found.push(secret);
            }
        }
        found
    }

    /// What the token in it says, if there is one: repositories, and actions there.
    pub fn granted(&self) -> Vec<(String, Vec<String>)> {
        let body = self
            .text
            .split_once("\r\n\r\n")
            .map_or("", |(_, body)| body);
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let Some(token) = body["token"].as_str() else {
            return Vec::new();
        };
        let claims = crate::tokens::claims(token);
        let access = claims["access"].as_array().unwrap();
        let repositories = access.iter().filter(|g| g["type"] == "repository");
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        repositories
            .map(|g| {
                let actions = g["actions"].as_array().unwrap().iter().map(text);
                (text(&g["name"]), actions.collect())
            })
            .collect()
    }
}

/// Sends a request just as it is: a library would set right what is wrong about it.
pub async fn send(world: &World, caller: &Caller, request: &Hostile) -> Answer {
    let mut head = format!(
        "{} {} HTTP/1.1\r\nhost: registry\r\n",
        request.method, request.target
    );
    if let Some(value) = &caller.authorization {
        head.push_str(&format!("authorization: {value}\r\n"));
    }
    for (name, value) in &request.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!(
        "content-length: {}\r\nconnection: close\r\n\r\n",
        request.body.len()
    ));
    let exchange = async {
        let address = world.r.server.address();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        // It may be refused, and the connection ended, before all was sent.
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&request.body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    };
    let answer = tokio::time::timeout(Duration::from_secs(60), exchange).await;
    let answer = answer.unwrap_or_else(|_| panic!("{}: {request:?} hangs", caller.name));
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
    Answer { status, text }
}
