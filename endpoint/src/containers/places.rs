//! Containers on their networks: connect and disconnect, published ports, names.

use super::{
    Container, Containers, keys,
    keys::Keys,
    names::SHORT_ID,
    spec::Spec,
    start::OFF_LIMIT,
    state::{Phase, Status},
};
use crate::{
    errors::{Error, Kind, Result},
    networks::{
        NICS_MAX, Network,
        attachment::{Attachment, Place, Wanted, check_macs},
        dns::Directory,
        external, guest,
        publish::{Binding, PortRequest, port},
    },
    vsphere::Nic,
};
use ipnet::IpNet;
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};
use wire::message::ToGuest;

impl Containers {
    /// Puts a container on a further network; a running one gets the vNIC at once.
    ///
    /// # Errors
    /// 403 where it is on that network already or has no network at all, those of [`Networks::attach`].
    ///
    /// [`Networks::attach`]: crate::networks::Networks::attach
    pub async fn connect(
        self: &Arc<Self>,
        container: &Arc<Container>,
        network: &Network,
        wanted: Wanted,
    ) -> Result<()> {
        let _operation = container.operation.lock().await;
        let status = container.status();
        let name = &network.record.name;
        if status.networks.iter().any(|place| place.is_on(network)) {
            return Err(Error::new(
                Kind::Forbidden,
                format!(
                    "endpoint with name {} already exists in network {name}",
                    status.name
                ),
            ));
        }
        if status.networks.len() >= NICS_MAX {
            return Err(Error::conflict(format!(
                "container {} is on {NICS_MAX} networks, and a VM has at most so many vNICs: disconnect it from another one first",
                status.name
            )));
        }
        // Until it is noted where everybody sees it.
        let _claim = self.networks.claim([network.record.id.as_str()])?;
        let mut place = self.networks.attach(network, wanted)?;
        place.interface = guest::next_interface(&status.networks);
        let mut places = status.networks.clone();
        places.push(place.clone());
        let options = &container.spec.options;
        let fits = check_macs(&places)
            .and_then(|()| {
                external::check_capabilities(&options.cap_add, std::slice::from_ref(&place))
            })
            .and_then(|()| match status.live() {
                true => external::check_running(
                    &status.name,
                    &options.cap_drop,
                    &status.networks,
                    &place,
                ),
                false => Ok(()),
            });
        if let Err(error) = fits {
            self.networks.detach(&[place]);
            return Err(error);
        }
        let done = self.change_places(container, places).await;
        if let Err(error) = done {
            self.networks.detach(&[place]);
            return Err(error);
        }
        self.networks
            .tell(network, "connect", &[("container", container.id())]);
        Ok(())
    }

    /// Takes a container off a network.
    ///
    /// # Errors
    /// 403 where it is not on it.
    pub async fn disconnect(
        self: &Arc<Self>,
        container: &Arc<Container>,
        network: &Network,
    ) -> Result<()> {
        let _operation = container.operation.lock().await;
        let status = container.status();
        let (gone, rest): (Vec<_>, Vec<_>) = status
            .networks
            .iter()
            .cloned()
            .partition(|place| place.is_on(network));
        if gone.is_empty() {
            return Err(Error::new(
                Kind::Forbidden,
                format!(
                    "container {} is not connected to network {}",
                    container.id(),
                    network.record.name
                ),
            ));
        }
        self.change_places(container, rest).await?;
        self.networks.detach(&gone);
        self.networks
            .tell(network, "disconnect", &[("container", container.id())]);
        Ok(())
    }

    /// Tells that a run is on its networks, or on them no more; as Docker, before its start and after its end.
    pub(super) fn tell_networks(&self, container: &Container, joined: bool) {
        let action = if joined { "connect" } else { "disconnect" };
        for place in &container.status().networks {
            if let Ok(network) = self.networks.find(&place.network) {
                self.networks
                    .tell(&network, action, &[("container", container.id())]);
            }
        }
    }

    /// The record first: whatever is cut off behind it, the next start sees to the vNICs.
    async fn change_places(
        self: &Arc<Self>,
        container: &Arc<Container>,
        places: Vec<Attachment>,
    ) -> Result<()> {
        let before = container.status().networks;
        self.networks.keep(container.id(), places.clone()).await?;
        container.modify(|status| status.networks.clone_from(&places));
        let changed = self.change_nics(container, &places).await;
        if let Err(error) = changed {
            container.modify(|status| status.networks.clone_from(&before));
            self.networks.keep(container.id(), before.clone()).await?;
            if let Err(error) = self.change_nics(container, &before).await {
                tracing::warn!(id = container.id(), %error, "its vNICs are put right at its next start");
            }
            return Err(error);
        }
        Ok(())
    }

