//! Published ports: which were asked for, and which a running container has.

use super::{
    Networks,
    guest::Targets,
    router::{Protocol, Published},
};
use crate::errors::{Error, Kind, Result};
use forward::{Forward, Transport};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Published ports of one container, at most.
const PORTS_MAX: usize = 4096;
/// Every address of the host, in the order in which Docker shows them.
const EVERYWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    IpAddr::V6(Ipv6Addr::UNSPECIFIED),
];
/// A free port that the system names may be gone before it is taken: so often another one is tried.
const ATTEMPTS: usize = 16;

/// A port that a client wants published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// Of what.
    pub protocol: Protocol,
    /// The container's port.
    pub port: u16,
    /// Address of the host; `None`: all, IPv4 and IPv6.
    pub host: Option<IpAddr>,
    /// Ports of the host, one of which it shall be; 0 to 0: any that is free.
    pub range: (u16, u16),
}

impl PortRequest {
    /// Whether it is for all addresses of a kind. One that names an address of the host means nothing where the container
    /// has its own: opened there, it would be open to more than was asked for.
    pub fn everywhere(&self) -> bool {
        self.host.is_none_or(|host| host.is_unspecified())
    }
}

/// A port that is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Of what.
    pub protocol: Protocol,
    /// The container's port.
    pub port: u16,
    /// Address of the host; the unspecified one: all of its kind.
    #[serde(deserialize_with = "host_address")]
    pub host: IpAddr,
    /// Port of the host.
    pub host_port: u16,
    /// The container's address. It is of another kind than the host's where the container has none of that.
    pub target: IpAddr,
}

