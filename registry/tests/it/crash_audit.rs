//! `kill -9` at random moments: the audit log, played through, gives exactly what is there. There is no change without its
//! entry, and no entry without its change.

use crate::crash::Process;
use crate::harness::*;
use registry::access::Sight;
use registry::metadata::{AuditEntry, AuditFilter, Metadata, Project, Read};
use registry::names::{Reference, RepositoryName};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::Semaphore;

/// What is there: a name of each thing, and what it is.
type State = BTreeMap<String, String>;

/// Sends a change; `None` when the registry is no more.
async fn change(client: &Remote, method: Method, path: &str, body: Value) -> Option<Value> {
    let request = client.request(method, &format!("/api/v1{path}"));
    let answer = request
        .json(&body)
        .timeout(Duration::from_secs(120))
        .send()
        .await
        .ok()?;
    let status = answer.status();
    assert!(
        status.is_success() || matches!(status.as_u16(), 404 | 409),
        "{path}: {status}"
    );
    answer.json().await.ok().or(Some(Value::Null))
}

/// Changes whatever there is to change, until the registry is no more. Each answer is a permit.
async fn changes(client: Remote, mut random: Random, answers: Arc<Semaphore>) -> Option<()> {
    let (put, post, delete) = (Method::PUT, Method::POST, Method::DELETE);
    let c = &client;
    loop {
        let n = random.below(3);
        let (p, u) = (format!("p{n}"), format!("u{n}"));
        match random.below(13) {
            0 => change(c, post.clone(), "/projects", json!({"name": p})).await?,
            1 => change(c, delete.clone(), &format!("/projects/{p}"), json!(null)).await?,
            2 => {
                let public = json!({"public": random.below(2) == 0});
                change(c, Method::PATCH, &format!("/projects/{p}"), public).await?
            }
            3 => {
                let bytes = json!({"bytes": random.below(1000)});
                change(c, put.clone(), &format!("/projects/{p}/quota"), bytes).await?
            }
            4 => {
                let role = ["viewer", "developer", "devops-admin"][random.below(3)];
                let path = format!("/projects/private/members/{u}");
                change(c, put.clone(), &path, json!({"role": role})).await?
            }
            5 => {
                let path = format!("/projects/private/members/{u}");
                change(c, delete.clone(), &path, json!(null)).await?
            }
            6 => {
                let robot = json!({"name": u, "actions": ["pull"]});
                change(c, post.clone(), "/projects/private/robots", robot).await?
            }
            7 => {
                let path = format!("/projects/private/robots/{u}");
                change(c, delete.clone(), &path, json!(null)).await?
            }
            8 => {
                let rule = json!({"tags": format!("none{n}")});
                change(c, post.clone(), "/projects/private/immutable", rule).await?
            }
            9 => {
                let path = format!("/projects/private/immutable/{}", random.below(30));
                change(c, delete.clone(), &path, json!(null)).await?
            }
            10 => {
                let path = format!("/projects/private/labels/l{n}");
                change(c, put.clone(), &path, json!({"color": "#000000"})).await?
            }
            11 => {
                let path = format!("/projects/private/labels/l{n}");
                change(c, delete.clone(), &path, json!(null)).await?
            }
            _ => change(c, post.clone(), "/keys/rotate", json!({})).await?,
        };
        answers.add_permits(1);
    }
}

/// Moves and removes tags, until the registry is no more.
async fn tags(client: Remote, mut random: Random, answers: Arc<Semaphore>) -> Option<()> {
    let name = "private/crash";
    let send = async |request: reqwest::RequestBuilder| {
        let answer = request.timeout(Duration::from_secs(120)).send().await;
        answer.ok().map(|a| a.status())
    };
    loop {
        let tag = format!("t{}", random.below(3));
        let path = format!("/v2/{name}/manifests/{tag}");
        if random.below(3) == 0 {
            let status = send(client.request(Method::DELETE, &path)).await?;
            assert!(status == StatusCode::ACCEPTED || status == StatusCode::NOT_FOUND);
            answers.add_permits(1);
            continue;
        }
        let config = format!("/v2/{name}/blobs/uploads/?digest={}", sha256(b"{}"));
        let push = client.request(Method::POST, &config).body("{}");
        assert_eq!(send(push).await?, StatusCode::CREATED);
        let more = json!({"annotations": {"n": random.next().to_string()}});
        let body = image(&sha256(b"{}"), &[], &more);
        let push = client.request(Method::PUT, &path).body(body);
        let push = push.header("content-type", OCI_MANIFEST);
        assert_eq!(send(push).await?, StatusCode::CREATED);
        answers.add_permits(1);
    }
}