    async fn change_nics(
        self: &Arc<Self>,
        container: &Arc<Container>,
        places: &[Attachment],
    ) -> Result<()> {
        let status = container.status();
        if status.phase == Phase::Restarting {
            return Err(Error::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id()
            )));
        }
        let running = status.phase == Phase::Running;
        if !running {
            // A VM on its way off has no ear for its devices.
            self.wait_off(container, OFF_LIMIT).await?;
        }
        self.settle_nics(container, places).await?;
        if !running {
            return Ok(());
        }
        let network = self
            .setup
            .guest_network(&container.spec, places, Vec::new());
        let session = container.session().await?;
        if self.networks.has_external() {
            // Before there is an interface that it is for.
            let guards = network.guards;
            session
                .done(|request| ToGuest::Guards { request, guards })
                .await?;
        }
        session
            .done(|request| ToGuest::Networks {
                request,
                networks: network.interfaces,
                dns: network.dns,
            })
            .await
    }

    /// Adds and removes vNICs until the VM has those of the places.
    pub(super) async fn settle_nics(
        &self,
        container: &Container,
        places: &[Attachment],
    ) -> Result<()> {
        let _task = container.vm_task.lock().await;
        let there = self.vsphere.nics(&container.vm).await?;
        let has = |mac: &str| there.iter().any(|own| own.eq_ignore_ascii_case(mac));
        for mac in &there {
            if !places.iter().any(|p| p.mac.eq_ignore_ascii_case(mac)) {
                self.vsphere.remove_nic(&container.vm, mac).await?;
            }
        }
        for place in places.iter().filter(|place| !has(&place.mac)) {
            self.vsphere
                .add_nic(&container.vm, &Nic::from(place))
                .await?;
        }
        Ok(())
    }

    /// Sees to the vNICs of a container that is about to start, and publishes its ports for that boot. The caller has
    /// claimed its networks.
    pub(super) async fn join(&self, container: &Container, boot: u64) -> Result<Vec<Binding>> {
        let status = container.status();
        if self.networks.moved(container.id()).is_some() {
            self.settle_nics(container, &status.networks).await?;
        }
        let requests = requests(&container.spec)?;
        let Some(targets) = guest::Targets::of(&status.networks) else {
            if status.networks.iter().any(Attachment::publishes) {
                external::check_ports(&status.name, &requests)?;
            }
            return Ok(Vec::new());
        };
        let bindings = self
            .networks
            .publish(container.id(), boot, &status.name, &requests, targets)
            .await?;
        Ok(bindings)
    }

    /// Takes back what [`Containers::join`] published.
    pub(super) fn leave(self: &Arc<Self>, container: &Arc<Container>, boot: u64) {
        let had = container.modify(|status| std::mem::take(&mut status.ports));
        if had.is_empty() {
            return;
        }
        let (networks, id) = (self.networks.clone(), container.id().to_owned());
        self.settling
            .spawn(async move { networks.unpublish(&id, boot).await });
    }

    /// The ports of a VM that was found running.
    pub(super) fn read_ports(&self, vm_keys: &Keys, id: &str, boot: u64) -> Vec<Binding> {
        let ports: Vec<Binding> = match keys::json(vm_keys, keys::PORTS) {
            Ok(ports) => ports.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(id, %error, "its published ports are lost until its next start");
                Vec::new()
            }
        };
        if !ports.is_empty() {
            self.networks.note_published(id, boot, ports.clone());
        }
        ports
    }

    /// Lines of /etc/hosts for `--link` on the default network, which has no names.
    pub(super) fn linked(&self, places: &[Attachment]) -> Result<Vec<(String, Vec<String>)>> {
        let mut out = Vec::new();
        for place in places.iter().filter(|place| place.on_bridge()) {
            for link in &place.wanted.links {
                let (name, alias) = split_link(link);
                let other = self.find(name)?;
                let status = other.status();
                if !status.running() {
                    return Err(Error::conflict(format!(
                        "Cannot link to a non running container: /{name} AS /{alias}"
                    )));
                }
                let there = status.networks.iter().find(|p| p.network == place.network);
                let Some(address) = there.and_then(|p| p.place(false)) else {
                    return Err(Error::conflict(format!(
                        "Cannot link to /{name}, as it does not belong to the default network"
                    )));
                };
                let mut names = vec![alias.to_owned(), other.spec.hostname().to_owned()];
                if status.name != alias {
                    names.push(status.name.clone());
                }
                out.push((address.address.to_string(), names));
            }
        }
        Ok(out)
    }

    /// Containers that are on a network, running or not.
    pub fn members(&self, network: &Network) -> Vec<(Arc<Container>, Status, Attachment)> {
        self.all()
            .into_iter()
            .filter_map(|container| {
                let status = container.status();
                let place = status.networks.iter().find(|p| p.is_on(network))?.clone();
                Some((container, status, place))
            })
            .collect()
    }
}

