//! The multiplexer: two ends against each other, and one end against a hostile peer.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use bytes::Bytes;
use proptest::prelude::*;
use wire::frame::Frame;
use wire::message::Channel;
use wire::mux::{
    CREDIT_MAX, FRAME_COST, Incoming, Mux, MuxError, Role, STREAMS_MAX, StreamError, Wake,
};

const WINDOW: u32 = 64 * 1024;

fn data(stream: u32, len: usize) -> Frame {
    Frame::Data {
        stream,
        channel: Channel::Stdout,
        bytes: vec![7; len].into(),
    }
}

/// Moves everything that waits from one end to the other.
fn carry(from: &mut Mux, to: &mut Mux) {
    while let Some(frame) = from.transmit() {
        to.receive(frame).unwrap();
    }
}

#[test]
fn nothing_can_be_sent_before_the_peer_opened_the_stream() {
    let (mut host, mut guest) = (Mux::new(Role::Host, WINDOW), Mux::new(Role::Guest, WINDOW));
    host.open(1).unwrap();
    assert_eq!(host.sendable(1), Ok(0));
    carry(&mut host, &mut guest);
    assert_eq!(
        guest.sendable(1),
        Err(StreamError::Dropped(1)),
        "not opened on this side"
    );
    guest.open(1).unwrap();
    assert_eq!(guest.sendable(1), Ok(WINDOW as usize - FRAME_COST as usize));
    assert_eq!(guest.open(1), Err(StreamError::Used(1)));
    carry(&mut guest, &mut host);
    assert!(host.sendable(1).unwrap() > 0);
}

#[test]
fn a_peer_that_sends_without_credit_or_on_streams_of_its_own_is_a_protocol_error() {
    let mut host = Mux::new(Role::Host, WINDOW);
    assert_eq!(host.receive(data(1, 1)), Err(MuxError::NotOpen(1)));
    assert_eq!(
        host.receive(Frame::Open {
            stream: 1,
            window: 1
        }),
        Err(MuxError::NotOpen(1))
    );
    host.open(1).unwrap();
    host.receive(data(1, WINDOW as usize - 100)).unwrap();
    let error = host.receive(data(1, 100)).unwrap_err();
    assert_eq!(
        error,
        MuxError::Credit {
            stream: 1,
            cost: 164,
            granted: 36
        }
    );
    host.receive(Frame::Finish { stream: 1 }).unwrap();
    assert_eq!(host.receive(data(1, 1)), Err(MuxError::BehindEnd(1)));
    assert_eq!(
        host.receive(Frame::Handshake(Bytes::new())),
        Err(MuxError::Handshake)
    );
}

#[test]
fn a_flood_of_one_byte_frames_is_paid_for() {
    let mut host = Mux::new(Role::Host, WINDOW);
    host.open(1).unwrap();
    let mut taken = 0;
    while host.receive(data(1, 1)).is_ok() {
        taken += 1;
    }
    assert_eq!(taken, WINDOW as u64 / (1 + FRAME_COST));
}

#[test]
fn credit_cannot_overflow_and_streams_cannot_be_endless() {
    let mut guest = Mux::new(Role::Guest, WINDOW);
    guest
        .receive(Frame::Open {
            stream: 1,
            window: CREDIT_MAX as u32,
        })
        .unwrap();
    let more = guest.receive(Frame::Credit {
        stream: 1,
        credit: 1,
    });
    assert_eq!(more, Err(MuxError::CreditOverflow(1)));
    let mut guest = Mux::new(Role::Guest, WINDOW);
    for stream in 0..STREAMS_MAX as u32 {
        guest.receive(Frame::Open { stream, window: 1 }).unwrap();
    }
    let one_more = guest.receive(Frame::Open {
        stream: 1 << 20,
        window: 1,
    });
    assert_eq!(one_more, Err(MuxError::TooMany(STREAMS_MAX)));
}

#[test]
fn a_flood_of_pings_ends_the_link() {
    let mut host = Mux::new(Role::Host, WINDOW);
    let flood = (0..1_000_000).find_map(|token| host.receive(Frame::Ping(token)).err());
    assert_eq!(flood, Some(MuxError::TooMany(1024)));
}

