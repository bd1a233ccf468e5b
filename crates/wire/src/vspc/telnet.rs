//! Telnet as both sides speak it: cutting the stream into data, negotiation and sub-options.

use super::{SUBOPTION_MAX, VspcError};
use memchr::memchr;

pub(super) const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SB: u8 = 250;
const SE: u8 = 240;

pub(super) const BINARY: u8 = 0;
pub(super) const ECHO: u8 = 1;
pub(super) const SGA: u8 = 3;
pub(super) const VMWARE: u8 = 232;

/// Codes of the sub-options of option 232.
pub(super) mod code {
    pub const KNOWN_1: u8 = 0;
    pub const KNOWN_2: u8 = 1;
    pub const UNKNOWN_1: u8 = 2;
    pub const UNKNOWN_2: u8 = 3;
    pub const VMOTION_BEGIN: u8 = 40;
    pub const VMOTION_GOAHEAD: u8 = 41;
    pub const VMOTION_NOTNOW: u8 = 43;
    pub const VMOTION_PEER: u8 = 44;
    pub const VMOTION_PEER_OK: u8 = 45;
    pub const VMOTION_COMPLETE: u8 = 46;
    pub const VMOTION_ABORT: u8 = 48;
    pub const DO_PROXY: u8 = 70;
    pub const WILL_PROXY: u8 = 71;
    pub const WONT_PROXY: u8 = 73;
    pub const VC_UUID: u8 = 80;
    pub const GET_VC_UUID: u8 = 81;
    pub const NAME: u8 = 82;
    pub const GET_NAME: u8 = 83;
    pub const BIOS_UUID: u8 = 84;
    pub const GET_BIOS_UUID: u8 = 85;
    pub const LOCATION_UUID: u8 = 86;
    pub const GET_LOCATION_UUID: u8 = 87;
    /// All of them.
    pub const ALL: &[u8] = &[
        0, 1, 2, 3, 40, 41, 43, 44, 45, 46, 48, 70, 71, 73, 80, 81, 82, 83, 84, 85, 86, 87,
    ];
}

#[derive(Debug)]
enum Place {
    Data,
    Iac,
    Option(u8),
    Sub,
    SubIac,
}

/// One connection's telnet state and what is to be sent on it.
#[derive(Debug)]
pub(super) struct Telnet {
    place: Place,
    sub: Vec<u8>,
    output: Vec<u8>,
    /// Options that this side is willing to do, and that it wants of the peer.
    mine: &'static [u8],
    yours: &'static [u8],
    /// Bit sets over the options: WILL and DO that this side has sent.
    will: [bool; 256],
    r#do: [bool; 256],
}

/// What a connection's owner does with a sub-option (code, content) or a newly agreed option.
pub(super) trait Peer {
    /// A whole sub-option of option 232.
    fn suboption(&mut self, code: u8, content: &[u8], telnet: &mut Telnet)
    -> Result<(), VspcError>;
    /// The peer asked this side to do option 232 (DO).
    fn extension_wanted(&mut self, telnet: &mut Telnet);
}

impl Telnet {
    pub(super) fn new(mine: &'static [u8], yours: &'static [u8]) -> Telnet {
        Telnet {
            place: Place::Data,
            sub: Vec::new(),
            output: Vec::new(),
            mine,
            yours,
            will: [false; 256],
            r#do: [false; 256],
        }
    }

    pub(super) fn offer(&mut self, option: u8) {
        self.will[usize::from(option)] = true;
        self.output.extend_from_slice(&[IAC, WILL, option]);
    }

    pub(super) fn ask(&mut self, option: u8) {
        self.r#do[usize::from(option)] = true;
        self.output.extend_from_slice(&[IAC, DO, option]);
    }

    /// Escapes data into the output.
    pub(super) fn send(&mut self, mut data: &[u8]) {
        self.output.reserve(data.len());
        while let Some(at) = memchr(IAC, data) {
            self.output.extend_from_slice(&data[..=at]);
            self.output.push(IAC);
            data = &data[at + 1..];
        }
        self.output.extend_from_slice(data);
    }

