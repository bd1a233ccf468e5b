//! Published ports: which were asked for, and which a running container has.

use super::{
    Networks,
    router::{Protocol, Published, uplink::Forward},
};
use crate::errors::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
};

/// Published ports of one container, at most.
const PORTS_MAX: usize = 4096;
/// Where an uplink stands for the outside: ports of the public address that it leads to.
const PUBLIC_PORTS: RangeInclusive<u16> = 20_000..=65_535;
/// A free port that the system names may be gone before it is taken: so often another one is tried.
const ATTEMPTS: usize = 16;

/// A port that a client wants published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// Of what.
    pub protocol: Protocol,
    /// The container's port.
    pub port: u16,
    /// Address of the host; `None`: all.
    pub host: Option<Ipv4Addr>,
    /// Ports of the host, one of which it shall be; 0 to 0: any that is free.
    pub range: (u16, u16),
}

/// A port that is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Of what.
    pub protocol: Protocol,
    /// The container's port.
    pub port: u16,
    /// Address of the host; `None`: all.
    pub host: Option<Ipv4Addr>,
    /// Port of the host.
    pub host_port: u16,
    /// Port of the endpoint's public address that the host's leads to.
    pub public_port: u16,
    /// The container's address.
    pub target: IpAddr,
}

/// A port of a container: `80/tcp`.
///
/// # Errors
/// 400 in Docker's words.
pub fn port(text: &str) -> Result<(u16, Protocol)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => return Err(Error::bad(format!("invalid proto: {other}"))),
    };
    match number.parse() {
        Ok(number) if number > 0 => Ok((number, protocol)),
        _ => Err(Error::bad(format!(
            "invalid port specification: \"{text}\""
        ))),
    }
}

/// Reads `HostConfig.PortBindings`.
///
/// # Errors
/// 400 in Docker's words.
pub fn read(bindings: Option<&Value>) -> Result<Vec<PortRequest>> {
    let empty = Map::new();
    let bindings = match bindings {
        None | Some(Value::Null) => &empty,
        Some(Value::Object(map)) => map,
        Some(_) => return Err(Error::bad("invalid PortBindings: expected an object")),
    };
    let mut out = Vec::new();
    for (spec, places) in bindings {
        let (port, protocol) = port(spec)?;
        let one = vec![Value::Null];
        let places = match places {
            Value::Array(list) if !list.is_empty() => list,
            _ => &one,
        };
        for place in places {
            let text = |field: &str| place[field].as_str().unwrap_or("");
            let host =
                match text("HostIp") {
                    "" | "0.0.0.0" => None,
                    address => Some(address.parse::<Ipv4Addr>().map_err(|_| {
                        match address.parse::<IpAddr>() {
                            Ok(_) => super::unsupported(
                                &format!("--publish {address}:…"),
                                "ports are published at IPv4 addresses",
                            ),
                            Err(_) => Error::bad(format!("invalid IP address: {address}")),
                        }
                    })?),
                };
            out.push(PortRequest {
                protocol,
                port,
                host,
                range: range(text("HostPort"))?,
            });
            if out.len() > PORTS_MAX {
                return Err(Error::bad(format!("more than {PORTS_MAX} published ports")));
            }
        }
    }
    Ok(out)
}

fn range(text: &str) -> Result<(u16, u16)> {
    let wrong = || Error::bad(format!("invalid hostPort: {text}"));
    if text.is_empty() {
        return Ok((0, 0));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = (
        first.parse().map_err(|_| wrong())?,
        last.parse().map_err(|_| wrong())?,
    );
    if range.0 > range.1 || (range.0 == 0) != (range.1 == 0) {
        return Err(wrong());
    }
    Ok(range)
}

/// `NetworkSettings.Ports`: what is published, and what is only exposed.
pub fn describe<'a>(
    bindings: &[Binding],
    exposed: impl IntoIterator<Item = &'a String>,
) -> Map<String, Value> {
    let mut out: BTreeMap<String, Value> = exposed
        .into_iter()
        .map(|port| (port.clone(), Value::Null))
        .collect();
    for binding in bindings {
        let place = serde_json::json!({
            "HostIp": binding.host.unwrap_or(Ipv4Addr::UNSPECIFIED).to_string(),
            "HostPort": binding.host_port.to_string(),
        });
        let entry = out
            .entry(format!("{}/{}", binding.port, binding.protocol.word()))
            .or_default();
        match entry {
            Value::Array(list) => list.push(place),
            other => *other = Value::Array(vec![place]),
        }
    }
    out.into_iter().collect()
}

