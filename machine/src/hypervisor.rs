//! What `vch` itself asks of the hypervisor, through the vSphere API.

use crate::Error;
use crate::boot::BootFiles;
use crate::parts::{BOOT_FOLDER, DATASTORE, Hypervisor};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::time::Duration;
use vim::types::{OptionValue, PowerState};
use vim::{Client, ClientConfig, DatastorePath, ManagedObjectReference, Trust};

/// The datacenter of an ESXi host without vCenter.
const DATACENTER: &str = "ha-datacenter";

fn failed(action: impl Into<String>) -> impl FnOnce(vim::Error) -> Error {
    let action = action.into();
    move |e| Error::Hypervisor {
        action,
        reason: e.to_string(),
    }
}

async fn connect(state: &Path, at: &Hypervisor) -> Result<Client, Error> {
    let path = state.join("hostsim/credentials.json");
    let text = std::fs::read(&path).map_err(Error::file("read", &path))?;
    let json: serde_json::Value = serde_json::from_slice(&text).map_err(|e| Error::State {
        path: path.clone(),
        reason: e.to_string(),
    })?;
    let field = |name: &str| {
        json[name]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| Error::State {
                path: path.clone(),
                reason: format!("no {name} in it"),
            })
    };
    let trust = Trust::thumbprint(&at.thumbprint).map_err(failed("read the host's thumbprint"))?;
    let config = ClientConfig::new(&at.url, field("user")?, field("password")?, trust);
    Client::connect(config)
        .await
        .map_err(failed(format!("log in to {}", at.url)))
}

/// Puts the boot files on the datastore, under names that change with their content, so that VMs that boot from
/// others keep theirs. Gives the names of kernel, initramfs and ISO in the boot folder.
///
/// # Errors
/// What the hypervisor refused.
pub async fn upload(
    state: &Path,
    at: &Hypervisor,
    files: &BootFiles,
) -> Result<[String; 3], Error> {
    let client = connect(state, at).await?;
    let result = upload_all(&client, files).await;
    // The session ends with its connection anyway.
    let _ = client.logout().await;
    result
}

async fn upload_all(client: &Client, files: &BootFiles) -> Result<[String; 3], Error> {
    let datacenter = client
        .find_by_path(DATACENTER)
        .await
        .map_err(failed("find the datacenter"))?;
    let folder = DatastorePath::new(DATASTORE, BOOT_FOLDER);
    // With its parents: then one that exists is no fault.
    client
        .make_directory(datacenter.as_ref(), &folder, true)
        .await
        .map_err(failed(format!("make the folder {folder}")))?;
    let mut names = Vec::new();
    for path in files.all() {
        let bytes = std::fs::read(path).map_err(Error::file("read", path))?;
        let hash = hex::encode(&Sha256::digest(&bytes)[..6]);
        let name = format!(
            "{hash}-{}",
            path.file_name().unwrap_or_default().to_string_lossy()
        );
        let target = folder.join(&name);
        let there = client
            .file_head(DATACENTER, &target)
            .await
            .is_ok_and(|s| s.size == bytes.len() as u64);
        if !there {
            eprintln!("uploading {name} ({} MiB) …", bytes.len() >> 20);
            client
                .file_put(DATACENTER, &target, bytes)
                .await
                .map_err(failed(format!("upload {target}")))?;
        }
        names.push(name);
    }
    let mut names = names.into_iter();
    let mut next = || names.next().unwrap_or_default();
    Ok([next(), next(), next()])
}

/// Asks the VMs of a VCH to shut down, and powers off those that have not within `patience`.
///
/// # Errors
/// What the hypervisor refused.
pub async fn shut_down(
    state: &Path,
    at: &Hypervisor,
    vch: &str,
    patience: Duration,
) -> Result<(), Error> {
    let client = connect(state, at).await?;
    let running = running(&client, vch).await?;
    if running.is_empty() {
        let _ = client.logout().await;
        return Ok(());
    }
    eprintln!(
        "ending {} container VM{} …",
        running.len(),
        if running.len() == 1 { "" } else { "s" }
    );
    if !patience.is_zero() {
        for vm in &running {
            // One that has just ended by itself is no failure.
            let _ = client.shutdown_guest(vm).await;
        }
        let all_off = async {
            for vm in &running {
                // One that is gone meanwhile (`--rm`) takes no time from the others.
                let _ = wait_off(&client, vm).await;
            }
        };
        // Those that are too slow are powered off below.
        let _ = tokio::time::timeout(patience, all_off).await;
    }
    let mut all = Ok(());
    for vm in &running {
        if power_state(&client, vm).await == Some(PowerState::PoweredOn)
            && let Err(e) = client.power_off(vm).await
            && power_state(&client, vm).await == Some(PowerState::PoweredOn)
        {
            all = all.and(Err(failed(format!("power off {}", vm.id))(e)));
        }
    }
    let _ = client.logout().await;
    all
}

async fn power_state(client: &Client, vm: &ManagedObjectReference) -> Option<PowerState> {
    client
        .property(vm, "runtime.powerState")
        .await
        .ok()
        .flatten()
}

async fn wait_off(client: &Client, vm: &ManagedObjectReference) -> Result<(), Error> {
    let spec = vim::types::PropertyFilterSpec::object(vm, &["runtime.powerState"]);
    let mut watch = client
        .watch(spec)
        .await
        .map_err(failed("watch a VM's power state"))?;
    while power_state(client, vm).await == Some(PowerState::PoweredOn) {
        watch
            .next()
            .await
            .map_err(failed("wait for a VM to power off"))?;
    }
    Ok(())
}

async fn running(client: &Client, vch: &str) -> Result<Vec<ManagedObjectReference>, Error> {
    let root = client.content().root_folder.clone();
    let objects = client
        .list(
            &root,
            "VirtualMachine",
            &["runtime.powerState", "config.extraConfig"],
        )
        .await
        .map_err(failed("list the VMs"))?;
    let unreadable = |e: vim::DecodeError| Error::Hypervisor {
        action: "read a VM's properties".into(),
        reason: e.to_string(),
    };
    let mut out = Vec::new();
    for object in objects {
        let on = object
            .get::<PowerState>("runtime.powerState")
            .map_err(unreadable)?
            == Some(PowerState::PoweredOn);
        let keys: Vec<OptionValue> = object.items("config.extraConfig").map_err(unreadable)?;
        let ours = keys
            .iter()
            .any(|k| k.key == "mooring.vch" && k.value.get::<String>().is_ok_and(|v| v == vch));
        if on && ours {
            out.push(object.obj);
        }
    }
    Ok(out)
}
