//! Users, roles, robots and projects' settings, taken from one registry into an empty one.

use crate::command::registry;
use crate::harness::*;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A registry as `registry init` makes it, with an administrator of another name.
async fn empty() -> Running {
    let folder = TempDir::new().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let data = folder.path().join("data");
    let args = [
        "init",
        "--admin",
        "boss",
        "--listen",
        "127.0.0.1:0",
        "--password-file",
        password.to_str().unwrap(),
    ];
    registry(&data, &args).unwrap();
    std::fs::remove_file(password).unwrap();
    for entry in std::fs::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        std::fs::rename(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let mut r = Running::open(folder).await;
    r.client = r.client.signed_in("boss", PASSWORD);
    r
}

async fn made(client: &Remote, path: &str, body: Value) -> Value {
    let (status, made) = client.api(Method::POST, path, body).await;
    assert_eq!(status, 201, "{path}: {made}");
    made
}

async fn put(client: &Remote, path: &str, body: Value) {
    let (status, answer) = client.api(Method::PUT, path, body).await;
    assert_eq!(status, 204, "{path}: {answer}");
}

async fn export(client: &Remote, query: &str) -> Value {
    let (status, archive) = client
        .api(Method::GET, &format!("/archive{query}"), json!(null))
        .await;
    assert_eq!(status, 200, "{archive}");
    archive
}

/// What somebody gets to hear when they try all kinds of things.
async fn access(client: &Remote) -> Vec<String> {
    let mut heard = Vec::new();
    for project in ["default-project", "private", "team", "none"] {
        let upload = client
            .post(&format!("/v2/{project}/new/blobs/uploads/"))
            .await;
        let begun = upload.status().as_u16();
        if begun == 202 {
            // It leaves nothing.
            client.delete(header(&upload, "location")).await;
        }
        let pull = client.get(&format!("/v2/{project}/x/manifests/v1")).await;
        let delete = client
            .delete(&format!("/v2/{project}/x/manifests/v1"))
            .await;
        heard.push(format!(
            "{project}: push {begun}, pull {}, delete {}",
            pull.status().as_u16(),
            delete.status().as_u16()
        ));
        for part in [
            "members",
            "robots",
            "immutable",
            "retention",
            "labels",
            "webhooks",
            "audit",
        ] {
            let path = format!("/projects/{project}/{part}?limit=0");
            let (status, _) = client.api(Method::GET, &path, json!(null)).await;
            heard.push(format!("{part} {status}"));
        }
    }
    for path in ["/users", "/archive", "/audit?limit=0"] {
        let (status, _) = client.api(Method::GET, path, json!(null)).await;
        heard.push(format!("{path} {status}"));
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_gives_an_empty_registry_the_same_access_and_rules() {
    let one = Running::start().await;
    let admin = &one.client;
    made(
        admin,
        "/projects",
        json!({"name": "team", "administrator": "somebody"}),
    )
    .await;
    put(admin, "/projects/team/quota", json!({"bytes": 12345})).await;
    put(
        admin,
        "/projects/team/labels/ok",
        json!({"color": "#00ff00"}),
    )
    .await;
    let ci = json!({"name": "ci", "actions": ["push"], "days": 7});
    let ci = made(admin, "/projects/team/robots", ci).await;
    let off = json!({"name": "off", "actions": ["pull", "delete"]});
    let off = made(admin, "/projects/private/robots", off).await;
    let (status, _) = admin
        .api(
            Method::PATCH,
            "/projects/private/robots/off",
            json!({"disabled": true}),
        )
        .await;
    assert_eq!(status, 204);
    made(admin, "/projects/team/immutable", json!({"tags": "v*"})).await;
    let rule = json!({"repositories": "a*", "keep_latest": 3, "keep_days": 9});
    made(admin, "/projects/team/retention", rule).await;
    let told = json!({"url": "http://127.0.0.1:9/told", "secret": "a secret of the target"});
    made(admin, "/projects/team/webhooks", told).await;
    let (status, _) = admin
        .api(Method::PATCH, "/users/viewer", json!({"disabled": true}))
        .await;
    assert_eq!(status, 204);

    // Not everybody's; and nothing that could be used as it is.
    let somebody = admin.signed_in("somebody", PASSWORD);
    let (status, _) = somebody.api(Method::GET, "/archive", json!(null)).await;
    assert_eq!(status, 403);
    let archive = export(admin, "").await;
    assert_eq!(archive["version"], 1);
    let text = archive.to_string();
    for secret in [
        PASSWORD,
        "a secret of the target",
        ci["secret"].as_str().unwrap(),
    ] {
        assert!(!text.contains(secret), "{secret} is in the archive");
    }

    let two = empty().await;
    let (status, imported) = two
        .client
        .api(Method::POST, "/archive", archive.clone())
        .await;
    assert_eq!(status, 200, "{imported}");
    assert_eq!(
        (&imported["users"], &imported["projects"]),
        (&json!(5), &json!(3))
    );
    assert_eq!(imported["robots"], 2);
    let new = &imported["new_secrets"];
    assert_eq!(
        (&new[0]["project"], new.as_array().unwrap().len()),
        (&json!("team"), 1)
    );
    assert!(new[0]["secret"].as_str().unwrap().starts_with("hook_"));

    let login = |robot: &Value| {
        let text = |key: &str| robot[key].as_str().unwrap().to_owned();
        (text("login"), text("secret"))
    };
    let (ci, off) = (login(&ci), login(&off));
    let mut who = vec![(ci.0.as_str(), ci.1.as_str())];
    for user in [ADMIN, "somebody", "developer", "devops-admin"] {
        who.push((user, PASSWORD));
        let wrong = two.client.signed_in(user, "a wrong password");
        assert_eq!(wrong.get("/v2/").await.status().as_u16(), 401, "{user}");
    }
    // Those who may not sign in here may not there.
    for (user, password) in [("viewer", PASSWORD), (off.0.as_str(), off.1.as_str())] {
        for r in [&one, &two] {
            let refused = r.client.signed_in(user, password).get("/v2/").await;
            assert_eq!(refused.status().as_u16(), 401, "{user}");
        }
    }
    for (user, password) in who {
        let before = access(&one.client.signed_in(user, password)).await;
        let after = access(&two.client.signed_in(user, password)).await;
        assert_eq!(before, after, "{user}");
    }
    assert_eq!(
        access(&one.client.anonymous()).await,
        access(&two.client.anonymous()).await
    );
    // The rest of it is the same, too; whoever was there stays.
    let mut back = export(&two.client, "").await;
    let users = back["users"].as_array_mut().unwrap();
    users.retain(|u| u["name"] != "boss");
    assert_eq!(back["users"], archive["users"]);
    assert_eq!(back["projects"], archive["projects"]);
    let with = export(admin, "?secrets=true").await;
    assert_eq!(
        with["projects"][2]["webhooks"][0]["secret"],
        "a secret of the target"
    );

    // It is no empty one any more.
    let (status, answer) = two.client.api(Method::POST, "/archive", with).await;
    assert_eq!((status, &answer["code"]), (409, &json!("conflict")));
    let text = two
        .client
        .get("/api/v1/audit?operation=archive&format=jsonl")
        .await;
    let text = text.text().await.unwrap();
    assert!(text.contains("5 users, 3 projects"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_could_not_have_been_made_here_is_refused_as_a_whole() {
    let r = Running::start().await;
    let good = export(&r.client, "?secrets=true").await;
    let two = empty().await;
    let before = export(&two.client, "").await;
    let change = |pointer: &str, value: Value| {
        let mut archive = good.clone();
        *archive.pointer_mut(pointer).unwrap() = value;
        archive
    };
    let robot = json!([{"name": "a", "secret_hash": "00", "actions": ["pull"], "expires": 1, "disabled": false,
        "created_by": "x"}]);
    let hook = json!([{"url": "ftp://x"}]);
    let expensive =
        "$argon2id$v=19$m=4000000,t=2,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for (archive, status, why) in [
        (change("/version", json!(2)), 400, "version 2"),
        (change("/format", json!("tar")), 400, "format"),
        (change("/users/0/name", json!("a b")), 400, "user"),
        (
            change("/users/0/password_hash", json!(expensive)),
            400,
            "hash",
        ),
        (
            change("/users/0/administrator", json!(false)),
            400,
            "no cloud administrator",
        ),
        (change("/users/1", good["users"][0].clone()), 400, "twice"),
        (change("/projects/0/name", json!("../x")), 400, "project"),
        (
            change("/projects/0/members/0/user", json!("nobody")),
            400,
            "no user of the archive",
        ),
        (change("/projects/0/robots", robot), 400, "SHA-256"),
        (change("/projects/0/webhooks", hook), 400, "address"),
        (
            change(
                "/projects/0/labels",
                json!([{"name": "a,b", "color": "#000000"}]),
            ),
            400,
            "label",
        ),
        (change("/projects/0/quota", json!(-1)), 400, "no archive"),
        (json!([]), 400, "no archive"),
    ] {
        let (found, answer) = two.client.api(Method::POST, "/archive", archive).await;
        let message = answer["message"].as_str().unwrap_or_default();
        assert_eq!(found, status, "{why}: {answer}");
        assert!(message.contains(why), "{why}: {message}");
    }
    let after = export(&two.client, "").await;
    assert_eq!(after["users"], before["users"]);
    assert_eq!(after["projects"], before["projects"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_writes_an_archive_for_nobody_else_and_takes_it_in() {
    use std::os::unix::fs::PermissionsExt;
    let one = Running::start().await;
    let two = empty().await;
    let file = one.folder.path().join("archive.json");
    let at = file.to_str().unwrap();
    registry(one.folder.path(), &["archive", "export", at]).unwrap();
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Nothing is overwritten.
    let again = registry(one.folder.path(), &["archive", "export", at]).unwrap_err();
    assert!(again.contains("archive.json"), "{again}");
    let made = registry(two.folder.path(), &["archive", "import", at]).unwrap();
    assert_eq!(made["users"], 5);
    let users = registry(two.folder.path(), &["user", "ls"]).unwrap();
    assert_eq!(users.as_array().unwrap().len(), 6);
}
