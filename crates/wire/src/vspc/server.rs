//! The concentrator's side of one connection.

use super::{Cookie, Direction, VspcError};

/// What the concentrator learns from a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEvent {
    /// The port asks to be connected to this service. Answer with [`Server::answer_proxy`] after
    /// the URI was checked against the VMs of this virtual container host.
    Proxy {
        /// Direction byte.
        direction: Direction,
        /// `serviceURI` of the port's backing.
        uri: String,
    },
    /// The VM's vCenter UUID.
    VcUuid(String),
    /// The VM's display name.
    VmName(String),
    /// The VM's BIOS UUID.
    BiosUuid(String),
    /// The VM's location UUID.
    LocationUuid(String),
    /// vMotion is about to begin: ask `Migrations::begin`, answer with [`Server::go_ahead`] or
    /// [`Server::not_now`], and after a go-ahead hold output for this VM back.
    VmotionBegin {
        /// The host's sequence, to be echoed.
        sequence: Vec<u8>,
    },
    /// The destination host names the migration: verify with `Migrations::peer`, answer with
    /// [`Server::peer_ok`] or close the connection.
    VmotionPeer {
        /// What it presents; not verified.
        cookie: Cookie,
    },
    /// The VM runs behind this connection now: move the stream here and flush.
    VmotionComplete {
        /// Sequence.
        sequence: Vec<u8>,
    },
    /// The VM stays where it was.
    VmotionAbort {
        /// Sequence.
        sequence: Vec<u8>,
    },
}

/// One connection of a serial port to the concentrator. Feed it with [`Server::receive`]; send
/// what [`Server::take_output`] gives.
#[derive(Debug)]
pub struct Server {
    _p: (),
}

impl Default for Server {
    fn default() -> Self {
        Server::new()
    }
}

impl Server {
    /// A new connection; its output begins with the negotiation.
    pub fn new() -> Server {
        unimplemented!()
    }

    /// Takes bytes from the connection; appends the port's own bytes, unescaped, to `data`.
    pub fn receive(&mut self, bytes: &[u8], data: &mut Vec<u8>) -> Result<(), VspcError> {
        let _ = (bytes, data);
        unimplemented!()
    }

    /// The next thing learned.
    pub fn next_event(&mut self) -> Option<ServerEvent> {
        unimplemented!()
    }

    /// Bytes for the port: escaped into the output.
    pub fn send(&mut self, data: &[u8]) {
        let _ = data;
        unimplemented!()
    }

    /// Takes what is to be sent on the connection.
    pub fn take_output(&mut self) -> Vec<u8> {
        unimplemented!()
    }

    /// Answers `DO_PROXY`.
    pub fn answer_proxy(&mut self, accept: bool) {
        let _ = accept;
        unimplemented!()
    }

    /// Answers VMOTION_BEGIN with a cookie: sequence and secret.
    pub fn go_ahead(&mut self, cookie: &Cookie) {
        let _ = cookie;
        unimplemented!()
    }

    /// Answers VMOTION_BEGIN: not now.
    pub fn not_now(&mut self, sequence: &[u8]) {
        let _ = sequence;
        unimplemented!()
    }

    /// Answers VMOTION_PEER whose cookie was verified.
    pub fn peer_ok(&mut self, cookie: &Cookie) {
        let _ = cookie;
        unimplemented!()
    }
}
