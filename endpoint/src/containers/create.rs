//! `docker create`: checks, name, address, and one call to vSphere.

use super::{
    Container, Containers, Setup,
    config::Config,
    keys::{self, KeyError, Keys},
    names,
    options::{self, HOST_GATEWAY, Options},
    signals,
    spec::{SPEC_VERSION, Spec, SpecDisk},
    state::{Phase, Prepared, Record, Status},
};
use crate::{
    errors::{Error, Result},
    images::ImageRecord,
    link::{LinkSetup, service_uri},
    networks::{
        attachment::{self, Attachment, Wanted},
        external,
        guest::{self, GuestNetwork},
    },
    timestamps,
    volumes::{mounts::Requested, shares},
    vsphere::{LinkPort, NewVm, Nic},
};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::Arc};
use wire::{
    config::{CONFIG_VERSION, GuestConfig, Restart, to_chunks},
    restart::RestartPolicy,
};

/// A request that has passed every check that needs no image.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    /// The client's configuration.
    pub config: Config,
    /// The client's `HostConfig`, as it was.
    pub host: Map<String, Value>,
    /// What it means.
    pub options: Options,
    /// Its networks, by name or ID.
    pub networks: BTreeMap<String, Wanted>,
    /// Its volumes.
    pub mounts: Requested,
    /// The name that was asked for.
    pub name: Option<String>,
}

impl CreateRequest {
    /// Checks a body of `containers/create`.
    ///
    /// # Errors
    /// 400 for wrong values, 501 for unsupported options.
    pub fn read(body: &Value, name: Option<&str>) -> Result<Self> {
        let body = body
            .as_object()
            .ok_or_else(|| Error::bad("invalid JSON: expected an object"))?;
        let parts = ["HostConfig", "NetworkingConfig"];
        if body.keys().all(|field| parts.contains(&field.as_str())) {
            return Err(Error::bad(
                "Config cannot be empty in order to create a container",
            ));
        }
        options::check_config(body)?;
        let empty = Map::new();
        let object = |field: &str| match body.get(field) {
            None | Some(Value::Null) => Ok(&empty),
            Some(Value::Object(map)) => Ok(map),
            Some(_) => Err(Error::bad(format!("invalid {field}: expected an object"))),
        };
        let host = object("HostConfig")?;
        let config = Config::read(body)?;
        let options = options::check_host(host)?;
        let mounts = Requested::read(host)?;
        let mode = match host.get("NetworkMode") {
            _ if config.network_disabled => "none",
            None | Some(Value::Null) => "",
            Some(Value::String(mode)) => mode,
            Some(_) => return Err(Error::bad("invalid NetworkMode: expected a text")),
        };
        let networking = body.get("NetworkingConfig").unwrap_or(&Value::Null);
        let mut networks = attachment::read_networking(mode, networking, &config.mac_address)?;
        if let Some(links) = host.get("Links").filter(|links| !links.is_null()) {
            attachment::add_links(&mut networks, links)?;
        }
        if config.image.is_empty() && config.args().is_empty() {
            return Err(Error::bad("No command specified"));
        }
        if config.image.is_empty() {
            return Err(Error::bad(
                "no image specified: Image must be the name or ID of an image",
            ));
        }
        if let Some(signal) = config.stop_signal.as_deref().filter(|s| !s.is_empty()) {
            signals::parse(signal)?;
        }
        if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
            return Err(Error::bad(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                config.working_dir
            )));
        }
        for entry in &config.env {
            if entry.is_empty() || entry.starts_with('=') || entry.contains('\0') {
                return Err(Error::bad(format!("invalid environment variable: {entry}")));
            }
        }
        if config.hostname.len() > 63 || config.hostname.contains(['/', '\0', ' ']) {
            return Err(Error::bad(format!(
                "invalid hostname format: {}",
                config.hostname
            )));
        }
        if options.auto_remove && options.restart != RestartPolicy::No {
            return Err(Error::bad(
                "can't create 'AutoRemove' container with restart policy",
            ));
        }
        let name = name
            .filter(|n| !n.is_empty())
            .map(names::check)
            .transpose()?;
        Ok(Self {
            config,
            host: host.clone(),
            options,
            networks,
            mounts,
            name: name.map(str::to_owned),
        })
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Created {
    /// The new container.
    pub container: Arc<Container>,
    /// What the client should know.
    pub warnings: Vec<String>,
}

/// 32 random bytes, hex.
pub(crate) fn random_hex() -> Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::internal(format!("the system gives no random bytes: {e}")))?;
    Ok(hex::encode(bytes))
}

/// That a line of /etc/hosts has no address to name.
fn gateway_warning(options: &Options, networks: &[Attachment]) -> Option<String> {
    let mut hosts = options.extra_hosts.iter();
    let asked = hosts.any(|(address, _)| address == HOST_GATEWAY);
    (asked && guest::own_gateways(networks).is_empty()).then(|| {
        format!(
            "{HOST_GATEWAY} is left out of /etc/hosts: the endpoint is the gateway of none of the container's networks"
        )
    })
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::TooLarge(_) => Error::bad(error.to_string()),
            _ => Error::internal(error.to_string()),
        }
    }
}

