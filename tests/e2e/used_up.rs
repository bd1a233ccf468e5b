//! What there is no more of: addresses, networks, room on the datastore. Each is refused with Docker's exit code and
//! words that say what to do, and leaves nothing behind.

use crate::hosts::{BUSYBOX, Hosts, alone, equal, holds, load};
use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use std::sync::Arc;
use tests::docker::Docker;
use tests::vch::{Settings, Vch};

pub fn tests(_hosts: &Arc<Hosts>) -> Vec<Trial> {
    vec![
        alone("used_up::addresses_and_networks", networks),
        alone("used_up::the_datastore", datastore),
    ]
}

/// The command fails with this code, and says both.
fn refused(docker: &Docker, args: &[&str], code: i32, why: &str, what_to_do: &str) -> Result<()> {
    let out = docker.run(args)?.exits(code)?;
    holds(&out.errors(), why)?;
    holds(&out.errors(), what_to_do)
}

fn networks() -> Result<()> {
    let mut settings = Settings::link("auto");
    settings.more = vec!["--networks".into(), "1".into()];
    let vch = Vch::start(settings)?;
    let docker = &vch.docker;
    load(docker, "busybox")?;
    docker.ok(&["network", "create", "--subnet", "10.99.0.0/30", "small"])?;
    refused(
        docker,
        &["network", "create", "more"],
        1,
        "port groups of this host's pool are in use",
        "docker network prune",
    )?;
    // Four addresses: the network's, the gateway's, one to give, the broadcast's.
    let on = ["create", "--network", "small"];
    let first = docker.ok(&[&on[..], &["--name", "first", BUSYBOX, "true"]].concat())?;
    let second = [&on[..], &["--name", "second", BUSYBOX, "true"]].concat();
    refused(
        docker,
        &second,
        1,
        "is used up",
        "create a network with a larger subnet",
    )?;
    equal(
        "containers",
        docker.ok(&["ps", "--all", "--quiet", "--no-trunc"])?,
        first,
    )?;
    // With the first one's address the second can be.
    docker.ok(&["rm", "first"])?;
    docker.ok(&second)?;
    Ok(())
}

fn datastore() -> Result<()> {
    let mut settings = Settings::link("auto");
    // Room for the boot files and busybox, and not for Debian. ESXi does not answer an upload for which there is no room
    // (hostsim's tests have the answer that it gives otherwise).
    settings.more = vec![
        "--hostsim-arg".into(),
        format!("--datastore-size={}", 90 << 20),
        "--hostsim-arg=--cut-off-uploads".into(),
    ];
    let vch = Vch::start(settings)?;
    let docker = &vch.docker;
    load(docker, "busybox")?;
    let before = files(&vch)?;
    let archive = tests::places::archive("debian");
    let load = ["load", "-i", &archive.display().to_string()];
    let out = docker.run(&load)?;
    ensure!(
        out.code != 0,
        "Debian was loaded into 90 MiB: {}",
        out.text()
    );
    holds(&out.errors(), "no space left on the datastore")?;
    holds(&out.errors(), "free space on the datastore and try again")?;
    equal("files on the datastore", files(&vch)?, before)?;
    equal(
        "images",
        docker.ok(&["images", "--format", "{{.Repository}}"])?,
        BUSYBOX.to_owned(),
    )?;
    // What is there works all the same.
    equal(
        "a run",
        docker.ok(&["run", "--rm", BUSYBOX, "echo", "well"])?,
        "well".into(),
    )
}

fn files(vch: &Vch) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![vch.vch_folder()?];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    Ok(found)
}
