//! DHCP messages in their UDP and IP packets: what a client sends, and what it takes of an answer (RFC 2131, RFC 2132).

use std::net::Ipv4Addr;

/// What a client says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Who is there?
    Discover,
    /// I take what that server offered.
    Request {
        /// The server.
        server: Ipv4Addr,
        /// The address that it offered.
        address: Ipv4Addr,
    },
    /// I have this address and keep it; to the server that gave it, or (`None`) to any.
    Renew {
        /// The address.
        address: Ipv4Addr,
        /// The server.
        server: Option<Ipv4Addr>,
    },
    /// Somebody else has what that server gave.
    Decline {
        /// The server.
        server: Ipv4Addr,
        /// The address.
        address: Ipv4Addr,
    },
}

/// What a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// DHCPOFFER.
    Offer,
    /// DHCPACK.
    Ack,
    /// DHCPNAK.
    Nak,
}

/// What an answer says, as far as it counts here. Whoever sent it is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which.
    pub kind: Kind,
    /// The address (`yiaddr`).
    pub address: Ipv4Addr,
    /// Length of the subnet's prefix; by the address's class where the server does not say.
    pub prefix: u8,
    /// The server (option 54).
    pub server: Ipv4Addr,
    /// Seconds of the lease (51), to its renewal (58), to its rebinding (59); 0: not said.
    pub times: [u32; 3],
    /// The first router (3).
    pub router: Option<Ipv4Addr>,
    /// Destination, prefix length and router (121); a router of 0.0.0.0 is the link itself.
    pub routes: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    /// Name servers (6).
    pub dns: Vec<Ipv4Addr>,
    /// Domain (15); empty where it is none that can be in a file.
    pub domain: String,
    /// Bytes (26); 0: not said.
    pub mtu: u16,
}

/// The client's constant part.
#[derive(Debug, Clone)]
pub struct Client {
    /// MAC address.
    pub mac: [u8; 6],
    /// Host name, for the server's dynamic DNS (12).
    pub hostname: String,
}

const COOKIE: [u8; 4] = [99, 130, 83, 99];
const IP: usize = 20;
const HEADERS: usize = IP + 8;
/// Fixed part of a message, with the cookie.
const FIXED: usize = 240;
/// What is wanted: mask, router, name servers, domain, MTU, routes.
const WANTED: [u8; 6] = [1, 3, 6, 15, 26, 121];
/// Name servers and routes, at most.
const MOST: usize = 16;

/// A client's packet, from the IP header on.
#[must_use]
pub fn write(client: &Client, xid: u32, ask: Ask) -> Vec<u8> {
    let mut out = vec![0; HEADERS + FIXED];
    let kind = match ask {
        Ask::Discover => 1,
        Ask::Decline { .. } => 4,
        _ => 3,
    };
    let (mut from, mut to) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    let mut option = |code: u8, value: &[u8]| {
        out.extend([code, value.len() as u8]);
        out.extend(value);
    };
    option(53, &[kind]);
    // RFC 2132, 9.14: type of hardware and address.
    option(61, &[&[1], &client.mac[..]].concat());
    let name = client.hostname.as_bytes();
    if !name.is_empty() {
        option(12, &name[..name.len().min(63)]);
    }
    match ask {
        Ask::Discover => {}
        Ask::Request { server, address } | Ask::Decline { server, address } => {
            option(50, &address.octets());
            option(54, &server.octets());
        }
        Ask::Renew { address, server } => {
            from = address;
            to = server.unwrap_or(to);
        }
    }
    option(55, &WANTED);
    option(57, &1500u16.to_be_bytes());
    out.push(255);

    let message = &mut out[HEADERS..];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[4..8].copy_from_slice(&xid.to_be_bytes());
    message[12..16].copy_from_slice(&from.octets());
    message[28..34].copy_from_slice(&client.mac);
    message[FIXED - 4..FIXED].copy_from_slice(&COOKIE);

    let len = out.len() as u16;
    out[..4].copy_from_slice(&[0x45, 0, (len >> 8) as u8, len as u8]);
    out[8..10].copy_from_slice(&[64, 17]);
    out[12..16].copy_from_slice(&from.octets());
    out[16..20].copy_from_slice(&to.octets());
    let sum = checksum(&out[..IP]);
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    // UDP: ports, length; a checksum of 0 is none.
    let udp = len - IP as u16;
    out[IP..IP + 6].copy_from_slice(&[0, 68, 0, 67, (udp >> 8) as u8, udp as u8]);
    out
}

