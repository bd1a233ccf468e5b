//! The endpoint as its networks' gateway: interfaces, packet filter, address translation, published ports.

pub mod links;
pub mod namespace;
pub mod rules;
pub mod uplink;

use ipnet::IpNet;
use links::Links;
use namespace::Namespace;
use serde::{Deserialize, Serialize};
use std::{io, net::IpAddr, path::Path, process::Stdio};
use tokio::io::AsyncWriteExt;
use uplink::Uplink;

/// The program that loads the rules.
const NFT: &str = "nft";

/// What is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

/// A network as the router sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterNetwork {
    /// Its VLAN on the trunk.
    pub vlan: u16,
    /// The endpoint's addresses in it, with their prefix lengths.
    pub gateways: Vec<(IpAddr, u8)>,
    /// Its subnets.
    pub subnets: Vec<IpNet>,
    /// Nothing is forwarded out of it.
    pub internal: bool,
    /// Outside, its members have the endpoint's address.
    pub masquerade: bool,
}

/// A published port as the router sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Of what.
    pub protocol: Protocol,
    /// Port of the endpoint's public address.
    pub public_port: u16,
    /// Port as the client knows it.
    pub host_port: u16,
    /// It is published at every address, not at one of the host's only.
    pub everywhere: bool,
    /// The container.
    pub target: IpAddr,
    /// Its port.
    pub target_port: u16,
}

/// The router.
#[derive(Debug)]
pub struct Router {
    namespace: Namespace,
    links: Links,
    trunk: String,
    public: String,
    /// `None`: `public` is an interface to the world itself.
    uplink: Option<Uplink>,
}

impl Router {
    /// Takes a namespace over.
    ///
    /// # Errors
    /// Where it cannot be entered, or its sysctls not set.
    pub async fn open(
        namespace: &Path,
        trunk: &str,
        public: &str,
        uplink: Option<&Path>,
    ) -> io::Result<Self> {
        let namespace = Namespace::open(namespace).map_err(|e| {
            io::Error::new(e.kind(), format!("--router {}: {e}", namespace.display()))
        })?;
        Ok(Self {
            links: Links::open(&namespace).await?,
            namespace,
            trunk: trunk.to_owned(),
            public: public.to_owned(),
            uplink: uplink.map(Uplink::new),
        })
    }

    /// Subnets of the interface to the world outside.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn own_subnets(&self) -> io::Result<Vec<IpNet>> {
        self.links.subnets(&self.public).await
    }

    /// Where it routes.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The program that stands for the world outside, where there is one.
    pub fn uplink(&self) -> Option<&Uplink> {
        self.uplink.as_ref()
    }

    /// Makes interfaces and rules what they have to be, whatever they were.
    ///
    /// # Errors
    /// The kernel's, or nft's words.
    pub async fn apply(&self, networks: &[RouterNetwork], ports: &[Published]) -> io::Result<()> {
        self.links.apply(&self.trunk, networks).await?;
        self.load(rules::text(&self.trunk, &self.public, networks, ports))
            .await
    }

    async fn load(&self, text: String) -> io::Result<()> {
        let mut child = self
            .namespace
            .enter(|| {
                tokio::process::Command::new(NFT)
                    .args(["-f", "-"])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .stderr(Stdio::piped())
                    .kill_on_drop(true)
                    .spawn()
            })
            .await
            .map_err(|e| {
                io::Error::new(
                    e.kind(),
                    format!("cannot run {NFT}: {e}; install the package nftables"),
                )
            })?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes()).await?;
        }
        let done = child.wait_with_output().await?;
        if done.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&done.stderr);
        Err(io::Error::other(format!(
            "the packet filter was not accepted: {}",
            why.lines().next().unwrap_or_default()
        )))
    }
}
