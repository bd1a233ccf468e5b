//! Where a virtual container host is in vSphere's inventory. What a vCenter has several of is named by its administrator,
//! never guessed: VMs in a stranger's pool, or with a datastore that their hosts do not see, would be the outcome.

use super::{Result, VmRef, VsphereError, call};
use crate::cli::Serve;
use std::collections::BTreeMap;
use vim::{Client, types::ObjectContent};

/// Folders above a datacenter, at most: a guard against a loop.
const DEPTH_MAX: usize = 64;

/// The places, all of one datacenter.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) datacenter: VmRef,
    /// Its inventory path, which is what file transfers name it by.
    pub(super) datacenter_path: String,
    pub(super) vm_folder: VmRef,
    pub(super) pool: VmRef,
    pub(super) datastore: String,
    pub(super) browser: VmRef,
    /// Port groups by name.
    pub(super) networks: BTreeMap<String, VmRef>,
}

impl Places {
    /// Finds them.
    ///
    /// # Errors
    /// Where one is not there, there are several and none is named, or vSphere refuses.
    pub(super) async fn find(client: &Client, settings: &Serve) -> Result<Self> {
        let (datacenter, datacenter_path) = datacenter(client, settings).await?;
        let found = properties(client, &datacenter, &["vmFolder"]).await?;
        let vm_folder = need(&found, "vmFolder")?;
        let pool = pool(client, settings, &datacenter, &datacenter_path).await?;
        let (datastore, browser) = datastore(client, settings, &datacenter).await?;
        let networks = networks(client, settings, &datacenter).await?;
        Ok(Self {
            datacenter,
            datacenter_path,
            vm_folder,
            pool,
            datastore,
            browser,
            networks,
        })
    }
}

fn missing(text: String) -> VsphereError {
    VsphereError::Missing(text)
}

async fn list(
    client: &Client,
    below: &VmRef,
    kind: &'static str,
    paths: &[&str],
) -> Result<Vec<ObjectContent>> {
    let found = client.list(below, kind, paths).await;
    found.map_err(call(format!("cannot list objects of type {kind}")))
}

async fn properties(client: &Client, object: &VmRef, paths: &[&str]) -> Result<ObjectContent> {
    let found = client.properties(object, paths).await;
    found.map_err(call(format!("cannot read {object}")))
}

fn value<T: vim::value::Value>(content: &ObjectContent, path: &str) -> Result<Option<T>> {
    let found = content.get(path);
    found.map_err(|error| missing(format!("{}: {error}", content.obj)))
}

fn need<T: vim::value::Value>(content: &ObjectContent, path: &str) -> Result<T> {
    value(content, path)?.ok_or_else(|| missing(format!("{} has no {path}", content.obj)))
}

async fn at_path(client: &Client, path: &str, kinds: &[&str], option: &str) -> Result<VmRef> {
    let found = client.find_by_path(path).await;
    let found = found.map_err(call(format!("cannot look for {path}")))?;
    found
        .filter(|object| kinds.contains(&&*object.kind))
        .ok_or_else(|| missing(format!("{option}: there is no {} at {path}", kinds[0])))
}

async fn datacenter(client: &Client, settings: &Serve) -> Result<(VmRef, String)> {
    if let Some(path) = &settings.datacenter {
        let path = path.trim_matches('/');
        let found = at_path(client, path, &["Datacenter"], "--datacenter").await?;
        return Ok((found, path.to_owned()));
    }
    let root = &client.content().root_folder;
    let mut all = Vec::new();
    for found in list(client, root, "Datacenter", &["name"]).await? {
        all.push((path_of(client, &found.obj).await?, found.obj));
    }
    match <[_; 1]>::try_from(all) {
        Ok([(path, one)]) => Ok((one, path)),
        Err(none) if none.is_empty() => {
            Err(missing(format!("{} has no datacenter", settings.vsphere)))
        }
        Err(several) => {
            let paths: Vec<_> = several.into_iter().map(|(path, _)| path).collect();
            let paths = paths.join(", ");
            Err(missing(format!(
                "{} has several datacenters ({paths}): name one by --datacenter",
                settings.vsphere
            )))
        }
    }
}