/// Ethernet, IPv4, and the lengths of both addresses; what is asked (RFC 826).
const ARP: [u8; 6] = [0, 1, 8, 0, 6, 4];
/// Bytes of an ARP packet.
const ARP_LEN: usize = 28;

/// The question whether anybody has an address (RFC 5227, 2.1.1).
#[must_use]
pub fn probe(mac: [u8; 6], address: Ipv4Addr) -> [u8; ARP_LEN] {
    let mut out = [0; ARP_LEN];
    out[..6].copy_from_slice(&ARP);
    out[7] = 1;
    out[8..14].copy_from_slice(&mac);
    out[24..].copy_from_slice(&address.octets());
    out
}

/// Whether an ARP packet says that another station has an address, or is about to take it.
#[must_use]
pub fn claims(packet: &[u8], mac: [u8; 6], address: Ipv4Addr) -> bool {
    let Some(packet) = packet.first_chunk::<ARP_LEN>() else {
        return false;
    };
    let (sender, target) = (&packet[14..18], &packet[24..]);
    let claimed = if sender == [0; 4] { target } else { sender };
    packet[..6] == ARP && packet[8..14] != mac && *claimed == address.octets()
}

/// The Internet checksum of an even number of bytes (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    bytes.first_chunk::<4>().map(|b| Ipv4Addr::from(*b))
}

/// Reads a packet, from the IP header on; `None` where it is no answer to this client and exchange.
#[must_use]
pub fn read(packet: &[u8], client: &Client, xid: u32) -> Option<Answer> {
    let first = *packet.first()?;
    let header = usize::from(first & 15) * 4;
    let len = u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]);
    // What is behind the packet is the frame's filling.
    let packet = packet.get(..usize::from(len))?;
    if first >> 4 != 4 || header < IP || packet.get(9) != Some(&17) {
        return None;
    }
    let udp = packet.get(header..)?;
    if udp.get(..4)? != [0, 67, 0, 68] {
        return None;
    }
    let message = udp.get(8..)?;
    let fixed = message.get(..FIXED)?;
    if fixed[..3] != [2, 1, 6]
        || fixed[4..8] != xid.to_be_bytes()
        || fixed[28..34] != client.mac
        || fixed[FIXED - 4..] != COOKIE
    {
        return None;
    }
    let own = address(&fixed[16..20])?;
    let mut answer = Answer {
        kind: Kind::Offer,
        address: own,
        prefix: match own.octets()[0] {
            0..128 => 8,
            128..192 => 16,
            _ => 24,
        },
        server: Ipv4Addr::UNSPECIFIED,
        times: [0; 3],
        router: None,
        routes: Vec::new(),
        dns: Vec::new(),
        domain: String::new(),
        mtu: 0,
    };
    let mut kind = None;
    for (code, value) in options(&message[FIXED..]) {
        let number = value.first_chunk::<4>().map(|b| u32::from_be_bytes(*b));
        match code {
            1 => {
                let mask = number?;
                (mask.leading_ones() + mask.trailing_zeros() == 32).then_some(())?;
                answer.prefix = mask.leading_ones() as u8;
            }
            3 => answer.router = address(value).filter(|a| !a.is_unspecified()),
            6 => {
                let servers = value.chunks_exact(4).filter_map(address);
                answer.dns = servers.take(MOST).collect();
            }
            15 => answer.domain = domain(value),
            26 => answer.mtu = u16::from_be_bytes(*value.first_chunk::<2>()?),
            51 => answer.times[0] = number?,
            58 => answer.times[1] = number?,
            59 => answer.times[2] = number?,
            53 => kind = value.first().copied(),
            54 => answer.server = address(value)?,
            121 => answer.routes = routes(value),
            _ => {}
        }
    }
    answer.kind = match kind? {
        2 => Kind::Offer,
        5 => Kind::Ack,
        6 => Kind::Nak,
        _ => return None,
    };
    let usable = !own.is_unspecified()
        && !own.is_broadcast()
        && !own.is_multicast()
        && !own.is_loopback()
        && answer.prefix != 0;
    (answer.kind == Kind::Nak || usable).then_some(answer)
}

