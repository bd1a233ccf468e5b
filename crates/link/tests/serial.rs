//! Sessions over a serial pipe that loses, corrupts and interrupts.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use common::{Keys, deadline, identity, pattern, secret};
use link::serial::{Side, reliable};
use link::{GuestLink, HostLink, Options, StreamEvent, StreamReceiver, accept, dial};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use wire::handshake::Credentials;
use wire::message::{Channel, StreamId, ToGuest, ToHost};

/// Carries bytes between two pipe ends, and loses or flips one in `rate` (0: none).
fn lossy(a: DuplexStream, b: DuplexStream, rate: u64) -> tokio::task::JoinHandle<()> {
    async fn carry(
        mut from: tokio::io::ReadHalf<DuplexStream>,
        mut to: tokio::io::WriteHalf<DuplexStream>,
        mut seed: u64,
        rate: u64,
    ) {
        let mut buffer = vec![0; 2048];
        let mut out = Vec::new();
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            out.clear();
            for byte in &buffer[..count] {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                match (seed >> 33).checked_rem(rate) {
                    Some(0) => {}
                    Some(1) => out.push(byte ^ 0x10),
                    _ => out.push(*byte),
                }
            }
            if to.write_all(&out).await.is_err() {
                return;
            }
        }
    }
    let ((ar, aw), (br, bw)) = (split(a), split(b));
    tokio::spawn(async move {
        tokio::select! {
            () = carry(ar, bw, 1, rate) => {}
            () = carry(br, aw, 2, rate) => {}
        }
    })
}

/// A pipe with its fault between: the guest's end, the host's end, the fault's task.
fn pipe(rate: u64) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<()>) {
    let ((a, a2), (b, b2)) = (duplex(8192), duplex(8192));
    let task = lossy(a2, b2, rate);
    (a, b, task)
}

async fn read_all(receiver: &mut StreamReceiver) -> u64 {
    let mut read = 0;
    while let Some(event) = receiver.recv().await.unwrap() {
        match event {
            StreamEvent::Data(_, bytes) => {
                assert_eq!(bytes, pattern(read, bytes.len()), "at {read}");
                read += bytes.len() as u64;
            }
            StreamEvent::End { left, .. } => assert_eq!(left, 0),
        }
    }
    read
}

fn output(
    guest: &GuestLink,
    host: &HostLink,
    id: u32,
    len: usize,
) -> (tokio::task::JoinHandle<()>, StreamReceiver) {
    let (_, out) = host.open(StreamId(id)).unwrap();
    let (mut sender, _) = guest.open(StreamId(id)).unwrap();
    let task = tokio::spawn(async move {
        sender
            .send(Channel::Stdout, pattern(0, len).into())
            .await
            .unwrap();
        sender.end(Channel::Stdout, 0).unwrap();
    });
    (task, out)
}

