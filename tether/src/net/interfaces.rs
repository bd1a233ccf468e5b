//! Brings up the container's interfaces as configured, by rtnetlink(7).

use super::netlink::{CREATE, Message, REQUEST, Socket};
use super::uevent::Uevents;
use nix::sys::socket::SockProtocol;
use std::fs;
use std::io;
use std::net::IpAddr;
use wire::config::Interface;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
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
    set_link(&mut socket, 1, None, 0).map_err(|e| format!("bringing up lo: {e}"))?;
    for interface in interfaces {
        let fail = |what: String, e: io::Error| {
            format!("{} ({}): {what}: {e}", interface.name, interface.mac)
        };
        if interface.addresses.is_empty() {
            return Err(format!(
                "{} ({}) has no address and this tether does no DHCP: give it an address",
                interface.name, interface.mac
            ));
        }
        let index = find(&interface.mac, events)
            .await
            .map_err(|e| fail("waiting for a vNIC with this MAC address".into(), e))?;
        set_link(&mut socket, index, Some(&interface.name), interface.mtu)
            .map_err(|e| fail(format!("bringing it up with MTU {}", interface.mtu), e))?;
        for address in &interface.addresses {
            let (ip, prefix) = parse(address).ok_or_else(|| {
                format!(
                    "{}: {address:?} is not an address with prefix length, like 172.17.0.2/16",
                    interface.name
                )
            })?;
            socket
                .request(address_message(index, ip, prefix))
                .map_err(|e| fail(format!("adding address {address}"), e))?;
        }
        for gateway in &interface.gateways {
            let ip: IpAddr = gateway.parse().map_err(|_| {
                format!(
                    "{}: gateway {gateway:?} is not an IP address",
                    interface.name
                )
            })?;
            socket
                .request(route_message(index, ip))
                .map_err(|e| fail(format!("adding default route by {gateway}"), e))?;
        }
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

async fn find(mac: &str, events: &mut Uevents) -> io::Result<u32> {
    events
        .wait_for(|| {
            for entry in fs::read_dir("/sys/class/net")?.flatten() {
                let read =
                    |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
                if read("address").trim().eq_ignore_ascii_case(mac) {
                    return Ok(read("ifindex").trim().parse().ok());
                }
            }
            Ok(None)
        })
        .await
}

fn set_link(socket: &mut Socket, index: u32, name: Option<&str>, mtu: u32) -> io::Result<()> {
    let header = |up: u32| {
        // struct ifinfomsg: family, pad, type, index, flags, change.
        let mut fixed = vec![0u8; 4];
        fixed.extend(index.to_ne_bytes());
        fixed.extend(up.to_ne_bytes());
        fixed.extend(IFF_UP.to_ne_bytes());
        fixed
    };
    // Name and MTU while it is down, then up.
    let mut message = Message::new(RTM_NEWLINK, REQUEST, &header(0));
    if let Some(name) = name {
        message = message.with(IFLA_IFNAME, format!("{name}\0").as_bytes());
        if mtu != 0 {
            message = message.with(IFLA_MTU, &mtu.to_ne_bytes());
        }
        socket.request(message)?;
    }
    socket
        .request(Message::new(RTM_NEWLINK, REQUEST, &header(IFF_UP)))
        .map(drop)
}

fn octets(ip: IpAddr) -> Vec<u8> {
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

fn address_message(index: u32, ip: IpAddr, prefix: u8) -> Message {
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let mut fixed = vec![
        family(ip),
        prefix,
        if ip.is_ipv6() { IFA_F_NODAD } else { 0 },
        0,
    ];
    fixed.extend(index.to_ne_bytes());
    let message = Message::new(RTM_NEWADDR, REQUEST | CREATE, &fixed)
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

fn route_message(index: u32, gateway: IpAddr) -> Message {
    // struct rtmsg: family, dst_len, src_len, tos, table main, protocol boot, scope universe, unicast, flags.
    let fixed = [family(gateway), 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    Message::new(RTM_NEWROUTE, REQUEST | CREATE, &fixed)
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