#[test]
fn streams_take_turns_and_control_passes_them() {
    let (mut host, mut guest) = (Mux::new(Role::Host, WINDOW), Mux::new(Role::Guest, WINDOW));
    for id in [1, 2] {
        host.open(id).unwrap();
    }
    carry(&mut host, &mut guest);
    for id in [1, 2] {
        guest.open(id).unwrap();
    }
    carry(&mut guest, &mut host);
    for id in [1, 1, 1, 2] {
        let mut bytes = Bytes::from_static(b"some output");
        guest.send(id, Channel::Stdout, &mut bytes).unwrap();
    }
    guest.send_control(Bytes::from_static(b"message"));
    let order: Vec<u32> = std::iter::from_fn(|| guest.transmit())
        .map(|frame| match frame {
            Frame::Control(_) => 0,
            Frame::Data { stream, .. } => stream,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, [0, 1, 2, 1, 1]);
}

#[test]
fn a_ping_stays_behind_what_was_queued_before_it() {
    let (mut host, mut guest) = (Mux::new(Role::Host, WINDOW), Mux::new(Role::Guest, WINDOW));
    host.open(1).unwrap();
    carry(&mut host, &mut guest);
    guest.open(1).unwrap();
    guest
        .send(1, Channel::Stdout, &mut Bytes::from_static(b"before"))
        .unwrap();
    let token = guest.flush();
    guest
        .send(1, Channel::Stdout, &mut Bytes::from_static(b"after"))
        .unwrap();
    let mut seen = Vec::new();
    while let Some(frame) = guest.transmit() {
        match &frame {
            Frame::Data { bytes, .. } => seen.push(bytes.len()),
            Frame::Ping(_) => seen.push(0),
            _ => {}
        }
        host.receive(frame).unwrap();
    }
    assert_eq!(seen, [6, 0, 5]);
    let Some(Frame::Pong(pong)) = host.transmit() else {
        panic!()
    };
    assert_eq!(
        guest.receive(Frame::Pong(pong + 1)),
        Ok(Wake::Nobody),
        "a pong nobody asked for"
    );
    assert_eq!(guest.receive(Frame::Pong(pong)), Ok(Wake::Flushed(token)));
}

#[test]
fn a_stream_that_is_over_on_both_sides_is_forgotten() {
    let (mut host, mut guest) = (Mux::new(Role::Host, WINDOW), Mux::new(Role::Guest, WINDOW));
    for id in 1..=3 * STREAMS_MAX as u32 {
        host.open(id).unwrap();
        carry(&mut host, &mut guest);
        guest.open(id).unwrap();
        guest.end(id, Channel::Stdout, 0).unwrap();
        for mux in [&mut host, &mut guest] {
            mux.finish(id);
            mux.drop_receiver(id);
        }
        carry(&mut host, &mut guest);
        carry(&mut guest, &mut host);
        carry(&mut host, &mut guest);
    }
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let id = 0u32..4;
    let channel = prop_oneof![
        Just(Channel::Stdin),
        Just(Channel::Stdout),
        Just(Channel::Stderr)
    ];
    prop_oneof![
        (0usize..100).prop_map(|len| Frame::Control(vec![0; len].into())),
        (id.clone(), channel.clone(), 1usize..9000).prop_map(|(stream, channel, len)| {
            Frame::Data {
                stream,
                channel,
                bytes: vec![1; len].into(),
            }
        }),
        (id.clone(), any::<u32>()).prop_map(|(stream, window)| Frame::Open { stream, window }),
        (id.clone(), any::<u32>()).prop_map(|(stream, credit)| Frame::Credit { stream, credit }),
        (id.clone(), channel, any::<u64>()).prop_map(|(stream, channel, left)| Frame::End {
            stream,
            channel,
            left
        }),
        id.clone().prop_map(|stream| Frame::Finish { stream }),
        id.prop_map(|stream| Frame::Drop { stream }),
        any::<u64>().prop_map(Frame::Ping),
        any::<u64>().prop_map(Frame::Pong),
    ]
}

proptest! {
    #[test]
    fn hostile_frames_never_panic_and_what_is_kept_is_bounded(
        role in prop_oneof![Just(Role::Host), Just(Role::Guest)],
        steps in proptest::collection::vec((0u8..8, 0u32..4, any_frame()), 0..300),
    ) {
        let mut mux = Mux::new(role, WINDOW);
        for (what, id, frame) in steps {
            match what {
                0 => drop(mux.open(id)),
                1 => mux.finish(id),
                2 => mux.drop_receiver(id),
                3 => drop(mux.send(id, Channel::Stdout, &mut Bytes::from_static(&[9; 5000]))),
                4 => drop(mux.end(id, Channel::Stderr, 1)),
                5 => drop(mux.flush()),
                _ => {}
            }
            if mux.receive(frame).is_err() {
                break;
            }
            let mut kept = 0;
            if what == 6 {
                while let Incoming::Data(_, bytes) = mux.receive_stream(id) {
                    kept += bytes.len();
                }
            }
            prop_assert!(kept <= WINDOW as usize);
            if what == 7 {
                while mux.transmit().is_some() {}
            }
        }
    }
}
