//! Brings up the container's interfaces as configured, by rtnetlink(7).

use super::dhcp::Answer;
use super::netlink::{CREATE, Message, REQUEST, Socket};
use super::uevent::Uevents;
use nix::sys::socket::SockProtocol;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use wire::config::{FROM_LEASE, Interface};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const IFF_UP: u32 = 1;
/// Duplicate detection would hold an IPv6 address back for a second; the endpoint gave it out once.
const IFA_F_NODAD: u8 = 2;

/// Brings up `lo`, then each interface: found by its MAC address (and waited for), named, up, with
/// its addresses and default routes.
///
/// # Errors
/// Text that names the interface and what failed.
pub async fn bring_up(interfaces: &[Interface], events: &mut Uevents) -> Result<(), String> {
    let mut socket = Socket::open(SockProtocol::NetlinkRoute)
        .map_err(|e| format!("opening a netlink socket: {e}"))?;
    set_flags(&mut socket, 1, IFF_UP).map_err(|e| format!("bringing up lo: {e}"))?;
    for interface in interfaces {
        bring_one_up(&mut socket, interface, events).await?;
    }
    // As Docker: any user may ping and serve on any port.
    for (file, value) in [
        ("ping_group_range", "0 2147483647"),
        ("ip_unprivileged_port_start", "0"),
    ] {
        // Not every kernel has both.
        let _ = fs::write(format!("/proc/sys/net/ipv4/{file}"), value);
    }
    Ok(())
}

/// The groups of modules that these interfaces need.
#[must_use]
pub fn modules(interfaces: &[Interface]) -> Vec<&'static str> {
    let dynamic = interfaces.iter().any(|i| i.addresses.is_empty());
    let ipv6 = dynamic || interfaces.iter().any(has_ipv6);
    let groups = [(ipv6, "ipv6"), (dynamic, "packet")];
    groups.into_iter().filter(|g| g.0).map(|g| g.1).collect()
}

fn has_ipv6(interface: &Interface) -> bool {
    interface.addresses.iter().any(|a| a.contains(':'))
}

/// Makes the interfaces those of `new`: takes down what is not named, brings up what is not there yet, and sets the
/// default routes anew.
///
/// # Errors
/// Text that names the interface and what failed.
pub async fn change(
    old: &[Interface],
    new: &[Interface],
    events: &mut Uevents,
) -> Result<(), String> {
    let mut socket = Socket::open(SockProtocol::NetlinkRoute)
        .map_err(|e| format!("opening a netlink socket: {e}"))?;
    let among = |list: &[Interface], one: &Interface| list.iter().any(|i| i.mac == one.mac);
    for gone in old.iter().filter(|interface| !among(new, interface)) {
        // Its vNIC may be gone already.
        if let Ok(Some(index)) = look(&gone.mac) {
            set_flags(&mut socket, index, 0)
                .map_err(|e| format!("taking {} ({}) down: {e}", gone.name, gone.mac))?;
        }
    }
    for family in [libc::AF_INET, libc::AF_INET6] {
        // Each goes by itself; the last attempt finds none.
        while socket
            .request(default_route(RTM_DELROUTE, family as u8))
            .is_ok()
        {}
    }
    for interface in new {
        if !among(old, interface) {
            bring_one_up(&mut socket, interface, events).await?;
            continue;
        }
        let index = find(&interface.mac, events)
            .await
            .map_err(|e| format!("{} ({}) is not there: {e}", interface.name, interface.mac))?;
        add_gateways(&mut socket, index, interface)?;
    }
    Ok(())
}

async fn bring_one_up(
    socket: &mut Socket,
    interface: &Interface,
    events: &mut Uevents,
) -> Result<(), String> {
    let fail =
        |what: String, e: io::Error| format!("{} ({}): {what}: {e}", interface.name, interface.mac);
    let index = find(&interface.mac, events)
        .await
        .map_err(|e| fail("waiting for a vNIC with this MAC address".into(), e))?;
    let starting = |e| fail(format!("bringing it up with MTU {}", interface.mtu), e);
    let name = &interface.name;
    take_name(socket, index, name, interface.mtu).map_err(starting)?;
    if !interface.addresses.is_empty() {
        match has_ipv6(interface) {
            // Whoever has given it its addresses knows its routers, too.
            true => setting("ipv6", name, "accept_ra", "0"),
            // As Docker: a network without IPv6 has none between its members either.
            false => setting("ipv6", name, "disable_ipv6", "1"),
        }
    }
    set_flags(socket, index, IFF_UP).map_err(starting)?;
    for address in &interface.addresses {
        let (ip, prefix) = parse(address).ok_or_else(|| {
            format!(
                "{}: {address:?} is not an address with prefix length, like 172.17.0.2/16",
                interface.name
            )
        })?;
        socket
            .request(address_message(RTM_NEWADDR, index, ip, prefix))
            .map_err(|e| fail(format!("adding address {address}"), e))?;
    }
    announce(socket, index, interface);
    add_gateways(socket, index, interface)
}

