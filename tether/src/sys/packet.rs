//! Packet sockets (packet(7)): IPv4 and ARP from and to an interface that has no address yet.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `ETH_P_IP` in network byte order.
const IPV4: u16 = (libc::ETH_P_IP as u16).to_be();
/// `ETH_P_ARP` in network byte order.
const ARP: u16 = (libc::ETH_P_ARP as u16).to_be();
const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

/// What is let in, as a classic BPF program over the IP packet: UDP, not the later part of a fragmented packet, to one
/// port.
fn program(port: u16) -> [libc::sock_filter; 9] {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    [
        step(0x30, 0, 0, 9),
        step(0x15, 0, 6, 17),
        step(0x28, 0, 0, 6),
        step(0x45, 4, 0, 0x1fff),
        step(0xb1, 0, 0, 0),
        step(0x48, 0, 0, 2),
        step(0x15, 0, 1, port.into()),
        step(0x06, 0, 0, 0xffff),
        step(0x06, 0, 0, 0),
    ]
}

/// A socket for the UDP packets to a port, from the IP header on, at an interface; non-blocking.
///
/// # Errors
/// Those of socket(2), setsockopt(2) and bind(2); `EAFNOSUPPORT` where the kernel has no packet sockets.
pub fn open(index: u32, port: u16) -> io::Result<OwnedFd> {
    let fd = unbound()?;
    let mut steps = program(port);
    let filter = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: `filter` and what it points to live through the call, which reads `len` steps.
    let attached = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    super::check(attached.into())?;
    bind(fd, address(index, [0; 6]))
}

/// A socket for the ARP packets at an interface; non-blocking.
///
/// # Errors
/// Those of socket(2) and bind(2).
pub fn open_arp(index: u32) -> io::Result<OwnedFd> {
    let mut at = address(index, [0; 6]);
    at.sll_protocol = ARP;
    bind(unbound()?, at)
}

fn unbound() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // Protocol 0: nothing comes before a filter is there and the interface is named.
    // SAFETY: no pointers.
    let fd = super::check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) }.into())?;
    // SAFETY: the call has made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn bind(fd: OwnedFd, at: libc::sockaddr_ll) -> io::Result<OwnedFd> {
    // SAFETY: a whole address of the length that is named.
    let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const at).cast(), ADDRESS_LEN) };
    super::check(bound.into())?;
    Ok(fd)
}

fn address(index: u32, mac: [u8; 6]) -> libc::sockaddr_ll {
    let mut to = [0; 8];
    to[..6].copy_from_slice(&mac);
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: IPV4,
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: to,
    }
}

/// Sends an IP packet to a station.
///
/// # Errors
/// Those of sendto(2).
pub fn send(socket: &OwnedFd, index: u32, to: [u8; 6], packet: &[u8]) -> io::Result<()> {
    send_to(socket, address(index, to), packet)
}

/// Sends an ARP packet to all stations.
///
/// # Errors
/// Those of sendto(2).
pub fn send_arp(socket: &OwnedFd, index: u32, packet: &[u8]) -> io::Result<()> {
    let mut to = address(index, [0xff; 6]);
    to.sll_protocol = ARP;
    send_to(socket, to, packet)
}

fn send_to(socket: &OwnedFd, to: libc::sockaddr_ll, packet: &[u8]) -> io::Result<()> {
    // SAFETY: both buffers live through the call, with the lengths that are named.
    super::check(unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const to).cast(),
            ADDRESS_LEN,
        )
    } as libc::c_long)
    .map(drop)
}

/// Receives a packet: its length, and the station that sent it. What is longer than the buffer is cut.
///
/// # Errors
/// Those of recvfrom(2).
pub fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<(usize, [u8; 6])> {
    let mut from = address(0, [0; 6]);
    let mut len = ADDRESS_LEN;
    // SAFETY: both buffers live through the call, with the lengths that are named; any bytes make an address.
    let got = super::check(unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut from).cast(),
            &raw mut len,
        )
    } as libc::c_long)?;
    let mut mac = [0; 6];
    mac.copy_from_slice(&from.sll_addr[..6]);
    Ok((got as usize, mac))
}