#[tokio::test]
async fn bad_lines_deliver_everything_and_nothing_wrong() {
    for (rate, len) in [(0, 8 << 20), (1000, 1 << 20), (150, 64 << 10)] {
        deadline(async {
            let (a, b, _fault) = pipe(rate);
            let (a, _a) = reliable(a, Side::Dialer).unwrap();
            let (b, _b) = reliable(b, Side::Listener).unwrap();
            let (guest, mut host) = common::session(a, b, Options::default()).await;
            let (writer, mut out) = output(&guest, &host, 1, len);
            assert_eq!(read_all(&mut out).await, len as u64, "rate {rate}");
            writer.await.unwrap();
            guest.send(ToHost::Goodbye).await.unwrap();
            guest.flush().await.unwrap();
            drop(guest); // Power off.
            assert_eq!(host.recv().await.unwrap(), ToHost::Goodbye);
            if rate != 150 {
                // On the worst line even all of the farewells may be lost.
                assert!(host.recv().await.is_err());
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_pipe_that_is_replaced_keeps_the_session() {
    deadline(async {
        let (a, b, fault) = pipe(2000);
        let (a, guest_pipe) = reliable(a, Side::Dialer).unwrap();
        let (b, host_pipe) = reliable(b, Side::Listener).unwrap();
        let (guest, mut host) = common::session(a, b, Options::default()).await;
        let (writer, mut out) = output(&guest, &host, 1, 1 << 20);
        let reader = tokio::spawn(async move { read_all(&mut out).await });
        let mut fault = Some(fault);
        for n in 0..5 {
            // In the middle of the output: what is on the way is gone.
            host.send(ToGuest::Start { request: n }).await.unwrap();
            if let Some(fault) = fault.take() {
                fault.abort();
            }
            guest_pipe.lost().await;
            host_pipe.lost().await;
            let (a, b, next) = pipe(2000);
            fault = Some(next);
            guest_pipe.replace(a);
            host_pipe.replace(b);
            guest.send(ToHost::Goodbye).await.unwrap();
            assert_eq!(host.recv().await.unwrap(), ToHost::Goodbye);
        }
        assert_eq!(reader.await.unwrap(), 1 << 20);
        writer.await.unwrap();
    })
    .await;
}

/// Carries bytes both ways, and never ends: what is behind a port that stays.
async fn relayed(
    (mut near_read, mut near_write): (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>),
    (far_read, far_write): (&mut ReadHalf<DuplexStream>, &mut WriteHalf<DuplexStream>),
) {
    tokio::select! {
        _ = tokio::io::copy(far_read, &mut near_write) => {}
        _ = tokio::io::copy(&mut near_read, far_write) => {}
    }
    std::future::pending().await
}

#[tokio::test]
async fn a_restarted_endpoint_is_found_again_over_the_same_port() {
    deadline(async {
        let keys = Keys::with(identity(), secret());
        let mut credentials = Credentials::new(identity(), secret());
        let (a, b, fault) = pipe(3000);
        // The guest's port stays; what is behind it is another process each time.
        let (port, port_far) = duplex(8192);
        drop((a, b));
        fault.abort();
        let (stream, mut guest_pipe) = reliable(port, Side::Dialer).unwrap();
        let mut stream = Some(stream);
        let (mut far_read, mut far_write) = split(port_far);
        for round in 0..3u32 {
            let (host_end, host_far) = duplex(8192);
            let near = split(host_far);
            let relay = relayed(near, (&mut far_read, &mut far_write));
            let work = async {
                let (host, _host_pipe) = reliable(host_end, Side::Listener).unwrap();
                let dialing = async {
                    loop {
                        let io = match stream.take() {
                            Some(stream) => stream,
                            None => guest_pipe.next().await.unwrap(),
                        };
                        if let Ok(link) = dial(io, &mut credentials, Options::default()).await {
                            return link;
                        }
                    }
                };
                let (mut guest, host) =
                    tokio::join!(dialing, accept(host, &keys, None, Options::default()));
                let (_, host) = host.unwrap();
                host.send(ToGuest::Start { request: round }).await.unwrap();
                assert_eq!(
                    guest.recv().await.unwrap(),
                    ToGuest::Start { request: round }
                );
            };
            tokio::select! {
                () = work => {}
                () = relay => {}
            }
        }
        assert_eq!(credentials.session(), 3);
    })
    .await;
}

#[tokio::test]
async fn a_restarted_tether_gets_a_new_session_over_the_same_port() {
    deadline(async {
        let keys = Keys::with(identity(), secret());
        let mut credentials = Credentials::new(identity(), secret());
        let (host_end, far) = duplex(8192);
        let (stream, mut host_pipe) = reliable(host_end, Side::Listener).unwrap();
        let mut stream = Some(stream);
        let (mut far_read, mut far_write) = split(far);
        for _ in 0..3 {
            let (port, port_far) = duplex(8192);
            let near = split(port_far);
            let relay = relayed(near, (&mut far_read, &mut far_write));
            let work = async {
                let (guest, _pipe) = reliable(port, Side::Dialer).unwrap();
                let listening = async {
                    let io = match stream.take() {
                        Some(stream) => stream,
                        None => host_pipe.next().await.unwrap(),
                    };
                    accept(io, &keys, None, Options::default()).await.unwrap().1
                };
                let (guest, mut host) =
                    tokio::join!(dial(guest, &mut credentials, Options::default()), listening);
                let guest = guest.unwrap();
                guest.send(ToHost::Goodbye).await.unwrap();
                guest.flush().await.unwrap();
                assert_eq!(host.recv().await.unwrap(), ToHost::Goodbye);
            };
            tokio::select! {
                () = work => {}
                () = relay => {}
            }
        }
        assert_eq!(credentials.session(), 3);
    })
    .await;
}

#[tokio::test]
async fn a_listener_that_nobody_opens_waits() {
    let (_far, host_end) = duplex(100_000);
    let (mut stream, pipe) = reliable(host_end, Side::Listener).unwrap();
    let mut byte = [0];
    tokio::select! {
        biased;
        _ = stream.read(&mut byte) => panic!("nothing was opened"),
        () = pipe.lost() => panic!("the pipe is there"),
        () = tokio::task::yield_now() => {}
    }
}

/// The clock stands still while there is something to do: a minute of silence takes no time.
#[tokio::test(start_paused = true)]
async fn a_dead_endpoint_is_noticed_and_dialled_again() {
    deadline(given_up_and_dialled_again(true)).await;
    deadline(given_up_and_dialled_again(false)).await;
}

/// `takes`: something reads behind the port of the dead endpoint.
async fn given_up_and_dialled_again(takes: bool) {
    let (port, far) = duplex(8192);
    let (stream, mut guest_pipe) = reliable(port, Side::Dialer).unwrap();
    let (host_end, host_far) = duplex(8192);
    let (host, _host_pipe) = reliable(host_end, Side::Listener).unwrap();
    let (mut far_read, mut far_write) = split(far);
    let relay = relayed(split(host_far), (&mut far_read, &mut far_write));
    let work = common::session(stream, host, Options::default());
    let (mut guest, host) = tokio::select! {
        both = work => both,
        () = relay => unreachable!(),
    };
    drop(host);
    // Whoever reads for the dead one, or nobody: the port takes all, or no more than fits.
    let sink = async {
        if takes {
            let _ = tokio::io::copy(&mut far_read, &mut tokio::io::sink()).await;
        }
        std::future::pending().await
    };
    let begun = tokio::time::Instant::now();
    let written = async {
        while guest.send(ToHost::Goodbye).await.is_ok() {}
        guest.recv().await
    };
    tokio::select! {
        end = written => assert!(end.is_err(), "{end:?}"),
        () = sink => unreachable!(),
    }
    let waited = begun.elapsed();
    assert!(
        (wire::arq::SILENCE_MAX..wire::arq::SILENCE_MAX * 2).contains(&waited),
        "takes: {takes}, {waited:?}"
    );
    drop(guest);
    // The next one is opened at once, with whoever is there by then.
    let stream = guest_pipe.next().await.unwrap();
    let (host_end, host_far) = duplex(8192);
    let (host, _host_pipe) = reliable(host_end, Side::Listener).unwrap();
    let relay = relayed(split(host_far), (&mut far_read, &mut far_write));
    let work = async {
        let (guest, mut host) = common::session(stream, host, Options::default()).await;
        guest.send(ToHost::Goodbye).await.unwrap();
        assert_eq!(host.recv().await.unwrap(), ToHost::Goodbye);
    };
    tokio::select! {
        () = work => {}
        () = relay => unreachable!(),
    }
}
