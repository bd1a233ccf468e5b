//! The switch with real taps: what goes in at one and comes out at another. They take root.

use super::{Port, Switch, netlink, uplink};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket,
};
use std::os::fd::{AsRawFd, OwnedFd};

/// Bytes of the header for offloads (`struct virtio_net_hdr`) before each frame of a tap.
const OFFLOADS: usize = 10;
/// An EtherType for local experiments.
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];
const EVERYBODY: [u8; 6] = [0xff; 6];

#[path = "../../../tests/vmx/netns.rs"]
#[allow(dead_code, reason = "a part of it is for the test programs")]
mod netns;

use netns::{Netns, ip};

fn switch(netns: &Netns) -> Switch {
    Switch::new(netns.path())
}

fn mac(last: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 0, last]
}

/// A frame from a station, with what is between its addresses and its text.
fn frame(to: [u8; 6], from: u8, between: &[u8], text: &str) -> Vec<u8> {
    let mut frame = [&to[..], &mac(from), between, text.as_bytes()].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

impl Port {
    fn say(&self, frame: &[u8]) -> Result<(), Errno> {
        let bytes = [&[0; OFFLOADS][..], frame].concat();
        nix::unistd::write(&self.tap, &bytes).map(drop)
    }

    /// All that has come in so far. A frame is through the switch before the call that sent it returns.
    fn heard(&self) -> Vec<Vec<u8>> {
        fcntl(&self.tap, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut frames = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length) = nix::unistd::read(&self.tap, &mut buffer) {
            frames.push(buffer[OFFLOADS..length].to_vec());
        }
        frames
    }

    fn hears(&self, frame: &[u8]) -> bool {
        self.heard().iter().any(|heard| heard == frame)
    }
}

/// A switch with two VLANs, and two ports in the first and one in the second.
fn three(netns: &Netns) -> (Switch, [Port; 3]) {
    let switch = switch(netns);
    switch.prepare([100, 101]).unwrap();
    let port = |vlan| switch.open_port(Some(vlan)).unwrap();
    let ports = [port(100), port(100), port(101)];
    (switch, ports)
}

#[test]
fn a_frame_reaches_its_own_vlan_and_no_other() {
    let Some(netns) = Netns::new() else { return };
    let (_, [a, b, c]) = three(&netns);
    let arp = [&[0x08, 0x06][..], &[0, 1, 8, 0, 6, 4, 0, 1]].concat();
    let neighbours = [0x33, 0x33, 0, 0, 0, 1];
    for frame in [
        frame(EVERYBODY, 1, &EXPERIMENT, "to all"),
        frame(EVERYBODY, 1, &arp, ""),
        frame(neighbours, 1, &[0x86, 0xdd, 0x60, 0, 0, 0], "IPv6"),
        frame(mac(2), 1, &EXPERIMENT, "to one that nobody knows yet"),
        frame(mac(3), 1, &EXPERIMENT, "to one that is elsewhere"),
    ] {
        a.say(&frame).unwrap();
        assert!(b.hears(&frame), "{frame:x?}");
        assert!(!c.hears(&frame), "{frame:x?}");
    }
    // Known by now where it is: the answer goes there alone.
    let answer = frame(mac(1), 2, &EXPERIMENT, "an answer");
    b.say(&answer).unwrap();
    assert!(a.hears(&answer));
    // And the third one is not deaf.
    let own = frame(EVERYBODY, 4, &EXPERIMENT, "own");
    let switch = switch(&netns);
    switch.open_port(Some(101)).unwrap().say(&own).unwrap();
    assert!(c.hears(&own));
    assert!(a.heard().is_empty() && b.heard().is_empty());
}

#[test]
fn a_guest_s_own_tag_takes_it_nowhere() {
    let Some(netns) = Netns::new() else { return };
    let (_, [a, b, c]) = three(&netns);
    let tag = |kind: [u8; 2], vlan: u8| [&kind[..], &[0, vlan]].concat();
    let (customer, service) = ([0x81, 0x00], [0x88, 0xa8]);
    for tags in [
        tag(customer, 101),
        tag(customer, 100),
        tag(customer, 0),
        tag(service, 101),
        [tag(customer, 100), tag(customer, 101)].concat(),
        [tag(service, 100), tag(customer, 101)].concat(),
    ] {
        let between = [&tags[..], &EXPERIMENT].concat();
        let hop = frame(EVERYBODY, 1, &between, "hop");
        a.say(&hop).unwrap();
        let others = [b.heard(), c.heard()];
        assert_eq!(others, [const { Vec::<Vec<u8>>::new() }; 2], "{tags:x?}");
    }
    let plain = frame(EVERYBODY, 1, &EXPERIMENT, "plain");
    a.say(&plain).unwrap();
    assert!(b.hears(&plain) && !c.hears(&plain));
}

#[test]
fn a_port_moves_is_cut_off_and_comes_back_and_keeps_its_tap() {
    let Some(netns) = Netns::new() else { return };
    let (switch, [a, b, c]) = three(&netns);
    let text = |n: u8| frame(EVERYBODY, 1, &EXPERIMENT, &format!("message {n}"));
    switch.move_port(a.index, Some(101)).unwrap();
    a.say(&text(1)).unwrap();
    assert!(!b.hears(&text(1)) && c.hears(&text(1)));
    switch.move_port(a.index, None).unwrap();
    // As on a cable that is not plugged in: QEMU takes the error for a frame that was lost.
    assert_eq!(a.say(&text(2)), Err(Errno::EIO));
    c.say(&frame(EVERYBODY, 3, &EXPERIMENT, "anybody?"))
        .unwrap();
    assert!(a.heard().is_empty());
    switch.move_port(a.index, Some(100)).unwrap();
    a.say(&text(3)).unwrap();
    assert!(b.hears(&text(3)) && !c.hears(&text(3)));
    // One that begins without a cable.
    let d = switch.open_port(None).unwrap();
    assert_eq!(d.say(&text(4)), Err(Errno::EIO));
    switch.move_port(d.index, Some(100)).unwrap();
    d.say(&text(5)).unwrap();
    assert!(b.hears(&text(5)));
}

#[test]
fn a_tap_is_gone_with_its_descriptor_and_no_other_is_taken_for_it() {
    let Some(netns) = Netns::new() else { return };
    let (switch, [a, b, c]) = three(&netns);
    assert_eq!(netns.links("nic").len(), 3);
    let gone = a.index;
    drop((a, b, c));
    assert!(netns.links("nic").is_empty());
    let other = switch.open_port(Some(100)).unwrap();
    assert_ne!(other.index, gone);
    let error = switch.move_port(gone, Some(101)).unwrap_err();
    assert!(error.to_string().contains("move a vNIC"), "{error}");
}

/// A socket for all frames of a namespace.
fn listener(netns: &Netns) -> OwnedFd {
    let open = || {
        Ok(socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK,
            SockProtocol::EthAll,
        )?)
    };
    switch(netns).inside("open a packet socket", open).unwrap()
}

