//! The serial port's side of a connection, as ESXi speaks it.

use super::{Cookie, Direction, VspcError};

/// What a serial port tells of its VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortIdentity {
    /// Direction of the port's backing.
    pub direction: Direction,
    /// `serviceURI` of the port's backing.
    pub uri: String,
    /// vCenter's UUID of the VM (`config.instanceUuid`).
    pub vc_uuid: String,
    /// Display name.
    pub name: String,
    /// BIOS UUID (`config.uuid`).
    pub bios_uuid: String,
    /// Location UUID (`config.locationId`).
    pub location_uuid: String,
}

/// What the port learns from the concentrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// WILL_PROXY: the port is connected; data flows.
    Accepted,
    /// WONT_PROXY: close the connection, try again later.
    Refused,
    /// The concentrator is ready for the migration.
    GoAhead(Cookie),
    /// The concentrator is not ready.
    NotNow,
    /// The concentrator knows the migration.
    PeerOk(Cookie),
}

/// One connection of a serial port to a concentrator.
#[derive(Debug)]
pub struct Client {
    _p: (),
}

impl Client {
    /// A new connection of this port; its output begins with the negotiation and DO_PROXY.
    pub fn new(identity: PortIdentity) -> Client {
        let _ = identity;
        unimplemented!()
    }

    /// Takes bytes from the connection; appends the service's bytes, unescaped, to `data`.
    pub fn receive(&mut self, bytes: &[u8], data: &mut Vec<u8>) -> Result<(), VspcError> {
        let _ = (bytes, data);
        unimplemented!()
    }

    /// The next thing learned.
    pub fn next_event(&mut self) -> Option<ClientEvent> {
        unimplemented!()
    }

    /// The port's output: escaped into the connection's.
    pub fn send(&mut self, data: &[u8]) {
        let _ = data;
        unimplemented!()
    }

    /// Takes what is to be sent on the connection.
    pub fn take_output(&mut self) -> Vec<u8> {
        unimplemented!()
    }

    /// Says VMOTION_BEGIN on the source host's connection.
    pub fn vmotion_begin(&mut self, sequence: &[u8]) {
        let _ = sequence;
        unimplemented!()
    }

    /// Says VMOTION_PEER on the destination host's connection.
    pub fn vmotion_peer(&mut self, cookie: &Cookie) {
        let _ = cookie;
        unimplemented!()
    }

    /// Says VMOTION_COMPLETE on the destination host's connection.
    pub fn vmotion_complete(&mut self, sequence: &[u8]) {
        let _ = sequence;
        unimplemented!()
    }

    /// Says VMOTION_ABORT on the source host's connection.
    pub fn vmotion_abort(&mut self, sequence: &[u8]) {
        let _ = sequence;
        unimplemented!()
    }
}