impl Setup {
    /// Keys that one boot needs, and what the endpoint remembers of it; `change` has the last word on what the guest is
    /// told.
    pub(super) fn prepare(
        &self,
        spec: &Spec,
        boot: u64,
        network: GuestNetwork,
        restart: Restart,
        change: impl FnOnce(&mut GuestConfig),
    ) -> Result<(Keys, Prepared)> {
        let prepared = Prepared {
            boot,
            secret: random_hex()?,
            at: self.link.place(),
            version: CONFIG_VERSION,
        };
        let mut guest = spec.guest_config(
            boot,
            self.link.transport(),
            prepared.secret.clone(),
            random_hex()?,
            network,
            restart,
        );
        change(&mut guest);
        let mut out: Keys = to_chunks(&guest)
            .map_err(|e| Error::bad(e.to_string()))?
            .into_iter()
            .collect();
        let text = serde_json::to_string(&prepared).map_err(|e| Error::internal(e.to_string()))?;
        out.insert(keys::PREPARED.to_owned(), text);
        // An old session's key is of no use to a new boot.
        out.insert(keys::RESUME.to_owned(), String::new());
        Ok((out, prepared))
    }

    /// What a guest is told of its networks, beside the lines of /etc/hosts for what it is linked to.
    pub(super) fn guest_network(
        &self,
        spec: &Spec,
        networks: &[Attachment],
        hosts: Vec<(String, Vec<String>)>,
    ) -> GuestNetwork {
        GuestNetwork {
            interfaces: guest::interfaces(networks),
            dns: self.name_servers(spec, networks),
            hosts,
            gateways: guest::own_gateways(networks),
            // What cannot be read is refused where ports are published.
            guards: external::guards(networks, &super::places::requests(spec).unwrap_or_default()),
        }
    }

    fn name_servers(&self, spec: &Spec, networks: &[Attachment]) -> Vec<String> {
        let given = &spec.options.dns;
        match &self.dns {
            Some(_) if networks.is_empty() || !given.is_empty() => given.clone(),
            Some(servers) => servers.clone(),
            None => guest::name_servers(networks, given),
        }
    }

    /// The link's serial port of a container, where the link is one; `before` is its last boot.
    pub(super) fn link_port(&self, id: &str, before: Option<&Prepared>) -> Option<LinkPort> {
        match &self.link {
            LinkSetup::Vsock { .. } => None,
            LinkSetup::Serial { proxy } => Some(LinkPort {
                service: service_uri(&self.vch, id),
                proxy: proxy.clone(),
                exists: before.is_some_and(|before| before.at.starts_with("telnet")),
            }),
        }
    }
}

impl Containers {
    /// Creates a container from an image.
    ///
    /// # Errors
    /// 400 and 409 in Docker's words, 500 with vSphere's.
    pub async fn create(
        self: &Arc<Self>,
        request: CreateRequest,
        image: &ImageRecord,
    ) -> Result<Created> {
        let CreateRequest {
            mut config,
            host,
            options,
            networks,
            mounts,
            name,
        } = request;
        let empty = Map::new();
        let base = image.config["config"].as_object().unwrap_or(&empty);
        config.merge(&Config::read(base)?)?;
        let mut warnings = options.log.warnings();
        let id = names::random_id()
            .map_err(|e| Error::internal(format!("the system gives no random bytes: {e}")))?;
        if config.hostname.is_empty() {
            config.hostname = id[..names::SHORT_ID].to_owned();
        }
        let name = self.choose_name(name, &id)?;
        let attachments = match self.attach_all(networks) {
            Ok(attachments) => attachments,
            Err(error) => {
                self.release_name(&name, &id);
                return Err(error);
            }
        };
        let fits = external::check_capabilities(&options.cap_add, &attachments)
            .and_then(|()| attachment::check_macs(&attachments));
        if let Err(error) = fits {
            self.release_name(&name, &id);
            self.networks.detach(&attachments);
            return Err(error);
        }
        let (mounts, shares) = match self.mounts(&id, mounts, &config).await {
            Ok(both) => both,
            Err(error) => {
                self.release_name(&name, &id);
                self.networks.detach(&attachments);
                return Err(error);
            }
        };
        let mut spec = self.spec(
            id.clone(),
            config,
            host,
            options,
            image,
            attachments.clone(),
        );
        warnings.extend(gateway_warning(&spec.options, &spec.networks));
        spec.mounts.clone_from(&mounts);
        spec.shares = shares;
        let made = self.make(spec, name.clone(), image.chain.capacity).await;
        match made {
            Ok(container) => {
                self.emit(&container, "create", &[]);
                Ok(Created {
                    container,
                    warnings,
                })
            }
            Err(error) => {
                // Before the name is free: the watch takes up what nobody is about to add.
                self.index().given_up.insert(id.clone());
                self.release_name(&name, &id);
                self.networks.detach(&attachments);
                let error = self.volumes.explain(error, &mounts).await;
                self.give_up(&id).await;
                Err(error)
            }
        }
    }