/// The ports of a container that runs: those that are published, and on external networks its own.
pub fn ports(container: &Container, status: &Status) -> Vec<Binding> {
    let requests = requests(&container.spec).unwrap_or_default();
    let mut ports = status.ports.clone();
    ports.extend(own_ports(&requests, &status.networks));
    ports
}

/// The ports that are open at a container's own addresses, IPv4 and IPv6.
fn own_ports(requests: &[PortRequest], places: &[Attachment]) -> Vec<Binding> {
    let open = places.iter().filter(|place| place.publishes());
    let mut ports: Vec<Binding> = Vec::new();
    for place in open.flat_map(|attachment| &attachment.places) {
        for request in requests.iter().filter(|request| request.everywhere()) {
            let binding = Binding {
                protocol: request.protocol,
                port: request.port,
                host: place.address,
                host_port: request.port,
                target: place.address,
            };
            if !ports.contains(&binding) {
                ports.push(binding);
            }
        }
    }
    ports
}

impl Containers {
    /// What a guest tells of an interface's DHCP lease.
    pub(super) fn leased(
        &self,
        container: &Container,
        boot: u64,
        mac: &str,
        address: Option<&str>,
        gateway: Option<&str>,
    ) {
        let status = container.status();
        let place = status
            .networks
            .iter()
            .find(|p| p.mac.eq_ignore_ascii_case(mac));
        let Some(place) = place.filter(|p| p.dynamic() && status.boot() == boot) else {
            return;
        };
        let (id, network) = (container.id(), place.name.as_str());
        let address = match address.map(str::parse::<IpNet>) {
            Some(Ok(net)) => Some(Place {
                address: net.addr(),
                prefix: net.prefix_len(),
                gateway: gateway
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            }),
            Some(Err(_)) => return,
            None => None,
        };
        match &address {
            Some(place) => tracing::info!(id, network, address = place.net(), "has a DHCP lease"),
            None => tracing::warn!(
                id,
                network,
                name = status.name,
                "its DHCP lease is lost: it has no address there until a server gives it one"
            ),
        }
        container.modify(|status| {
            let mut places = status.networks.iter_mut();
            if let Some(place) = places.find(|p| p.mac.eq_ignore_ascii_case(mac)) {
                place.places = Vec::from_iter(address);
            }
        });
    }
}

/// What a container wants published: what was named, and with `-P` every exposed port beside that.
pub(super) fn requests(spec: &Spec) -> Result<Vec<PortRequest>> {
    let options = &spec.options;
    let mut requests = options.ports.clone();
    if options.publish_all {
        for exposed in spec.config.exposed_ports.keys() {
            let (number, protocol) = port(exposed)?;
            if !requests
                .iter()
                .any(|r| (r.port, r.protocol) == (number, protocol))
            {
                requests.push(PortRequest {
                    protocol,
                    port: number,
                    host: None,
                    range: (0, 0),
                });
            }
        }
    }
    Ok(requests)
}

fn split_link(link: &str) -> (&str, &str) {
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    (
        name.trim_start_matches('/'),
        alias.rsplit('/').next().unwrap_or(alias),
    )
}

/// Whether a container answers to a name on one of its networks.
fn answers(container: &Container, status: &Status, place: &Attachment, name: &str) -> bool {
    let name = name
        .strip_suffix(&place.name.to_ascii_lowercase())
        .and_then(|rest| rest.strip_suffix('.'))
        .unwrap_or(name);
    status.name.eq_ignore_ascii_case(name)
        || container.id().get(..SHORT_ID) == Some(name)
        || container.spec.hostname().eq_ignore_ascii_case(name)
        || place
            .wanted
            .aliases
            .iter()
            .any(|alias| alias.eq_ignore_ascii_case(name))
}

