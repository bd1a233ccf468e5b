//! The few messages of rtnetlink that the switch needs (rtnetlink(7), linux/rtnetlink.h, linux/if_link.h,
//! linux/pkt_sched.h, linux/pkt_cls.h). Numbers that are the kernel's are in the machine's byte order.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// `IFLA_BR_MCAST_SNOOPING`: without a querier in the network it would lose what it has learned, IPv6's neighbours first.
const BR_MCAST_SNOOPING: u16 = 23;
/// `TC_H_CLSACT` and its hook for frames that come in.
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_INGRESS: u32 = 0xffff_fff2;
/// `TCA_BPF_OPS_LEN`, `TCA_BPF_OPS`, `TCA_BPF_FLAGS`, and the flag that what the program returns is the verdict.
const BPF_OPS_LEN: u16 = 4;
const BPF_OPS: u16 = 5;
const BPF_FLAGS: u16 = 8;
const BPF_FLAG_ACT_DIRECT: u32 = 1;

/// One request.
#[derive(Debug)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: i32, body: &[&[u8]]) -> Message {
        let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags).unwrap_or(0);
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        // Sequence number and sender: answers come in order, on a socket of one sender.
        bytes.extend([0; 8]);
        bytes.extend(body.concat());
        Message(bytes)
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Message {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn text(self, kind: u16, value: &str) -> Message {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat())
    }

    fn nested(self, kind: u16, inner: impl FnOnce(Message) -> Message) -> Message {
        let inner = inner(Message(Vec::new()));
        self.attribute(kind, &inner.0)
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        for (to, from) in self.0.iter_mut().zip(length.to_ne_bytes()) {
            *to = from;
        }
        self.0
    }
}

/// `struct ifinfomsg`: any kind of interface, with the flags that are to change.
fn link_message(kind: u16, flags: i32, index: u32, up: bool) -> Message {
    let iff_up: u32 = 1;
    let body = [
        &[0; 4][..],
        &index.to_ne_bytes(),
        &u32::from(up).to_ne_bytes(),
        &iff_up.to_ne_bytes(),
    ];
    Message::new(kind, flags, &body)
}

/// Makes a bridge that is up.
pub(super) fn new_bridge(name: &str) -> Message {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    link_message(libc::RTM_NEWLINK, flags, 0, true)
        .text(libc::IFLA_IFNAME, name)
        .nested(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "bridge")
                .nested(libc::IFLA_INFO_DATA, |data| {
                    data.attribute(BR_MCAST_SNOOPING, &[0])
                })
        })
}

/// How an interface is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// Up, and a port of a bridge.
    On {
        /// Index of the bridge.
        master: u32,
    },
    /// Down, and a port of none.
    Off,
}

/// Sets an interface.
pub(super) fn set_link(index: u32, link: Link) -> Message {
    let (up, master) = match link {
        Link::On { master } => (true, master),
        Link::Off => (false, 0),
    };
    link_message(libc::RTM_SETLINK, 0, index, up)
        .attribute(libc::IFLA_MASTER, &master.to_ne_bytes())
}

/// Has an interface drop what comes in with a VLAN tag (802.1Q or 802.1ad).
pub(super) fn drop_tagged(index: u32) -> [Message; 2] {
    // struct tcmsg
    let message = |kind, parent: u32, handle: u32, info: u32| {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let body = [
            &[0; 4][..],
            &index.to_ne_bytes(),
            &handle.to_ne_bytes(),
            &parent.to_ne_bytes(),
            &info.to_ne_bytes(),
        ];
        Message::new(kind, flags, &body)
    };
    let hooks = message(libc::RTM_NEWQDISC, CLSACT, 0xffff_0000, 0).text(libc::TCA_KIND, "clsact");
    // Priority 1, frames of all protocols (ETH_P_ALL, in the network's byte order).
    let all = 1 << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
    // The kernel has taken the tag out of the frame and keeps it beside.
    let program: [(u16, u8, u8, u32); 4] = [
        // A = is there a tag (SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT)
        (0x30, 0, 0, (-0x1000i32 + 48).cast_unsigned()),
        // A == 0?
        (0x15, 0, 1, 0),
        // TC_ACT_UNSPEC: go on
        (0x06, 0, 0, u32::MAX),
        // TC_ACT_SHOT: drop
        (0x06, 0, 0, 2),
    ];
    let mut operations = Vec::new();
    for (code, yes, no, value) in program {
        operations.extend(code.to_ne_bytes());
        operations.extend([yes, no]);
        operations.extend(value.to_ne_bytes());
    }
    let length = u16::try_from(program.len()).unwrap_or(0);
    let filter = message(libc::RTM_NEWTFILTER, CLSACT_INGRESS, 0, all)
        .text(libc::TCA_KIND, "bpf")
        .nested(libc::TCA_OPTIONS, |options| {
            options
                .attribute(BPF_OPS_LEN, &length.to_ne_bytes())
                .attribute(BPF_OPS, &operations)
                .attribute(BPF_FLAGS, &BPF_FLAG_ACT_DIRECT.to_ne_bytes())
        });
    [hooks, filter]
}