/// The inventory path of an object, from below the root folder.
async fn path_of(client: &Client, object: &VmRef) -> Result<String> {
    let root = &client.content().root_folder;
    let (mut at, mut names) = (object.clone(), Vec::new());
    while at != *root && names.len() < DEPTH_MAX {
        let found = properties(client, &at, &["name", "parent"]).await?;
        names.push(need::<String>(&found, "name")?);
        match value(&found, "parent")? {
            Some(parent) => at = parent,
            None => break,
        }
    }
    names.reverse();
    Ok(names.join("/"))
}

async fn pool(
    client: &Client,
    settings: &Serve,
    datacenter: &VmRef,
    datacenter_path: &str,
) -> Result<VmRef> {
    if let Some(path) = &settings.resource_pool {
        let path = format!("{datacenter_path}/host/{}", path.trim_matches('/'));
        let kinds = ["ResourcePool", "VirtualApp"];
        return at_path(client, &path, &kinds, "--resource-pool").await;
    }
    let mut roots = Vec::new();
    for found in list(client, datacenter, "ResourcePool", &["parent"]).await? {
        // Each host and each cluster has one; what is below another pool, or a vApp, is somebody's.
        let parent: Option<VmRef> = value(&found, "parent")?;
        let below = parent.is_some_and(|p| p.kind == "ResourcePool" || p.kind == "VirtualApp");
        if found.obj.kind == "ResourcePool" && !below {
            roots.push(found.obj);
        }
    }
    match <[_; 1]>::try_from(roots) {
        Ok([one]) => Ok(one),
        Err(none) if none.is_empty() => {
            Err(missing(format!("{datacenter_path} has no resource pool")))
        }
        Err(several) => Err(missing(format!(
            "{datacenter_path} has {} hosts and clusters: name the one for the containers, or a resource pool in it, by --resource-pool (CLUSTER/Resources, CLUSTER/Resources/POOL)",
            several.len()
        ))),
    }
}

async fn datastore(
    client: &Client,
    settings: &Serve,
    datacenter: &VmRef,
) -> Result<(String, VmRef)> {
    for found in list(client, datacenter, "Datastore", &["name", "browser"]).await? {
        let name: String = value(&found, "name")?.unwrap_or_default();
        if settings.datastore.as_ref().is_none_or(|want| *want == name) {
            return Ok((name, need(&found, "browser")?));
        }
    }
    let wanted = settings.datastore.as_deref().unwrap_or("");
    Err(missing(format!(
        "{} has no datastore {wanted}",
        settings.vsphere
    )))
}

async fn networks(
    client: &Client,
    settings: &Serve,
    datacenter: &VmRef,
) -> Result<BTreeMap<String, VmRef>> {
    let mut networks = BTreeMap::new();
    for found in list(client, datacenter, "Network", &["name"]).await? {
        let name: Option<String> = value(&found, "name")?;
        networks.insert(name.unwrap_or_default(), found.obj);
    }
    let own = std::iter::once(&settings.port_group).chain(&settings.network_pool);
    let offered = settings.container_networks.port_groups();
    for name in own.map(String::as_str).chain(offered) {
        match networks.get(name).map(|network| &*network.kind) {
            Some("Network") => {}
            // A vNIC on a distributed switch has a backing of another kind, by the switch's UUID.
            Some(kind) => {
                return Err(missing(format!(
                    "port group {name} is of a distributed switch ({kind}), which the endpoint cannot attach containers to yet: name one of a standard switch"
                )));
            }
            None => {
                return Err(missing(format!(
                    "{} has no port group {name}",
                    settings.vsphere
                )));
            }
        }
    }
    Ok(networks)
}
