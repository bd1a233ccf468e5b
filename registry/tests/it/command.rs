//! The command line, with a process that serves the folder and without.

use crate::crash::Process;
use crate::harness::*;
use serde_json::Value;
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
        &["gc"],
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
