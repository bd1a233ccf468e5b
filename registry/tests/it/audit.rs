//! The audit log: what is in it, who may read it, and as which file.

use crate::command::registry;
use crate::crash::Process;
use crate::harness::*;
use registry::metadata::{AuditEntry, AuditFilter, now};
use reqwest::Method;
use serde_json::{Value, json};

/// All entries, the oldest first.
async fn entries(r: &Running) -> Vec<AuditEntry> {
    r.registry.audit.settled().await;
    let mut all = r
        .registry
        .metadata
        .read(|db| db.audit(&AuditFilter::default(), 1000))
        .unwrap();
    all.reverse();
    all
}

fn told(e: &AuditEntry) -> String {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let target = text(&e.target);
    let short = if target.starts_with("sha256:") {
        "sha256"
    } else {
        &target
    };
    format!(
        "{} {} {} {}{} {} {}",
        e.user,
        e.via,
        e.operation,
        e.repository
            .as_ref()
            .or(e.project.as_ref())
            .cloned()
            .unwrap_or_default(),
        if short.is_empty() {
            String::new()
        } else {
            format!(" {short}")
        },
        e.status,
        text(&e.detail)
    )
    .trim_end()
    .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_is_written_down_with_who_what_from_where_and_the_result() {
    let r = Running::start().await;
    let developer = r.client.signed_in("developer", PASSWORD);
    let name = "private/a";
    developer.push_image(name, "v1", &[b"1"]).await;
    let token = developer.with_token(&["repository:private/a:pull"]).await;
    token.head("/v2/private/a/manifests/v1").await;
    // As Docker's client does before it pushes.
    token.head("/v2/private/a/manifests/none").await;
    token.get("/v2/private/a/manifests/v1").await;
    let blob = sha256(b"1");
    token.get(&format!("/v2/{name}/blobs/{blob}")).await;
    developer
        .post(&format!(
            "/v2/private/b/blobs/uploads/?mount={blob}&from={name}"
        ))
        .await;
    let at = developer.post(&format!("/v2/{name}/blobs/uploads/")).await;
    let at = header(&at, "location").to_owned();
    let chunk = developer
        .request(Method::PATCH, &at)
        .body("23")
        .send()
        .await
        .unwrap();
    assert_eq!(chunk.status().as_u16(), 202);
    let end = format!("{at}?digest={}", sha256(b"23"));
    developer.request(Method::PUT, &end).send().await.unwrap();
    developer.delete("/v2/private/a/manifests/v1").await;
    r.client.anonymous().get("/v2/private/a/manifests/v1").await;
    let devops = r.client.signed_in("devops-admin", PASSWORD);
    devops
        .api(
            Method::PUT,
            "/projects/private/members/somebody",
            json!({"role": "viewer"}),
        )
        .await;
    devops
        .api(Method::PATCH, "/projects/private", json!({"public": true}))
        .await;
    devops
        .api(Method::GET, "/projects/private/members", json!(null))
        .await;
    devops
        .api(
            Method::POST,
            "/users",
            json!({"name": "jo", "password": "not in the log"}),
        )
        .await;
    r.client
        .api(
            Method::POST,
            "/users",
            json!({"name": "jo", "password": "not in the log"}),
        )
        .await;
    r.client
        .api(Method::POST, "/projects", json!({"name": "team"}))
        .await;
    r.client.delete("/v2/private/a/manifests/v1").await;
    let all = entries(&r).await;
    let list: Vec<String> = all.iter().map(told).collect();
    let wanted = [
        "developer password blob.push private/a sha256 201",
        "developer password blob.push private/a sha256 201",
        "developer password push private/a v1 201",
        "developer token pull private/a v1 200",
        "developer token blob.pull private/a sha256 200",
        "developer password blob.mount private/b sha256 201",
        "developer password blob.push private/a sha256 201",
        "developer password delete private/a v1 403",
        "devops-admin password member.change private somebody 204 viewer",
        r#"devops-admin password project.change private 204 {"public":true}"#,
        r#"devops-admin password user.create  jo 403 {"administrator":false}"#,
        r#"admin password user.create  jo 201 {"administrator":false}"#,
        r#"admin password project.create team 201 {"name":"team","public":false,"administrator":null}"#,
        "admin password delete private/a v1 202",
    ];
    assert_eq!(list, wanted);
    assert!(all.iter().all(|e| e.source == "127.0.0.1" && e.time > 0));
    let kept = serde_json::to_string(&all).unwrap();
    assert!(!kept.contains("not in the log"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_searched_by_its_columns_and_only_by_those_who_may() {
    let r = Running::start().await;
    r.client.push_image("private/a", "v1", &[b"1"]).await;
    let developer = r.client.signed_in("developer", PASSWORD);
    developer
        .push_image("default-project/b", "v2", &[b"2"])
        .await;
    let count = async |client: &Remote, path: &str| {
        let (status, found) = client.api(Method::GET, path, json!(null)).await;
        assert_eq!(status, 200, "{path}: {found}");
        found.as_array().unwrap().len()
    };
    for (query, n) in [
        ("", 6),
        ("user=developer", 3),
        ("project=private", 3),
        ("repository=default-project/b&operation=push", 1),
        ("operation=blob", 4),
        ("text=V2", 1),
        ("text=%25", 0),
        ("refused=true", 0),
        ("limit=4", 4),
        ("before=3", 2),
        ("since=1&until=2", 0),
    ] {
        assert_eq!(
            count(&r.client, &format!("/audit?{query}")).await,
            n,
            "{query}"
        );
    }
    let devops = r.client.signed_in("devops-admin", PASSWORD);
    // Another project cannot be asked for beside the one in the path.
    let path = "/projects/private/audit?project=default-project";
    assert_eq!(count(&devops, path).await, 3);
    for (client, path) in [
        (&devops, "/audit"),
        (&developer, "/projects/private/audit"),
        (&devops, "/log"),
    ] {
        assert_eq!(
            client.api(Method::GET, path, json!(null)).await.0,
            403,
            "{path}"
        );
    }
    // Behind the entries of what was refused.
    entries(&r).await;
    let csv = r
        .client
        .get("/api/v1/audit?format=csv&user=developer")
        .await;
    assert!(header(&csv, "content-type").starts_with("text/csv"));
    let csv = csv.text().await.unwrap();
    // A head, three pushes, one refusal, the end.
    assert_eq!(csv.split("\r\n").count(), 1 + 3 + 1 + 1, "{csv}");
    let lines = r
        .client
        .get("/api/v1/audit?format=jsonl")
        .await
        .text()
        .await
        .unwrap();
    let refusals = |line: &&str| serde_json::from_str::<Value>(line).unwrap()["status"] == 403;
    assert_eq!(lines.lines().filter(refusals).count(), 3, "{lines}");
    assert!(lines.lines().count() >= 9);
    for bad in ["since=x", "format=xml", "limit=-1"] {
        assert_eq!(
            r.client
                .api(Method::GET, &format!("/audit?{bad}"), json!(null))
                .await
                .0,
            400,
            "{bad}"
        );
    }
    let (status, _) = r
        .client
        .api(Method::POST, "/audit/forget", json!({"keep_days": 0}))
        .await;
    assert_eq!(status, 400);
    let (_, done) = r
        .client
        .api(Method::POST, "/audit/forget", json!({"keep_days": 1}))
        .await;
    assert_eq!(done["entries"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_share_commits_and_are_in_the_log_before_what_follows_them() {
    let r = Running::start().await;
    let name = "default-project/a";
    let mut digests = Vec::new();
    for n in 0..60u8 {
        digests.push(r.client.push_blob(name, &[n]).await);
    }
    let commits = r.registry.metadata.commits();
    let begun = tokio::time::Instant::now();
    let pull = async |client: Remote, digest: &registry::digest::Digest| {
        let answer = client.get(&format!("/v2/{name}/blobs/{digest}")).await;
        assert_eq!(answer.status().as_u16(), 200);
    };
    // By a name that is not hashed, so that they come fast.
    let anyone = r.client.anonymous();
    let pulls = digests.iter().map(|digest| pull(anyone.clone(), digest));
    futures_util::future::join_all(pulls).await;
    r.client
        .delete(&format!("/v2/{name}/blobs/{}", digests[0]))
        .await;
    let all = entries(&r).await;
    let commits = r.registry.metadata.commits() - commits;
    // One a tenth of a second, those of the change, and those that this test waits for.
    let most = begun.elapsed().as_millis() as u64 / 100 + 6;
    assert!(
        commits <= most,
        "{commits} commits for 60 reads and a change"
    );
    assert_eq!(all.len(), 121);
    let operations: Vec<&str> = all[60..].iter().map(|e| e.operation.as_str()).collect();
    assert_eq!(operations[..60], ["blob.pull"; 60]);
    assert_eq!(operations[60], "blob.delete");
    // By themselves they follow in a moment; the clock only says how long is waited for it.
    pull(r.client.clone(), &digests[1]).await;
    let there = async || r.registry.metadata.read(|db| db.audit_rows()).unwrap();
    let within = tokio::time::Duration::from_secs(60);
    let follow = async {
        while there().await < 122 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(within, follow).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_or_refused_again_and_again_is_counted() {
    let r = Running::start().await;
    let name = "default-project/a";
    r.client.push_image(name, "v1", &[b"1"]).await;
    let before = entries(&r).await.len();
    let anyone = r.client.anonymous();
    let stranger = r.client.signed_in("somebody", PASSWORD);
    for _ in 0..30 {
        anyone.get("/v2/default-project/a/manifests/v1").await;
        stranger.get("/v2/private/a/manifests/v1").await;
        stranger.post("/v2/private/a/blobs/uploads/").await;
    }
    r.registry.audit.flush();
    let all = entries(&r).await;
    let mut list: Vec<String> = all[before..]
        .iter()
        .map(|e| format!("{} x{}", told(e), e.count))
        .collect();
    list.sort();
    let wanted = [
        "anonymous none pull default-project/a v1 200 x1",
        "anonymous none pull default-project/a v1 200 x29",
        "somebody password blob.push private/a 403 x1",
        "somebody password blob.push private/a 403 x29",
        "somebody password pull private/a v1 403 x1",
        "somebody password pull private/a v1 403 x29",
    ];
    assert_eq!(list, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_to_change_is_told_whether_it_did_or_not_and_what_nobody_asked_for_too() {
    let mut with = settings();
    with.gc.at_start = true;
    let r = Running::with(with).await;
    let (_, log) = (
        r.client.get("/token?offline_token=true").await,
        r.client.get("/api/v1/audit?format=csv").await.text().await,
    );
    assert!(log.unwrap().starts_with("id,time,"));
    let again = json!({"name": "viewer", "password": PASSWORD, "administrator": true});
    let open = json!({"name": "open", "public": true});
    let dry = json!({"dry_run": true});
    let robot = json!({"name": "ci", "actions": ["pull"]});
    for (path, body, status) in [
        ("/users", again, 409),
        ("/projects", open, 201),
        ("/keys/rotate", json!({"revoke": true}), 204),
        ("/gc", dry, 200),
        ("/projects/open/robots", robot, 201),
        ("/projects/open/robots/ci/secret", json!({"days": 7}), 200),
    ] {
        assert_eq!(
            r.client.api(Method::POST, path, body).await.0,
            status,
            "{path}"
        );
    }
    let wrong = r.client.signed_in("developer", "a wrong password");
    let nobody = r.client.signed_in("nobody", "a wrong password");
    for _ in 0..11 {
        wrong.get("/v2/").await;
        nobody.get("/v2/").await;
    }
    let mut list: Vec<String> = entries(&r).await.iter().map(told).collect();
    // The collection at the start runs beside the rest.
    list.sort_by_key(|line| !line.starts_with("system none gc"));
    let wanted = [
        "system none gc.create  200 0 blobs, 0 bytes, 0 manifests, 0 repositories",
        "admin none refresh-token.create  200",
        "admin password audit.export  200",
        r#"admin password user.create  viewer 409 {"administrator":true}"#,
        r#"admin password project.create open 201 {"name":"open","public":true,"administrator":null}"#,
        r#"admin password key.rotate.create  204 {"revoke":true}"#,
        r#"admin password gc.create  200 {"dry_run":true,"grace_minutes":null,"untagged_hours":null}"#,
        r#"admin password robot.create open ci 201 {"name":"ci","actions":["pull"],"days":null}"#,
        r#"admin password robot.secret.create open ci 200 {"days":7}"#,
        "system none sign-in.slow  developer 200",
    ];
    assert_eq!(list, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_does_not_show_what_was_done_in_one_of_the_same_name_before() {
    let r = Running::start().await;
    let (path, new) = (
        "/projects/team",
        json!({"name": "team", "administrator": "somebody"}),
    );
    assert_eq!(
        r.client.api(Method::POST, "/projects", new.clone()).await.0,
        201
    );
    let secret = json!({"role": "viewer"});
    r.client
        .api(Method::PUT, "/projects/team/members/viewer", secret)
        .await;
    let first = r
        .registry
        .metadata
        .read(|db| db.project("team"))
        .unwrap()
        .unwrap();
    assert_eq!(r.client.api(Method::DELETE, path, json!(null)).await.0, 204);
    assert_eq!(r.client.api(Method::POST, "/projects", new).await.0, 201);
    let second = r
        .registry
        .metadata
        .read(|db| db.project("team"))
        .unwrap()
        .unwrap();
    assert_ne!(first.id, second.id);
    let somebody = r.client.signed_in("somebody", PASSWORD);
    let path = "/projects/team/audit";
    let (_, own) = somebody.api(Method::GET, path, json!(null)).await;
    let own: Vec<&str> = own
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["operation"].as_str().unwrap())
        .collect();
    assert_eq!(own, ["project.create"]);
    let (_, all) = r
        .client
        .api(Method::GET, "/audit?project=team", json!(null))
        .await;
    assert_eq!(all.as_array().unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_far_ahead_must_not_empty_the_log() {
    let r = Running::start().await;
    let old = AuditEntry {
        time: now() - 40 * 86_400_000,
        operation: "push".into(),
        ..AuditEntry::default()
    };
    r.registry
        .metadata
        .write(move |db| db.add_audit(&old))
        .await
        .unwrap();
    let forget = async || {
        let body = json!({"keep_days": 7});
        r.client.api(Method::POST, "/audit/forget", body).await
    };
    let (status, answer) = forget().await;
    assert_eq!(status, 409, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("clock"));
    // That refusal is an entry of today.
    let (status, done) = forget().await;
    assert_eq!((status, &done["entries"]), (200, &json!(1)));
}

#[test]
fn the_command_line_searches_and_exports_and_shows_the_log() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), &settings());
    {
        let process = Process::start(folder.path());
        registry(folder.path(), &["project", "add", "team"]).unwrap();
        let found = registry(
            folder.path(),
            &["audit", "search", "--operation", "project"],
        )
        .unwrap();
        assert_eq!(found[0]["user"], "console");
        assert_eq!(found[0]["project"], "team");
        assert!(registry(folder.path(), &["log"]).unwrap().is_array());
        drop(process);
    }
    let found = registry(folder.path(), &["audit", "search", "--text", "\"team\""]);
    assert_eq!(found.unwrap().as_array().unwrap().len(), 1);
    let found = registry(
        folder.path(),
        &["audit", "search", "--text", "no such text"],
    );
    assert!(found.unwrap().as_array().unwrap().is_empty());
    let export = std::process::Command::new(env!("CARGO_BIN_EXE_registry"))
        .args(["audit", "export", "--format", "jsonl", "--data"])
        .arg(folder.path())
        .output()
        .unwrap();
    let lines = String::from_utf8(export.stdout).unwrap();
    let operations: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["operation"].clone())
        .collect();
    assert!(operations.contains(&json!("project.create")), "{lines}");
    let done = registry(folder.path(), &["audit", "forget", "--keep", "1"]).unwrap();
    assert_eq!(done["entries"], 0);
}
