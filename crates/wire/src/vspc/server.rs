//! The concentrator's side of one connection.

use super::telnet::{BINARY, ECHO, Peer, SGA, Telnet, VMWARE, code};
use super::{Cookie, Direction, VspcError};
use std::collections::VecDeque;

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
///
/// Nothing passes in either direction before the proxy was accepted ([`Server::answer_proxy`]) or
/// a migration's cookie was ([`Server::peer_ok`]).
#[derive(Debug)]
pub struct Server {
    telnet: Telnet,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<ServerEvent>,
    accepted: bool,
    /// A go-ahead was given on this connection.
    migrating: bool,
    /// A peer's cookie was accepted on this connection.
    peered: bool,
}

impl Default for Server {
    fn default() -> Self {
        Server::new()
    }
}

impl Server {
    /// A new connection; its output begins with the negotiation.
    pub fn new() -> Server {
        let mut telnet = Telnet::new(&[BINARY, SGA, ECHO], &[BINARY, SGA, VMWARE]);
        for option in [BINARY, SGA, ECHO] {
            telnet.offer(option);
        }
        for option in [BINARY, SGA, VMWARE] {
            telnet.ask(option);
        }
        Server {
            telnet,
            state: State::default(),
        }
    }

    /// Takes bytes from the connection; appends the port's own bytes, unescaped, to `data`.
    pub fn receive(&mut self, bytes: &[u8], data: &mut Vec<u8>) -> Result<(), VspcError> {
        let before = data.len();
        let accepted = self.state.accepted;
        let result = self.telnet.receive(bytes, data, &mut self.state);
        if !accepted {
            data.truncate(before);
        }
        result
    }

    /// The next thing learned.
    pub fn next_event(&mut self) -> Option<ServerEvent> {
        self.state.events.pop_front()
    }

    /// Bytes for the port: escaped into the output.
    pub fn send(&mut self, data: &[u8]) {
        if self.state.accepted {
            self.telnet.send(data);
        }
    }

    /// Takes what is to be sent on the connection.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.telnet.take_output()
    }

    /// Answers `DO_PROXY`. After a refusal, send the output and close the connection.
    pub fn answer_proxy(&mut self, accept: bool) {
        self.state.accepted = accept;
        let answer = if accept {
            code::WILL_PROXY
        } else {
            code::WONT_PROXY
        };
        self.telnet.suboption(answer, &[]);
    }

    /// Answers VMOTION_BEGIN with a cookie: sequence and secret.
    pub fn go_ahead(&mut self, cookie: &Cookie) {
        self.state.migrating = true;
        self.telnet
            .suboption(code::VMOTION_GOAHEAD, &[cookie.as_bytes()]);
    }

    /// Answers VMOTION_BEGIN: not now.
    pub fn not_now(&mut self, sequence: &[u8]) {
        self.telnet.suboption(code::VMOTION_NOTNOW, &[sequence]);
    }

    /// Answers VMOTION_PEER whose cookie was verified. Data passes from here on; what the port
    /// sends before COMPLETE belongs behind what the old connection delivered.
    pub fn peer_ok(&mut self, cookie: &Cookie) {
        self.state.peered = true;
        self.state.accepted = true;
        self.telnet
            .suboption(code::VMOTION_PEER_OK, &[cookie.as_bytes()]);
    }
}

impl Peer for State {
    fn suboption(
        &mut self,
        code: u8,
        content: &[u8],
        telnet: &mut Telnet,
    ) -> Result<(), VspcError> {
        let text = || String::from_utf8_lossy(content).into_owned();
        let event = match code {
            code::KNOWN_1 => {
                telnet.suboption(code::KNOWN_2, &[code::ALL]);
                for (known, get) in [
                    (code::VC_UUID, code::GET_VC_UUID),
                    (code::NAME, code::GET_NAME),
                    (code::BIOS_UUID, code::GET_BIOS_UUID),
                ] {
                    if content.contains(&known) {
                        telnet.suboption(get, &[]);
                    }
                }
                return Ok(());
            }
            code::DO_PROXY => {
                let malformed = |reason| VspcError::Malformed { code, reason };
                let (direction, uri) = content.split_first().ok_or(malformed("no direction"))?;
                let direction = match direction {
                    b'C' => Direction::Client,
                    b'S' => Direction::Server,
                    _ => return Err(malformed("the direction is neither 'C' nor 'S'")),
                };
                let uri =
                    std::str::from_utf8(uri).map_err(|_| malformed("the URI is not UTF-8"))?;
                ServerEvent::Proxy {
                    direction,
                    uri: uri.to_owned(),
                }
            }
            code::VC_UUID => ServerEvent::VcUuid(text()),
            code::NAME => ServerEvent::VmName(text()),
            code::BIOS_UUID => ServerEvent::BiosUuid(text()),
            code::LOCATION_UUID => ServerEvent::LocationUuid(text()),
            // A port that nobody vouched for cannot begin a migration.
            code::VMOTION_BEGIN if !self.accepted => {
                telnet.suboption(code::VMOTION_NOTNOW, &[content]);
                return Ok(());
            }
            code::VMOTION_BEGIN => ServerEvent::VmotionBegin {
                sequence: content.to_vec(),
            },
            code::VMOTION_PEER => ServerEvent::VmotionPeer {
                cookie: Cookie::new(content.to_vec()),
            },
            code::VMOTION_COMPLETE if self.peered => {
                self.peered = false;
                ServerEvent::VmotionComplete {
                    sequence: content.to_vec(),
                }
            }
            code::VMOTION_ABORT if self.migrating || self.peered => {
                self.migrating = false;
                ServerEvent::VmotionAbort {
                    sequence: content.to_vec(),
                }
            }
            // Without a migration they mean nothing.
            code::VMOTION_COMPLETE | code::VMOTION_ABORT => return Ok(()),
            code::UNKNOWN_1 => {
                telnet.suboption(code::UNKNOWN_2, &[content]);
                return Ok(());
            }
            code::KNOWN_2 | code::UNKNOWN_2 => return Ok(()),
            unknown => {
                telnet.suboption(code::UNKNOWN_1, &[&[unknown]]);
                return Ok(());
            }
        };
        self.events.push_back(event);
        Ok(())
    }

    fn extension_wanted(&mut self, _: &mut Telnet) {}
}