/// The names of a container on a network, as `DNSNames` has them: its own, aliases, short ID, host name.
pub fn dns_names(container: &Container, status: &Status, place: &Attachment) -> Vec<String> {
    if place.on_bridge() {
        return Vec::new();
    }
    let mut names = vec![status.name.clone()];
    let short = container
        .id()
        .get(..SHORT_ID)
        .unwrap_or_default()
        .to_owned();
    let more = place.wanted.aliases.iter().cloned();
    for name in more.chain([short, container.spec.hostname().to_owned()]) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn alive(status: &Status) -> bool {
    matches!(
        status.phase,
        Phase::Running | Phase::Starting | Phase::Restarting
    )
}

impl Containers {
    fn asker(&self, network: &str, address: IpAddr) -> Option<(Arc<Container>, Status)> {
        self.all().into_iter().find_map(|container| {
            let status = container.status();
            let is_it = status.networks.iter().any(|place| {
                place.network == network && place.places.iter().any(|p| p.address == address)
            });
            (is_it && alive(&status)).then_some((container, status))
        })
    }
}

impl Directory for Containers {
    fn addresses(&self, network: &str, asker: IpAddr, name: &str) -> Option<Vec<IpAddr>> {
        let (_, status) = self.asker(network, asker)?;
        let mut found = Vec::new();
        for own in status.networks.iter().filter(|place| !place.on_bridge()) {
            // What the asker calls others by is its own affair.
            let target = own.wanted.links.iter().find_map(|link| {
                let (target, alias) = split_link(link);
                alias.eq_ignore_ascii_case(name).then_some(target)
            });
            let name = target.map_or_else(|| name.to_owned(), str::to_ascii_lowercase);
            for other in self.all() {
                let status = other.status();
                if !alive(&status) {
                    continue;
                }
                for place in status.networks.iter().filter(|p| p.network == own.network) {
                    if answers(&other, &status, place, &name) {
                        found.extend(place.places.iter().map(|p| p.address));
                    }
                }
            }
        }
        (!found.is_empty()).then_some(found)
    }

    fn name(&self, network: &str, asker: IpAddr, address: IpAddr) -> Option<String> {
        let (_, status) = self.asker(network, asker)?;
        for own in status.networks.iter().filter(|place| !place.on_bridge()) {
            if let Some((_, status)) = self.asker(&own.network, address) {
                return Some(format!("{}.{}", status.name, own.name));
            }
        }
        None
    }

    fn servers(&self, network: &str, asker: IpAddr) -> Vec<IpAddr> {
        let Some((container, status)) = self.asker(network, asker) else {
            return Vec::new();
        };
        if guest::way_out(&status.networks, false).is_none()
            && guest::way_out(&status.networks, true).is_none()
        {
            return Vec::new();
        }
        let own: Vec<IpAddr> = container
            .spec
            .options
            .dns
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect();
        if own.is_empty() {
            self.networks.servers().to_vec()
        } else {
            own
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::external::External;

    #[test]
    fn ports_are_open_at_both_addresses_of_an_external_network_and_at_no_other() {
        let place = |external: Option<External>, number: u8| -> Attachment {
            let address = |text: String| Place {
                address: text.parse().unwrap(),
                prefix: 24,
                gateway: Ipv4Addr::UNSPECIFIED.into(),
            };
            serde_json::from_value(serde_json::json!({
                "network": "n", "name": "n", "port_group": "pg", "endpoint": "", "mac": "", "external": external,
                "places": [address(format!("10.0.{number}.2")), address(format!("fd00:{number}::2"))],
            }))
            .unwrap()
        };
        let request = |port, host: Option<&str>| PortRequest {
            protocol: crate::networks::router::Protocol::Tcp,
            port,
            host: host.map(|text| text.parse().unwrap()),
            range: (0, 0),
        };
        let requests = [
            request(80, None),
            request(80, Some("0.0.0.0")),
            request(81, Some("127.0.0.1")),
        ];
        let places = [place(None, 1), place(Some(External::default()), 2)];
        let open: Vec<_> = own_ports(&requests, &places)
            .iter()
            .map(|b| (b.host.to_string(), b.host_port, b.target))
            .collect();
        let at = |text: &str| (text.to_owned(), 80, text.parse().unwrap());
        assert_eq!(open, [at("10.0.2.2"), at("fd00:2::2")]);
    }

    #[test]
    fn a_link_is_a_name_and_what_it_is_called() {
        assert_eq!(split_link("db:database"), ("db", "database"));
        assert_eq!(split_link("db"), ("db", "db"));
        assert_eq!(split_link("/db:/web/database"), ("db", "database"));
    }
}
