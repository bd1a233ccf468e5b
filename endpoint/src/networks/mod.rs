//! Docker's networks: each is a port group of its own, with the endpoint as gateway, name server and packet filter.
//!
//! Their records are on the datastore (docs/decisions/0010, 0015). Where the endpoint has no trunk (a host without
//! port groups for it), there is only the default network, and hostsim's user-mode network behind it.

pub mod addresses;
pub mod attachment;
pub mod choose;
pub mod dns;
pub mod external;
pub mod guest;
mod leaving;
mod macs;
pub mod publish;
pub mod record;
pub mod request;
pub mod router;

use crate::{
    errors::{Error, Kind, Result},
    events::Events,
    records::{self, Records, Unremoved},
    timestamps,
    vsphere::Vsphere,
};
use addresses::Addresses;
use attachment::{Attachment, Place, Wanted};
use choose::AddressPool;
use ipnet::IpNet;
use leaving::{Leaving, without_ghosts};
use macs::Macs;
use publish::Binding;
use record::NetworkRecord;
use request::NetworkRequest;
use router::{Router, RouterNetwork};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// vNICs of a VM, at most (vSphere's limit).
pub const NICS_MAX: usize = 10;
/// What the name of a network's record begins with; its ID follows.
const NETWORK: &str = "network-";
/// What the name of the record of a container's changed places begins with; its ID follows.
const PLACES: &str = "places-";

/// What the endpoint has for its networks.
#[derive(Debug, Default)]
pub struct NetworkSetup {
    /// The default network's port group.
    pub bridge: String,
    /// Port groups for networks that users make, the first free one first.
    pub pool: Vec<String>,
    /// Networks that the administrator offers as they are.
    pub external: Vec<NetworkRecord>,
    /// The VLAN of each port group.
    pub vlans: BTreeMap<String, u16>,
    /// Where subnets come from that nobody names.
    pub address_pools: Vec<AddressPool>,
    /// The gateway's side; `None`: there is no trunk.
    pub router: Option<Router>,
    /// hostsim's name server on its user-mode network; `None` where there is a router.
    pub user_mode_server: Option<IpAddr>,
    /// Subnets of the endpoint's own interfaces.
    pub own: Vec<IpNet>,
    /// Whom the name servers ask about names that are not containers'.
    pub servers: Vec<IpAddr>,
}

/// A network that exists.
#[derive(Debug)]
pub struct Network {
    /// As it was created.
    pub record: NetworkRecord,
    generation: u64,
    /// Its subnet was named by the client.
    named_subnet: bool,
    addresses: Mutex<Addresses>,
    /// How many [`Claim`]s there are.
    claims: AtomicUsize,
}

