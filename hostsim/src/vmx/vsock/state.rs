//! The connections of a vsock device as the protocol sees them. No I/O: packets' headers go in,
//! what is to be done comes out.
//!
//! Credit (virtio 1.2, 5.10.6.3): each side tells how many bytes it can hold (`buf_alloc`) and how
//! many it has passed on in all (`fwd_cnt`, wrapping); the other never has more under way.

use super::packet::{
    HOST_CID, Header, Op, PAYLOAD_MAX, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM,
};
use std::collections::{HashMap, VecDeque};

/// Bytes that a connection holds for a host that reads slowly; the guest is told so.
pub(super) const BUF_ALLOC: u32 = 256 * 1024;
/// Connections that a guest can have at a time.
pub(super) const CONNECTIONS_MAX: usize = 1024;
/// Packets without payload that may wait for the guest before its own are left waiting.
pub(super) const CONTROL_MAX: usize = 256;

/// Names a connection: the guest's port and the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) guest_port: u32,
    pub(super) host_port: u32,
}

/// What a packet of the guest's asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing, beyond what may have been queued for the guest.
    Nothing,
    /// Connect to the host's port, then call [`Mux::accept`] or [`Mux::refuse`].
    Connect(Key),
    /// Take the packet's payload for this connection; call [`Mux::forwarded`] when it is passed on.
    Take(Key),
    /// The guest has room again for this connection.
    Resume(Key),
    /// The guest sends no more: pass on what is there, then tell the host's side.
    EndOfInput(Key),
    /// The connection is no more: pass on what is there, then close. It is unknown from now on.
    Close(Key),
}

#[derive(Debug)]
struct Connection {
    /// Not yet answered.
    pending: bool,
    /// From the guest, in all: taken; passed on; last told.
    received: u32,
    forwarded: u32,
    told: u32,
    /// To the guest, in all; and what it says of itself.
    sent: u32,
    peer_buf_alloc: u32,
    peer_fwd_cnt: u32,
    /// The guest's shutdown flags so far.
    guest_shutdown: u32,
    /// What the guest was told of the host's side.
    host_shutdown: u32,
    /// A credit update is queued.
    update_queued: bool,
}

/// All connections of one guest.
#[derive(Debug)]
pub(super) struct Mux {
    guest_cid: u64,
    connections: HashMap<Key, Connection>,
    control: VecDeque<(Key, Op, u32)>,
}

impl Mux {
    pub(super) fn new(guest_cid: u64) -> Mux {
        Mux {
            guest_cid,
            connections: HashMap::new(),
            control: VecDeque::new(),
        }
    }

    /// So many packets wait that no more of the guest's should be taken.
    pub(super) fn congested(&self) -> bool {
        self.control.len() >= CONTROL_MAX
    }

    /// Handle a packet of the guest's. `available` is what its descriptors hold beyond the header.
    pub(super) fn receive(&mut self, header: &Header, available: usize) -> Verdict {
        let key = Key {
            guest_port: header.src_port,
            host_port: header.dst_port,
        };
        // Anything from or to somebody else has no meaning here, and gets no answer that could
        // be taken for that of somebody else.
        if header.src_cid != self.guest_cid || header.dst_cid != HOST_CID {
            return Verdict::Nothing;
        }
        if header.kind != TYPE_STREAM {
            return self.reset(key);
        }
        if header.op == Op::Request {
            return self.request(key, header);
        }
        let Some(connection) = self.connections.get_mut(&key) else {
            // Never answer a reset with a reset.
            if header.op != Op::Reset {
                self.control.push_back((key, Op::Reset, 0));
            }
            return Verdict::Nothing;
        };
        connection.peer_buf_alloc = header.buf_alloc;
        connection.peer_fwd_cnt = header.fwd_cnt;
        match header.op {
            Op::Data => {
                let held = connection.received.wrapping_sub(connection.forwarded);
                let fits = usize::try_from(header.len)
                    .is_ok_and(|n| n <= available.min(PAYLOAD_MAX))
                    && header.len <= BUF_ALLOC - held;
                if connection.pending || !fits || connection.guest_shutdown & SHUTDOWN_SEND != 0 {
                    return self.reset(key);
                }
                connection.received = connection.received.wrapping_add(header.len);
                Verdict::Take(key)
            }
            Op::CreditUpdate => Verdict::Resume(key),
            Op::CreditRequest => {
                self.queue_update(key);
                Verdict::Resume(key)
            }
            Op::Shutdown => {
                let before = connection.guest_shutdown;
                connection.guest_shutdown |= header.flags & (SHUTDOWN_RECEIVE | SHUTDOWN_SEND);
                if connection.guest_shutdown == SHUTDOWN_RECEIVE | SHUTDOWN_SEND {
                    // The guest waits for this before it forgets the connection.
                    self.reset(key)
                } else if connection.guest_shutdown & !before & SHUTDOWN_SEND != 0 {
                    Verdict::EndOfInput(key)
                } else {
                    Verdict::Nothing
                }
            }
            Op::Reset => {
                self.connections.remove(&key);
                Verdict::Close(key)
            }
            // The device dials nobody, so nobody can answer it.
            Op::Response | Op::Request | Op::Unknown(_) => self.reset(key),
        }
    }

