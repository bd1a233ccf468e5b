//! A network-backed serial port, as ESXi does it: the host is the telnet client of a proxy (vSPC)
//! and carries the UART's bytes once the proxy took the port.
//!
//! No byte is dropped here: where the proxy is slow or away, a bounded buffer fills and QEMU holds
//! the guest's UART back. Bytes that were not handed over when a connection broke go to the next.

mod faults;
mod proxy;
mod uart;

use super::spec::{SerialDirection, SerialUri, VmxSpec};
use faults::Line;
use proxy::{Connection, Proxy};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use wire::vspc::{Client, ClientEvent, Direction, PortIdentity};

pub(super) use uart::{Guard, Uart};

/// Bytes from the guest that wait for the proxy at most.
const FROM_GUEST_MAX: usize = 64 * 1024;
/// Bytes to the guest that wait for the UART at most before the proxy is held back.
const TO_GUEST_MAX: usize = 16 * 1024;
/// Bytes that are handed to the connection at once.
const CHUNK: usize = 4096;
/// Pauses between attempts to reach the proxy: the first, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Telnet's escape byte.
const IAC: u8 = 255;

/// One port, not yet running.
#[derive(Debug)]
pub(super) struct Port {
    label: String,
    proxy: Proxy,
    identity: PortIdentity,
    to_guest: Wire,
    from_guest: Wire,
}

/// One direction: its line with its faults, and the bytes that came out of it.
#[derive(Debug)]
struct Wire {
    line: Line,
    bytes: VecDeque<u8>,
}

impl Port {
    /// A port from its backing.
    ///
    /// # Errors
    /// A sentence about the proxy URI.
    pub(super) fn new(number: usize, uri: &SerialUri, spec: &VmxSpec) -> Result<Port, String> {
        let wire = |direction| Wire {
            line: Line::new(uri.faults, direction),
            bytes: VecDeque::new(),
        };
        Ok(Port {
            label: format!("serial port {number} of {}", spec.name),
            proxy: Proxy::parse(&uri.proxy_uri)?,
            identity: PortIdentity {
                direction: match uri.direction {
                    SerialDirection::Client => Direction::Client,
                    SerialDirection::Server => Direction::Server,
                },
                uri: uri.service_uri.clone(),
                vc_uuid: vmware_uuid(&spec.instance_uuid),
                name: spec.name.clone(),
                bios_uuid: vmware_uuid(&spec.uuid),
                location_uuid: vmware_uuid(&spec.uuid),
            },
            to_guest: wire(0),
            from_guest: wire(1),
        })
    }

    /// Carry bytes until QEMU has closed its end and all that the guest wrote is handed over.
    pub(super) async fn run(mut self, mut uart: Uart) {
        let mut guest_ended = false;
        let mut pause = BACK_OFF.0;
        let mut said = String::new();
        while !(guest_ended && self.from_guest.bytes.is_empty()) {
            let mut accepted = false;
            let result = match self.dial(&mut uart, &mut guest_ended).await {
                Ok(Some(connection)) => {
                    self.session(connection, &mut uart, &mut guest_ended, &mut accepted)
                        .await
                }
                Ok(None) => return,
                Err(e) => Err(e),
            };
            if let Err(e) = result {
                // The same complaint once, not at each attempt.
                let words = e.to_string();
                if words != said {
                    eprintln!("vmx: {}: {:?}: {words}", self.label, self.proxy);
                    said = words;
                }
            }
            if accepted {
                pause = BACK_OFF.0;
                said.clear();
            }
            self.pause(pause, &mut uart, &mut guest_ended).await;
            pause = (pause * 2).min(BACK_OFF.1);
        }
    }

