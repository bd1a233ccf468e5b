//! A host of an ordinary user: networks as root has them, in a user namespace.

use crate::hosts::{BUSYBOX, Hosts, alone, equal, holds, load};
use crate::networks::{comes, does_not_come, get, host_port, net, server};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::path::Path;
use std::sync::Arc;
use tests::command::{self, DEADLINE, eventually};
use tests::vch::{Settings, Vch};
use tests::{ordinary, places};

pub fn tests(_: &Arc<Hosts>) -> Vec<Trial> {
    vec![
        alone("rootless::networks_are_as_with_root", whole),
        alone("rootless::what_forbids_user_namespaces_is_named", forbidden),
    ]
}

fn vch() -> std::path::PathBuf {
    places::programs().join("vch")
}

/// Whether an ordinary user can be had who may run the programs; where not, why is printed.
fn can_be_tried() -> Result<bool> {
    let mut own = ordinary::command(&vch());
    own.arg("--version");
    let out = command::run(own, b"", DEADLINE)?;
    if out.code != 0 {
        println!("skipped: an ordinary user cannot run vch: {}", out.errors());
    }
    Ok(out.code == 0)
}

fn whole() -> Result<()> {
    if !can_be_tried()? {
        return Ok(());
    }
    let mut settings = Settings::link("auto");
    settings.ordinary = true;
    let host = Vch::start(settings)?;
    let status = host.status()?;
    let why = status["network_why"].as_str().unwrap_or_default();
    if status["network"] == "user" {
        // Said in the state that it is in: the user-mode network, with the reason.
        holds(why, "user-mode")?;
        println!("skipped: {why}");
        return Ok(());
    }
    equal("network", &status["network"], &"rootless".into())?;
    holds(why, "without root")?;

    let docker = &host.docker;
    load(docker, "busybox")?;
    let _net = net(docker, "e2e-own", &[])?;
    let published = ["--network", "e2e-own", "-p", "80"];
    let _web = server(docker, "e2e-own-web", "own", &published)?;
    let [_asker, _stranger] =
        [("e2e-own-asker", "e2e-own"), ("e2e-stranger", "bridge")].map(|(name, network)| {
            let gone = docker.container(name);
            let args = ["run", "-d", "--name", name, "--network", network];
            docker
                .ok(&[&args[..], &[BUSYBOX, "sleep", "6000"]].concat())
                .map(|_| gone)
        });
    let (_asker, _stranger) = (_asker?, _stranger?);
    comes(docker, "e2e-own-asker", "http://e2e-own-web/", "own")?;
    let address = docker.inspect(
        "e2e-own-web",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
    )?;
    does_not_come(docker, "e2e-stranger", &format!("http://{address}/"))?;
    let at = host_port(docker, "e2e-own-web", "80")?;
    equal("from outside", get(&at)?, "own".into())?;
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        // The container has no IPv6; the port at the machine's leads to it all the same.
        let port = at.rsplit(':').next().unwrap_or_default();
        let shown = docker.ok(&["port", "e2e-own-web", "80"])?;
        holds(&shown, &format!("[::]:{port}"))?;
        equal("over IPv6", get(&format!("[::1]:{port}"))?, "own".into())?;
    }

    // What holds the namespaces is gone: they are made anew, and containers are in them from their next start on.
    host.kill("namespaces")?;
    let said = host.up()?;
    holds(&said.errors(), "made anew")?;
    docker.ok(&["restart", "-t", "0", "e2e-own-web"])?;
    let at = host_port(docker, "e2e-own-web", "80")?;
    eventually("the port is open again", || {
        Ok(get(&at).is_ok_and(|word| word == "own"))
    })?;

    let state = host.state();
    host.down()?;
    let left = processes_of(&state)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    for name in ["user", "router", "switch"] {
        let link = state.join("namespaces").join(name);
        ensure!(link.symlink_metadata().is_err(), "{}", link.display());
    }
    Ok(())
}

/// The command lines that hold a path below this one.
fn processes_of(state: &Path) -> Result<Vec<String>> {
    let mark = state.display().to_string();
    let lines = std::fs::read_dir("/proc")?.flatten().filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    Ok(lines.filter(|line| line.contains(&mark)).collect())
}

/// In a user namespace in which there must be no further ones.
fn forbidden() -> Result<()> {
    if !can_be_tried()? {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )?;
    let mut c = ordinary::command(Path::new("unshare"));
    c.args(["--user", "--map-user=1", "--keep-caps", "--", "sh", "-c"])
        .arg("echo 0 > /proc/sys/user/max_user_namespaces || exit 77; exec \"$@\"")
        .arg("sh")
        .arg(vch())
        .args(["up", "--detach", "--network", "bridge", "--state"])
        .arg(folder.path().join("state"))
        .arg("--boot")
        .arg(places::boot());
    let out = command::run(c, b"", DEADLINE)?;
    if out.errors().contains("unshare failed") || out.code == 77 {
        println!(
            "skipped: no user namespace to forbid them in: {}",
            out.errors()
        );
        return Ok(());
    }
    ensure!(out.code != 0, "{}", out.errors());
    holds(&out.errors(), "user.max_user_namespaces is 0")?;
    holds(&out.errors(), "--network user")
}