    fn request(&mut self, key: Key, header: &Header) -> Verdict {
        if self.connections.contains_key(&key) || self.connections.len() >= CONNECTIONS_MAX {
            return self.reset(key);
        }
        let connection = Connection {
            pending: true,
            received: 0,
            forwarded: 0,
            told: 0,
            sent: 0,
            peer_buf_alloc: header.buf_alloc,
            peer_fwd_cnt: header.fwd_cnt,
            guest_shutdown: 0,
            host_shutdown: 0,
            update_queued: false,
        };
        self.connections.insert(key, connection);
        Verdict::Connect(key)
    }

    /// Reset a connection (also one that is none); its host's side is to be closed if there is one.
    fn reset(&mut self, key: Key) -> Verdict {
        self.control.push_back((key, Op::Reset, 0));
        match self.connections.remove(&key) {
            Some(connection) if !connection.pending => Verdict::Close(key),
            _ => Verdict::Nothing,
        }
    }

    /// The host's side is there.
    pub(super) fn accept(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.pending = false;
            self.control.push_back((key, Op::Response, 0));
        }
    }

    /// Nobody listens on the host's port, or the host's side broke.
    pub(super) fn refuse(&mut self, key: Key) {
        if self.connections.remove(&key).is_some() {
            self.control.push_back((key, Op::Reset, 0));
        }
    }

    /// So many of the guest's bytes were passed on.
    pub(super) fn forwarded(&mut self, key: Key, bytes: usize) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        // Never more than was received, which is counted in 32 bits.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        connection.forwarded = connection.forwarded.wrapping_add(bytes);
        if connection.forwarded.wrapping_sub(connection.told) >= BUF_ALLOC / 4 {
            self.queue_update(key);
        }
    }

    fn queue_update(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(&key)
            && !connection.update_queued
        {
            connection.update_queued = true;
            self.control.push_back((key, Op::CreditUpdate, 0));
        }
    }

    /// The host's side sends no more, and (`both`) takes no more.
    pub(super) fn host_ended(&mut self, key: Key, both: bool) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let flags = SHUTDOWN_SEND | if both { SHUTDOWN_RECEIVE } else { 0 };
        if connection.host_shutdown | flags != connection.host_shutdown {
            connection.host_shutdown |= flags;
            self.control
                .push_back((key, Op::Shutdown, connection.host_shutdown));
        }
    }

    /// Bytes that may be sent to the guest on this connection now.
    pub(super) fn credit(&self, key: Key) -> usize {
        let Some(connection) = self.connections.get(&key) else {
            return 0;
        };
        let closed = connection.guest_shutdown & SHUTDOWN_RECEIVE != 0
            || connection.host_shutdown & SHUTDOWN_SEND != 0;
        if connection.pending || closed {
            return 0;
        }
        // A guest that has passed on more than was sent to it is lying: it gets nothing.
        let under_way = connection.sent.wrapping_sub(connection.peer_fwd_cnt);
        let credit = connection.peer_buf_alloc.saturating_sub(under_way);
        usize::try_from(credit).unwrap_or(usize::MAX)
    }

    /// The header for so many bytes to the guest, at most [`Mux::credit`]; they count as sent.
    pub(super) fn data(&mut self, key: Key, bytes: usize) -> Header {
        let len = u32::try_from(bytes).unwrap_or(u32::MAX);
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.sent = connection.sent.wrapping_add(len);
        }
        Header {
            len,
            ..self.header(key, Op::Data, 0)
        }
    }

    /// A packet without payload waits for the guest.
    pub(super) fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// The next packet without payload.
    pub(super) fn next_control(&mut self) -> Option<Header> {
        let (key, op, flags) = self.control.pop_front()?;
        if op == Op::CreditUpdate
            && let Some(connection) = self.connections.get_mut(&key)
        {
            connection.update_queued = false;
        }
        Some(self.header(key, op, flags))
    }

    fn header(&mut self, key: Key, op: Op, flags: u32) -> Header {
        let fwd_cnt = match self.connections.get_mut(&key) {
            Some(connection) => {
                connection.told = connection.forwarded;
                connection.forwarded
            }
            None => 0,
        };
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: key.host_port,
            dst_port: key.guest_port,
            len: 0,
            kind: TYPE_STREAM,
            op,
            flags,
            buf_alloc: BUF_ALLOC,
            fwd_cnt,
        }
    }
}

