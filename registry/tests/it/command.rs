//! The command line, with a process that serves the folder and without.

use crate::crash::Process;
use crate::harness::*;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Runs it; what it printed, or its message.
pub fn registry(folder: &Path, args: &[&str]) -> Result<Value, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_registry"))
        .args(args)
        .arg("--json")
        .arg("--data")
        .arg(folder)
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout).unwrap());
    }
    let error: Value = serde_json::from_slice(&output.stderr)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    Err(error["message"].as_str().unwrap().to_owned())
}

fn life(folder: &Path) {
    let made = registry(folder, &["user", "add", "jo"]).unwrap();
    assert!(made["password"].as_str().unwrap().len() >= 20);
    let again = registry(folder, &["user", "add", "jo"]).unwrap_err();
    assert!(again.contains("already"), "{again}");
    registry(folder, &["project", "add", "team", "--administrator", "jo"]).unwrap();
    registry(
        folder,
        &["project", "join", "team", "developer", "--role", "viewer"],
    )
    .unwrap();
    let members = registry(folder, &["project", "members", "team"]).unwrap();
    assert_eq!(members[0]["role"], "viewer");
    assert_eq!(members[1]["user"], "jo");
    registry(folder, &["project", "leave", "team", "developer"]).unwrap();
    registry(folder, &["project", "set", "team", "--public", "true"]).unwrap();
    assert_eq!(
        registry(folder, &["project", "show", "team"]).unwrap()["public"],
        true
    );
    let robot = registry(
        folder,
        &["robot", "add", "team", "ci", "--actions", "pull,push"],
    )
    .unwrap();
    assert_eq!(robot["login"], "team+ci");
    let renewed = registry(folder, &["robot", "renew", "team", "ci", "--days", "2"]).unwrap();
    assert_ne!(renewed["secret"], robot["secret"]);
    registry(
        folder,
        &["robot", "set", "team", "ci", "--disabled", "true"],
    )
    .unwrap();
    assert_eq!(
        registry(folder, &["robot", "ls", "team"]).unwrap()[0]["disabled"],
        true
    );
    registry(folder, &["robot", "rm", "team", "ci"]).unwrap();
    registry(folder, &["key", "rotate", "--revoke"]).unwrap();
    registry(
        folder,
        &["user", "set", "jo", "--administrator", "true", "--unlock"],
    )
    .unwrap();
    let shown = registry(folder, &["user", "show", "jo"]).unwrap();
    assert_eq!(shown["administrator"], true);
    assert_eq!(shown["memberships"][0]["project"], "team");
    registry(folder, &["user", "password", "jo"]).unwrap();
    registry(folder, &["project", "rm", "team"]).unwrap();
    registry(folder, &["user", "rm", "jo"]).unwrap();
    let gone = registry(folder, &["user", "show", "jo"]).unwrap_err();
    assert!(gone.contains("no user jo"), "{gone}");
    assert_eq!(
        registry(folder, &["user", "ls"])
            .unwrap()
            .as_array()
            .unwrap()
            .len(),
        5
    );
    registry(folder, &["gc", "--dry-run"]).unwrap();
}