    /// Places on all of these networks, or on none.
    fn attach_all(&self, networks: BTreeMap<String, Wanted>) -> Result<Vec<Attachment>> {
        let mut made: Vec<Attachment> = Vec::new();
        for (name, wanted) in networks {
            let place = self
                .networks
                .find(&name)
                // A 404 would have the client pull the image.
                .map_err(|error| Error::bad(error.message))
                .and_then(
                    |network| match made.iter().find(|place| place.is_on(&network)) {
                        // By its name and by its ID.
                        Some(place) => Err(Error::bad(format!(
                            "network {} is named twice, the second time as {name}",
                            place.name
                        ))),
                        None => self.networks.attach(&network, wanted),
                    },
                );
            match place {
                Ok(place) => made.push(place),
                Err(error) => {
                    self.networks.detach(&made);
                    return Err(error);
                }
            }
        }
        // The one with the default route is eth0.
        let first = guest::way_out(&made, false).map(|way| way.network.clone());
        made.sort_by_key(|place| Some(&place.network) != first.as_ref());
        for (number, place) in (0..).zip(&mut made) {
            place.interface = number;
        }
        Ok(made)
    }

    fn choose_name(&self, name: Option<String>, id: &str) -> Result<String> {
        if let Some(name) = name {
            self.reserve_name(&name, id)?;
            return Ok(name);
        }
        for attempt in 0.. {
            let mut random = [0u8; 4];
            getrandom::fill(&mut random)
                .map_err(|e| Error::internal(format!("the system gives no random bytes: {e}")))?;
            let name = names::invent(random, attempt);
            if self.reserve_name(&name, id).is_ok() {
                return Ok(name);
            }
        }
        Err(Error::internal("no name was free"))
    }

    fn spec(
        &self,
        id: String,
        config: Config,
        host: Map<String, Value>,
        options: Options,
        image: &ImageRecord,
        networks: Vec<Attachment>,
    ) -> Spec {
        Spec {
            version: SPEC_VERSION,
            created: timestamps::now(),
            image: image.id.clone(),
            architecture: image.config["architecture"]
                .as_str()
                .unwrap_or("")
                .to_owned(),
            disk: SpecDisk {
                seal: image.chain.seal.clone(),
                guid: image.chain.guid.clone(),
                layers: image.chain.layers.clone(),
                ephemeral: image.chain.ephemeral,
                journal: image.chain.journal,
            },
            memory_mib: options
                .memory_mib
                .unwrap_or(self.setup.memory_mib.max(options.reserved_mib)),
            cpus: options.cpus.unwrap_or(self.setup.cpus),
            id,
            config,
            host,
            options,
            networks,
            mounts: Vec::new(),
            shares: Vec::new(),
        }
    }

    async fn make(&self, spec: Spec, name: String, capacity: u64) -> Result<Arc<Container>> {
        let mut vm_keys = self.setup.boot_keys.clone();
        vm_keys.insert(keys::VCH.to_owned(), self.setup.vch.clone());
        vm_keys.insert(keys::ID.to_owned(), spec.id.clone());
        vm_keys.insert("serial1.hardwareFlowControl".to_owned(), "TRUE".to_owned());
        // The console's file is there from the second boot on. Without an answer vSphere asks what to do with it, and the
        // power-on waits for somebody to say.
        vm_keys.insert(
            "answer.msg.serial.file.open".to_owned(),
            "Replace".to_owned(),
        );
        vm_keys.extend(shares::vm_keys(&spec.shares));
        keys::put_spec(&mut vm_keys, &spec)?;
        let restart = Restart {
            policy: spec.options.restart,
            count: 0,
        };
        // The first boot is prepared here, so that the first start is one call less.
        let network = self.setup.guest_network(&spec, &spec.networks, Vec::new());
        let (boot_keys, prepared) = self.setup.prepare(&spec, 1, network, restart, |_| {})?;
        vm_keys.extend(boot_keys.into_iter().filter(|(_, value)| !value.is_empty()));
        let vm = self
            .vsphere
            .create(&NewVm {
                name: names::vm_name(&name, &spec.id),
                id: spec.id.clone(),
                memory_mib: spec.memory_mib,
                cpus: spec.cpus,
                seal: spec.disk.seal.clone(),
                capacity,
                nics: spec.networks.iter().map(Nic::from).collect(),
                volumes: super::volumes::disks(self, &spec.mounts),
                boot: self.setup.boot.clone(),
                link: self.setup.link_port(&spec.id, None),
                keys: vm_keys,
            })
            .await?;
        let status = Status::new(
            name,
            Phase::Created,
            Record::default(),
            Some(prepared),
            spec.networks.clone(),
        );
        Ok(self.add(Container::new(spec, vm, status)))
    }
}