/// Sets a kernel's setting of an interface; not every kernel has all.
fn setting(family: &str, interface: &str, name: &str, value: &str) {
    let _ = fs::write(
        format!("/proc/sys/net/{family}/conf/{interface}/{name}"),
        value,
    );
}

/// Tells the neighbours who has the addresses now (gratuitous ARP, unsolicited neighbour advertisements): another VM may
/// have had them. The kernel does when an interface's MAC address is set, to what it is or not.
fn announce(socket: &mut Socket, index: u32, interface: &Interface) {
    setting("ipv4", &interface.name, "arp_notify", "1");
    setting("ipv6", &interface.name, "ndisc_notify", "1");
    let mac: Vec<u8> = interface
        .mac
        .split(':')
        .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    let message =
        Message::new(RTM_NEWLINK, REQUEST, &link_header(index, IFF_UP)).with(IFLA_ADDRESS, &mac);
    // A device that cannot: the neighbours find out by themselves.
    let _ = socket.request(message);
}

/// Gives an interface what a DHCP server has told: address, MTU, routes; the default one if it is to be this interface's.
///
/// # Errors
/// The kernel's.
pub fn take_lease(index: u32, interface: &Interface, answer: &Answer) -> io::Result<()> {
    let mut socket = Socket::open(SockProtocol::NetlinkRoute)?;
    let address = IpAddr::V4(answer.address);
    socket.request(address_message(RTM_NEWADDR, index, address, answer.prefix))?;
    // The least that IPv4 asks of a link (RFC 791).
    if interface.mtu == 0 && answer.mtu >= 576 {
        let mtu = Message::new(RTM_NEWLINK, REQUEST, &link_header(index, IFF_UP))
            .with(IFLA_MTU, &u32::from(answer.mtu).to_ne_bytes());
        if let Err(error) = socket.request(mtu) {
            crate::console(&format!("{}: MTU {}: {error}", interface.name, answer.mtu));
        }
    }
    announce(&mut socket, index, interface);
    let way_out = interface
        .gateways
        .iter()
        .any(|gateway| gateway == FROM_LEASE);
    let default = answer
        .router
        .map(|router| (Ipv4Addr::UNSPECIFIED, 0, router));
    // RFC 3442: where there are classless routes, the router's option does not count.
    let routes = match answer.routes.is_empty() {
        true => default.as_slice(),
        false => &answer.routes,
    };
    for (to, prefix, router) in routes
        .iter()
        .filter(|(_, prefix, _)| *prefix != 0 || way_out)
    {
        socket.request(leased_route(index, *to, *prefix, *router))?;
    }
    Ok(())
}

/// Takes the address of a lease that is over, and with it the routes.
///
/// # Errors
/// The kernel's.
pub fn give_back(index: u32, answer: &Answer) -> io::Result<()> {
    let address = IpAddr::V4(answer.address);
    Socket::open(SockProtocol::NetlinkRoute)?
        .request(address_message(RTM_DELADDR, index, address, answer.prefix))
        .map(drop)
}

/// A route of a lease. Its router need not be of the address's subnet; 0.0.0.0 is the link itself.
fn leased_route(index: u32, to: Ipv4Addr, prefix: u8, router: Ipv4Addr) -> Message {
    const SCOPE_LINK: u8 = 253;
    const ONLINK: u8 = 4;
    let direct = router.is_unspecified();
    let (scope, flags) = if direct { (SCOPE_LINK, 0) } else { (0, ONLINK) };
    let fixed = [
        libc::AF_INET as u8,
        prefix,
        0,
        0,
        254,
        3,
        scope,
        1,
        flags,
        0,
        0,
        0,
    ];
    let mut message = Message::new(RTM_NEWROUTE, REQUEST | CREATE, &fixed);
    if prefix != 0 {
        // The kernel refuses bits behind the prefix.
        let mask = u32::MAX << (32 - u32::from(prefix));
        message = message.with(RTA_DST, &(u32::from(to) & mask).to_be_bytes());
    }
    if !direct {
        message = message.with(RTA_GATEWAY, &router.octets());
    }
    message.with(RTA_OIF, &index.to_ne_bytes())
}

fn add_gateways(socket: &mut Socket, index: u32, interface: &Interface) -> Result<(), String> {
    for gateway in interface.gateways.iter().filter(|g| *g != FROM_LEASE) {
        let ip: IpAddr = gateway.parse().map_err(|_| {
            format!(
                "{}: gateway {gateway:?} is not an IP address",
                interface.name
            )
        })?;
        socket.request(route_message(index, ip)).map_err(|e| {
            format!(
                "{} ({}): adding default route by {gateway}: {e}",
                interface.name, interface.mac
            )
        })?;
    }
    Ok(())
}