#[test]
fn each_vlan_has_its_own_uplink_and_the_namespace_itself_stays_silent() {
    let (Some(netns), Some(router)) = (Netns::new(), Netns::new()) else {
        return;
    };
    for vlan in [100, 101] {
        let (inner, outer) = (uplink(vlan), format!("trunk.{vlan}"));
        ip(&[
            "-n",
            router.name(),
            "link",
            "add",
            &outer,
            "type",
            "veth",
            "peer",
            "name",
            &inner,
            "netns",
            netns.name(),
        ]);
    }
    let (_, [a, b, c]) = three(&netns);
    // Prepared again, as after a restart of hostsim: nothing is lost.
    switch(&netns).prepare([100, 101, 102]).unwrap();
    assert_eq!(netns.links("vlan"), ["vlan100", "vlan101", "vlan102"]);
    ip(&["-n", router.name(), "link", "set", "trunk.100", "up"]);
    let up = listener(&router);
    // What the router's own kernel sends out of its end (a report of MLD as soon as the link is up) is not the switch's.
    let heard = || {
        let mut buffer = [0; 4096];
        let mut frames = Vec::new();
        while let Ok((length, from)) = recvfrom::<LinkAddr>(up.as_raw_fd(), &mut buffer) {
            if from.is_some_and(|from| from.pkttype() != libc::PACKET_OUTGOING) {
                frames.push(buffer[..length].to_vec());
            }
        }
        frames
    };
    let out = frame(EVERYBODY, 1, &EXPERIMENT, "out");
    let other = frame(EVERYBODY, 3, &EXPERIMENT, "other");
    a.say(&out).unwrap();
    c.say(&other).unwrap();
    // A veth's far end takes a frame a moment later.
    let all = loop {
        let frames = heard();
        if !frames.is_empty() {
            break frames;
        }
        std::thread::yield_now();
    };
    assert_eq!(all, [out], "not {other:x?} nor any other");
    b.heard();

    // Neither an address of IPv6 nor an answer to ARP or to a frame for a tap's own address comes out of the namespace.
    let addresses = ip(&["-n", netns.name(), "addr"]);
    assert!(!addresses.contains("inet"), "{addresses}");
    let who_has = [
        &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1][..],
        &mac(1),
        &[10, 0, 2, 1],
        &[0; 6],
        &[127, 0, 0, 1],
    ]
    .concat();
    a.say(&frame(EVERYBODY, 1, &who_has, "")).unwrap();
    assert!(a.heard().is_empty());
}

#[test]
fn a_port_is_made_in_little_time_and_the_thread_that_asked_stays_where_it_is() {
    let Some(netns) = Netns::new() else { return };
    let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let switch = switch(&netns);
    switch.prepare([100]).unwrap();
    let start = std::time::Instant::now();
    let ports: Vec<Port> = (0..10)
        .map(|_| switch.open_port(Some(100)).unwrap())
        .collect();
    println!("a port: {:?}", start.elapsed() / 10);
    assert_eq!(ports.len(), netns.links("nic").len());
    assert_eq!(
        std::fs::read_link("/proc/thread-self/ns/net").unwrap(),
        here
    );
}

#[test]
fn errors_say_what_failed_where_and_what_to_do() {
    let none = Switch::new("/run/netns/there-is-none");
    let error = none.prepare([1]).unwrap_err().to_string();
    assert!(
        error.contains("/run/netns/there-is-none") && error.contains("open the network namespace"),
        "{error}"
    );
    let Some(netns) = Netns::new() else { return };
    let switch = switch(&netns);
    switch.prepare([100]).unwrap();
    let error = switch.open_port(Some(7)).unwrap_err().to_string();
    assert!(error.contains("no bridge vlan7"), "{error}");
    assert!(netns.links("nic").is_empty());
    let refused = switch
        .inside("try", || {
            let mut batch = netlink::Batch::open()?;
            batch.add(netlink::set_link(99_999, netlink::Link::Off));
            batch.commit()
        })
        .unwrap_err();
    assert!(refused.to_string().contains("cannot try"), "{refused}");
}