/// A guest's packets as bytes: a header, then how much its descriptors hold and whether the host's
/// side does something.
#[cfg(any(test, fuzzing))]
pub(crate) fn hostile_guest(bytes: &[u8]) {
    use super::packet::HEADER_LEN;
    stays_within_bounds(bytes.chunks(HEADER_LEN + 4).filter_map(|packet| {
        let (header, rest) = packet.split_first_chunk::<HEADER_LEN>()?;
        let [low, high, more, act] = rest.try_into().ok()?;
        let available = usize::from(more) << 16 | usize::from(high) << 8 | usize::from(low);
        // Most of them are the guest's own, so that there is something to see.
        let mut header = Header::decode(header);
        if act < 200 {
            (header.src_cid, header.dst_cid, header.kind) = (3, HOST_CID, TYPE_STREAM);
        }
        Some((header, available, act % 2 == 0))
    }));
}

/// Whatever a guest sends: no panic, no buffer beyond its bound, no more bytes to the guest than it
/// allows, at most one answer a packet.
#[cfg(any(test, fuzzing))]
fn stays_within_bounds(packets: impl Iterator<Item = (Header, usize, bool)>) {
    let mut mux = Mux::new(3);
    let mut held: HashMap<Key, usize> = HashMap::new();
    for (header, available, act) in packets {
        let len = header.len as usize;
        let before = mux.control.len();
        match mux.receive(&header, available) {
            Verdict::Connect(key) if act => {
                mux.accept(key);
                held.insert(key, 0);
            }
            Verdict::Connect(key) => mux.refuse(key),
            Verdict::Take(key) => {
                assert!(len <= available);
                let bytes = held.entry(key).or_default();
                *bytes += len;
                assert!(*bytes <= BUF_ALLOC as usize);
                if act {
                    mux.forwarded(key, std::mem::take(bytes));
                }
            }
            Verdict::Close(key) => {
                held.remove(&key);
            }
            Verdict::Resume(key) if act => {
                let credit = mux.credit(key);
                assert!(credit <= header.buf_alloc as usize);
                if credit > 0 {
                    mux.data(key, credit.min(PAYLOAD_MAX));
                }
            }
            _ => {}
        }
        assert!(mux.control.len() <= before + 1);
        assert!(mux.connections.len() <= CONNECTIONS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(op: Op) -> Header {
        Header {
            src_cid: 3,
            dst_cid: HOST_CID,
            src_port: 1000,
            dst_port: 7,
            len: 0,
            kind: TYPE_STREAM,
            op,
            flags: 0,
            buf_alloc: 100,
            fwd_cnt: 0,
        }
    }

    const KEY: Key = Key {
        guest_port: 1000,
        host_port: 7,
    };

    fn connected() -> Mux {
        let mut mux = Mux::new(3);
        assert_eq!(mux.receive(&packet(Op::Request), 0), Verdict::Connect(KEY));
        mux.accept(KEY);
        assert_eq!(mux.next_control().unwrap().op, Op::Response);
        mux
    }

    #[test]
    fn a_port_without_listener_is_reset_at_once() {
        let mut mux = Mux::new(3);
        assert_eq!(mux.receive(&packet(Op::Request), 0), Verdict::Connect(KEY));
        mux.refuse(KEY);
        let answer = mux.next_control().unwrap();
        assert_eq!(
            (answer.op, answer.src_port, answer.dst_port),
            (Op::Reset, 7, 1000)
        );
        assert!(!mux.has_control());
    }

    #[test]
    fn the_guest_is_never_sent_more_than_it_can_hold() {
        let mut mux = connected();
        assert_eq!(mux.credit(KEY), 100);
        assert_eq!(mux.data(KEY, 100).len, 100);
        assert_eq!(mux.credit(KEY), 0);
        let update = Header {
            fwd_cnt: 60,
            ..packet(Op::CreditUpdate)
        };
        assert_eq!(mux.receive(&update, 0), Verdict::Resume(KEY));
        assert_eq!(mux.credit(KEY), 60);
        // Claims to have passed on more than it ever got.
        mux.receive(
            &Header {
                fwd_cnt: 101,
                ..packet(Op::CreditUpdate)
            },
            0,
        );
        assert_eq!(mux.credit(KEY), 0);
    }

    #[test]
    fn a_guest_that_overruns_its_credit_is_reset() {
        let mut mux = connected();
        let full = Header {
            len: 64 * 1024,
            ..packet(Op::Data)
        };
        for _ in 0..4 {
            assert_eq!(mux.receive(&full, 64 * 1024), Verdict::Take(KEY));
        }
        let one = Header {
            len: 1,
            ..packet(Op::Data)
        };
        assert_eq!(mux.receive(&one, 1), Verdict::Close(KEY));
        assert_eq!(mux.next_control().unwrap().op, Op::Reset);
    }

    #[test]
    fn passing_bytes_on_gives_the_guest_credit_again() {
        let mut mux = connected();
        let full = Header {
            len: 64 * 1024,
            ..packet(Op::Data)
        };
        assert_eq!(mux.receive(&full, 64 * 1024), Verdict::Take(KEY));
        mux.forwarded(KEY, 64 * 1024);
        let update = mux.next_control().unwrap();
        assert_eq!((update.op, update.fwd_cnt), (Op::CreditUpdate, 64 * 1024));
        assert!(!mux.has_control());
    }

    #[test]
    fn half_a_close_leaves_the_other_half_open() {
        let mut mux = connected();
        let end = Header {
            flags: SHUTDOWN_SEND,
            ..packet(Op::Shutdown)
        };
        assert_eq!(mux.receive(&end, 0), Verdict::EndOfInput(KEY));
        assert_eq!(mux.receive(&end, 0), Verdict::Nothing);
        assert_eq!(mux.credit(KEY), 100, "the host's side may still send");
        let late = Header {
            len: 1,
            ..packet(Op::Data)
        };
        let both = Header {
            flags: SHUTDOWN_RECEIVE,
            ..packet(Op::Shutdown)
        };
        assert_eq!(mux.receive(&both, 0), Verdict::Close(KEY));
        assert_eq!(mux.next_control().unwrap().op, Op::Reset);
        assert_eq!(mux.receive(&late, 1), Verdict::Nothing);
        assert_eq!(mux.next_control().unwrap().op, Op::Reset, "unknown by now");
    }

    #[test]
    fn the_hosts_end_is_told_once() {
        let mut mux = connected();
        mux.host_ended(KEY, false);
        mux.host_ended(KEY, false);
        let end = mux.next_control().unwrap();
        assert_eq!((end.op, end.flags), (Op::Shutdown, SHUTDOWN_SEND));
        mux.host_ended(KEY, true);
        assert_eq!(
            mux.next_control().unwrap().flags,
            SHUTDOWN_SEND | SHUTDOWN_RECEIVE
        );
        assert!(!mux.has_control());
        assert_eq!(mux.credit(KEY), 0);
    }

    fn any_op() -> impl Strategy<Value = Op> {
        prop_oneof![
            1 => Just(Op::Request),
            1 => Just(Op::Response),
            1 => Just(Op::Reset),
            1 => Just(Op::Shutdown),
            3 => Just(Op::Data),
            1 => Just(Op::CreditUpdate),
            1 => Just(Op::CreditRequest),
            1 => any::<u16>().prop_map(Op::Unknown),
        ]
    }

    proptest! {
        #[test]
        fn a_hostile_guest_stays_within_bounds(
            packets in proptest::collection::vec(
                (any_op(), 0u32..3, 0u32..3, prop_oneof![0u32..70_000, any::<u32>()], any::<u32>(),
                 any::<u32>(), any::<u32>(), 0u16..3, 2u64..4, 0usize..70_000, any::<bool>()), 0..200)
        ) {
            stays_within_bounds(packets.into_iter().map(
                |(op, src_port, dst_port, len, flags, buf_alloc, fwd_cnt, kind, src_cid, available, act)| {
                    let header = Header {
                        src_cid, dst_cid: 2, src_port, dst_port, len, kind, op, flags, buf_alloc, fwd_cnt,
                    };
                    (header, available, act)
                },
            ));
        }
    }
}