#[test]
fn the_command_line_does_all_of_it_whether_the_registry_serves_or_not() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), &settings());
    life(folder.path());
    let _process = Process::start(folder.path());
    life(folder.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_sets_quotas_rules_labels_and_webhooks() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), &settings());
    let process = Process::start(folder.path());
    let digest = process.client.push_image("private/a", "v1", &[b"1"]).await;
    let digest = digest.as_str();
    let run = |args: &str| {
        let args: Vec<&str> = args.split(' ').collect();
        registry(folder.path(), &args)
    };
    run("quota set private 100000").unwrap();
    let shown = run("quota show private").unwrap();
    assert_eq!(shown["quota"], 100_000);
    assert!(shown["used"].as_u64().unwrap() > 3);
    run("quota unset private").unwrap();
    assert!(run("quota show private").unwrap().get("quota").is_none());
    let rule = run("immutable add private --tags v*").unwrap();
    assert_eq!(
        (&rule["repositories"], &rule["tags"]),
        (&json!("*"), &json!("v*"))
    );
    let tag = "/v2/private/a/manifests/v1";
    let kept = process.client.delete(tag).await;
    refused(kept, 403, "DENIED").await;
    let id = run("immutable ls private").unwrap()[0]["id"].to_string();
    run(&format!("immutable rm private {id}")).unwrap();
    let none = run(&format!("immutable rm private {id}")).unwrap_err();
    assert!(none.contains("no rule"), "{none}");

    run("label set private good --color #00ff00").unwrap();
    assert_eq!(run("label ls private").unwrap()[0]["color"], "#00ff00");
    run(&format!("label give private good a {digest}")).unwrap();
    run(&format!("label take private good a {digest}")).unwrap();
    let again = run(&format!("label take private bad a {digest}")).unwrap_err();
    assert!(again.contains("no such label"), "{again}");
    run("label rm private good").unwrap();

    run("retention add private --keep-latest 0").unwrap();
    let gone = run("retention run private --dry-run").unwrap();
    assert_eq!(gone[0]["tag"], "v1");
    assert_eq!(process.client.head(tag).await.status().as_u16(), 200);
    assert_eq!(
        run("retention run private")
            .unwrap()
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(process.client.head(tag).await.status().as_u16(), 404);
    let id = run("retention ls private").unwrap()[0]["id"].to_string();
    run(&format!("retention rm private {id}")).unwrap();

    let made = run("webhook add private http://127.0.0.1:1/x").unwrap();
    assert!(made["secret"].as_str().unwrap().starts_with("hook_"));
    assert_eq!(
        run("webhook ls private").unwrap()[0]["url"],
        "http://127.0.0.1:1/x"
    );
    run(&format!("webhook rm private {}", made["id"])).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_exported_and_imported_with_its_indexes_and_referrers() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    init(first.path(), &settings());
    init(second.path(), &settings());
    let work = tempfile::tempdir().unwrap();
    let layout = work.path().join("layout");
    let layout = layout.to_str().unwrap();
    let name = "private/team/app";
    let large = bytes(3, 3 << 20);
    let references = {
        let process = Process::start(first.path());
        let client = &process.client;
        let one = client.push_image(name, "v1", &[b"1", &large]).await;
        let two = client.push_image(name, "v2", &[b"2"]).await;
        let size = client.get(&format!("/v2/{name}/manifests/v1")).await;
        let size = size.bytes().await.unwrap().len();
        let both = index(&[(one.clone(), size), (two.clone(), 1)]);
        let answer = client.put_manifest(name, "all", OCI_INDEX, both).await;
        assert_eq!(answer.status().as_u16(), 201);
        let subject =
            json!({"subject": {"mediaType": OCI_MANIFEST, "digest": one.as_str(), "size": size}});
        let signature = image(&sha256(b"{}"), &[], &subject);
        let answer = client
            .put_manifest(
                name,
                sha256(&signature).as_str(),
                OCI_MANIFEST,
                signature.clone(),
            )
            .await;
        assert_eq!(answer.status().as_u16(), 201);
        let moved = registry(first.path(), &["export", name, layout]).unwrap();
        let wanted = json!({"tags": 3, "manifests": 4, "blobs": 4, "bytes": 2 + 1 + (3 << 20) + 1});
        assert_eq!(moved, wanted);
        let full = registry(first.path(), &["export", name, layout]).unwrap_err();
        assert!(full.contains("not empty"), "{full}");
        ["v1", "v2", "all", sha256(&signature).as_str()].map(str::to_owned)
    };
    // In its own process: nobody serves that one.
    let into = "default-project/copy";
    let moved = registry(second.path(), &["import", into, layout]).unwrap();
    assert_eq!(
        (&moved["tags"], &moved["manifests"]),
        (&json!(3), &json!(4))
    );
    let (from, to) = (Process::start(first.path()), Process::start(second.path()));
    for reference in &references {
        let path = |name: &str| format!("/v2/{name}/manifests/{reference}");
        let was = from.client.get(&path(name)).await;
        let is = to.client.get(&path(into)).await;
        assert_eq!(header(&was, "content-type"), header(&is, "content-type"));
        assert_eq!(
            was.bytes().await.unwrap(),
            is.bytes().await.unwrap(),
            "{reference}"
        );
    }
    let blob = to
        .client
        .get(&format!("/v2/{into}/blobs/{}", sha256(&large)))
        .await;
    assert!(blob.bytes().await.unwrap() == large);
    let v1 = to.client.head(&format!("/v2/{into}/manifests/v1")).await;
    let list = format!(
        "/v2/{into}/referrers/{}",
        header(&v1, "docker-content-digest")
    );
    let list: Value = to.client.get(&list).await.json().await.unwrap();
    assert_eq!(list["manifests"][0]["digest"], references[3].as_str());
    // What others make of it.
    crate::clients::reads_layout(&format!("{layout}:v1"));
    // A layout that is damaged, or leads elsewhere, is not taken.
    let place = |bytes: &[u8]| format!("{layout}/blobs/sha256/{}", sha256(bytes).hex());
    std::fs::write(place(b"2"), b"3").unwrap();
    let bad = registry(second.path(), &["import", "private/new", layout]).unwrap_err();
    assert!(bad.contains("digest"), "{bad}");
    let outside = json!({"manifests": [{"digest": "sha256:../../../etc/passwd", "size": 1}]});
    std::fs::write(format!("{layout}/index.json"), outside.to_string()).unwrap();
    let bad = registry(second.path(), &["import", "private/new", layout]).unwrap_err();
    assert!(bad.contains("digest"), "{bad}");
}

