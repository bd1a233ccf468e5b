//! The guest configuration: out of QEMU's fw_cfg, or by VMware's backdoor.

use super::Fault;
use crate::sys::backdoor::{self, MAGIC, PORT, PORT_HB, Registers};
use std::fs::File;
use std::io::{self, Read};
use wire::config::{CONFIG_CHUNK, ConfigError, GuestConfig, from_chunks};

const STEP: &str = "configuration";

/// Why a guestinfo value could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The values are no configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// fw_cfg could not be read.
    #[error("reading {0} from fw_cfg: {1}")]
    FwCfg(String, io::Error),
    /// The hypervisor did not answer as it should.
    #[error("VMware backdoor: {0}")]
    Backdoor(&'static str),
    /// The VM was halted or moved within a request, each time.
    #[error("VMware backdoor: each request was broken off by a checkpoint of the VM")]
    Checkpoint,
}

/// Where guestinfo values come from.
pub trait Source {
    /// The value of a key; `None` where it is not set.
    ///
    /// # Errors
    /// If it cannot be read.
    fn get(&mut self, key: &str) -> Result<Option<String>, SourceError>;
}

/// Reads the configuration of this boot.
///
/// # Errors
/// The fault of the step `configuration`.
pub fn read() -> Result<GuestConfig, Fault> {
    let result = if backdoor::present() {
        from(&mut Rpc::new(Hypervisor))
    } else {
        from(&mut FwCfg)
    };
    result.map_err(|e| Fault {
        step: STEP,
        message: e.to_string(),
    })
}

/// Reads the configuration from a source.
///
/// # Errors
/// What is wrong with source or configuration.
pub fn from(source: &mut impl Source) -> Result<GuestConfig, SourceError> {
    from_chunks(|key| source.get(key))
}

/// QEMU's fw_cfg as sysfs shows it.
#[derive(Debug)]
pub struct FwCfg;

impl Source for FwCfg {
    fn get(&mut self, key: &str) -> Result<Option<String>, SourceError> {
        let path = format!("/sys/firmware/qemu_fw_cfg/by_name/opt/{key}/raw");
        let read = || -> io::Result<Option<String>> {
            let mut file = match File::open(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            // As much as there is at once: each read skips what is before it byte by byte.
            let mut bytes = vec![0; CONFIG_CHUNK + 1];
            let mut len = 0;
            while len < bytes.len() {
                match file.read(&mut bytes[len..])? {
                    0 => break,
                    n => len += n,
                }
            }
            bytes.truncate(len);
            String::from_utf8(bytes).map(Some).map_err(io::Error::other)
        };
        read().map_err(|e| SourceError::FwCfg(key.to_owned(), e))
    }
}

/// The two ways to call the hypervisor; a test plays it.
pub trait Port {
    /// One call on [`PORT`].
    fn call(&mut self, registers: Registers) -> Registers;
    /// One bulk read on [`PORT_HB`].
    fn read_bulk(&mut self, registers: Registers, buffer: &mut [u8]) -> Registers;
}

/// The real instructions.
#[derive(Debug)]
pub struct Hypervisor;

impl Port for Hypervisor {
    fn call(&mut self, registers: Registers) -> Registers {
        backdoor::call(registers)
    }

    fn read_bulk(&mut self, registers: Registers, buffer: &mut [u8]) -> Registers {
        backdoor::read_bulk(registers, buffer)
    }
}

/// Command "message" of the backdoor and its kinds (open-vm-tools, message.c).
const COMMAND_MESSAGE: u32 = 30;
const OPEN: u32 = 0;
const SEND_SIZE: u32 = 1;
const SEND_PAYLOAD: u32 = 2;
const RECEIVE_SIZE: u32 = 3;
const RECEIVE_PAYLOAD: u32 = 4;
const RECEIVE_STATUS: u32 = 5;
const CLOSE: u32 = 6;
/// `RPCI`, with the flag that asks for cookies.
const PROTOCOL: u32 = 0x4943_5052 | 0x8000_0000;
const SUCCESS: u32 = 0x1;
const DO_RECEIVE: u32 = 0x2;
/// The VM was halted or moved meanwhile: the request is to begin anew.
const CHECKPOINT: u32 = 0x10;
const HIGH_BANDWIDTH: u32 = 0x80;
/// How often a request is begun, at most.
const TRIES: usize = 3;
/// VMware's limit of an RPC message.
const MESSAGE_MAX: usize = 64 * 1024;

/// Guest RPC over the backdoor: `info-get`.
#[derive(Debug)]
pub struct Rpc<P> {
    port: P,
}

struct Channel {
    id: u32,
    cookies: (u32, u32),
}

impl<P: Port> Rpc<P> {
    /// RPC through this port.
    pub fn new(port: P) -> Rpc<P> {
        Rpc { port }
    }

