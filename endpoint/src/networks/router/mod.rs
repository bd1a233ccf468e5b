//! The endpoint as its networks' gateway: interfaces, packet filter, address translation, published ports.

pub mod links;
pub mod namespace;
pub mod rules;

use ipnet::IpNet;
use links::Links;
use namespace::Namespace;
use serde::{Deserialize, Serialize};
use std::{io, net::IpAddr, path::Path, process::Stdio};
use tokio::io::AsyncWriteExt;

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
    /// Address of the host; the unspecified one: all of its kind.
    pub host: IpAddr,
    /// Port there.
    pub host_port: u16,
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
    /// What holds ports of the machine; `None`: `public` is an interface to the world itself.
    outside: Option<forward::Client>,
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
        outside: Option<&Path>,
    ) -> io::Result<Self> {
        let namespace = Namespace::open(namespace).map_err(|e| {
            io::Error::new(e.kind(), format!("--router {}: {e}", namespace.display()))
        })?;
        Ok(Self {
            links: Links::open(&namespace).await?,
            namespace,
            trunk: trunk.to_owned(),
            public: public.to_owned(),
            outside: outside.map(forward::Client::new),
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

    /// The program that holds ports of the machine, where `public` has none of its own.
    pub fn outside(&self) -> Option<&forward::Client> {
        self.outside.as_ref()
    }

    /// Makes interfaces and rules what they have to be, whatever they were.
    ///
    /// # Errors
    /// The kernel's, or nft's words.
    pub async fn apply(&self, networks: &[RouterNetwork], ports: &[Published]) -> io::Result<()> {
        self.links.apply(&self.trunk, networks).await?;
        let outside = self.outside.is_some();
        let text = rules::text(&self.trunk, &self.public, outside, networks, ports);
        self.load(text).await
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