    /// A sub-option of option 232 with its content in parts.
    pub(super) fn suboption(&mut self, code: u8, content: &[&[u8]]) {
        self.output.extend_from_slice(&[IAC, SB, VMWARE]);
        self.send(&[code]);
        for part in content {
            self.send(part);
        }
        self.output.extend_from_slice(&[IAC, SE]);
    }

    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Takes bytes of the connection; data goes to `data`, the rest to `peer`.
    pub(super) fn receive(
        &mut self,
        mut bytes: &[u8],
        data: &mut Vec<u8>,
        peer: &mut impl Peer,
    ) -> Result<(), VspcError> {
        loop {
            match self.place {
                Place::Data => match memchr(IAC, bytes) {
                    Some(at) => {
                        data.extend_from_slice(&bytes[..at]);
                        bytes = &bytes[at + 1..];
                        self.place = Place::Iac;
                    }
                    None => {
                        data.extend_from_slice(bytes);
                        return Ok(());
                    }
                },
                Place::Sub => {
                    let run = memchr(IAC, bytes).unwrap_or(bytes.len());
                    self.push_sub(&bytes[..run])?;
                    if run == bytes.len() {
                        return Ok(());
                    }
                    bytes = &bytes[run + 1..];
                    self.place = Place::SubIac;
                }
                Place::Iac | Place::SubIac | Place::Option(_) => {
                    let Some((&byte, rest)) = bytes.split_first() else {
                        return Ok(());
                    };
                    bytes = rest;
                    self.command(byte, data, peer)?;
                }
            }
        }
    }

    /// One byte behind an IAC (or a verb).
    fn command(
        &mut self,
        byte: u8,
        data: &mut Vec<u8>,
        peer: &mut impl Peer,
    ) -> Result<(), VspcError> {
        self.place = match (&self.place, byte) {
            (Place::Option(verb), option) => {
                let verb = *verb;
                self.negotiate(verb, option, peer);
                Place::Data
            }
            (Place::SubIac, IAC) => {
                self.push_sub(&[IAC])?;
                Place::Sub
            }
            (Place::SubIac, SE) => {
                let sub = std::mem::take(&mut self.sub);
                if let [VMWARE, code, content @ ..] = &sub[..] {
                    peer.suboption(*code, content, self)?;
                }
                Place::Data
            }
            // RFC 855: anything else within a sub-option is an error; it is dropped and we go on.
            (Place::SubIac, _) => {
                self.sub.clear();
                Place::Data
            }
            (_, IAC) => {
                data.push(IAC);
                Place::Data
            }
            (_, SB) => {
                self.sub.clear();
                Place::Sub
            }
            (_, DO | DONT | WILL | WONT) => Place::Option(byte),
            // NOP, GA and the like.
            _ => Place::Data,
        };
        Ok(())
    }

    fn push_sub(&mut self, bytes: &[u8]) -> Result<(), VspcError> {
        if self.sub.len() + bytes.len() > SUBOPTION_MAX {
            return Err(VspcError::TooLong);
        }
        self.sub.extend_from_slice(bytes);
        Ok(())
    }

    /// Answers only what changes something, so that two sides never answer each other for ever.
    fn negotiate(&mut self, verb: u8, option: u8, peer: &mut impl Peer) {
        let at = usize::from(option);
        match verb {
            DO if self.mine.contains(&option) => {
                if !self.will[at] {
                    self.offer(option);
                }
                if option == VMWARE {
                    peer.extension_wanted(self);
                }
            }
            DO => self.output.extend_from_slice(&[IAC, WONT, option]),
            DONT => {
                if std::mem::replace(&mut self.will[at], false) {
                    self.output.extend_from_slice(&[IAC, WONT, option]);
                }
            }
            WILL if self.yours.contains(&option) => {
                if !self.r#do[at] {
                    self.ask(option);
                }
            }
            WILL => self.output.extend_from_slice(&[IAC, DONT, option]),
            _ => {
                if std::mem::replace(&mut self.r#do[at], false) {
                    self.output.extend_from_slice(&[IAC, DONT, option]);
                }
            }
        }
    }
}
