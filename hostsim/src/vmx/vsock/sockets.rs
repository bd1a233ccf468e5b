//! The host's side of a guest's connections: unix sockets that never block.

use super::state::Key;
use crate::vmx::handle::short_path;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// Bytes read from a socket at once.
const READ: usize = 64 * 1024;
/// Events taken from the system at once.
const EVENTS: usize = 64;

/// One connection's host side.
#[derive(Debug)]
struct Socket {
    /// The connection; `None` once the guest is done with it and only bytes are left to pass on.
    key: Option<Key>,
    stream: UnixStream,
    /// From the guest; bounded by its credit.
    outgoing: VecDeque<u8>,
    /// The guest sends no more.
    input_ended: bool,
    /// From the host's side, not yet given to the guest: at most [`READ`], from `taken` on.
    incoming: Vec<u8>,
    taken: usize,
    /// There may be more to read.
    readable: bool,
    /// The peer has closed it altogether.
    hung_up: bool,
}

/// What became of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// So many bytes of the guest's were passed on.
    Forwarded(Key, usize),
    /// There is, or may be, something for the guest.
    Readable(Key),
    /// It broke; the guest's bytes cannot be passed on.
    Broken(Key),
}

/// What there is for the guest on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incoming {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now; a [`Change::Readable`] will come.
    Nothing,
    /// Nothing any more; `both`: nor does it take any.
    End { both: bool },
}

/// All of them, by token; a token is never used twice.
#[derive(Debug)]
pub(super) struct Sockets {
    folder: PathBuf,
    epoll: Epoll,
    by_key: HashMap<Key, u64>,
    sockets: HashMap<u64, Socket>,
    next_token: u64,
    scratch: Vec<u8>,
}

impl Sockets {
    pub(super) fn new(folder: PathBuf) -> io::Result<Sockets> {
        Ok(Sockets {
            folder,
            epoll: Epoll::new()?,
            by_key: HashMap::new(),
            sockets: HashMap::new(),
            next_token: 0,
            scratch: vec![0; READ],
        })
    }

