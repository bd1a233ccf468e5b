//! The guest's packet filter: what a container's networks are trusted with, as one nf_tables table that is loaded in one
//! transaction (linux/netfilter/nf_tables.h, nfnetlink.h).
//!
//! Each interface has its rules by its name, which the container cannot change. What no rule names is dropped.

use super::interfaces::octets;
use super::netlink::{Message, REQUEST, Socket, put};
use nix::sys::socket::SockProtocol;
use std::io;
use std::net::IpAddr;
use wire::config::Guard;

const TABLE: &[u8] = b"mooring\0";
/// `NLM_F_REQUEST` alone: the kernel tells of an error anyway.
const QUIET: u16 = 1;
const APPEND: u16 = 0x800;
const CREATE: u16 = 0x400;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_SUBSYS_NFTABLES`, as the upper byte of a message's kind.
const NFTABLES: u16 = 10 << 8;
const NEWTABLE: u16 = NFTABLES;
const DELTABLE: u16 = NFTABLES | 2;
const NEWCHAIN: u16 = NFTABLES | 3;
const NEWRULE: u16 = NFTABLES | 6;
const NESTED: u16 = 0x8000;
/// `struct nfgenmsg` of the family inet (NFPROTO_INET).
const INET: [u8; 4] = [1, 0, 0, 0];

const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// The chains: name, hook (linux/netfilter.h, `nf_inet_hooks`), policy.
const CHAINS: [(&[u8], u32, u32); 3] = [
    (b"input\0", 1, DROP),
    (b"forward\0", 2, ACCEPT),
    (b"output\0", 3, DROP),
];
const INPUT: usize = 0;
const FORWARD: usize = 1;
const OUTPUT: usize = 2;

/// Keys of the expression meta.
const IIFNAME: u32 = 6;
const OIFNAME: u32 = 7;
const NFPROTO: u32 = 15;
const L4PROTO: u32 = 16;
/// Operators of the expression cmp.
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;
/// Bases of the expression payload.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
/// The states established and related of the key `state` of the expression ct.
const BELONGS: u32 = 2 | 4;

/// Whether anything is kept from passing at any of the interfaces.
#[must_use]
pub fn guarded(lines: &[String]) -> bool {
    let open =
        |line: &String| Guard::read(line).is_some_and(|guard| guard.passes & Guard::ALL != 0);
    !lines.iter().all(open)
}

/// Makes the filter this one, or removes it where there are no guards.
///
/// # Errors
/// Text that names the filter and the kernel's answer, or what is no guard.
pub fn set(lines: &[String]) -> Result<(), String> {
    let done = || -> io::Result<()> {
        let guards: Option<Vec<Guard>> = lines.iter().map(|line| Guard::read(line)).collect();
        let guards = guards.ok_or(io::ErrorKind::InvalidInput)?;
        let mut socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
        socket.batch(messages(&guards)).map(drop)
    };
    done().map_err(|e| format!("setting the packet filter (nf_tables): {e}"))
}

/// A rule: its expressions.
#[derive(Debug, Default)]
struct Rule(Vec<u8>);

impl Rule {
    /// An expression: its name, and attributes of 32 bits; what follows is appended as it is.
    fn expression(mut self, name: &str, numbers: &[(u16, u32)], more: &[u8]) -> Rule {
        let mut data = Vec::new();
        for (attribute, number) in numbers {
            put(&mut data, *attribute, &number.to_be_bytes());
        }
        data.extend(more);
        let mut whole = Vec::new();
        put(&mut whole, 1, format!("{name}\0").as_bytes());
        put(&mut whole, 2 | NESTED, &data);
        put(&mut self.0, 1 | NESTED, &whole);
        self
    }

    /// Compares register 1.
    fn compare(self, operator: u32, value: &[u8]) -> Rule {
        self.expression("cmp", &[(1, 1), (2, operator)], &data(3, value))
    }

    fn meta(self, key: u32, value: &[u8]) -> Rule {
        self.expression("meta", &[(1, 1), (2, key)], &[])
            .compare(EQUAL, value)
    }

    /// Loads a part of the packet into register 1.
    fn payload(self, base: u32, offset: u32, len: u32) -> Rule {
        let numbers = [(1, 1), (2, base), (3, offset), (4, len)];
        self.expression("payload", &numbers, &[])
    }

    /// At an interface.
    fn at(self, key: u32, interface: &str) -> Rule {
        let mut name = [0; 16];
        for (to, from) in name[..15].iter_mut().zip(interface.bytes()) {
            *to = from;
        }
        self.meta(key, &name)
    }

    /// Of a connection that is known.
    fn belongs(self) -> Rule {
        let mask = [data(4, &BELONGS.to_ne_bytes()), data(5, &[0; 4])].concat();
        self.expression("ct", &[(1, 1), (2, 0)], &[])
            .expression("bitwise", &[(1, 1), (2, 1), (3, 4)], &mask)
            .compare(NOT_EQUAL, &[0; 4])
    }

    /// A message of ICMP (protocol 1) or ICMPv6 (58), of types from and to.
    fn icmp(self, protocol: u8, from: u8, to: u8) -> Rule {
        self.meta(L4PROTO, &[protocol])
            .payload(TRANSPORT, 0, 1)
            .compare(AT_LEAST, &[from])
            .compare(AT_MOST, &[to])
    }

    fn port(self, protocol: u8, port: u16) -> Rule {
        self.meta(L4PROTO, &[protocol])
            .payload(TRANSPORT, 2, 2)
            .compare(EQUAL, &port.to_be_bytes())
    }

    /// Sent from an address between two of one family.
    fn from(self, (first, last): (IpAddr, IpAddr)) -> Rule {
        let (family, offset, len) = match first {
            IpAddr::V4(_) => (libc::AF_INET, 12, 4),
            IpAddr::V6(_) => (libc::AF_INET6, 8, 16),
        };
        self.meta(NFPROTO, &[family as u8])
            .payload(NETWORK, offset, len)
            .compare(AT_LEAST, &octets(first))
            .compare(AT_MOST, &octets(last))
    }

    fn message(self, chain: usize, verdict: u32) -> Message {
        let mut code = Vec::new();
        put(&mut code, 1, &verdict.to_be_bytes());
        let mut data = Vec::new();
        put(&mut data, 2 | NESTED, &code);
        let mut verdict = Vec::new();
        put(&mut verdict, 2 | NESTED, &data);
        let whole = self.expression("immediate", &[(1, 0)], &verdict);
        Message::new(NEWRULE, QUIET | CREATE | APPEND, &INET)
            .with(1, TABLE)
            .with(2, CHAINS[chain].0)
            .with(4 | NESTED, &whole.0)
    }
}

/// The attribute of a value (`NFTA_DATA_VALUE`).
fn data(attribute: u16, value: &[u8]) -> Vec<u8> {
    let (mut inner, mut outer) = (Vec::new(), Vec::new());
    put(&mut inner, 1, value);
    inner.resize(inner.len().next_multiple_of(4), 0);
    put(&mut outer, attribute | NESTED, &inner);
    outer
}

/// The transaction. The table that may be there goes in it: one is made first, or its deletion would fail.
fn messages(guards: &[Guard]) -> Vec<Message> {
    let batch = |kind| Message::new(kind, QUIET, &[0, 0, 0, 10]);
    let table = |kind, flags| Message::new(kind, flags, &INET).with(1, TABLE);
    let mut out = vec![
        batch(BATCH_BEGIN),
        table(NEWTABLE, QUIET | CREATE),
        table(DELTABLE, if guards.is_empty() { REQUEST } else { QUIET }),
    ];
    if !guards.is_empty() {
        out.push(table(NEWTABLE, QUIET | CREATE));
        for (name, hook, policy) in CHAINS {
            let mut place = Vec::new();
            put(&mut place, 1, &hook.to_be_bytes());
            put(&mut place, 2, &[0; 4]);
            out.push(
                Message::new(NEWCHAIN, QUIET | CREATE, &INET)
                    .with(1, TABLE)
                    .with(3, name)
                    .with(4 | NESTED, &place)
                    .with(5, &policy.to_be_bytes())
                    .with(7, b"filter\0"),
            );
        }
        guards.iter().for_each(|guard| rules(guard, &mut out));
        out.push(Rule::default().at(IIFNAME, "lo").message(INPUT, ACCEPT));
        // The last one is acknowledged.
        let last = Rule::default().at(OIFNAME, "lo").message(OUTPUT, ACCEPT);
        out.push(last.acknowledged());
    }
    out.push(batch(BATCH_END));
    out
}

fn rules(guard: &Guard, out: &mut Vec<Message>) {
    let input = || Rule::default().at(IIFNAME, &guard.interface);
    let output = || Rule::default().at(OIFNAME, &guard.interface);
    let passes = |what| guard.passes & what != 0;
    if passes(Guard::ALL) {
        out.push(input().message(INPUT, ACCEPT));
    } else {
        out.push(input().message(FORWARD, DROP));
        out.push(output().message(FORWARD, DROP));
    }
    if passes(Guard::ALL | Guard::OUT) {
        out.push(output().message(OUTPUT, ACCEPT));
    }
    if passes(Guard::OUT) {
        out.push(input().belongs().message(INPUT, ACCEPT));
        // Listeners' queries to neighbours' advertisements (RFC 2710, RFC 4861): without them there is no IPv6.
        out.push(input().icmp(58, 130, 136).message(INPUT, ACCEPT));
    }
    if passes(Guard::PING) {
        for (protocol, echo) in [(1, 8), (58, 128)] {
            out.push(input().icmp(protocol, echo, echo).message(INPUT, ACCEPT));
        }
    }
    for range in &guard.peers {
        out.push(input().from(*range).message(INPUT, ACCEPT));
    }
    for (protocol, port) in &guard.ports {
        out.push(input().port(*protocol, *port).message(INPUT, ACCEPT));
    }
}

#[cfg(test)]
mod tests;
