//! Sessions over a reliable stream.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use bytes::Bytes;
use common::{Keys, deadline, identity, pattern, secret, session};
use link::{LinkError, Options, SendError, StreamEvent, StreamReceiver, accept, dial};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::UnixStream;
use wire::handshake::Credentials;
use wire::keys::Key;
use wire::message::{Channel, StreamId, ToGuest, ToHost};

fn request(request: u32) -> ToGuest {
    ToGuest::Start { request }
}

async fn read_all(receiver: &mut StreamReceiver) -> u64 {
    let mut read = 0;
    while let Some(event) = receiver.recv().await.unwrap() {
        if let StreamEvent::Data(_, bytes) = event {
            assert_eq!(bytes, pattern(read, bytes.len()), "at {read}");
            read += bytes.len() as u64;
        }
    }
    read
}

#[tokio::test]
async fn a_hundred_megabytes_arrive_once_and_in_order() {
    const TOTAL: u64 = 100 << 20;
    deadline(async {
        let (a, b) = UnixStream::pair().unwrap();
        let (guest, host) = session(a, b, Options::default()).await;
        let (_, mut out) = host.open(StreamId(1)).unwrap();
        let (mut sender, _) = guest.open(StreamId(1)).unwrap();
        let writer = tokio::spawn(async move {
            let mut sent = 0;
            while sent < TOTAL {
                let len = 65_536.min(TOTAL - sent) as usize;
                sender
                    .send(Channel::Stdout, pattern(sent, len).into())
                    .await
                    .unwrap();
                sent += len as u64;
            }
            sender.end(Channel::Stdout, 0).unwrap();
        });
        assert_eq!(read_all(&mut out).await, TOTAL);
        writer.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_paused_reader_holds_back_its_own_stream_only() {
    deadline(async {
        let (a, b) = duplex(4096);
        let (guest, mut host) = session(a, b, Options::default()).await;
        let (_, mut paused) = host.open(StreamId(1)).unwrap();
        let (_, mut read) = host.open(StreamId(2)).unwrap();
        let (mut held, _) = guest.open(StreamId(1)).unwrap();
        let (mut free, _) = guest.open(StreamId(2)).unwrap();
        let held = tokio::spawn(async move {
            held.send(Channel::Stdout, pattern(0, 4 << 20).into())
                .await
                .unwrap();
        });
        let free = tokio::spawn(async move {
            free.send(Channel::Stderr, pattern(0, 8 << 20).into())
                .await
                .unwrap();
        });
        assert_eq!(read_all(&mut read).await, 8 << 20);
        free.await.unwrap();
        guest.send(ToHost::Goodbye).await.unwrap();
        assert_eq!(host.recv().await.unwrap(), ToHost::Goodbye);
        assert!(!held.is_finished(), "4 MiB went into a window of 512 KiB");
        assert_eq!(read_all(&mut paused).await, 4 << 20);
        held.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn many_streams_in_both_directions() {
    deadline(async {
        let (a, b) = duplex(64 * 1024);
        let (guest, host) = session(a, b, Options::default()).await;
        let mut tasks = Vec::new();
        for id in 1..=200 {
            let (mut stdin, mut stdout) = host.open(StreamId(id)).unwrap();
            let (mut echo, mut input) = guest.open(StreamId(id)).unwrap();
            tasks.push(tokio::spawn(async move {
                while let Some(event) = input.recv().await.unwrap() {
                    match event {
                        StreamEvent::Data(_, bytes) => {
                            echo.send(Channel::Stdout, bytes).await.unwrap();
                        }
                        StreamEvent::End { channel, left } => {
                            assert_eq!((channel, left), (Channel::Stdin, 3));
                            echo.end(Channel::Stdout, 0).unwrap();
                        }
                    }
                }
            }));
            tasks.push(tokio::spawn(async move {
                stdin
                    .send(Channel::Stdin, pattern(0, 50_000 + id as usize).into())
                    .await
                    .unwrap();
                stdin.end(Channel::Stdin, 3).unwrap();
            }));
            tasks.push(tokio::spawn(async move {
                assert_eq!(read_all(&mut stdout).await, 50_000 + u64::from(id));
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn flush_ends_only_after_the_peer_has_everything() {
    deadline(async {
        let (a, b) = duplex(1000);
        let (guest, mut host) = session(a, b, Options::default()).await;
        let (_, mut out) = host.open(StreamId(1)).unwrap();
        let (mut sender, _) = guest.open(StreamId(1)).unwrap();
        sender
            .send(Channel::Stdout, pattern(0, 100_000).into())
            .await
            .unwrap();
        sender.end(Channel::Stdout, 0).unwrap();
        drop(sender);
        guest.flush().await.unwrap();
        guest.send(ToHost::Goodbye).await.unwrap();
        guest.flush().await.unwrap();
        drop(guest); // Power off.
        assert_eq!(read_all(&mut out).await, 100_000);
        assert_eq!(host.recv().await.unwrap(), ToHost::Goodbye);
        assert!(host.recv().await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_dropped_reader_is_told_to_the_writer() {
    deadline(async {
        let (a, b) = duplex(1000);
        let (guest, host) = session(a, b, Options::default()).await;
        let (_, out) = host.open(StreamId(1)).unwrap();
        let (mut sender, _) = guest.open(StreamId(1)).unwrap();
        sender
            .send(Channel::Stdout, Bytes::from_static(b"x"))
            .await
            .unwrap();
        drop(out);
        assert!(matches!(sender.closed().await, SendError::Dropped(1)));
        let more = sender
            .send(Channel::Stdout, pattern(0, 10 << 20).into())
            .await;
        assert!(matches!(more, Err(SendError::Dropped(1))));
        guest.flush().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_broken_connection_wakes_all() {
    deadline(async {
        let (a, b) = duplex(1000);
        let (mut guest, host) = session(a, b, Options::default()).await;
        let (_keep, _out) = host.open(StreamId(1)).unwrap();
        let (mut sender, mut input) = guest.open(StreamId(1)).unwrap();
        let sending = tokio::spawn(async move {
            sender
                .send(Channel::Stdout, pattern(0, 10 << 20).into())
                .await
        });
        let reading = tokio::spawn(async move { input.recv().await });
        let flushing = tokio::spawn({
            let sender = guest.sender();
            async move { sender.flush().await.and(sender.flush().await) }
        });
        let receiving = tokio::spawn(async move { guest.recv().await });
        host.sender().close();
        assert!(matches!(sending.await.unwrap(), Err(SendError::Link(_))));
        assert!(reading.await.unwrap().is_err());
        assert!(receiving.await.unwrap().is_err());
        let _ = flushing.await.unwrap(); // It may have been done before.
    })
    .await;
}

#[tokio::test]
async fn control_messages_arrive_in_order_and_a_full_inbox_loses_none() {
    deadline(async {
        let (a, b) = duplex(500);
        let options = Options {
            inbox: 4,
            ..Options::default()
        };
        let (mut guest, host) = session(a, b, options).await;
        let sending = tokio::spawn(async move {
            for n in 0..5000 {
                host.send(request(n)).await.unwrap();
            }
            host.flush().await.unwrap();
        });
        for n in 0..5000 {
            assert_eq!(guest.recv().await.unwrap(), request(n));
        }
        sending.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_long_message_is_refused_where_it_is_sent() {
    let (a, b) = duplex(500);
    let (guest, _host) = session(a, b, Options::default()).await;
    let message = ToHost::BootFault {
        step: "disk".into(),
        message: "x".repeat(600_000),
    };
    assert!(matches!(
        guest.send(message).await,
        Err(LinkError::Protocol(_))
    ));
}

#[tokio::test]
async fn a_second_first_session_is_refused_and_a_resumed_one_is_not() {
    deadline(async {
        let keys = Keys::with(identity(), secret());
        let mut credentials = Credentials::new(identity(), secret());
        for _ in 0..3 {
            let (a, b) = duplex(500);
            let (guest, host) = tokio::join!(
                dial(a, &mut credentials, Options::default()),
                accept(b, &keys, Some(identity().container), Options::default())
            );
            guest.unwrap();
            host.unwrap();
        }
        assert_eq!(credentials.session(), 3);
        let mut thief = Credentials::new(identity(), secret());
        let (a, b) = duplex(500);
        let (guest, host) = tokio::join!(
            dial(a, &mut thief, Options::default()),
            accept(b, &keys, None, Options::default())
        );
        assert!(guest.unwrap_err().to_string().contains("refused"));
        assert!(host.unwrap_err().to_string().contains("session 1"));
    })
    .await;
}

#[tokio::test]
async fn a_vm_behind_anothers_port_is_refused() {
    deadline(async {
        let keys = Keys::with(identity(), secret());
        let mut credentials = Credentials::new(identity(), secret());
        let (a, b) = duplex(500);
        let (guest, host) = tokio::join!(
            dial(a, &mut credentials, Options::default()),
            accept(b, &keys, Some([8; 32]), Options::default())
        );
        assert!(guest.is_err() && host.is_err());
    })
    .await;
}

#[tokio::test]
async fn the_answer_does_not_tell_whether_a_vm_exists() {
    deadline(async {
        let keys = Keys::with(identity(), secret());
        let mut answers = Vec::new();
        for container in [identity().container, [1; 32]] {
            let whom = wire::keys::Identity { container, boot: 1 };
            let mut thief = Credentials::new(whom, Key::new([1; 32]));
            let (a, b) = duplex(500);
            let (guest, _) = tokio::join!(
                dial(a, &mut thief, Options::default()),
                accept(b, &keys, None, Options::default())
            );
            answers.push(guest.unwrap_err().to_string());
        }
        assert_eq!(answers[0], answers[1]);
    })
    .await;
}

#[tokio::test]
async fn a_session_lost_before_its_confirm_is_resumed() {
    deadline(async {
        let keys = Keys::with(identity(), secret());
        let mut credentials = Credentials::new(identity(), secret());
        // The confirm is cut off: the endpoint has stored the session, the tether knows nothing.
        let ((a, mut cut), (mut far, b)) = (duplex(500), duplex(500));
        let relay = async {
            let mut buffer = [0; 500];
            for to_host in [true, false, true] {
                let (from, to) = if to_host {
                    (&mut cut, &mut far)
                } else {
                    (&mut far, &mut cut)
                };
                let count = from.read(&mut buffer).await.unwrap();
                to.write_all(&buffer[..count]).await.unwrap();
            }
            let _ = far.read(&mut buffer).await.unwrap();
            drop(cut);
        };
        let (guest, host, ()) = tokio::join!(
            dial(a, &mut credentials, Options::default()),
            accept(b, &keys, None, Options::default()),
            relay
        );
        assert!(guest.is_err() && host.is_ok());
        let (a, b) = duplex(500);
        let (guest, host) = tokio::join!(
            dial(a, &mut credentials, Options::default()),
            accept(b, &keys, None, Options::default())
        );
        assert!(guest.is_ok() && host.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_session_lost_before_its_proof_begins_anew() {
    deadline(async {
        let mut credentials = Credentials::new(identity(), secret());
        for keys in [Keys::default(), Keys::with(identity(), secret())] {
            let mut done = false;
            // With the wrong endpoint never; with the right one at the latest at the second try.
            for _ in 0..2 {
                let (a, b) = duplex(500);
                let (guest, host) = tokio::join!(
                    dial(a, &mut credentials, Options::default()),
                    accept(b, &keys, None, Options::default())
                );
                done = guest.is_ok() && host.is_ok();
                if done {
                    break;
                }
            }
            assert_eq!(done, credentials.is_established());
        }
        assert!(credentials.is_established());
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_overruns_its_credit_loses_the_link() {
    use wire::frame::Frame;
    deadline(async {
        let (a, b) = duplex(1 << 20);
        let keys = Keys::with(identity(), secret());
        let (mut raw, host) = tokio::join!(raw_guest(a), async {
            accept(b, &keys, None, Options::default()).await.unwrap().1
        });
        let (_, mut out) = host.open(StreamId(1)).unwrap();
        let mut bytes = bytes::BytesMut::new();
        for _ in 0..9 {
            let data = Bytes::from(vec![0; 65_536]);
            Frame::Data {
                stream: 1,
                channel: Channel::Stdout,
                bytes: data,
            }
            .encode(&mut bytes);
        }
        raw.write_all(&bytes).await.unwrap();
        let error = host.closed().await.to_string();
        assert!(error.contains("stream 1 with a credit of"), "{error}");
        while let Ok(Some(_)) = out.recv().await {}
    })
    .await;
}

/// A guest's handshake by hand, for peers that misbehave afterwards.
async fn raw_guest(mut io: tokio::io::DuplexStream) -> tokio::io::DuplexStream {
    use bytes::BytesMut;
    use wire::frame::{Frame, decode};
    let mut credentials = Credentials::new(identity(), secret());
    async fn send(io: &mut tokio::io::DuplexStream, message: Vec<u8>) {
        let mut out = BytesMut::new();
        Frame::Handshake(message.into()).encode(&mut out);
        io.write_all(&out).await.unwrap();
    }
    async fn receive(io: &mut tokio::io::DuplexStream) -> Bytes {
        let mut buffer = BytesMut::new();
        loop {
            if let Some(Frame::Handshake(message)) = decode(&mut buffer).unwrap() {
                return message;
            }
            io.read_buf(&mut buffer).await.unwrap();
        }
    }
    let (dialer, hello) = credentials.dial([1; 32]).unwrap();
    send(&mut io, hello).await;
    let (dialer, proof) = dialer
        .challenge(&receive(&mut io).await, &mut credentials)
        .unwrap();
    send(&mut io, proof).await;
    dialer
        .confirm(&receive(&mut io).await, &mut credentials)
        .unwrap();
    io
}