    /// Connect, while the guest may go on writing. `None`: the guest ended and left nothing.
    async fn dial(
        &mut self,
        uart: &mut Uart,
        guest_ended: &mut bool,
    ) -> io::Result<Option<Box<dyn Connection>>> {
        let proxy = self.proxy.clone();
        let mut connecting = std::pin::pin!(proxy.connect());
        loop {
            tokio::select! {
                connection = &mut connecting => return connection.map(Some),
                () = self.from_guest.fill(&mut uart.reader, guest_ended) => {
                    if *guest_ended && self.from_guest.bytes.is_empty() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    async fn pause(&mut self, pause: Duration, uart: &mut Uart, guest_ended: &mut bool) {
        let mut over = std::pin::pin!(tokio::time::sleep(pause));
        loop {
            tokio::select! {
                () = &mut over => return,
                () = self.from_guest.fill(&mut uart.reader, guest_ended) => {
                    if *guest_ended && self.from_guest.bytes.is_empty() {
                        return;
                    }
                }
            }
        }
    }

    /// One connection, until it breaks or all is said.
    async fn session(
        &mut self,
        connection: Box<dyn Connection>,
        uart: &mut Uart,
        guest_ended: &mut bool,
        accepted: &mut bool,
    ) -> io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(connection);
        let mut client = Client::new(self.identity.clone());
        let mut out = Outgoing::default();
        let mut incoming = vec![0; CHUNK];
        let mut data = Vec::new();
        loop {
            if out.is_empty() {
                // What the protocol has to say goes first, so that a piece of data is never cut.
                out.control(client.take_output());
                if out.is_empty() && *accepted && !self.from_guest.bytes.is_empty() {
                    let chunk = self.from_guest.peek(CHUNK);
                    client.send(&chunk);
                    out.data(client.take_output());
                }
            }
            if out.is_empty() && *guest_ended && self.from_guest.bytes.is_empty() {
                return writer.shutdown().await;
            }
            let to_guest = self.to_guest.bytes.as_slices().0;
            tokio::select! {
                written = writer.write(&out.bytes), if !out.is_empty() => {
                    let raw = out.advance(written?);
                    self.from_guest.bytes.drain(..raw);
                    if out.is_empty() {
                        writer.flush().await?;
                    }
                }
                read = reader.read(&mut incoming), if self.to_guest.bytes.len() < TO_GUEST_MAX => {
                    let n = read?;
                    if n == 0 {
                        return Err(io::Error::other("the proxy closed the connection"));
                    }
                    data.clear();
                    let bytes = incoming.get(..n).unwrap_or_default();
                    client.receive(bytes, &mut data).map_err(io::Error::other)?;
                    while let Some(event) = client.next_event() {
                        match event {
                            ClientEvent::Accepted => *accepted = true,
                            ClientEvent::Refused => {
                                return Err(io::Error::other("the proxy refused this port"));
                            }
                            // Answers to a migration, which this host does not begin.
                            ClientEvent::GoAhead(_) | ClientEvent::NotNow | ClientEvent::PeerOk(_) => {}
                        }
                    }
                    if *accepted && !*guest_ended {
                        self.to_guest.line.carry(&data, &mut self.to_guest.bytes);
                    }
                }
                written = uart.writer.write(to_guest), if !to_guest.is_empty() && !*guest_ended => {
                    match written {
                        Ok(n) => drop(self.to_guest.bytes.drain(..n)),
                        // QEMU is gone; its last bytes are still to be read.
                        Err(_) => self.to_guest.bytes.clear(),
                    }
                }
                () = self.from_guest.fill(&mut uart.reader, guest_ended) => {}
            }
        }
    }
}

impl Wire {
    /// Take what the guest wrote; waits for ever where the buffer is full or the guest has ended.
    async fn fill(&mut self, uart: &mut mpsc::Receiver<Vec<u8>>, ended: &mut bool) {
        if *ended || self.bytes.len() >= FROM_GUEST_MAX {
            return std::future::pending().await;
        }
        match uart.recv().await {
            Some(bytes) => self.line.carry(&bytes, &mut self.bytes),
            None => *ended = true,
        }
    }

    fn peek(&self, most: usize) -> Vec<u8> {
        self.bytes.iter().take(most).copied().collect()
    }
}

/// What is being written to a connection, and how much of it the guest's bytes are.
#[derive(Debug, Default)]
struct Outgoing {
    bytes: Vec<u8>,
    /// The bytes are the guest's, escaped.
    data: bool,
    /// The first half of an escaped byte was written.
    half: bool,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn control(&mut self, bytes: Vec<u8>) {
        *self = Outgoing {
            bytes,
            data: false,
            half: false,
        };
    }

    fn data(&mut self, bytes: Vec<u8>) {
        *self = Outgoing {
            bytes,
            data: true,
            half: false,
        };
    }

    /// So many bytes were written; returns how many of the guest's bytes these complete.
    fn advance(&mut self, written: usize) -> usize {
        let mut raw = 0;
        for byte in self.bytes.drain(..written) {
            if self.data && byte == IAC && !self.half {
                self.half = true;
            } else {
                self.half = false;
                raw += usize::from(self.data);
            }
        }
        raw
    }
}

/// A UUID as VMware writes it: `56 4d 12 34 56 78 9a bc-de f0 12 34 56 78 9a bc`.
fn vmware_uuid(uuid: &uuid::Uuid) -> String {
    let pairs: Vec<String> = uuid.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
    let (first, last) = pairs.split_at(8);
    format!("{}-{}", first.join(" "), last.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_byte_counts_once_it_is_whole() {
        let mut out = Outgoing::default();
        out.data(vec![1, IAC, IAC, 2, IAC, IAC]);
        assert_eq!(out.advance(2), 1);
        assert_eq!(out.advance(1), 1);
        assert_eq!(out.advance(2), 1);
        assert_eq!(out.advance(1), 1);
        assert!(out.is_empty());
        out.control(vec![IAC, 251, 0]);
        assert_eq!(out.advance(3), 0);
    }

    #[test]
    fn uuids_are_told_in_vmwares_form() {
        let uuid = uuid::Uuid::from_u128(0x564d_1234_5678_9abc_def0_1234_5678_9abc);
        assert_eq!(
            vmware_uuid(&uuid),
            "56 4d 12 34 56 78 9a bc-de f0 12 34 56 78 9a bc"
        );
    }
}