impl Network {
    fn new(record: NetworkRecord, generation: u64, named_subnet: bool) -> Self {
        Self {
            record,
            generation,
            named_subnet,
            addresses: Mutex::new(Addresses::default()),
            claims: AtomicUsize::new(0),
        }
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Networks that a container is about to use: as long as this lives, none of them is removed, and its port group is nobody
/// else's.
#[derive(Debug)]
#[must_use]
pub struct Claim(Vec<Arc<Network>>);

impl Drop for Claim {
    fn drop(&mut self) {
        for network in &self.0 {
            network.claims.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// A network's record as it is stored.
#[derive(serde::Serialize, serde::Deserialize)]
struct Stored {
    network: NetworkRecord,
    named_subnet: bool,
}

/// Places of a container that are not those it was created with.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Moved {
    attachments: Vec<Attachment>,
}

/// All networks.
#[derive(Debug)]
pub struct Networks {
    setup: NetworkSetup,
    router: Option<Router>,
    records: Records,
    events: Events,
    networks: Mutex<BTreeMap<String, Arc<Network>>>,
    leaving: Leaving,
    moved: Mutex<HashMap<String, (u64, Moved)>>,
    /// By container: the boot, and what it has.
    published: Mutex<BTreeMap<String, (u64, Vec<Binding>)>>,
    /// Held for each change of the networks, of the rules and of the ports outside.
    change: tokio::sync::Mutex<()>,
    dns: Mutex<Option<dns::Server>>,
    /// MAC addresses of containers.
    macs: Mutex<Macs>,
}

/// What is not supported, and why.
pub(crate) fn unsupported(option: &str, why: &str) -> Error {
    Error::new(
        Kind::NotImplemented,
        format!("{option} is not supported by Mooring: {why}"),
    )
}

/// What needs a trunk that is not there.
pub(crate) fn no_router(what: &str) -> Error {
    Error::new(
        Kind::NotImplemented,
        format!(
            "{what}: this host has only the default network, since its endpoint has no port groups of its own; the administrator gives it some (`vch up --network bridge` as root on one machine; --network-pool, --trunk and --public of the endpoint elsewhere)"
        ),
    )
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Networks {
    /// Reads the networks of a VCH.
    ///
    /// # Errors
    /// Where the datastore cannot be read, or a port group that must be there is not.
    pub async fn open(
        vsphere: Arc<Vsphere>,
        vch: &str,
        mut setup: NetworkSetup,
        events: Events,
    ) -> Result<Self> {
        let router = setup.router.take();
        let vlan = match setup.vlans.get(&setup.bridge) {
            Some(vlan) => *vlan,
            None if router.is_none() => 0,
            None => {
                return Err(Error::internal(format!(
                    "--port-group {}: this host has no such port group with a VLAN",
                    setup.bridge
                )));
            }
        };
        let folder = vim::DatastorePath::new(vsphere.datastore(), format!("mooring/{vch}"));
        let records = Records::open(vsphere, folder.join("networks")).await?;
        let mut bridge = NetworkRecord::bridge(&setup.bridge, vlan);
        for (pool, server) in bridge.pools.iter_mut().zip(&setup.user_mode_server) {
            pool.auxiliary.insert("name server".to_owned(), *server);
        }
        let mut networks = BTreeMap::new();
        networks.insert(bridge.id.clone(), Arc::new(Network::new(bridge, 0, false)));
        for record in std::mem::take(&mut setup.external) {
            if setup.bridge == record.port_group || setup.pool.contains(&record.port_group) {
                return Err(Error::internal(format!(
                    "--container-network {}: this port group is the endpoint's own (--port-group, --network-pool)",
                    record.port_group
                )));
            }
            networks.insert(record.id.clone(), Arc::new(Network::new(record, 0, true)));
        }
        let mut moved = HashMap::new();
        let mut made = Vec::new();
        // None is passed over: its port group and addresses would be given to another one, its containers among strangers.
        for (name, record) in records.load().await?.whole()? {
            if let Some(container) = name.strip_prefix(PLACES) {
                let value: Moved = records::decode(&name, &record.value)?;
                moved.insert(container.to_owned(), (record.generation, value));
            } else if name.starts_with(NETWORK) {
                let stored: Stored = records::decode(&name, &record.value)?;
                if networks
                    .values()
                    .any(|n| n.record.name == stored.network.name)
                {
                    return Err(Error::internal(format!(
                        "--container-network {0}: a client has created a network of the name {0}: give this one another name, or remove that one first",
                        stored.network.name
                    )));
                }
                made.push((record.generation, stored));
            }
        }
        let leaving = Leaving::default();
        for (generation, stored) in without_ghosts(made, &leaving, &records) {
            let (network, named) = (stored.network, stored.named_subnet);
            let id = network.id.clone();
            networks.insert(id, Arc::new(Network::new(network, generation, named)));
        }
        Ok(Self {
            setup,
            router,
            records,
            events,
            networks: Mutex::new(networks),
            leaving,
            moved: Mutex::new(moved),
            published: Mutex::new(BTreeMap::new()),
            change: tokio::sync::Mutex::new(()),
            dns: Mutex::new(None),
            macs: Mutex::default(),
        })
    }

    /// Whether networks can be made and ports published.
    pub fn has_router(&self) -> bool {
        self.router.is_some()
    }

    /// Whom the name servers ask about names that are not containers'.
    pub fn servers(&self) -> &[IpAddr] {
        &self.setup.servers
    }

    /// All networks, the default one first, then by age.
    pub fn all(&self) -> Vec<Arc<Network>> {
        let mut all: Vec<_> = locked(&self.networks).values().cloned().collect();
        all.sort_by(|a, b| {
            let key = |n: &Network| {
                (
                    !n.record.builtin(),
                    !n.record.permanent(),
                    n.record.created,
                    n.record.id.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        all
    }

    /// The network that a client means: name, full ID, or a unique prefix of the ID, in this order.
    ///
    /// # Errors
    /// 404 where there is none, 400 where the prefix is not unique.
    pub fn find(&self, text: &str) -> Result<Arc<Network>> {
        let networks = locked(&self.networks);
        if let Some(found) = networks.values().find(|n| n.record.name == text) {
            return Ok(found.clone());
        }
        if let Some(found) = networks.get(text) {
            return Ok(found.clone());
        }
        let absent = || Error::not_found(format!("network {text} not found"));
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(absent());
        }
        let mut found = networks.values().filter(|n| n.record.id.starts_with(text));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one.clone()),
            (None, _) => Err(absent()),
            _ => Err(Error::bad(format!(
                "network {text} is ambiguous ({} matches found on ID)",
                2 + found.count()
            ))),
        }
    }

    /// Keeps networks from being removed, by their IDs.
    ///
    /// # Errors
    /// 404 where one is gone.
    pub fn claim<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> Result<Claim> {
        let networks = locked(&self.networks);
        let found: Result<Vec<_>> = ids
            .into_iter()
            .map(|id| {
                let network = networks.get(id).cloned();
                network.ok_or_else(|| Error::not_found(format!("network {id} not found")))
            })
            .collect();
        let found = found?;
        for network in &found {
            network.claims.fetch_add(1, Ordering::AcqRel);
        }
        Ok(Claim(found))
    }

    /// Makes a network.
    ///
    /// # Errors
    /// 409 where the name is taken or no port group is left, 403 where a subnet overlaps.
    pub async fn create(&self, request: NetworkRequest) -> Result<Arc<Network>> {
        if self.router.is_none() {
            return Err(no_router("network create"));
        }
        self.make(request).await
    }

    async fn make(&self, request: NetworkRequest) -> Result<Arc<Network>> {
        let _change = self.change.lock().await;
        let id = crate::containers::random_hex()?;
        let record = self.plan(&request, id)?;
        let named_subnet = !request.pools.is_empty();
        let stored = Stored {
            network: record.clone(),
            named_subnet,
        };
        let name = format!("{NETWORK}{}", record.id);
        let generation = match self.records.save(&name, 0, &stored).await {
            Ok(generation) => generation,
            Err(error) => {
                // An answer that never came says nothing of whether it was written.
                self.leaving.take_back(&self.records, record, 1);
                return Err(error);
            }
        };
        let network = Arc::new(Network::new(record, generation, named_subnet));
        locked(&self.networks).insert(network.record.id.clone(), network.clone());
        if let Err(error) = self.refresh().await {
            locked(&self.networks).remove(&network.record.id);
            if let Err(error) = self.records.remove(&name, generation).await {
                tracing::warn!(%error, "the record of a network that could not be made goes later");
                let record = network.record.clone();
                self.leaving.take_back(&self.records, record, generation);
            }
            return Err(error);
        }
        self.tell(&network, "create", &[]);
        Ok(network)
    }

    fn plan(&self, request: &NetworkRequest, id: String) -> Result<NetworkRecord> {
        let networks = self.all();
        if networks.iter().any(|n| n.record.name == request.name) {
            return Err(Error::conflict(format!(
                "network with name {} already exists",
                request.name
            )));
        }
        let leaving = self.leaving.all();
        if leaving.iter().any(|record| record.name == request.name) {
            return Err(Error::conflict(format!(
                "network create {}: the record of a network that had this name is still being deleted; try again in a moment, or use another name",
                request.name
            )));
        }
        let there = networks.iter().map(|n| &n.record);
        let others: Vec<&NetworkRecord> = there.chain(&leaving).collect();
        let free = self
            .setup
            .pool
            .iter()
            .filter_map(|name| Some((name, *self.setup.vlans.get(name)?)))
            .find(|(name, _)| others.iter().all(|other| other.port_group != **name));
        let Some((port_group, vlan)) = free else {
            return Err(Error::conflict(format!(
                "network create: all {} port groups of this host's pool are in use: remove networks that nobody needs (docker network prune), or have the administrator add port groups to the pool",
                self.setup.pool.len()
            )));
        };
        let pools = choose::subnets(
            &request.pools,
            request.ipv6,
            &id,
            &self.setup.address_pools,
            &others,
            &self.setup.own,
        )?;
        Ok(NetworkRecord {
            id,
            name: request.name.clone(),
            created: timestamps::now(),
            internal: request.internal,
            attachable: request.attachable,
            ipv6: request.ipv6,
            pools,
            labels: request.labels.clone(),
            options: request.options.clone(),
            port_group: port_group.clone(),
            vlan,
            external: None,
        })
    }

    /// Removes a network that no running container is on: `active` names those that are.
    ///
    /// # Errors
    /// 403 for the default network and one in use, those of the datastore. Where it has refused, the network is as it
    /// was; where it has not answered, there is no network any more.
    pub async fn remove(&self, network: &Network, active: impl Fn() -> Vec<String>) -> Result<()> {
        let record = &network.record;
        if record.builtin() {
            return Err(Error::new(
                Kind::Forbidden,
                format!(
                    "{} is a pre-defined network and cannot be removed",
                    record.name
                ),
            ));
        }
        if record.external.is_some() {
            return Err(Error::new(
                Kind::Forbidden,
                format!(
                    "{} is a network of the administrator's (port group {}) and cannot be removed by a client",
                    record.name, record.port_group
                ),
            ));
        }
        let _change = self.change.lock().await;
        let kept = {
            let mut networks = locked(&self.networks);
            let absent = || Error::not_found(format!("network {} not found", record.name));
            let kept = networks.get(&record.id).cloned().ok_or_else(absent)?;
            // Whoever claims waits for the lock; whose claim is over already shows in what is active.
            let mut users = active();
            if users.is_empty() && kept.claims.load(Ordering::Acquire) > 0 {
                users.push("a container that is being started or connected".to_owned());
            }
            if !users.is_empty() {
                return Err(Error::new(
                    Kind::Forbidden,
                    format!(
                        "error while removing network: network {} has active endpoints ({})",
                        record.name,
                        users.join(", ")
                    ),
                ));
            }
            networks.remove(&record.id);
            kept
        };
        let name = format!("{NETWORK}{}", record.id);
        let unheard = match self.records.try_remove(&name, network.generation).await {
            Ok(()) => None,
            Err(Unremoved::Refused(error)) => {
                locked(&self.networks).insert(record.id.clone(), kept);
                return Err(error);
            }
            // Without a record the next start gives its port group to another one.
            Err(Unremoved::Unheard(mut error)) => {
                error.message += "; the removal goes on by itself once it can";
                let (record, generation) = (record.clone(), network.generation);
                self.leaving.take_back(&self.records, record, generation);
                Some(error)
            }
        };
        let refreshed = self.refresh().await;
        if unheard.is_some() || refreshed.is_ok() {
            self.tell(network, "destroy", &[]);
        }
        unheard.map_or(refreshed, Err)
    }

    /// Tells of something that happened to a network.
    pub fn tell(&self, network: &Network, action: &str, more: &[(&str, &str)]) {
        let mut attributes = BTreeMap::from([
            ("name".to_owned(), network.record.name.clone()),
            ("type".to_owned(), network.record.driver().to_owned()),
        ]);
        for (key, value) in more {
            attributes.insert((*key).to_owned(), (*value).to_owned());
        }
        self.events
            .emit("network", action, &network.record.id, attributes);
    }

    /// Gives a container a place on a network.
    ///
    /// # Errors
    /// What [`Wanted::fits`] and [`Addresses::take`] refuse.
    pub fn attach(&self, network: &Network, wanted: Wanted) -> Result<Attachment> {
        let record = &network.record;
        wanted.fits(record, network.named_subnet)?;
        let (endpoint, mac) = self.identity(wanted.mac.as_deref())?;
        let mut places = Vec::new();
        for (six, asked) in [(false, wanted.ipv4), (true, wanted.ipv6)] {
            let Some(pool) = record.pool(six) else {
                continue;
            };
            let taken = network.addresses().take(pool, asked);
            match taken {
                Ok(address) => places.push(Place::new(address, pool)),
                Err(error) => {
                    self.release(&record.id, &places);
                    locked(&self.macs).release(&mac, &endpoint);
                    return Err(error);
                }
            }
        }
        let mtu = record.options.get(request::MTU);
        Ok(Attachment {
            network: record.id.clone(),
            name: record.name.clone(),
            port_group: record.port_group.clone(),
            mac,
            endpoint,
            interface: 0,
            places,
            mtu: mtu.and_then(|text| text.parse().ok()).unwrap_or(0),
            internal: record.internal,
            external: record.external.clone(),
            wanted,
        })
    }

    /// A new connection's ID with its MAC address: the one that was asked for, or one that no container has.
    fn identity(&self, wanted: Option<&str>) -> Result<(String, String)> {
        // There are four million: even with a quarter of them taken, all attempts fail once in four billion times.
        for _ in 0..16 {
            let endpoint = crate::containers::random_hex()?;
            let mac = wanted.map_or_else(|| attachment::mac_of(&endpoint), str::to_owned);
            let mut macs = locked(&self.macs);
            if wanted.is_some() {
                macs.note(&mac, &endpoint);
            } else if !macs.take(&mac, &endpoint) {
                continue;
            }
            return Ok((endpoint, mac));
        }
        Err(Error::conflict(
            "no MAC address is left of those that vSphere lets one choose: remove containers",
        ))
    }

    /// Places as their networks are now: what an administrator has changed since counts from the next start on, and
    /// leases are got anew.
    pub fn renewed(&self, places: &[Attachment]) -> Vec<Attachment> {
        let networks = locked(&self.networks);
        let mut places = places.to_vec();
        for place in &mut places {
            let Some(record) = networks.get(&place.network).map(|n| &n.record) else {
                continue;
            };
            if record.external.is_some() {
                place.external.clone_from(&record.external);
                place.internal = record.internal;
            }
            if place.dynamic() {
                place.places.clear();
            }
        }
        places
    }

    /// Whether the administrator offers networks that are not the endpoint's.
    pub fn has_external(&self) -> bool {
        locked(&self.networks)
            .values()
            .any(|n| n.record.external.is_some())
    }

    fn release(&self, network: &str, places: &[Place]) {
        let network = locked(&self.networks).get(network).cloned();
        if let Some(network) = network {
            let mut addresses = network.addresses();
            places.iter().for_each(|p| addresses.release(p.address));
        }
    }

    /// Notes the addresses of a container that exists.
    pub fn note(&self, attachments: &[Attachment]) {
        for attachment in attachments {
            locked(&self.macs).note(&attachment.mac, &attachment.endpoint);
            let network = locked(&self.networks).get(&attachment.network).cloned();
            if let Some(network) = network {
                let mut addresses = network.addresses();
                let places = attachment.places.iter();
                places.for_each(|p| addresses.note(p.address));
            }
        }
    }

    /// Gives the addresses of a container back.
    pub fn detach(&self, attachments: &[Attachment]) {
        for attachment in attachments {
            locked(&self.macs).release(&attachment.mac, &attachment.endpoint);
            self.release(&attachment.network, &attachment.places);
        }
    }

    /// The places of a container, if they are not those that it was created with.
    pub fn moved(&self, container: &str) -> Option<Vec<Attachment>> {
        locked(&self.moved)
            .get(container)
            .map(|(_, moved)| moved.attachments.clone())
    }

    /// Keeps the places of a container that are not those it was created with.
    ///
    /// # Errors
    /// Those of the datastore; then the ones before still count.
    pub async fn keep(&self, container: &str, attachments: Vec<Attachment>) -> Result<()> {
        let before = locked(&self.moved).get(container).map_or(0, |(g, _)| *g);
        let moved = Moved { attachments };
        let name = format!("{PLACES}{container}");
        let generation = self.records.save(&name, before, &moved).await?;
        locked(&self.moved).insert(container.to_owned(), (generation, moved));
        Ok(())
    }

    /// Forgets the kept places of a container that is gone.
    pub async fn forget(&self, container: &str) {
        let Some((generation, _)) = locked(&self.moved).remove(container) else {
            return;
        };
        let name = format!("{PLACES}{container}");
        if let Err(error) = self.records.remove(&name, generation).await {
            tracing::warn!(container, %error, "the record of its networks stays until the next start");
        }
    }

    /// Forgets the kept places of containers that do not exist: what an interrupted removal left.
    pub async fn sweep(&self, exists: impl Fn(&str) -> bool) {
        let gone: Vec<String> = {
            let moved = locked(&self.moved);
            moved.keys().filter(|id| !exists(id)).cloned().collect()
        };
        for id in gone {
            self.forget(&id).await;
        }
    }

    fn published(&self) -> MutexGuard<'_, BTreeMap<String, (u64, Vec<Binding>)>> {
        locked(&self.published)
    }

    /// Puts interfaces, rules, name servers and ports into the state that they should have, whatever they were:
    /// at the endpoint's start, once the containers are read.
    ///
    /// # Errors
    /// Those of the router.
    pub async fn reconcile(&self) -> Result<()> {
        let _change = self.change.lock().await;
        self.refresh().await?;
        self.reconcile_outside()
            .await
            .map_err(|e| Error::internal(format!("published ports: {e}")))
    }

    /// Starts the name servers; who has which name, `directory` knows.
    pub fn serve_names(&self, directory: Arc<dyn dns::Directory>) {
        if let Some(router) = &self.router {
            let server = dns::Server::new(router.namespace().clone(), directory);
            *locked(&self.dns) = Some(server);
        }
    }

    /// Interfaces, rules and name servers as the networks and the published ports want them. The caller holds `change`.
    async fn refresh(&self) -> Result<()> {
        let Some(router) = &self.router else {
            return Ok(());
        };
        let mut own = self.all();
        own.retain(|network| network.record.external.is_none());
        let networks: Vec<RouterNetwork> = own.iter().map(|n| routed(&n.record)).collect();
        let ports: Vec<_> = {
            let published = self.published();
            let all = published.values().flat_map(|(_, bindings)| bindings);
            all.filter_map(Binding::published).collect()
        };
        router
            .apply(&networks, &ports)
            .await
            .map_err(|e| Error::internal(format!("the networks' gateway: {e}")))?;
        let server = locked(&self.dns).clone();
        if let Some(server) = server {
            let gateways = own
                .iter()
                .flat_map(|network| {
                    let id = &network.record.id;
                    let pools = &network.record.pools;
                    pools
                        .iter()
                        .map(|pool| (id.clone(), pool.gateway))
                        .collect::<Vec<_>>()
                })
                .collect();
            server
                .listen(gateways)
                .await
                .map_err(|e| Error::internal(format!("the networks' name server: {e}")))?;
        }
        Ok(())
    }
}

fn routed(record: &NetworkRecord) -> RouterNetwork {
    let masquerade = record.options.get(request::MASQUERADE);
    RouterNetwork {
        vlan: record.vlan,
        gateways: record
            .pools
            .iter()
            .map(|pool| (pool.gateway, pool.subnet.prefix_len()))
            .collect(),
        subnets: record.pools.iter().map(|pool| pool.subnet).collect(),
        internal: record.internal,
        masquerade: masquerade
            .and_then(|text| request::boolean(text))
            .unwrap_or(true),
    }
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