/// An address of the host; what an earlier version wrote was none for all of IPv4.
fn host_address<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<IpAddr, D::Error> {
    let address = Option::<IpAddr>::deserialize(from)?;
    Ok(address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()))
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
            let host = match text("HostIp") {
                "" => None,
                address => Some(
                    address
                        .parse()
                        .map_err(|_| Error::bad(format!("invalid IP address: {address}")))?,
                ),
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
            "HostIp": binding.host.to_string(),
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
    /// As what holds ports of the machine is told of it; SCTP it does not carry.
    fn forward(&self) -> Option<Forward> {
        let transport = match self.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
            Protocol::Sctp => return None,
        };
        Some(Forward {
            transport,
            listen: (self.host, self.host_port).into(),
            target: (self.target, self.port).into(),
        })
    }

    /// As the packet filter is told of it, which translates within one kind of address.
    pub(super) fn published(&self) -> Option<Published> {
        (self.host.is_ipv4() == self.target.is_ipv4()).then_some(Published {
            protocol: self.protocol,
            host: self.host,
            host_port: self.host_port,
            target: self.target,
            target_port: self.port,
        })
    }

    fn clashes(&self, other: &Binding) -> bool {
        let all = |b: &Binding| b.host.is_unspecified();
        self.protocol == other.protocol
            && self.host_port == other.host_port
            && self.host.is_ipv4() == other.host.is_ipv4()
            && (all(self) || all(other) || self.host == other.host)
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
        targets: Targets,
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
            match self.bind(request, targets, &taken).await {
                Ok(bindings) => made.extend(bindings),
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
                if let Some(outside) = router.outside() {
                    close(outside, &made).await;
                }
                Err(error)
            }
        }
    }

    /// Finds a port and opens it outside, at each address that was asked for.
    async fn bind(
        &self,
        request: &PortRequest,
        targets: Targets,
        taken: &[Binding],
    ) -> io::Result<Vec<Binding>> {
        let outside = self.router.as_ref().and_then(|router| router.outside());
        if outside.is_some() && request.protocol == Protocol::Sctp {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "SCTP cannot be published on this machine: what holds its ports carries TCP and UDP",
            ));
        }
        let hosts = match &request.host {
            Some(host) => std::slice::from_ref(host),
            None => &EVERYWHERE,
        };
        let mut places = Vec::new();
        for host in hosts {
            // Without somebody who carries between both kinds, it takes a container with the host's.
            match targets.for_host(*host, outside.is_some()) {
                Some(target) => places.push((*host, target)),
                None if request.host.is_none() => {}
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::AddrNotAvailable,
                        format!(
                            "{host}: the container has no address of this kind; give its network one (docker network create --ipv6)"
                        ),
                    ));
                }
            }
        }
        let first = places.first().map_or(EVERYWHERE[0], |(host, _)| *host);
        let candidates: Vec<u16> = if request.range == (0, 0) {
            let mut free: Vec<u16> = (0..ATTEMPTS)
                .filter_map(|_| free_port(request.protocol, first).ok())
                .collect();
            free.dedup();
            free
        } else {
            (request.range.0..=request.range.1).collect()
        };
        let mut last = allocated(first, request.range.0);
        for host_port in candidates {
            let bindings = places.iter().map(|(host, target)| Binding {
                protocol: request.protocol,
                port: request.port,
                host: *host,
                host_port,
                target: *target,
            });
            let bindings: Vec<Binding> = bindings.collect();
            if outside.is_none() {
                match self.is_free(&bindings).await {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                        last = error;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            match open(outside, bindings, taken).await {
                Ok(made) => return Ok(made),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Whether nothing of the router's own is at these ports, its API first of all: translated, it would be reached no more.
    async fn is_free(&self, bindings: &[Binding]) -> io::Result<()> {
        let Some(router) = &self.router else {
            return Ok(());
        };
        for binding in bindings.iter().cloned() {
            let tried = router.namespace().enter(move || {
                let at = (binding.host, binding.host_port);
                match binding.protocol {
                    Protocol::Tcp => std::net::TcpListener::bind(at).map(drop),
                    Protocol::Udp => std::net::UdpSocket::bind(at).map(drop),
                    Protocol::Sctp => Ok(()),
                }
                .map_err(|error| refused(&binding, &error))
            });
            tried.await?;
        }
        Ok(())
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
        if let Some(outside) = router.outside() {
            close(outside, &bindings).await;
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

    /// Opens and closes ports of the machine until they are those of the running containers.
    pub(super) async fn reconcile_outside(&self) -> io::Result<()> {
        let Some(outside) = self.router.as_ref().and_then(|router| router.outside()) else {
            return Ok(());
        };
        let mut wanted: BTreeSet<Forward> = self
            .published()
            .values()
            .flat_map(|(_, bindings)| bindings)
            .filter_map(Binding::forward)
            .collect();
        for forward in outside.list().await? {
            if !wanted.remove(&forward) {
                outside.remove(forward).await?;
            }
        }
        for forward in wanted {
            if let Err(error) = outside.add(forward).await {
                tracing::warn!(listen = %forward.listen, %error, "a published port is not open: something else took it");
            }
        }
        Ok(())
    }
}

fn allocated(host: IpAddr, port: u16) -> io::Error {
    let address = SocketAddr::from((host, port));
    io::Error::new(
        io::ErrorKind::AddrInUse,
        format!("Bind for {address} failed: port is already allocated"),
    )
}

/// Opens the bindings of one port, or none of them. IPv6 that comes with `all addresses` is left out where the machine
/// has none.
async fn open(
    outside: Option<&forward::Client>,
    bindings: Vec<Binding>,
    taken: &[Binding],
) -> io::Result<Vec<Binding>> {
    for binding in &bindings {
        if taken.iter().any(|other| other.clashes(binding)) {
            return Err(allocated(binding.host, binding.host_port));
        }
    }
    let Some(outside) = outside else {
        return Ok(bindings);
    };
    let beside = bindings.len() > 1;
    let mut made: Vec<Binding> = Vec::new();
    for binding in bindings {
        let Some(forward) = binding.forward() else {
            continue;
        };
        let Err(error) = outside.add(forward).await else {
            made.push(binding);
            continue;
        };
        let no_ipv6 = !matches!(
            error.kind(),
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
        );
        if beside && binding.host.is_ipv6() && no_ipv6 {
            tracing::debug!(listen = %forward.listen, %error, "not published on IPv6");
            continue;
        }
        close(outside, &made).await;
        return Err(refused(&binding, &error));
    }
    Ok(made)
}

/// Why a port of the machine is not to be had, in Docker's words.
fn refused(binding: &Binding, error: &io::Error) -> io::Error {
    let words = match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        io::ErrorKind::PermissionDenied => format!(
            "permission denied: an ordinary user's ports begin at 1024, unless net.ipv4.ip_unprivileged_port_start says {} or less",
            binding.host_port
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!(
                "cannot assign requested address: this machine has no address {}",
                binding.host
            )
        }
        _ => error.to_string(),
    };
    io::Error::new(
        error.kind(),
        format!(
            "failed to bind host port for {}:{}/{}: {words}",
            SocketAddr::from((binding.host, binding.host_port)),
            SocketAddr::from((binding.target, binding.port)),
            binding.protocol.word()
        ),
    )
}

async fn close(outside: &forward::Client, bindings: &[Binding]) {
    for forward in bindings.iter().filter_map(Binding::forward) {
        if let Err(error) = outside.remove(forward).await {
            tracing::warn!(listen = %forward.listen, %error, "a published port stays open until the endpoint's next start");
        }
    }
}

/// A port that nothing listens at right now.
fn free_port(protocol: Protocol, address: IpAddr) -> io::Result<u16> {
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
        assert_eq!(requests[1].host, None);
        assert_eq!(requests[2].host, Some(Ipv4Addr::LOCALHOST.into()));
        let six = json!({"1/tcp": [{"HostIp": "::1"}, {"HostIp": "0.0.0.0"}]});
        let hosts: Vec<_> = read(Some(&six)).unwrap().iter().map(|r| r.host).collect();
        assert_eq!(
            hosts,
            [Some(Ipv6Addr::LOCALHOST.into()), Some(EVERYWHERE[0])]
        );
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
            (json!({"1/tcp": [{"HostIp": "[::1]"}]}), "invalid IP"),
        ] {
            assert!(read(Some(&wrong)).unwrap_err().message.contains(want));
        }
    }

    #[test]
    fn ports_are_shown_as_docker_shows_them() {
        let binding = |host| Binding {
            protocol: Protocol::Tcp,
            port: 80,
            host,
            host_port: 8080,
            target: "172.17.0.2".parse().unwrap(),
        };
        let exposed = ["80/tcp".to_owned(), "443/tcp".to_owned()];
        let shown = describe(&EVERYWHERE.map(binding), &exposed);
        assert_eq!(shown["443/tcp"], Value::Null);
        assert_eq!(
            shown["80/tcp"],
            json!([{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}])
        );
    }

    #[test]
    fn a_port_is_taken_at_the_same_address_and_at_all_of_its_kind() {
        let at = |host: &str, host_port| Binding {
            protocol: Protocol::Tcp,
            port: 80,
            host: host.parse().unwrap(),
            host_port,
            target: "172.17.0.2".parse().unwrap(),
        };
        let clash = |a: &str, b: &str| at(a, 1).clashes(&at(b, 1));
        assert!(clash("0.0.0.0", "127.0.0.1") && clash("::1", "::") && clash("::1", "::1"));
        assert!(!clash("0.0.0.0", "::") && !clash("127.0.0.1", "127.0.0.2"));
        assert!(!at("::", 1).clashes(&at("::", 2)));
    }

    #[test]
    fn what_an_earlier_version_noted_is_read() {
        let text = r#"{"protocol":"tcp","port":80,"host":null,"host_port":8080,"public_port":20000,"target":"172.17.0.2"}"#;
        let binding: Binding = serde_json::from_str(text).unwrap();
        assert_eq!((binding.host, binding.host_port), (EVERYWHERE[0], 8080));
    }

    #[test]
    fn the_packet_filter_translates_within_one_kind_of_address() {
        let binding = |host: &str, target: &str| Binding {
            protocol: Protocol::Udp,
            port: 53,
            host: host.parse().unwrap(),
            host_port: 5353,
            target: target.parse().unwrap(),
        };
        assert!(binding("0.0.0.0", "172.17.0.2").published().is_some());
        assert!(binding("::", "fd00::2").published().is_some());
        assert!(binding("::", "172.17.0.2").published().is_none());
    }
}