    /// Readable when [`Sockets::poll`] has something to tell.
    pub(super) fn poll_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Connect to the host's port.
    ///
    /// # Errors
    /// Nobody listens there, or whoever does has too many that wait.
    pub(super) fn connect(&mut self, key: Key) -> io::Result<()> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let folder = File::open(&self.folder)?;
        let path = short_path(&folder, &format!("port-{}", key.host_port));
        // A unix socket connects at once or not at all.
        connect(fd.as_raw_fd(), &UnixAddr::new(&path)?)?;
        let stream = UnixStream::from(fd);
        let token = self.next_token;
        let events =
            EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        self.epoll.ctl(
            ControlOperation::Add,
            stream.as_raw_fd(),
            EpollEvent::new(events, token),
        )?;
        self.next_token += 1;
        self.by_key.insert(key, token);
        let socket = Socket {
            key: Some(key),
            stream,
            outgoing: VecDeque::new(),
            input_ended: false,
            incoming: Vec::new(),
            taken: 0,
            readable: true,
            hung_up: false,
        };
        self.sockets.insert(token, socket);
        Ok(())
    }

    /// Pass bytes of the guest's on; what the socket does not take now waits for it. How many
    /// were passed on at once.
    pub(super) fn send(&mut self, key: Key, bytes: &[u8]) -> io::Result<usize> {
        let Some(socket) = self.socket(key) else {
            return Ok(0);
        };
        let mut sent = 0;
        if socket.outgoing.is_empty() {
            while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
                match socket.stream.write(rest) {
                    Ok(n) => sent += n,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
        }
        socket
            .outgoing
            .extend(bytes.get(sent..).unwrap_or_default());
        Ok(sent)
    }

    /// The guest sends no more on this connection.
    pub(super) fn end_input(&mut self, key: Key) {
        if let Some(socket) = self.socket(key) {
            socket.input_ended = true;
            socket.end_if_empty();
        }
    }

    /// The guest is done with this connection: what it sent is still passed on.
    pub(super) fn close(&mut self, key: Key) {
        let Some(token) = self.by_key.remove(&key) else {
            return;
        };
        if let Some(socket) = self.sockets.get_mut(&token) {
            if socket.outgoing.is_empty() {
                self.sockets.remove(&token);
            } else {
                socket.key = None;
            }
        }
    }

    /// Drop a connection with all that is left of it.
    pub(super) fn discard(&mut self, key: Key) {
        if let Some(token) = self.by_key.remove(&key) {
            self.sockets.remove(&token);
        }
    }

    /// What there is for the guest on this connection; reads from the socket where nothing waits.
    pub(super) fn incoming(&mut self, key: Key) -> Incoming {
        let Some(token) = self.by_key.get(&key) else {
            return Incoming::Nothing;
        };
        let Some(socket) = self.sockets.get_mut(token) else {
            return Incoming::Nothing;
        };
        let waiting = socket.incoming.len() - socket.taken;
        if waiting > 0 {
            return Incoming::Bytes(waiting);
        }
        while socket.readable {
            match socket.stream.read(&mut self.scratch) {
                Ok(0) => {
                    return Incoming::End {
                        both: socket.hung_up,
                    };
                }
                Ok(n) => {
                    socket.incoming.clear();
                    socket.taken = 0;
                    socket
                        .incoming
                        .extend_from_slice(self.scratch.get(..n).unwrap_or_default());
                    return Incoming::Bytes(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => socket.readable = false,
                Err(_) => return Incoming::End { both: true },
            }
        }
        Incoming::Nothing
    }

    /// Take bytes that [`Sockets::incoming`] announced.
    pub(super) fn take(&mut self, key: Key, most: usize) -> &[u8] {
        let Some(socket) = self
            .by_key
            .get(&key)
            .and_then(|token| self.sockets.get_mut(token))
        else {
            return &[];
        };
        let end = socket.incoming.len().min(socket.taken.saturating_add(most));
        let bytes = socket.incoming.get(socket.taken..end).unwrap_or_default();
        socket.taken = end;
        bytes
    }

    /// What happened since the last call; never waits.
    pub(super) fn poll(&mut self) -> io::Result<Vec<Change>> {
        let mut changes = Vec::new();
        let mut events = [EpollEvent::default(); EVENTS];
        loop {
            let n = match self.epoll.wait(0, &mut events) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            for event in events.iter().take(n) {
                self.on_event(event.data(), event.event_set(), &mut changes);
            }
            if n < EVENTS {
                return Ok(changes);
            }
        }
    }

    fn on_event(&mut self, token: u64, events: EventSet, changes: &mut Vec<Change>) {
        let Some(socket) = self.sockets.get_mut(&token) else {
            return;
        };
        let gone = EventSet::HANG_UP | EventSet::ERROR;
        if events.intersects(gone) {
            socket.hung_up = true;
        }
        if events.intersects(EventSet::IN | EventSet::READ_HANG_UP | gone) {
            socket.readable = true;
            changes.extend(socket.key.map(Change::Readable));
        }
        if events.contains(EventSet::OUT) || events.intersects(gone) {
            let (sent, result) = socket.flush();
            if let Some(key) = socket.key.filter(|_| sent > 0) {
                changes.push(Change::Forwarded(key, sent));
            }
            match (socket.key, result) {
                (Some(key), Err(_)) => changes.push(Change::Broken(key)),
                (None, Err(_)) => drop(self.sockets.remove(&token)),
                (None, Ok(())) if socket.outgoing.is_empty() => drop(self.sockets.remove(&token)),
                _ => {}
            }
        }
    }

    /// The guest is gone: pass on what is left, each connection for as long as there is time.
    pub(super) fn finish(&mut self, deadline: Duration) -> io::Result<()> {
        let end = Instant::now() + deadline;
        let mut result = Ok(());
        for (_, mut socket) in self.sockets.drain() {
            let left = end
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1));
            let bytes = socket.outgoing.make_contiguous();
            let passed = socket
                .stream
                .set_nonblocking(false)
                .and_then(|()| socket.stream.set_write_timeout(Some(left)))
                .and_then(|()| socket.stream.write_all(bytes));
            if let Err(e) = passed {
                result = Err(io::Error::other(format!(
                    "{} bytes not passed on: {e}",
                    bytes.len()
                )));
            }
        }
        self.by_key.clear();
        result
    }

    fn socket(&mut self, key: Key) -> Option<&mut Socket> {
        self.by_key
            .get(&key)
            .and_then(|token| self.sockets.get_mut(token))
    }
}

impl Socket {
    /// Pass on what waits, as far as the peer takes it.
    fn flush(&mut self) -> (usize, io::Result<()>) {
        let mut sent = 0;
        while !self.outgoing.is_empty() {
            match self.stream.write(self.outgoing.as_slices().0) {
                Ok(n) => {
                    self.outgoing.drain(..n);
                    sent += n;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return (sent, Err(e)),
            }
        }
        self.end_if_empty();
        (sent, Ok(()))
    }

    fn end_if_empty(&mut self) {
        if self.input_ended && self.outgoing.is_empty() {
            // It may be closed already.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }
}