/// What is there by the metadata.
fn found(db: &Read<'_>) -> registry::metadata::Result<State> {
    let mut state = State::new();
    for project in db.projects_after("", 100)? {
        let Project {
            id, name, public, ..
        } = project;
        if name == "default-project" {
            continue;
        }
        if name != "private" {
            state.insert(format!("project {name}"), public.to_string());
            let quota = db.usage(id)?.1;
            if let Some(quota) = quota {
                state.insert(format!("quota {name}"), quota.to_string());
            }
            continue;
        }
        for member in db.members(id)? {
            if member.user.starts_with('u') {
                state.insert(format!("member {}", member.user), member.role.name().into());
            }
        }
        for robot in db.robots(id)? {
            state.insert(format!("robot {}", robot.name), String::new());
        }
        for rule in db.immutable_rules(id)? {
            state.insert(format!("immutable {}", rule.id), String::new());
        }
        for label in db.labels(id)? {
            state.insert(format!("label {}", label.name), String::new());
        }
    }
    for name in db.visible_repositories(&Sight::Everything, "", 100)? {
        let name: RepositoryName = name.parse().unwrap();
        let repository = db.repository(&name)?.unwrap();
        for tag in db.tags_by_age(repository.id)? {
            let reference = Reference::Tag(tag.name.parse().unwrap());
            assert!(db.manifest(&name, &reference, false)?.is_some());
            state.insert(format!("tag {}", tag.name), String::new());
        }
    }
    Ok(state)
}

/// What has to be there by the audit log.
fn replayed(entries: &[AuditEntry]) -> State {
    let mut state = State::new();
    for entry in entries.iter().filter(|e| e.status < 300) {
        let detail: Value = entry
            .detail
            .as_deref()
            .and_then(|d| serde_json::from_str(d).ok())
            .unwrap_or_default();
        let project = entry.project.clone().unwrap_or_default();
        let target = entry.target.clone().unwrap_or_default();
        match entry.operation.as_str() {
            "project.create" => {
                state.insert(format!("project {project}"), detail["public"].to_string());
            }
            "project.remove" => {
                state.remove(&format!("project {project}"));
                state.remove(&format!("quota {project}"));
            }
            "project.change" => {
                state.insert(format!("project {project}"), detail["public"].to_string());
            }
            "quota.change" => {
                state.insert(format!("quota {project}"), detail["bytes"].to_string());
            }
            "member.change" => {
                let role = entry.detail.clone().unwrap_or_default();
                state.insert(format!("member {target}"), role);
            }
            "immutable.create" => {
                state.insert(format!("immutable {}", detail["id"]), String::new());
            }
            "push" => {
                state.insert(format!("tag {target}"), String::new());
            }
            "delete" => {
                state.remove(&format!("tag {target}"));
            }
            "robot.create" => {
                state.insert(format!("robot {target}"), String::new());
            }
            "label.change" => {
                state.insert(format!("label {target}"), String::new());
            }
            operation => {
                if let Some(kind) = operation.strip_suffix(".remove") {
                    state.remove(&format!("{kind} {target}"));
                }
            }
        }
    }
    state
}

/// All of the log, the oldest first.
fn log(db: &Read<'_>) -> registry::metadata::Result<Vec<AuditEntry>> {
    let mut all: Vec<AuditEntry> = Vec::new();
    loop {
        let filter = AuditFilter {
            before: all.last().map(|e| e.id),
            ..AuditFilter::default()
        };
        let batch = db.audit(&filter, 1000)?;
        if batch.is_empty() {
            all.reverse();
            return Ok(all);
        }
        all.extend(batch);
    }
}

/// Compares log and state; gives how many entries there are.
fn compare(folder: &Path) -> usize {
    let metadata = Metadata::open(&folder.join("metadata.sqlite")).unwrap();
    let (entries, state) = metadata
        .read::<_, registry::metadata::Error>(|db| Ok((log(db)?, found(db)?)))
        .unwrap();
    let wanted = replayed(&entries);
    let all: BTreeSet<&String> = wanted.keys().chain(state.keys()).collect();
    for name in all {
        assert_eq!(
            state.get(name),
            wanted.get(name),
            "{name}: on the left what is there, on the right what the log says"
        );
    }
    entries.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_leaves_no_change_without_its_entry_and_no_entry_without_its_change() {
    let kills = count(8, 1000);
    let mut random = Random(seed());
    let folder = TempDir::new().unwrap();
    init(folder.path(), &settings());
    let process = Process::start(folder.path());
    for n in 0..3 {
        let user = json!({"name": format!("u{n}")});
        change(&process.client, Method::POST, "/users", user).await;
    }
    drop(process);
    let (mut entries, mut answered) = (0, 0);
    for _ in 0..kills {
        let process = Process::start(folder.path());
        let client = process.client.clone();
        let answers = Arc::new(Semaphore::new(0));
        let mut next = || (client.clone(), Random(random.next()), answers.clone());
        let work = [next(), next(), next(), next()];
        let [a, b, c, d] = work;
        let work = [
            tokio::spawn(changes(a.0, a.1, a.2)),
            tokio::spawn(changes(b.0, b.1, b.2)),
            tokio::spawn(tags(c.0, c.1, c.2)),
            tokio::spawn(tags(d.0, d.1, d.2)),
        ];
        // The random moment of the kill: among the answers, however slow the machine is, and between two of them.
        let among = u32::try_from(1 + random.below(40)).unwrap();
        answers.acquire_many(among).await.unwrap().forget();
        tokio::time::sleep(Duration::from_micros(random.next() % 10_000)).await;
        drop(process);
        answered += among as usize;
        for task in work {
            task.await.unwrap();
        }
        entries = compare(folder.path());
    }
    // What was answered is in it, but for what there was not to change: a quarter at the very least.
    assert!(
        entries > answered / 4,
        "{entries} entries, {answered} answers"
    );
}
