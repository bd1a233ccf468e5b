//! An administrator's vSphere client beside the endpoint: what a person does to a container's VM by hand.

use crate::vch::Vch;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use vim::ManagedObjectReference;
use vim::types::{
    DeviceKind, OptionValue, VirtualDevice, VirtualDeviceConfigSpec, VirtualMachineConfigSpec,
};
use wire::config::GuestConfig;

async fn client(vch: &Vch) -> Result<vim::Client> {
    let status = vch.status()?;
    let serves = status["parts"]
        .as_array()
        .and_then(|parts| parts.iter().find(|part| part["name"] == "hostsim"))
        .and_then(|part| part["serves"].as_str())
        .context("what hostsim serves")?;
    let (url, thumbprint) = serves
        .split_once(" thumbprint=")
        .context("its thumbprint")?;
    let text = std::fs::read(vch.state().join("hostsim/credentials.json"))?;
    let credentials: serde_json::Value = serde_json::from_slice(&text)?;
    let field = |name: &str| {
        credentials[name]
            .as_str()
            .map(str::to_owned)
            .context("credentials")
    };
    let trust = vim::Trust::thumbprint(thumbprint)?;
    let config = vim::ClientConfig::new(url, field("user")?, field("password")?, trust);
    Ok(vim::Client::connect(config).await?)
}

async fn vm(client: &vim::Client, container: &str) -> Result<ManagedObjectReference> {
    let root = client.content().root_folder.clone();
    for vm in client.list(&root, "VirtualMachine", &["name"]).await? {
        let name: String = vm.get("name")?.unwrap_or_default();
        if name.ends_with(&container[..12]) {
            return Ok(vm.obj);
        }
    }
    anyhow::bail!("no VM of container {container}")
}

/// Destroys the VM of a container.
///
/// # Errors
/// When there is none, or vSphere refuses.
#[tokio::main(flavor = "current_thread")]
pub async fn destroy(vch: &Vch, container: &str) -> Result<()> {
    let client = client(vch).await?;
    client.destroy_vm(&vm(&client, container).await?).await?;
    Ok(())
}

/// Takes the VM of a container out of the inventory; its files stay.
///
/// # Errors
/// As [`destroy`].
#[tokio::main(flavor = "current_thread")]
pub async fn unregister(vch: &Vch, container: &str) -> Result<()> {
    let client = client(vch).await?;
    client.unregister_vm(&vm(&client, container).await?).await?;
    Ok(())
}

/// Powers on the VM of a container.
///
/// # Errors
/// As [`destroy`].
#[tokio::main(flavor = "current_thread")]
pub async fn power_on(vch: &Vch, container: &str) -> Result<()> {
    let client = client(vch).await?;
    client.power_on(&vm(&client, container).await?).await?;
    Ok(())
}

/// Resets the VM of a container.
///
/// # Errors
/// As [`destroy`].
#[tokio::main(flavor = "current_thread")]
pub async fn reset(vch: &Vch, container: &str) -> Result<()> {
    let client = client(vch).await?;
    client.reset(&vm(&client, container).await?).await?;
    Ok(())
}

/// Detaches the disks of a container's VM and marks it, in one step: what a removal does first.
///
/// # Errors
/// As [`destroy`].
#[tokio::main(flavor = "current_thread")]
pub async fn mark_removed(vch: &Vch, container: &str) -> Result<()> {
    let client = client(vch).await?;
    let vm = vm(&client, container).await?;
    let path = "config.hardware.device";
    let devices: Vec<VirtualDevice> = client.properties(&vm, &[path]).await?.items(path)?;
    let disks = devices
        .into_iter()
        .filter(|d| matches!(d.kind, DeviceKind::Disk(_)));
    let spec = VirtualMachineConfigSpec {
        device_change: disks.map(VirtualDeviceConfigSpec::remove).collect(),
        extra_config: vec![OptionValue::text("mooring.removing", "true")],
        ..VirtualMachineConfigSpec::default()
    };
    Ok(client.reconfigure_vm(&vm, spec).await?)
}

/// Sets VM keys of a container; an empty value removes one. `change` is given those that there are.
///
/// # Errors
/// When there is no such VM, or vSphere or `change` refuses.
#[tokio::main(flavor = "current_thread")]
pub async fn set_keys(
    vch: &Vch,
    container: &str,
    change: impl FnOnce(&BTreeMap<String, String>) -> Result<BTreeMap<String, String>>,
) -> Result<()> {
    let client = client(vch).await?;
    let vm = vm(&client, container).await?;
    let keys = client
        .properties(&vm, &["config.extraConfig"])
        .await?
        .items::<OptionValue>("config.extraConfig")?
        .into_iter()
        .map(|o| (o.key.clone(), o.as_text().to_owned()))
        .collect();
    let spec = VirtualMachineConfigSpec {
        extra_config: change(&keys)?
            .iter()
            .map(|(key, value)| OptionValue::text(key, value))
            .collect(),
        ..VirtualMachineConfigSpec::default()
    };
    client.reconfigure_vm(&vm, spec).await?;
    Ok(())
}

/// Changes the guest's copy of its configuration for its next boot.
///
/// # Errors
/// As [`set_keys`], or where there is none.
pub fn set_guest(vch: &Vch, container: &str, change: impl FnOnce(&mut GuestConfig)) -> Result<()> {
    set_keys(vch, container, |keys| {
        let mut guest = wire::config::from_chunks::<wire::config::ConfigError>(|key| {
            Ok(keys.get(key).cloned())
        })?;
        change(&mut guest);
        Ok(wire::config::to_chunks(&guest)?.into_iter().collect())
    })
}