/// Requests that are sent together, to the namespace that the thread is in.
#[derive(Debug)]
pub(super) struct Batch {
    socket: OwnedFd,
    messages: Vec<Message>,
}

impl Batch {
    /// An empty one.
    pub(super) fn open() -> io::Result<Batch> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        Ok(Batch {
            socket,
            messages: Vec::new(),
        })
    }

    /// Adds a request.
    pub(super) fn add(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// Sends what was added, and waits for the answers.
    ///
    /// # Errors
    /// The first request that was refused; those behind it were carried out all the same.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        let messages = std::mem::take(&mut self.messages);
        let mut waiting = messages.len();
        if waiting == 0 {
            return Ok(());
        }
        let bytes: Vec<u8> = messages.into_iter().flat_map(Message::finish).collect();
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.socket.as_raw_fd(), &bytes, &kernel, MsgFlags::empty())?;
        let mut result = Ok(());
        let mut buffer = vec![0; 64 * 1024];
        while waiting > 0 {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((answer, behind)) = answer(rest) {
                rest = behind;
                waiting = waiting.saturating_sub(1);
                result = result.and(answer);
            }
        }
        result
    }
}

/// The first answer (`struct nlmsgerr`) of what was received, and what is behind it.
fn answer(bytes: &[u8]) -> Option<(io::Result<()>, &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let body = bytes.get(HEADER..length)?;
    let error = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
    let result = match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error.saturating_neg())),
    };
    let next = length.next_multiple_of(4).min(bytes.len());
    Some((result, bytes.get(next..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_set_with_the_kernel_s_layout() {
        let bytes = set_link(7, Link::On { master: 3 }).finish();
        let expected: Vec<u8> = [
            &40u32.to_ne_bytes()[..],
            &19u16.to_ne_bytes(), // RTM_SETLINK
            &5u16.to_ne_bytes(),  // NLM_F_REQUEST | NLM_F_ACK
            &[0; 8],
            &[0; 4], // family, type
            &7u32.to_ne_bytes(),
            &1u32.to_ne_bytes(), // IFF_UP
            &1u32.to_ne_bytes(), // is what changes
            &8u16.to_ne_bytes(),
            &10u16.to_ne_bytes(), // IFLA_MASTER
            &3u32.to_ne_bytes(),
        ]
        .concat();
        assert_eq!(bytes, expected);
        assert_eq!(set_link(7, Link::Off).finish()[24..28], [0; 4]);
    }

    #[test]
    fn attributes_are_padded_and_nested_ones_count_their_padding() {
        let message = Message(vec![0; 4])
            .nested(2, |inner| inner.text(1, "ab").attribute(3, &[9]))
            .finish();
        assert_eq!(message.len(), 4 + 4 + 8 + 8);
        assert_eq!(message[4..6], 20u16.to_ne_bytes());
        assert_eq!(message[8..10], 7u16.to_ne_bytes());
        assert_eq!(message[12..16], [b'a', b'b', 0, 0]);
    }

    #[test]
    fn answers_are_told_apart_and_a_cut_one_is_none() {
        let one = |error: i32| {
            let mut bytes = 36u32.to_ne_bytes().to_vec();
            bytes.extend([0; 12]);
            bytes.extend(error.to_ne_bytes());
            bytes.resize(36, 0);
            bytes
        };
        let both = [one(0), one(-libc::ENODEV)].concat();
        let (first, rest) = answer(&both).unwrap();
        first.unwrap();
        let (second, rest) = answer(rest).unwrap();
        assert_eq!(second.unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert!(answer(rest).is_none());
        assert!(answer(&both[..20]).is_none());
    }
}