    fn message(&mut self, channel: &Channel, kind: u32, ebx: u32) -> Registers {
        self.port.call(Registers {
            eax: MAGIC,
            ebx,
            ecx: kind << 16 | COMMAND_MESSAGE,
            edx: channel.id << 16 | u32::from(PORT),
            esi: channel.cookies.0,
            edi: channel.cookies.1,
        })
    }

    fn expect(r: Registers, status: u32, what: &'static str) -> Result<Registers, SourceError> {
        if r.ecx >> 16 & status == status {
            Ok(r)
        } else if r.ecx >> 16 & CHECKPOINT != 0 {
            Err(SourceError::Checkpoint)
        } else {
            Err(SourceError::Backdoor(what))
        }
    }

    /// Sends one request and returns its answer. Begins anew where a checkpoint of the VM came between.
    ///
    /// # Errors
    /// If the hypervisor breaks off.
    pub fn request(&mut self, request: &[u8]) -> Result<Vec<u8>, SourceError> {
        for _ in 1..TRIES {
            match self.request_once(request) {
                Err(SourceError::Checkpoint) => {}
                done => return done,
            }
        }
        self.request_once(request)
    }

    fn request_once(&mut self, request: &[u8]) -> Result<Vec<u8>, SourceError> {
        let opening = self.message(
            &Channel {
                id: 0,
                cookies: (0, 0),
            },
            OPEN,
            PROTOCOL,
        );
        let opened = Self::expect(opening, SUCCESS, "it opened no channel")?;
        let channel = Channel {
            id: opened.edx >> 16,
            cookies: (opened.esi, opened.edi),
        };
        let answer = self.exchange(&channel, request);
        self.message(&channel, CLOSE, 0);
        answer
    }

    fn exchange(&mut self, channel: &Channel, request: &[u8]) -> Result<Vec<u8>, SourceError> {
        Self::expect(
            self.message(channel, SEND_SIZE, request.len() as u32),
            SUCCESS,
            "it took no request",
        )?;
        for word in request.chunks(4) {
            let mut bytes = [0; 4];
            bytes[..word.len()].copy_from_slice(word);
            Self::expect(
                self.message(channel, SEND_PAYLOAD, u32::from_le_bytes(bytes)),
                SUCCESS,
                "it broke off within the request",
            )?;
        }
        let size = Self::expect(
            self.message(channel, RECEIVE_SIZE, 0),
            SUCCESS | DO_RECEIVE,
            "it has no answer",
        )?;
        let len = size.ebx as usize;
        if len > MESSAGE_MAX {
            return Err(SourceError::Backdoor("its answer is over 64 KiB"));
        }
        let mut answer = vec![0u8; len];
        if size.ecx >> 16 & HIGH_BANDWIDTH != 0 && len > 0 {
            let r = self.port.read_bulk(
                Registers {
                    eax: MAGIC,
                    ebx: SUCCESS << 16,
                    ecx: len as u32,
                    edx: channel.id << 16 | u32::from(PORT_HB),
                    esi: channel.cookies.1,
                    edi: channel.cookies.0,
                },
                &mut answer,
            );
            if r.ebx >> 16 & SUCCESS == 0 {
                if r.ebx >> 16 & CHECKPOINT != 0 {
                    return Err(SourceError::Checkpoint);
                }
                return Err(SourceError::Backdoor("it broke off within its answer"));
            }
        } else {
            for word in answer.chunks_mut(4) {
                let r = Self::expect(
                    self.message(channel, RECEIVE_PAYLOAD, SUCCESS),
                    SUCCESS,
                    "it broke off within its answer",
                )?;
                let bytes = r.ebx.to_le_bytes();
                word.copy_from_slice(&bytes[..word.len()]);
            }
        }
        Self::expect(
            self.message(channel, RECEIVE_STATUS, SUCCESS),
            SUCCESS,
            "it did not end its answer",
        )?;
        Ok(answer)
    }
}

impl<P: Port> Source for Rpc<P> {
    fn get(&mut self, key: &str) -> Result<Option<String>, SourceError> {
        let answer = self.request(format!("info-get {key}").as_bytes())?;
        // "1 value", or "0 No value found".
        match answer.split_first_chunk::<2>() {
            Some((b"1 ", value)) => {
                let text = String::from_utf8(value.to_vec())
                    .map_err(|_| SourceError::Backdoor("a value is not text"))?;
                Ok(Some(text.trim_end_matches('\0').to_owned()))
            }
            _ => Ok(None),
        }
    }
}