#[test]
fn init_makes_the_example_users_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let made = registry(
        folder.path(),
        &["init", "--examples", "--listen", "127.0.0.1:0"],
    )
    .unwrap();
    assert_eq!(made["examples"].as_array().unwrap().len(), 3);
    let members = registry(folder.path(), &["project", "members", "default-project"]).unwrap();
    assert_eq!(members[0]["user"], "developer");
    assert_eq!(members[1]["role"], "devops-admin");
    let users = registry(folder.path(), &["user", "ls"]).unwrap();
    assert_eq!(users.as_array().unwrap().len(), 4);
    // What is there stays.
    assert!(
        registry(folder.path(), &["init"])
            .unwrap_err()
            .contains("already")
    );
}

#[test]
fn whoever_reads_no_further_is_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), &settings());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = Command::new(env!("CARGO_BIN_EXE_registry"))
        .args(["user", "ls", "--data"])
        .arg(folder.path())
        .stdout(writer)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn every_command_has_help() {
    for command in [
        &[][..],
        &["init"],
        &["serve"],
        &["user"],
        &["user", "add"],
        &["project", "join"],
        &["robot", "add"],
        &["key", "rotate"],
        &["quota", "set"],
        &["immutable", "add"],
        &["retention", "run"],
        &["label", "give"],
        &["webhook", "add"],
        &["gc"],
        &["export"],
        &["import"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_registry"))
            .args(command)
            .arg("--help")
            .output()
            .unwrap();
        assert!(output.status.success(), "{command:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("Usage:"));
    }
}

#[test]
fn a_registry_of_one_machine_is_made_once_and_tells_how_it_is_used() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let made = registry(&data, &["init", "--local", "--listen", "127.0.0.1:0"]).unwrap();
    let password = made["password"].as_str().unwrap();
    let file = data.join("init.json");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = registry(&data, &["init", "--local"]).unwrap();
    assert_eq!(again["done"], true);
    let guide = registry(&data, &["guide", "--address", "localhost:5443"]).unwrap();
    assert_eq!(guide["password"], password);
    assert_eq!(guide["log_in"], "docker login -u admin localhost:5443");
    assert!(guide["trust"].as_str().unwrap().contains("ca.crt"));
    let trusted = registry(&data, &["guide", "--trusted"]).unwrap();
    assert!(trusted["trust"].is_null());
    // Who has the password deletes the file, as they are told.
    std::fs::remove_file(file).unwrap();
    let guide = registry(&data, &["guide"]).unwrap();
    assert!(guide["password"].is_null());
    // One that was cut off is gone on with.
    std::fs::remove_file(data.join("registry.toml")).unwrap();
    let made = registry(&data, &["init", "--local"]).unwrap();
    assert_ne!(made["password"], password);
    let process = Process::start_at(&data, "127.0.0.1:0");
    assert!(process.base.starts_with("https://127.0.0.1:"));
}
