//! The endpoint's packet filter and address translation: one nf_tables table of its own, replaced as a whole
//! (nft(8), "TABLES"). It outlives the endpoint; connections that it let through go on while it is replaced.

use super::{Protocol, Published, RouterNetwork, links};
use std::fmt::Write;
use std::net::IpAddr;

/// The table's name.
pub const TABLE: &str = "mooring";

/// The commands for `nft -f` that put the table into force. Protocols are numbers or nft's own keywords: an appliance need
/// have no /etc/protocols. `outside`: a program holds the ports of the machine.
pub fn text(
    trunk: &str,
    public: &str,
    outside: bool,
    networks: &[RouterNetwork],
    ports: &[Published],
) -> String {
    // Adding first makes deleting succeed where there was none; all of it is one transaction.
    let mut out = format!("table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    input(&mut out, trunk, outside, networks);
    output(&mut out, public);
    forward(&mut out, trunk, public, networks);
    if outside {
        borne(&mut out);
    }
    destination(&mut out, trunk, public, outside, networks, ports);
    source(&mut out, trunk, public, networks);
    out.push_str("}\n");
    out
}

/// To the endpoint itself come questions of its networks to the name server, and echo requests. What comes by interfaces
/// that are not the networks' is not this table's business where these are the endpoint's own (its API is served there):
/// all but the name servers, which are for members only.
fn input(out: &mut String, trunk: &str, outside: bool, networks: &[RouterNetwork]) {
    out.push_str("\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n");
    out.push_str("\t\ticmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n");
    not_forged(out, trunk);
    out.push_str("\t\tct state established,related accept\n\t\tct state invalid drop\n\t\tiifname \"lo\" accept\n");
    for network in networks {
        let link = links::name(trunk, network.vlan);
        for (address, _) in &network.gateways {
            let family = family(*address);
            name_server(out, trunk, network, *address);
            let echo = if address.is_ipv4() {
                "icmp type echo-request"
            } else {
                "icmpv6 type echo-request"
            };
            let _ = writeln!(
                out,
                "\t\tiifname \"{link}\" {family} daddr {address} {echo} accept"
            );
        }
    }
    if !outside {
        for (address, _) in networks.iter().flat_map(|network| &network.gateways) {
            let _ = writeln!(out, "\t\t{} daddr {address} drop", family(*address));
        }
        let _ = writeln!(
            out,
            "\t\tiifname \"{trunk}\" drop\n\t\tiifname \"{trunk}.*\" drop\n\t\taccept"
        );
    }
    out.push_str("\t}\n");
}

/// Questions of a network's members to the name server at its gateway.
fn name_server(out: &mut String, trunk: &str, network: &RouterNetwork, gateway: IpAddr) {
    let (link, family) = (links::name(trunk, network.vlan), family(gateway));
    let _ = writeln!(
        out,
        "\t\tiifname \"{link}\" {family} daddr {gateway} meta l4proto {{ 6, 17 }} th dport 53 accept"
    );
}

/// What a member sends from an address that is not of its network would else count as an answer in somebody else's
/// connection.
fn not_forged(out: &mut String, trunk: &str) {
    let _ = writeln!(
        out,
        "\t\tiifname \"{trunk}.*\" fib saddr . iif oif missing drop"
    );
}

/// A question for a name that comes while the endpoint is away is not answered, rather than refused: a resolver that is
/// refused tries again at once and gives up, one that hears nothing asks again after seconds, when the endpoint is back.
/// What is dropped is the kernel's "port unreachable", by the destination port of the UDP header that it cites (RFC 792:
/// 8 bytes, then the IPv4 header and 8 bytes of what follows; RFC 4443, 3.1: 8 bytes, then the IPv6 packet).
fn output(out: &mut String, public: &str) {
    out.push_str(
        "\tchain answers {\n\t\ttype filter hook output priority filter; policy accept;\n",
    );
    for (words, port_at) in [("icmp", (8 + 20 + 2) * 8), ("icmpv6", (8 + 40 + 2) * 8)] {
        let _ = writeln!(
            out,
            "\t\toifname != \"{public}\" {words} type destination-unreachable {words} code port-unreachable @th,{port_at},16 53 drop"
        );
    }
    out.push_str("\t}\n");
}

/// Between networks nothing passes. Out goes what is not of an internal network; in comes what is published.
fn forward(out: &mut String, trunk: &str, public: &str, networks: &[RouterNetwork]) {
    out.push_str("\tchain forward {\n\t\ttype filter hook forward priority filter; policy drop;\n");
    not_forged(out, trunk);
    out.push_str("\t\tct state established,related accept\n\t\tct state invalid drop\n");
    // Nor by a port that another network publishes, which a gateway's address has, too.
    for network in networks.iter().filter(|network| network.internal) {
        let link = links::name(trunk, network.vlan);
        let _ = writeln!(out, "\t\tiifname \"{link}\" oifname != \"{link}\" drop");
    }
    out.push_str("\t\tct status dnat accept\n");
    for network in networks.iter().filter(|network| !network.internal) {
        let link = links::name(trunk, network.vlan);
        for pool in &network.subnets {
            let family = family(pool.addr());
            let _ = writeln!(
                out,
                "\t\tiifname \"{link}\" oifname \"{public}\" {family} saddr {pool} accept"
            );
        }
    }
    out.push_str("\t}\n");
}

/// Answers to connections that bear a client's own address go to the program that made them (see the crate `forward`).
fn borne(out: &mut String) {
    let mark = forward::MARK;
    let _ = write!(
        out,
        "\tchain borne {{\n\t\ttype filter hook prerouting priority mangle; policy accept;\n\t\tsocket transparent 1 meta mark set {mark:#x}\n\t}}\n"
    );
}

/// Published ports. At every address: from outside, and from a container, by its gateway's address. At one: from outside,
/// where it is ours and not one of the machine. A network's members reach its name server whatever is published.
fn destination(
    out: &mut String,
    trunk: &str,
    public: &str,
    outside: bool,
    networks: &[RouterNetwork],
    ports: &[Published],
) {
    for hook in ["prerouting", "output"] {
        let _ = writeln!(
            out,
            "\tchain {hook} {{\n\t\ttype nat hook {hook} priority -100; policy accept;"
        );
        for network in networks.iter().filter(|_| hook == "prerouting") {
            for (address, _) in &network.gateways {
                name_server(out, trunk, network, *address);
            }
        }
        for port in ports {
            let Published {
                protocol,
                host,
                host_port,
                target,
                target_port,
            } = port;
            let word = protocol.word();
            let to = match target {
                IpAddr::V4(v4) => format!("ip to {v4}:{target_port}"),
                IpAddr::V6(v6) => format!("ip6 to [{v6}]:{target_port}"),
            };
            let nfproto = if target.is_ipv4() { "ipv4" } else { "ipv6" };
            let at = match (host.is_unspecified(), hook) {
                (true, _) => format!("fib daddr type local meta nfproto {nfproto}"),
                (false, _) if outside => continue,
                (false, "output") => format!("{} daddr {host}", family(*host)),
                (false, _) => format!("iifname \"{public}\" {} daddr {host}", family(*host)),
            };
            let _ = writeln!(out, "\t\t{at} {word} dport {host_port} dnat {to}");
        }
        out.push_str("\t}\n");
    }
}

fn source(out: &mut String, trunk: &str, public: &str, networks: &[RouterNetwork]) {
    out.push_str(
        "\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n",
    );
    for network in networks {
        let link = links::name(trunk, network.vlan);
        for pool in &network.subnets {
            let family = family(pool.addr());
            if network.masquerade && !network.internal {
                let _ = writeln!(
                    out,
                    "\t\toifname \"{public}\" {family} saddr {pool} masquerade"
                );
            }
            // A member that reaches a published port of its own network: the answer has to come back this way.
            let _ = writeln!(
                out,
                "\t\toifname \"{link}\" {family} saddr {pool} ct status dnat masquerade"
            );
        }
    }
    out.push_str("\t}\n");
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

impl Protocol {
    /// As nft and Docker spell it.
    pub fn word(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(vlan: u16, subnet: &str, internal: bool) -> RouterNetwork {
        let subnet: ipnet::IpNet = subnet.parse().unwrap();
        RouterNetwork {
            vlan,
            gateways: vec![(
                crate::networks::addresses::first_host(&subnet),
                subnet.prefix_len(),
            )],
            subnets: vec![subnet],
            internal,
            masquerade: true,
        }
    }

    #[test]
    fn an_internal_network_has_no_way_out_and_published_ports_have_one_in() {
        let networks = [
            network(100, "172.17.0.0/16", false),
            network(101, "172.18.0.0/16", true),
        ];
        let at = |host: &str, target: &str| Published {
            protocol: Protocol::Sctp,
            host: host.parse().unwrap(),
            host_port: 8080,
            target: target.parse().unwrap(),
            target_port: 80,
        };
        let ports = [
            at("0.0.0.0", "172.17.0.2"),
            at("198.51.100.2", "172.17.0.3"),
            at("::", "fd00::2"),
        ];
        let text_of = |outside| text("trunk", "public", outside, &networks, &ports);
        let text = text_of(false);
        assert!(
            text.contains("iifname \"trunk.100\" oifname \"public\" ip saddr 172.17.0.0/16 accept")
        );
        assert!(!text.contains("iifname \"trunk.101\" oifname \""));
        for chain in ["input", "forward"] {
            let chain = text.split(&format!("chain {chain} {{")).nth(1).unwrap();
            let forged = chain.find("trunk.*\" fib saddr . iif oif missing drop");
            assert!(forged.unwrap() < chain.find("established").unwrap());
        }
        assert!(text.contains("icmp code port-unreachable @th,240,16 53 drop"));
        // Before what is published: a name server, and that an internal network leads nowhere.
        let place = |chain: &str, rule: &str| {
            let chain = text.split(&format!("chain {chain} {{")).nth(1).unwrap();
            chain.find(rule).unwrap_or_else(|| panic!("{rule}{text}"))
        };
        let named =
            "iifname \"trunk.100\" ip daddr 172.17.0.1 meta l4proto { 6, 17 } th dport 53 accept";
        assert!(place("prerouting", named) < place("prerouting", "dnat ip to"));
        let inside = "iifname \"trunk.101\" oifname != \"trunk.101\" drop";
        assert!(place("forward", "established") < place("forward", inside));
        assert!(place("forward", inside) < place("forward", "ct status dnat accept"));
        assert!(!text.contains("oifname \"public\" ip saddr 172.18.0.0/16 masquerade"));
        for rule in [
            "\tfib daddr type local meta nfproto ipv4 sctp dport 8080 dnat ip to 172.17.0.2:80\n",
            "\tiifname \"public\" ip daddr 198.51.100.2 sctp dport 8080 dnat ip to 172.17.0.3:80\n",
            "\tip daddr 198.51.100.2 sctp dport 8080 dnat ip to 172.17.0.3:80\n",
            "\tfib daddr type local meta nfproto ipv6 sctp dport 8080 dnat ip6 to [fd00::2]:80\n",
        ] {
            assert!(text.contains(rule), "{rule}{text}");
        }
        assert!(!text.contains("transparent"));
        // The endpoint's own API is reached from outside, and by no member of a network.
        let own = "\t\tip daddr 172.18.0.1 drop\n\t\tiifname \"trunk\" drop\n\t\tiifname \"trunk.*\" drop\n\t\taccept\n\t}";
        assert!(text.contains(own), "{text}");
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        // Addresses of the machine mean nothing in here, and answers may be for its clients.
        let text = text_of(true);
        assert!(text.contains("socket transparent 1 meta mark set 0x6d6f"));
        assert!(
            !text.contains("iifname \"trunk\""),
            "nothing else is let in"
        );
        assert!(text.contains("172.17.0.2:80") && !text.contains("198.51.100.2"));
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
