//! `endpoint serve`: puts the parts together and takes them down.

use crate::{
    api::{
        self,
        listen::{ListenError, Listener, TlsFiles},
    },
    app::App,
    cli::{LinkChoice, Serve},
    containers::{Containers, Setup, changes::KeptChanges},
    events::Events,
    images::Images,
    link::{
        LinkSetup,
        concentrator::{Concentrator, ConcentratorError},
        vsock::{self, VsockError},
    },
    networks::{
        NetworkSetup, Networks, choose::DEFAULT_POOLS, dns::forward::resolv_conf, router::Router,
    },
    timestamps,
    volumes::{Volumes, stores},
    vsphere::{Boot, Capabilities, Vsphere, VsphereError},
};
use ipnet::IpNet;
use serde::Deserialize;
use std::{
    collections::BTreeMap, io, net::Ipv4Addr, os::unix::fs::DirBuilderExt, path::PathBuf,
    sync::Arc, time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;

/// How long the ends of boots that nobody saw may keep the endpoint from serving, or from ending.
const SETTLING: Duration = Duration::from_secs(30);

/// hostsim's name server on its user-mode network.
const USER_MODE_SERVER: Ipv4Addr = Ipv4Addr::new(172, 17, 255, 253);
/// Where the system's name servers stand.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Why the endpoint cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A setting is wrong.
    #[error("{0}")]
    Setting(String),
    /// A file or folder.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The images' records.
    #[error("the images cannot be read: {0}")]
    Images(String),
    /// The volumes.
    #[error("the volumes cannot be read: {0}")]
    Volumes(String),
    /// What was changed of containers.
    #[error("what was changed of containers cannot be read: {0}")]
    Changes(String),
    /// The networks.
    #[error("the networks cannot be set up: {0}")]
    Networks(String),
    /// vSphere.
    #[error(transparent)]
    Vsphere(#[from] VsphereError),
    /// The links' listeners.
    #[error(transparent)]
    Vsock(#[from] VsockError),
    /// The concentrator.
    #[error(transparent)]
    Concentrator(#[from] ConcentratorError),
    /// The API's listeners.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Serves until SIGTERM or SIGINT; after SIGUSR1 (the host goes down) no restart policy starts a VM
/// any more. Prints `ready: DOCKER_HOST=…` once it does.
///
/// # Errors
/// Where a part cannot be had; VMs are left as they are.
pub async fn run(settings: Serve) -> Result<(), ServeError> {
    check(&settings)?;
    // reqwest takes the process's provider; one that is set already is the same.
    let _set_already = rustls::crypto::ring::default_provider().install_default();
    // Both, so that neither is missed while the rest is set up.
    let system = |what| move |source| ServeError::System { what, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("cannot catch SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("cannot catch SIGINT"))?;
    let mut again = signal(SignalKind::hangup()).map_err(system("cannot catch SIGHUP"))?;
    let mut hold = signal(SignalKind::user_defined1()).map_err(system("cannot catch SIGUSR1"))?;
    let serving = serve(settings);
    tokio::pin!(serving);
    let stop = tokio::select! {
        stop = &mut serving => stop?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            // The way out of the networks was made anew: it knows nothing of published ports.
            _ = again.recv() => if let Err(error) = stop.app.containers.networks().reconcile().await {
                tracing::warn!(%error, "the networks could not be set up again");
            },
            _ = hold.recv() => stop.app.containers.hold_restarts(),
        }
    }
    stop.end().await;
    Ok(())
}

/// A serving endpoint.
struct Running {
    stop: CancellationToken,
    listeners: Vec<tokio::task::JoinHandle<()>>,
    app: Arc<App>,
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        for listener in self.listeners {
            let _ended_anyway = listener.await;
        }
        if !self.app.containers.settled(SETTLING).await {
            tracing::warn!("some containers' ends are not recorded yet; the next start does it");
        }
        let _session_ends_anyway = self.app.vsphere.client().logout().await;
    }
}

async fn serve(settings: Serve) -> Result<Running, ServeError> {
    let file = |path: &PathBuf| {
        let path = path.clone();
        move |source| ServeError::File { path, source }
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&settings.run_dir)
        .map_err(file(&settings.run_dir))?;
    let (user, password) = credentials(&settings.credentials)?;
    let vsphere = Arc::new(Vsphere::connect(&settings, &user, &password).await?);
    let events = Events::new();
    let (link, listening) = links(&settings, vsphere.capabilities()).await?;
    let setup = setup(&settings, vsphere.capabilities(), link)?;
    let networks = networks(&settings, &vsphere, events.clone()).await?;
    let stores = stores::by_name(&settings.volume_store).map_err(ServeError::Setting)?;
    let volumes = Volumes::open(
        vsphere.clone(),
        &settings.vch_id,
        settings.volume_capacity,
        &stores,
        events.clone(),
    )
    .await
    .map_err(|error| ServeError::Volumes(error.message))?;
    let changes = KeptChanges::open(vsphere.clone(), &settings.vch_id)
        .await
        .map(Arc::new)
        .map_err(|error| ServeError::Changes(error.message))?;
    let containers = Arc::new(Containers::new(
        vsphere.clone(),
        events.clone(),
        setup,
        networks.clone(),
        volumes,
        changes.clone(),
    ));
    let (first, read) = oneshot::channel();
    tokio::spawn(containers.clone().follow(first));
    read.await
        .map_err(|_| ServeError::Setting("the watch of the VMs ended at once".to_owned()))??;
    if let Some(listener) = listening.vsock {
        tokio::spawn(listener.serve(containers.clone()));
    }
    if let Some(concentrator) = listening.serial {
        tokio::spawn(concentrator.serve(containers.clone()));
    }
    tokio::spawn(containers.clone().sweep());
    // Or a client that asks at once is told of a container that runs in a VM that is off.
    if !containers.settled(SETTLING).await {
        tracing::warn!("some containers' ends are not known yet: their journals are slow to read");
    }
    networks.serve_names(containers.clone());
    networks
        .reconcile()
        .await
        .map_err(|error| ServeError::Networks(error.message))?;
    networks.sweep(|id| containers.by_id(id).is_some()).await;
    changes.sweep(|id| containers.by_id(id).is_some()).await;
    let spool = settings.run_dir.join("spool");
    let images = Images::open(
        vsphere.clone(),
        &settings.vch_id,
        &spool,
        settings.registries.clone(),
        events.clone(),
    )
    .await
    .map_err(|error| ServeError::Images(error.message))?;
    let app = Arc::new(App {
        vsphere,
        events,
        images: Arc::new(images),
        containers,
        started: timestamps::now(),
        settings,
    });
    let tls = match (
        &app.settings.tls_cert,
        &app.settings.tls_key,
        &app.settings.tls_ca,
    ) {
        (Some(cert), Some(key), Some(ca)) => Some(TlsFiles { cert, key, ca }),
        _ => None,
    };
    let router = api::router(app.clone());
    let stop = CancellationToken::new();
    let mut bound = Vec::new();
    for address in &app.settings.docker {
        bound.push(Listener::bind(address, tls).await?);
    }
    let hosts: Vec<String> = bound.iter().map(Listener::docker_host).collect();
    let listeners = bound
        .into_iter()
        .map(|listener| tokio::spawn(listener.serve(router.clone(), stop.clone())))
        .collect();
    tokio::spawn(app.containers.clone().autostart());
    if let Some(host) = hosts.first() {
        println!("ready: DOCKER_HOST={host}");
    }
    Ok(Running {
        stop,
        listeners,
        app,
    })
}

fn check(settings: &Serve) -> Result<(), ServeError> {
    let id = &settings.vch_id;
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if id.is_empty() || id.len() > 64 || !id.bytes().all(good) {
        return Err(ServeError::Setting(format!(
            "--vch-id {id:?}: it must have 1 to 64 letters, digits, '-' or '_'"
        )));
    }
    settings
        .container_networks
        .read()
        .map_err(ServeError::Setting)?;
    if !settings.memory.is_multiple_of(4) || settings.memory < 64 {
        return Err(ServeError::Setting(format!(
            "--memory {}: it must be a multiple of 4 and at least 64",
            settings.memory
        )));
    }
    if settings.cpus == 0 {
        return Err(ServeError::Setting(
            "--cpus 0: a VM has at least one".to_owned(),
        ));
    }
    Ok(())
}

fn credentials(path: &PathBuf) -> Result<(String, String), ServeError> {
    #[derive(Deserialize)]
    struct Account {
        user: String,
        password: String,
    }
    let text = std::fs::read_to_string(path).map_err(|source| ServeError::File {
        path: path.clone(),
        source,
    })?;
    if let Ok(account) = serde_json::from_str::<Account>(&text) {
        return Ok((account.user, account.password));
    }
    let mut lines = text.lines();
    match (lines.next(), lines.next()) {
        (Some(user), Some(password)) if !user.is_empty() => {
            Ok((user.to_owned(), password.to_owned()))
        }
        _ => Err(ServeError::Setting(format!(
            "--credentials {}: expected JSON {{\"user\": …, \"password\": …}} or two lines",
            path.display()
        ))),
    }
}

fn setup(settings: &Serve, can: &Capabilities, link: LinkSetup) -> Result<Setup, ServeError> {
    let mut boot_keys: BTreeMap<String, String> = settings.vm_key.iter().cloned().collect();
    let direct = match (&settings.boot_kernel, &settings.boot_initrd) {
        (Some(kernel), Some(initrd)) if can.boot_kernel => Some((kernel, initrd)),
        (Some(_), _) if settings.boot_iso.is_none() => {
            return Err(ServeError::Setting(
                "--boot-kernel: this host boots no kernel directly (it does not announce mooring.boot.kernel); give --boot-iso".to_owned(),
            ));
        }
        _ => None,
    };
    let boot = match (direct, &settings.boot_iso) {
        (Some((kernel, initrd)), _) => {
            boot_keys.insert("hostsim.boot.kernel".to_owned(), kernel.clone());
            boot_keys.insert("hostsim.boot.initrd".to_owned(), initrd.clone());
            boot_keys.insert(
                "hostsim.boot.cmdline".to_owned(),
                settings.boot_cmdline.clone(),
            );
            Boot::Kernel
        }
        (None, Some(iso)) => Boot::Iso(iso.clone()),
        (None, None) => return Err(ServeError::Setting("--boot-iso is missing".to_owned())),
    };
    Ok(Setup {
        vch: settings.vch_id.clone(),
        boot,
        boot_keys,
        link,
        memory_mib: settings.memory,
        cpus: settings.cpus,
        dns: match (&settings.trunk, settings.dns.is_empty()) {
            (Some(_), _) => None,
            (None, true) => Some(vec![USER_MODE_SERVER.to_string()]),
            (None, false) => Some(settings.dns.iter().map(ToString::to_string).collect()),
        },
    })
}

/// The networks, with the endpoint as their gateway where it has a trunk.
async fn networks(
    settings: &Serve,
    vsphere: &Arc<Vsphere>,
    events: Events,
) -> Result<Arc<Networks>, ServeError> {
    let router = match (&settings.trunk, &settings.public) {
        (Some(trunk), Some(public)) => {
            let uplink = settings.publish_api.as_deref();
            let opened = Router::open(&settings.router, trunk, public, uplink).await;
            Some(opened.map_err(|e| ServeError::Networks(e.to_string()))?)
        }
        _ => None,
    };
    let vlans = match router {
        Some(_) => vsphere.port_groups().await?,
        None => BTreeMap::new(),
    };
    let servers = if settings.dns.is_empty() {
        let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_else(|error| {
            tracing::warn!(%error, "{RESOLV_CONF}: containers resolve each other's names only");
            String::new()
        });
        resolv_conf(&text)
    } else {
        settings.dns.clone()
    };
    let defaults = || DEFAULT_POOLS.iter().filter_map(|pool| pool.parse().ok());
    let mut own = match &router {
        Some(router) => router
            .own_subnets()
            .await
            .map_err(|e| ServeError::Networks(e.to_string()))?,
        None => Vec::new(),
    };
    if router.is_some() && settings.publish_api.is_none() {
        // It goes the same ways as what it routes: a network must not take those to what it needs itself.
        own.extend(servers.iter().copied().map(IpNet::from));
        own.extend(addresses_of(&settings.vsphere).await);
    }
    let setup = NetworkSetup {
        bridge: settings.port_group.clone(),
        pool: settings.network_pool.clone(),
        external: settings
            .container_networks
            .read()
            .map_err(ServeError::Setting)?,
        vlans,
        address_pools: match settings.address_pool.as_slice() {
            [] => defaults().collect(),
            pools => pools.to_vec(),
        },
        user_mode_server: router.is_none().then_some(USER_MODE_SERVER.into()),
        router,
        own,
        servers,
    };
    let networks = Networks::open(vsphere.clone(), &settings.vch_id, setup, events);
    let networks = networks.await;
    Ok(Arc::new(
        networks.map_err(|e| ServeError::Networks(e.message))?,
    ))
}

/// The addresses of a URL's host.
async fn addresses_of(url: &str) -> Vec<IpNet> {
    let Ok(url) = url.parse::<http::Uri>() else {
        return Vec::new();
    };
    let host = url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match tokio::net::lookup_host((host, 443)).await {
        Ok(found) => found.map(|at| at.ip().into()).collect(),
        Err(error) => {
            tracing::warn!(host, %error, "its address is not kept out of networks' subnets");
            Vec::new()
        }
    }
}

/// Where tethers dial: the link that new boots use, and the one that VMs may still use that were
/// started under another setting.
#[derive(Default)]
struct Listening {
    vsock: Option<vsock::Listener>,
    serial: Option<Concentrator>,
}

async fn links(settings: &Serve, can: &Capabilities) -> Result<(LinkSetup, Listening), ServeError> {
    if settings.link == LinkChoice::Vsock && can.vsock.is_none() {
        return Err(ServeError::Setting(
            "--link vsock: this host does not announce mooring.link.vsock; use --link serial"
                .to_owned(),
        ));
    }
    let mut listening = Listening::default();
    let port = vsock::port_of(&settings.vch_id);
    if let Some(announced) = &can.vsock {
        listening.vsock = Some(vsock::Listener::bind(announced, port).await?);
    }
    let serial = settings.link == LinkChoice::Serial || can.vsock.is_none();
    if serial || Concentrator::was_used(&settings.run_dir) {
        let bound = Concentrator::bind(settings.vspc_listen, &settings.run_dir, &settings.vch_id);
        listening.serial = Some(bound.await?);
    }
    let link = match &listening.serial {
        Some(concentrator) if serial => LinkSetup::Serial {
            proxy: concentrator
                .proxy_uri(settings.vspc_advertise.as_deref())
                .map_err(|source| ServeError::System {
                    what: "the concentrator has no address",
                    source,
                })?,
        },
        _ => LinkSetup::Vsock { port },
    };
    Ok((link, listening))
}