impl Binding {
    pub(super) fn forward(&self) -> Forward {
        Forward {
            protocol: self.protocol,
            host: self.host.unwrap_or(Ipv4Addr::UNSPECIFIED),
            host_port: self.host_port,
            public_port: self.public_port,
        }
    }

    pub(super) fn published(&self) -> Published {
        Published {
            protocol: self.protocol,
            public_port: self.public_port,
            host_port: self.host_port,
            everywhere: self.host.is_none(),
            target: self.target,
            target_port: self.port,
        }
    }

    fn clashes(&self, protocol: Protocol, host: Option<Ipv4Addr>, port: u16) -> bool {
        self.protocol == protocol
            && self.host_port == port
            && (self.host.is_none() || host.is_none() || self.host == host)
    }
}

impl Networks {
    /// Publishes the ports of a container that is about to start.
    ///
    /// # Errors
    /// 500 in Docker's words where a port is taken; then none of them is published.
    pub async fn publish(
        &self,
        container: &str,
        boot: u64,
        name: &str,
        requests: &[PortRequest],
        target: IpAddr,
    ) -> Result<Vec<Binding>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let Some(router) = &self.router else {
            return Err(super::no_router("--publish"));
        };
        // Those of its boot before this one, if nobody has taken them back yet.
        self.unpublish(container, u64::MAX).await;
        let _change = self.change.lock().await;
        let mut made: Vec<Binding> = Vec::new();
        let mut failed = None;
        for request in requests {
            let taken: Vec<Binding> = {
                let published = self.published();
                published
                    .values()
                    .flat_map(|(_, bindings)| bindings)
                    .chain(&made)
                    .cloned()
                    .collect()
            };
            match self.bind(request, target, &taken).await {
                Ok(binding) => made.push(binding),
                Err(error) => {
                    failed = Some(Error::new(
                        Kind::Internal,
                        format!(
                            "driver failed programming external connectivity on endpoint {name} ({container}): {error}"
                        ),
                    ));
                    break;
                }
            }
        }
        if failed.is_none() {
            self.published()
                .insert(container.to_owned(), (boot, made.clone()));
            if let Err(error) = self.refresh().await {
                failed = Some(error);
            }
        }
        match failed {
            None => Ok(made),
            Some(error) => {
                self.published().remove(container);
                if let Some(uplink) = router.uplink() {
                    close(uplink, &made).await;
                }
                Err(error)
            }
        }
    }

    /// Finds a port and opens it outside.
    async fn bind(
        &self,
        request: &PortRequest,
        target: IpAddr,
        taken: &[Binding],
    ) -> io::Result<Binding> {
        let uplink = self.router.as_ref().and_then(|router| router.uplink());
        if uplink.is_some() && request.protocol == Protocol::Sctp {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "SCTP cannot be published on this machine: its user-mode uplink carries TCP and UDP",
            ));
        }
        let address = request.host.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let in_use = |port: u16| {
            io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("Bind for {address}:{port} failed: port is already allocated"),
            )
        };
        let any = request.range == (0, 0);
        let mut candidates: Vec<u16> = if any {
            (0..ATTEMPTS)
                .filter_map(|_| free_port(request.protocol, address).ok())
                .collect()
        } else {
            (request.range.0..=request.range.1).collect()
        };
        candidates.dedup();
        let mut last = in_use(request.range.0);
        for host_port in candidates {
            if taken
                .iter()
                .any(|b| b.clashes(request.protocol, request.host, host_port))
            {
                last = in_use(host_port);
                continue;
            }
            let mut binding = Binding {
                protocol: request.protocol,
                port: request.port,
                host: request.host,
                host_port,
                public_port: host_port,
                target,
            };
            let Some(uplink) = uplink else {
                return Ok(binding);
            };
            let used: BTreeSet<u16> = taken.iter().map(|b| b.public_port).collect();
            binding.public_port = PUBLIC_PORTS
                .into_iter()
                .find(|port| !used.contains(port))
                .ok_or_else(|| io::Error::other("all ports of the uplink are in use"))?;
            match uplink.add(binding.forward()).await {
                Ok(()) => return Ok(binding),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    last = io::Error::new(
                        error.kind(),
                        format!(
                            "failed to bind host port for {address}:{host_port}:{target}:{}/{}: address already in use",
                            request.port,
                            request.protocol.word()
                        ),
                    );
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Takes the ports of a container's boot back, or of any before it: it has ended.
    pub async fn unpublish(&self, container: &str, boot: u64) {
        let Some(router) = &self.router else { return };
        let _change = self.change.lock().await;
        let bindings = {
            let mut published = self.published();
            match published.remove(container) {
                Some((of, bindings)) if of <= boot => bindings,
                Some(later) => {
                    published.insert(container.to_owned(), later);
                    return;
                }
                None => return,
            }
        };
        if let Some(uplink) = router.uplink() {
            close(uplink, &bindings).await;
        }
        if let Err(error) = self.refresh().await {
            tracing::warn!(container, %error, "the rules of its published ports stay until the next change");
        }
    }

    /// Notes the ports of a container that was found running; [`Networks::reconcile`] puts them into force.
    pub fn note_published(&self, container: &str, boot: u64, bindings: Vec<Binding>) {
        self.published()
            .insert(container.to_owned(), (boot, bindings));
    }

    /// Opens and closes ports of the uplink until they are those of the running containers.
    pub(super) async fn reconcile_uplink(&self) -> io::Result<()> {
        let Some(uplink) = self.router.as_ref().and_then(|router| router.uplink()) else {
            return Ok(());
        };
        let mut wanted: BTreeSet<Forward> = self
            .published()
            .values()
            .flat_map(|(_, bindings)| bindings)
            .map(Binding::forward)
            .collect();
        for (id, forward) in uplink.list().await? {
            if !wanted.remove(&forward) {
                uplink.remove(id).await?;
            }
        }
        for forward in wanted {
            if let Err(error) = uplink.add(forward).await {
                tracing::warn!(port = forward.host_port, %error, "a published port is not open: something else took it");
            }
        }
        Ok(())
    }
}

async fn close(uplink: &super::router::uplink::Uplink, bindings: &[Binding]) {
    let wanted: BTreeSet<Forward> = bindings.iter().map(Binding::forward).collect();
    let closing = async {
        for (id, forward) in uplink.list().await? {
            if wanted.contains(&forward) {
                uplink.remove(id).await?;
            }
        }
        Ok::<_, io::Error>(())
    };
    if let Err(error) = closing.await {
        tracing::warn!(%error, "published ports stay open until the endpoint's next start");
    }
}

/// A port that nothing listens at right now.
fn free_port(protocol: Protocol, address: Ipv4Addr) -> io::Result<u16> {
    Ok(match protocol {
        Protocol::Udp => std::net::UdpSocket::bind((address, 0))?
            .local_addr()?
            .port(),
        Protocol::Tcp | Protocol::Sctp => std::net::TcpListener::bind((address, 0))?
            .local_addr()?
            .port(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bindings_are_read_as_docker_s_client_sends_them() {
        let requests = read(Some(&json!({
            "80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": "8000-8002"}],
            "53/udp": null,
        })))
        .unwrap();
        assert_eq!(requests.len(), 3);
        assert_eq!(requests[0].protocol, Protocol::Udp);
        assert_eq!(requests[0].range, (0, 0));
        assert_eq!(requests[1].range, (8080, 8080));
        assert_eq!(requests[2].host, Some(Ipv4Addr::LOCALHOST));
        for (wrong, want) in [
            (json!({"0/tcp": []}), "invalid port"),
            (json!({"x": []}), "invalid port"),
            (json!({"1/icmp": []}), "invalid proto"),
            (json!({"1/tcp": [{"HostPort": "9-1"}]}), "invalid hostPort"),
            (
                json!({"1/tcp": [{"HostPort": "70000"}]}),
                "invalid hostPort",
            ),
            (json!({"1/tcp": [{"HostIp": "x"}]}), "invalid IP"),
            (json!({"1/tcp": [{"HostIp": "::1"}]}), "IPv4"),
            (json!({"1/tcp": [{"HostIp": "::"}]}), "IPv4"),
        ] {
            assert!(read(Some(&wrong)).unwrap_err().message.contains(want));
        }
    }

    #[test]
    fn ports_are_shown_as_docker_shows_them() {
        let binding = Binding {
            protocol: Protocol::Tcp,
            port: 80,
            host: None,
            host_port: 8080,
            public_port: 20000,
            target: "172.17.0.2".parse().unwrap(),
        };
        let exposed = ["80/tcp".to_owned(), "443/tcp".to_owned()];
        let shown = describe(&[binding], &exposed);
        assert_eq!(shown["443/tcp"], Value::Null);
        assert_eq!(
            shown["80/tcp"],
            json!([{"HostIp": "0.0.0.0", "HostPort": "8080"}])
        );
    }
}