async fn find(mac: &str, events: &mut Uevents) -> io::Result<u32> {
    events.wait_for(|| look(mac)).await
}

/// The index of the interface with a MAC address.
///
/// # Errors
/// Those of sysfs.
pub fn look(mac: &str) -> io::Result<Option<u32>> {
    for entry in fs::read_dir("/sys/class/net")?.flatten() {
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        if read("address").trim().eq_ignore_ascii_case(mac) {
            return Ok(read("ifindex").trim().parse().ok());
        }
    }
    Ok(None)
}

/// struct ifinfomsg: family, pad, type, index, flags, change (of IFF_UP).
fn link_header(index: u32, flags: u32) -> Vec<u8> {
    let mut fixed = vec![0u8; 4];
    fixed.extend(index.to_ne_bytes());
    fixed.extend(flags.to_ne_bytes());
    fixed.extend(IFF_UP.to_ne_bytes());
    fixed
}

fn set_flags(socket: &mut Socket, index: u32, flags: u32) -> io::Result<()> {
    let message = Message::new(RTM_NEWLINK, REQUEST, &link_header(index, flags));
    socket.request(message).map(drop)
}

fn rename(socket: &mut Socket, index: u32, name: &str, mtu: u32) -> io::Result<()> {
    let mut message = Message::new(RTM_NEWLINK, REQUEST, &link_header(index, 0))
        .with(IFLA_IFNAME, format!("{name}\0").as_bytes());
    if mtu != 0 {
        message = message.with(IFLA_MTU, &mtu.to_ne_bytes());
    }
    socket.request(message).map(drop)
}

/// Name and MTU, of an interface that is down.
fn take_name(socket: &mut Socket, index: u32, name: &str, mtu: u32) -> io::Result<()> {
    match rename(socket, index, name, mtu) {
        // The kernel numbered the vNICs in another order: whoever has the name gets its own later.
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
            let path = format!("/sys/class/net/{name}/ifindex");
            if let Ok(other) = fs::read_to_string(path)?.trim().parse() {
                rename(socket, other, &format!("vnic{other}"), 0)?;
            }
            rename(socket, index, name, mtu)
        }
        other => other,
    }
}

/// An address as it is in a packet.
pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() {
        libc::AF_INET as u8
    } else {
        libc::AF_INET6 as u8
    }
}

fn address_message(kind: u16, index: u32, ip: IpAddr, prefix: u8) -> Message {
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let mut fixed = vec![
        family(ip),
        prefix,
        if ip.is_ipv6() { IFA_F_NODAD } else { 0 },
        0,
    ];
    fixed.extend(index.to_ne_bytes());
    let flags = if kind == RTM_NEWADDR {
        REQUEST | CREATE
    } else {
        REQUEST
    };
    let message = Message::new(kind, flags, &fixed)
        .with(IFA_LOCAL, &octets(ip))
        .with(IFA_ADDRESS, &octets(ip));
    match ip {
        IpAddr::V4(v4) if prefix < 31 => {
            let broadcast = u32::from(v4) | (u32::MAX.checked_shr(prefix.into()).unwrap_or(0));
            message.with(IFA_BROADCAST, &broadcast.to_be_bytes())
        }
        _ => message,
    }
}

/// A message about the default route of a family.
fn default_route(kind: u16, family: u8) -> Message {
    // struct rtmsg: family, dst_len, src_len, tos, table main, protocol boot, scope universe, unicast, flags.
    let fixed = [family, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    let flags = if kind == RTM_NEWROUTE {
        REQUEST | CREATE
    } else {
        REQUEST
    };
    Message::new(kind, flags, &fixed)
}

fn route_message(index: u32, gateway: IpAddr) -> Message {
    default_route(RTM_NEWROUTE, family(gateway))
        .with(RTA_GATEWAY, &octets(gateway))
        .with(RTA_OIF, &index.to_ne_bytes())
}

fn parse(address: &str) -> Option<(IpAddr, u8)> {
    let (ip, prefix) = address.split_once('/')?;
    let (ip, prefix): (IpAddr, u8) = (ip.parse().ok()?, prefix.parse().ok()?);
    (prefix <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_prefix_length() {
        assert_eq!(
            parse("172.17.0.2/16"),
            Some(("172.17.0.2".parse().unwrap(), 16))
        );
        assert_eq!(parse("fd00::2/64").unwrap().1, 64);
        for bad in ["172.17.0.2", "172.17.0.2/33", "x/8", "1.2.3.4/-1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
