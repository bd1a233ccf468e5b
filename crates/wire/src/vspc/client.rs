//! The serial port's side of a connection, as ESXi speaks it.

use super::telnet::{BINARY, ECHO, Peer, SGA, Telnet, VMWARE, code};
use super::{Cookie, Direction, VspcError};
use std::collections::VecDeque;

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
    telnet: Telnet,
    state: State,
}

#[derive(Debug)]
struct State {
    identity: PortIdentity,
    events: VecDeque<ClientEvent>,
    /// KNOWN_SUBOPTIONS_1 was sent.
    introduced: bool,
    /// DO_PROXY was sent, or this connection takes a migrated port over.
    asked: bool,
    /// VMOTION_PEER to send once the options are known.
    peer: Option<Cookie>,
}

impl Client {
    /// A new connection of this port. It asks for its proxy as soon as the concentrator has told
    /// its options.
    pub fn new(identity: PortIdentity) -> Client {
        Client::begin(identity, None)
    }

    /// The destination host's connection of a port that is being migrated: presents the cookie
    /// in place of asking for a proxy.
    pub fn migrated(identity: PortIdentity, cookie: Cookie) -> Client {
        Client::begin(identity, Some(cookie))
    }

    fn begin(identity: PortIdentity, peer: Option<Cookie>) -> Client {
        let telnet = Telnet::new(&[BINARY, SGA, VMWARE], &[BINARY, SGA, ECHO]);
        let state = State {
            identity,
            events: VecDeque::new(),
            introduced: false,
            asked: false,
            peer,
        };
        Client { telnet, state }
    }

    /// Takes bytes from the connection; appends the service's bytes, unescaped, to `data`.
    pub fn receive(&mut self, bytes: &[u8], data: &mut Vec<u8>) -> Result<(), VspcError> {
        self.telnet.receive(bytes, data, &mut self.state)
    }

    /// The next thing learned.
    pub fn next_event(&mut self) -> Option<ClientEvent> {
        self.state.events.pop_front()
    }

    /// The port's output: escaped into the connection's. Wait for [`ClientEvent::Accepted`]: the
    /// concentrator throws away what comes before.
    pub fn send(&mut self, data: &[u8]) {
        self.telnet.send(data);
    }

    /// Takes what is to be sent on the connection.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.telnet.take_output()
    }

    /// Says VMOTION_BEGIN on the source host's connection.
    pub fn vmotion_begin(&mut self, sequence: &[u8]) {
        self.telnet.suboption(code::VMOTION_BEGIN, &[sequence]);
    }

    /// Says VMOTION_COMPLETE on the destination host's connection.
    pub fn vmotion_complete(&mut self, sequence: &[u8]) {
        self.telnet.suboption(code::VMOTION_COMPLETE, &[sequence]);
    }

    /// Says VMOTION_ABORT on the source host's connection.
    pub fn vmotion_abort(&mut self, sequence: &[u8]) {
        self.telnet.suboption(code::VMOTION_ABORT, &[sequence]);
    }
}

impl Peer for State {
    fn suboption(
        &mut self,
        code: u8,
        content: &[u8],
        telnet: &mut Telnet,
    ) -> Result<(), VspcError> {
        let event = match code {
            code::KNOWN_2 => {
                if !std::mem::replace(&mut self.asked, true) {
                    match &self.peer {
                        Some(cookie) => telnet.suboption(code::VMOTION_PEER, &[cookie.as_bytes()]),
                        None => {
                            let direction = match self.identity.direction {
                                Direction::Client => b"C",
                                Direction::Server => b"S",
                            };
                            let uri = self.identity.uri.as_bytes();
                            telnet.suboption(code::DO_PROXY, &[direction, uri]);
                        }
                    }
                }
                return Ok(());
            }
            code::GET_VC_UUID | code::GET_NAME | code::GET_BIOS_UUID | code::GET_LOCATION_UUID => {
                let value = match code {
                    code::GET_VC_UUID => &self.identity.vc_uuid,
                    code::GET_NAME => &self.identity.name,
                    code::GET_BIOS_UUID => &self.identity.bios_uuid,
                    _ => &self.identity.location_uuid,
                };
                // The answer's code is the one before the request's.
                telnet.suboption(code - 1, &[value.as_bytes()]);
                return Ok(());
            }
            code::WILL_PROXY => ClientEvent::Accepted,
            code::WONT_PROXY => ClientEvent::Refused,
            code::VMOTION_GOAHEAD => ClientEvent::GoAhead(Cookie::new(content.to_vec())),
            code::VMOTION_NOTNOW => ClientEvent::NotNow,
            code::VMOTION_PEER_OK => ClientEvent::PeerOk(Cookie::new(content.to_vec())),
            code::UNKNOWN_1 | code::UNKNOWN_2 | code::KNOWN_1 => return Ok(()),
            unknown => {
                telnet.suboption(code::UNKNOWN_1, &[&[unknown]]);
                return Ok(());
            }
        };
        self.events.push_back(event);
        Ok(())
    }

    fn extension_wanted(&mut self, telnet: &mut Telnet) {
        if !std::mem::replace(&mut self.introduced, true) {
            telnet.suboption(code::KNOWN_1, &[code::ALL]);
        }
    }
}
