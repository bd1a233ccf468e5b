//! The container's files, read and written for the endpoint (`docker cp`, `diff`, `export`, `commit`).
//!
//! Each job is a child of its own, in a mount namespace of its own and with the container's root as its root: no link
//! in it, whoever plants it and whenever, leads anywhere else. There is no /proc in it, and no descriptor of the
//! tether. What the container's processes have mounted, file systems in memory among it, is not seen, as under Docker.
//! A child that takes too much memory is the first to go.

mod child;
mod place;
mod tree;
mod write;

use crate::boot::disk::Found;
use crate::io::fd::AsyncFile;
use crate::reaper::Reaper;
use crate::sys::process as sys;
use bytes::Bytes;
use link::{StreamEvent, StreamReceiver, StreamSender};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use std::io;
use std::os::fd::AsFd;
use tokio::sync::watch;
use wire::config::GuestConfig;
use wire::files::{Job, PIECE_MAX};
use wire::message::Channel;

/// Starts a job's child, and what carries its records; `done` is called once both have ended. They end where the peer
/// or the link goes, and once `cut` is true. Must be called within a `LocalSet`.
///
/// # Errors
/// Where there is no child.
pub fn begin(
    job: Job,
    config: &GuestConfig,
    disk: &Found,
    reaper: &Reaper,
    (sender, receiver): (StreamSender, StreamReceiver),
    mut cut: watch::Receiver<bool>,
    done: impl FnOnce() + 'static,
) -> io::Result<()> {
    let (from_child, output) = pipe2(OFlag::O_CLOEXEC)?;
    let (input, to_child) = pipe2(OFlag::O_CLOEXEC)?;
    let (from_child, to_child) = (AsyncFile::new(from_child)?, AsyncFile::new(to_child)?);
    let child = sys::spawn(libc::CLONE_NEWNS, None, || {
        child::run(&job, config, disk, input, output)
    })?;
    // Registered before the event loop can reap it.
    let ended = reaper.watch(child.pid);
    tokio::task::spawn_local(async move {
        tokio::select! {
            () = forward(from_child, sender) => {}
            () = feed(receiver, to_child) => {}
            _ = cut.wait_for(|cut| *cut) => {}
        }
        // One that has ended is none the worse for it.
        let _ = sys::signal(child.pidfd.as_fd(), libc::SIGKILL);
        let _ = ended.await;
        done();
    });
    Ok(())
}

/// Carries what the child writes to the peer, until there is no more of it or no peer.
async fn forward(from: AsyncFile, mut to: StreamSender) {
    let mut buffer = vec![0; PIECE_MAX];
    loop {
        let got = tokio::select! {
            got = from.read_chunk(&mut buffer) => got,
            _ = to.closed() => return,
        };
        let Ok(count @ 1..) = got else { break };
        let piece = Bytes::copy_from_slice(&buffer[..count]);
        if to.send(Channel::Stdout, piece).await.is_err() {
            return;
        }
    }
    let _ = to.end(Channel::Stdout, 0);
}

/// Carries what the peer sends to the child; ends only where the link does.
async fn feed(mut from: StreamReceiver, to: AsyncFile) {
    loop {
        match from.recv().await {
            Ok(Some(StreamEvent::Data(_, bytes))) => {
                // A child that has ended has told why, or is found to have told nothing.
                if to.write_whole(&bytes).await.is_err() {
                    break;
                }
            }
            Ok(Some(StreamEvent::End { .. }) | None) => break,
            Err(_) => return,
        }
    }
    drop(to);
    std::future::pending().await
}
