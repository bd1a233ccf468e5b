//! pyVmomi as a client that nobody here wrote.

use super::*;
use std::path::PathBuf;
use tokio::process::Command;

/// A Python with pyVmomi, in a folder of the build; `None` where it cannot be had, with the reason printed.
async fn python() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pyvmomi-9.1.1.0");
    let python = folder.join("bin/python");
    let has = |python: PathBuf| async move {
        let import = Command::new(python)
            .args(["-c", "import pyVmomi"])
            .output()
            .await;
        import.is_ok_and(|o| o.status.success())
    };
    if has(python.clone()).await {
        return Some(python);
    }
    let venv = Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&folder)
        .output()
        .await;
    if !venv.as_ref().is_ok_and(|o| o.status.success()) {
        println!("skipped: no Python with venv here: {venv:?}");
        return None;
    }
    let install = Command::new(&python)
        .args(["-m", "pip", "install", "-q", "pyvmomi==9.1.1.0"])
        .output()
        .await
        .unwrap();
    if !install.status.success() || !has(python.clone()).await {
        println!(
            "skipped: pyVmomi cannot be installed: {}",
            String::from_utf8_lossy(&install.stderr)
        );
        return None;
    }
    Some(python)
}

#[tokio::test]
async fn pyvmomi_finds_what_it_expects_of_a_host() {
    let Some(python) = python().await else { return };
    let rig = Rig::new().await;
    let address = rig.serving.address;
    let output = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pyvmomi/check.py"))
        .args([address.ip().to_string(), address.port().to_string()])
        .arg(rig.serving.host.settings.state.join("credentials.json"))
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(std::time::Duration::from_secs(180), output)
        .await
        .unwrap()
        .unwrap();
    let words = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && words.contains("pyVmomi is content"),
        "{words}"
    );
}