/// Code and value of each option, as far as they are whole.
fn options(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        while bytes.first() == Some(&0) {
            bytes = &bytes[1..];
        }
        let code = *bytes.first().filter(|code| **code != 255)?;
        let len = usize::from(*bytes.get(1)?);
        let value = bytes.get(2..2 + len)?;
        bytes = &bytes[2 + len..];
        Some((code, value))
    })
}

/// A domain name that may stand in /etc/resolv.conf.
fn domain(value: &[u8]) -> String {
    let value = value.strip_suffix(&[0]).unwrap_or(value);
    let good = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if !value.iter().all(good) {
        return String::new();
    }
    String::from_utf8_lossy(value).into_owned()
}

/// Classless static routes (RFC 3442): prefix length, as many bytes of the destination as count, router.
fn routes(mut value: &[u8]) -> Vec<(Ipv4Addr, u8, Ipv4Addr)> {
    let mut out = Vec::new();
    while let Some((prefix, rest)) = value.split_first() {
        let count = usize::from(prefix.div_ceil(8));
        let (Some(part), Some(router)) = (
            rest.get(..count).filter(|_| *prefix <= 32),
            rest.get(count..).and_then(address),
        ) else {
            break;
        };
        let mut octets = [0; 4];
        octets[..count].copy_from_slice(part);
        if out.len() < MOST {
            out.push((octets.into(), *prefix, router));
        }
        value = &rest[count + 4..];
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client() -> Client {
        Client {
            mac: [0, 0x50, 0x56, 1, 2, 3],
            hostname: "web".into(),
        }
    }

    /// A server's packet with these options.
    pub(crate) fn answer(xid: u32, yiaddr: [u8; 4], options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = write(&client(), xid, Ask::Discover);
        out.truncate(HEADERS + FIXED);
        out[HEADERS] = 2;
        out[HEADERS + 16..HEADERS + 20].copy_from_slice(&yiaddr);
        out[IP..IP + 4].copy_from_slice(&[0, 67, 0, 68]);
        for (code, value) in options {
            out.extend([*code, value.len() as u8]);
            out.extend(*value);
        }
        out.push(255);
        let len = out.len() as u16;
        out[2..4].copy_from_slice(&len.to_be_bytes());
        out
    }

    #[test]
    fn an_answer_is_read() {
        let packet = answer(
            7,
            [10, 1, 2, 3],
            &[
                (53, &[5]),
                (54, &[10, 1, 2, 1]),
                (1, &[255, 255, 254, 0]),
                (3, &[10, 1, 2, 1, 10, 1, 2, 9]),
                (6, &[9, 9, 9, 9, 8, 8, 8, 8]),
                (15, b"example.org\0"),
                (26, &[5, 120]),
                (51, &[0, 0, 0, 20]),
                (121, &[24, 10, 9, 9, 10, 1, 2, 7, 0, 10, 1, 2, 1]),
            ],
        );
        let read = read(&packet, &client(), 7).unwrap();
        assert_eq!(read.kind, Kind::Ack);
        assert_eq!(
            (read.address.to_string(), read.prefix),
            ("10.1.2.3".into(), 23)
        );
        assert_eq!(read.router.unwrap().to_string(), "10.1.2.1");
        assert_eq!(read.dns.len(), 2);
        assert_eq!(read.domain, "example.org");
        assert_eq!((read.mtu, read.times), (1400, [20, 0, 0]));
        let routes: Vec<String> = read
            .routes
            .iter()
            .map(|(to, prefix, by)| format!("{to}/{prefix} {by}"))
            .collect();
        assert_eq!(routes, ["10.9.9.0/24 10.1.2.7", "0.0.0.0/0 10.1.2.1"]);
    }

    #[test]
    fn what_is_for_others_or_lies_is_no_answer() {
        let ack: &[(u8, &[u8])] = &[(53, &[5])];
        let good = answer(7, [10, 1, 2, 3], ack);
        assert!(read(&good, &client(), 7).is_some());
        assert!(read(&good, &client(), 8).is_none(), "another exchange");
        let other = Client {
            mac: [0; 6],
            ..client()
        };
        assert!(read(&good, &other, 7).is_none(), "another client");
        for address in [[0, 0, 0, 0], [255; 4], [127, 0, 0, 1], [224, 0, 0, 1]] {
            assert!(read(&answer(7, address, ack), &client(), 7).is_none());
        }
        let mask: &[(u8, &[u8])] = &[(53, &[5]), (1, &[255, 0, 255, 0])];
        assert!(read(&answer(7, [10, 1, 2, 3], mask), &client(), 7).is_none());
        let evil: &[(u8, &[u8])] = &[(53, &[5]), (15, b"x\nnameserver 1.2.3.4")];
        let evil = read(&answer(7, [10, 1, 2, 3], evil), &client(), 7).unwrap();
        assert_eq!(evil.domain, "");
    }

    #[test]
    fn a_request_has_its_checksum_and_its_options() {
        let ask = Ask::Request {
            server: [10, 1, 2, 1].into(),
            address: [10, 1, 2, 3].into(),
        };
        let packet = write(&client(), 7, ask);
        assert_eq!(checksum(&packet[..IP]), 0);
        let list: Vec<_> = options(&packet[HEADERS + FIXED..]).collect();
        assert!(list.contains(&(53, &[3])) && list.contains(&(12, b"web")));
        assert!(list.contains(&(50, &[10, 1, 2, 3])) && list.contains(&(54, &[10, 1, 2, 1])));
        assert!(list.contains(&(61, &[1, 0, 0x50, 0x56, 1, 2, 3])));
    }

    #[test]
    fn an_address_is_somebody_else_s_if_he_says_so_or_asks_for_it_himself() {
        let (own, other): ([u8; 6], [u8; 6]) = (client().mac, [2; 6]);
        let [address, elsewhere]: [Ipv4Addr; 2] = [[10, 1, 2, 3].into(), [10, 1, 2, 4].into()];
        let mut answer = probe(other, elsewhere);
        answer[7] = 2;
        answer[14..18].copy_from_slice(&address.octets());
        assert!(claims(&answer, own, address));
        assert!(!claims(&answer, own, elsewhere));
        assert!(!claims(&answer, other, address), "it is our own");
        assert!(!claims(&answer[..27], own, address), "it is cut");
        assert!(claims(&probe(other, address), own, address));
        assert!(!claims(&probe(own, address), own, address), "it came back");
        answer[1] = 6;
        assert!(!claims(&answer, own, address), "it is not Ethernet's");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(
            options in proptest::collection::vec(any::<u8>(), 0..400),
            cut in 0usize..600,
            at in 0usize..268,
            byte: u8,
        ) {
            let mut packet = answer(7, [10, 1, 2, 3], &[(53, &[5])]);
            packet.pop();
            packet.extend(options);
            let len = packet.len() as u16;
            packet[2..4].copy_from_slice(&len.to_be_bytes());
            if at > 4 {
                packet[at] = byte;
            }
            packet.truncate(packet.len().min(cut + 100));
            if let Some(answer) = read(&packet, &client(), 7) {
                prop_assert!(answer.prefix <= 32 && answer.dns.len() <= MOST && answer.routes.len() <= MOST);
                prop_assert!(answer.routes.iter().all(|(_, prefix, _)| *prefix <= 32));
            }
        }
    }
}
