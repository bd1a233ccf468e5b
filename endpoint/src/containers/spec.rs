//! The immutable truth of a container, kept in its VM's keys.

use super::{
    config::Config,
    options::{HOST_GATEWAY, Options},
};
use crate::{
    networks::{attachment::Attachment, guest::GuestNetwork, router::Protocol},
    timestamps,
    volumes::{
        mounts::MountPoint,
        shares::{self, SharedMount},
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::net::IpAddr;
use wire::config::{CONFIG_VERSION, Disk, GuestConfig, LinkConfig, Process, Restart, Transport};

/// The version of [`Spec`] that this build writes.
pub const SPEC_VERSION: u32 = 2;
/// Bytes of /dev/shm where the client does not say: Docker's 64 MiB.
pub const SHM_SIZE: u64 = 64 * 1024 * 1024;
/// Seconds between stop signal and SIGKILL where nobody says otherwise.
pub const STOP_TIMEOUT: i64 = 10;

/// A container as it was created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// [`SPEC_VERSION`] of the writer.
    pub version: u32,
    /// 64 hex digits.
    pub id: String,
    /// When, in ns since 1970.
    pub created: u64,
    /// ID of the image.
    pub image: String,
    /// Its repository tags and digests at that time do not matter; its platform does.
    pub architecture: String,
    /// The configuration, joined with the image's.
    pub config: Config,
    /// `HostConfig` as the client gave it.
    pub host: Map<String, Value>,
    /// What it means.
    pub options: Options,
    /// Its networks, as it was created.
    pub networks: Vec<Attachment>,
    /// Its volumes, sorted by path.
    #[serde(default)]
    pub mounts: Vec<MountPoint>,
    /// What it has of the machine's files.
    #[serde(default)]
    pub shares: Vec<SharedMount>,
    /// Where the guest finds its files.
    pub disk: SpecDisk,
    /// Memory of the VM.
    pub memory_mib: u32,
    /// CPUs of the VM.
    pub cpus: u32,
}

/// The disk as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecDisk {
    /// The seal that its own disk is a child of.
    pub seal: String,
    /// GPT disk GUID.
    pub guid: String,
    /// Partitions of the layers.
    pub layers: Vec<u32>,
    /// Partition of the ephemeral file system.
    pub ephemeral: u32,
    /// Partition of the journal.
    pub journal: u32,
}

impl Spec {
    /// The host name in the guest.
    pub fn hostname(&self) -> &str {
        &self.config.hostname
    }

    /// The signal that asks it to stop.
    pub fn stop_signal(&self) -> i32 {
        self.config
            .stop_signal
            .as_deref()
            .and_then(|text| super::signals::parse(text).ok())
            .unwrap_or(super::signals::TERM)
    }

    /// Seconds until SIGKILL; negative: never.
    pub fn stop_timeout(&self) -> i64 {
        self.config.stop_timeout.unwrap_or(STOP_TIMEOUT)
    }

    /// Whether one of its ports, published or not, is for SCTP.
    fn serves_sctp(&self) -> bool {
        let exposed = self.config.exposed_ports.keys();
        let mut published = self.options.ports.iter();
        exposed.into_iter().any(|port| port.ends_with("/sctp"))
            || published.any(|port| port.protocol == Protocol::Sctp)
    }

    /// What one boot of the VM needs to know.
    pub fn guest_config(
        &self,
        boot: u64,
        transport: Transport,
        secret: String,
        seed: String,
        network: GuestNetwork,
        restart: Restart,
    ) -> GuestConfig {
        // The tether adds the container's own line.
        let mut hosts: Vec<_> = self
            .options
            .extra_hosts
            .iter()
            .flat_map(|(address, name)| {
                let addresses = match address.as_str() {
                    HOST_GATEWAY => network.gateways.iter().map(IpAddr::to_string).collect(),
                    own => vec![own.to_owned()],
                };
                addresses
                    .into_iter()
                    .map(|address| (address, vec![name.clone()]))
            })
            .collect();
        hosts.extend(network.hosts);

        GuestConfig {
            version: CONFIG_VERSION,
            id: self.id.clone(),
            boot,
            hostname: self.hostname().to_owned(),
            domainname: self.config.domainname.clone(),
            disk: Disk {
                guid: self.disk.guid.clone(),
                layers: self.disk.layers.clone(),
                layer_files: Vec::new(),
                ephemeral: self.disk.ephemeral,
                journal: self.disk.journal,
                read_only: self.options.read_only,
            },
            link: LinkConfig { transport, secret },
            process: Process {
                args: self.config.args(),
                env: self.config.env.clone(),
                cwd: self.config.working_dir.clone(),
                user: self.config.user.clone(),
                groups: self.options.groups.clone(),
                tty: self.config.tty,
                stdin: self.config.open_stdin,
                stdin_once: self.config.stdin_once,
                size: self.options.console_size,
                cap_add: self.options.cap_add.clone(),
                cap_drop: self.options.cap_drop.clone(),
            },
            init: self.options.init,
            networks: network.interfaces,
            sctp: self.serves_sctp(),
            dns: network.dns,
            dns_search: self.options.dns_search.clone(),
            dns_options: self.options.dns_options.clone(),
            hosts,
            shm_size: match self.options.shm_size {
                0 => SHM_SIZE,
                size => size,
            },
            stop_signal: self.stop_signal(),
            stop_timeout: u32::try_from(self.stop_timeout()).unwrap_or(u32::MAX),
            // The first boot's configuration is written when the container is created: too early
            // to know the time, and the VM's own clock is good.
            clock: if boot == 1 { 0 } else { timestamps::now() },
            seed,
            restart,
            health: self.config.health_check(),
            seccomp: self.options.seccomp_text(),
            log_size: self.options.log.size,
            no_log: self.options.log.none,
            limits: self.options.limits.clone(),
            tmpfs: self.options.tmpfs.clone(),
            mounts: super::volumes::for_guest(&self.mounts),
            nfs: crate::volumes::mounts::remote(&self.mounts)
                .into_iter()
                .map(|(mount, nfs)| nfs.for_guest(&mount.uuid, None))
                .collect(),
            shares: shares::for_guest(&self.shares),
            guards: network.guards,
            maintenance: None,
        }
    }
}
