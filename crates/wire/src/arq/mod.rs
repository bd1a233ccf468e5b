//! A reliable byte stream over a serial pipe that loses, corrupts and interrupts.
//!
//! The writer's bytes are cut into numbered frames of 64 to 1,024 bytes, as long as the observed
//! loss makes best; each travels in a packet with magic, connection, sequence and CRC-32. The
//! receiver says which it has (cumulatively, and a bitmap of what is behind a gap), the sender
//! repeats the others only: once something that was transmitted later is known to have arrived, or
//! when a timer runs out; in parts where packets have become shorter meanwhile. Each transmission
//! has a number, which the receiver tells back: so an acknowledgement is never taken for that of a
//! later sending, and a line that is only slow is not filled with copies. Nothing is escaped: a
//! receiver finds the next packet after noise by its magic and checksum.
//!
//! The dialer opens a connection with a random number. A pipe that comes back carries the same
//! connection on from the last acknowledged frame; a listener that does not know the number says
//! so, and the dialer opens another. Time is given, never read.

mod packet;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;

use packet::{Kind, Packet, Scanner};
use receiver::Receiver;
use sender::Sender;
use std::time::{Duration, Instant};

/// Most frames in flight.
const FRAMES: u32 = 512;
/// Most bytes in flight: what control messages may have to wait for.
const IN_FLIGHT_MAX: usize = 128 * 1024;
/// Most bytes that were written and not yet sent.
const QUEUE_MAX: usize = 32 * 1024;
/// Most bytes that were received and not yet read.
const READY_MAX: usize = 256 * 1024;
const OPEN_FIRST: Duration = Duration::from_millis(100);
/// Times that the end is told, at 0, 100, 300 and 700 ms.
const FAREWELLS: u32 = 4;
const OPEN_MAX: Duration = Duration::from_secs(2);

/// How a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No connection yet: a dialer that got no answer, a listener that nobody opened.
    Opening,
    /// Bytes flow.
    Open,
    /// Over: the peer does not know the connection, opened another, or this side gave it up.
    Broken,
}

/// One side of a serial pipe.
#[derive(Debug)]
pub struct Arq {
    dialer: bool,
    state: State,
    connection: u32,
    /// A listener's next connection, opened while this one was not yet taken down here.
    successor: Option<u32>,
    /// The connection before this one; late packets of it are nobody's.
    former: u32,
    /// This side gave the former one up, and its peer may not know that yet.
    former_given_up: bool,
    scanner: Scanner,
    sender: Sender,
    receiver: Receiver,
    /// What to say beside data: Opened, Reset (of that connection), an answer to a probe.
    say_opened: bool,
    say_reset: Option<u32>,
    /// When to send the next Open or Probe, and after how long the one after.
    knock_at: Option<Instant>,
    knock_every: Duration,
    /// How often the peer is still to be told that this side gave the connection up.
    farewells: u32,
}

impl Arq {
    fn new(dialer: bool, connection: u32, now: Instant) -> Arq {
        Arq {
            dialer,
            state: State::Opening,
            connection,
            successor: None,
            former: 0,
            former_given_up: false,
            scanner: Scanner::default(),
            sender: Sender::default(),
            receiver: Receiver::default(),
            say_opened: false,
            say_reset: None,
            knock_at: Some(now),
            knock_every: OPEN_FIRST,
            farewells: 0,
        }
    }

    /// The side that opens connections. `connection`: random, not 0.
    pub fn dialer(connection: u32, now: Instant) -> Arq {
        Arq::new(true, connection.max(1), now)
    }

    /// The side that waits to be opened.
    pub fn listener(now: Instant) -> Arq {
        Arq::new(false, 0, now)
    }

    /// How the connection stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Begins the next connection over the same pipe; the present one is over. A dialer opens
    /// `connection` (random, not 0, another one than before), a listener waits to be opened.
    pub fn next_connection(&mut self, connection: u32, now: Instant) {
        let former = self.connection;
        let successor = self.successor.take();
        let scanner = std::mem::take(&mut self.scanner);
        // The next connection may begin before a single farewell of this one was sent.
        let given_up = former != 0 && (self.state == State::Open || self.farewells > 0);
        let reset = given_up.then_some(former);
        let say_reset = self.say_reset.or(reset);
        let number = if self.dialer {
            connection.max(1)
        } else {
            successor.unwrap_or(0)
        };
        *self = Arq {
            scanner,
            former,
            former_given_up: given_up,
            say_reset,
            ..Arq::new(self.dialer, number, now)
        };
        if successor.is_some() {
            self.opened();
        }
    }

    /// Gives the connection up. The peer is told, a few times within a second: a single packet
    /// may be lost, and nothing answers it.
    pub fn reset(&mut self, now: Instant) {
        self.knock_at = None;
        if self.state == State::Open {
            self.farewells = FAREWELLS;
            self.knock_every = OPEN_FIRST;
            self.knock_at = Some(now);
        }
        self.state = State::Broken;
    }

    /// The pipe is another one: what was in flight is sent again, the peer asked what it knows.
    pub fn repiped(&mut self, now: Instant) {
        self.scanner.clear();
        self.sender.all_lost();
        self.receiver.ack_due = self.state == State::Open;
        self.knock_every = OPEN_FIRST;
        if self.state != State::Broken && (!self.dialer || self.state == State::Opening) {
            self.knock_at = Some(now);
        }
    }

    /// Takes bytes of the stream as far as there is room; how many.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.sender.write(bytes)
    }

    /// Room that [`Arq::write`] has.
    pub fn room(&self) -> usize {
        self.sender.room()
    }

    /// Ends this side's stream, behind what was written.
    pub fn finish(&mut self) {
        self.sender.finish();
    }

    /// All that was written, and the end if it was said, was acknowledged by the peer.
    pub fn is_idle(&self) -> bool {
        self.sender.is_idle()
    }

    /// Moves received bytes into `out`; how many.
    pub fn read(&mut self, out: &mut [u8]) -> usize {
        self.receiver.read(out)
    }

    /// Bytes that [`Arq::read`] has.
    pub fn readable(&self) -> usize {
        self.receiver.readable()
    }

    /// The peer ended its stream, and all of it was read.
    pub fn is_over(&self) -> bool {
        self.receiver.is_over()
    }

    /// Payload of new packets, as adapted to the pipe.
    pub fn payload(&self) -> usize {
        self.sender.payload()
    }

    /// When [`Arq::tick`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        let send = if self.state == State::Open {
            self.sender.timeout_at()
        } else {
            None
        };
        match (send, self.knock_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: Instant) {
        if self.state == State::Open {
            self.sender.tick(now);
        }
    }

    /// Appends the next packet to `out`; false if there is nothing to send now.
    pub fn transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        if let Some(connection) = self.say_reset.take() {
            self.packet(Kind::Reset, connection).encode(&[], out);
            return true;
        }
        if self.knock_at.is_some_and(|at| at <= now) {
            self.knock_at = Some(now + self.knock_every);
            self.knock_every = (self.knock_every * 2).min(OPEN_MAX);
            let kind = match (self.state, self.dialer) {
                (State::Broken, _) => {
                    self.farewells = self.farewells.saturating_sub(1);
                    if self.farewells == 0 {
                        self.knock_at = None;
                    }
                    Kind::Reset
                }
                (_, true) => Kind::Open,
                (_, false) => Kind::Probe,
            };
            for _ in 0..if kind == Kind::Reset { 2 } else { 1 } {
                self.packet(kind, self.connection).encode(&[], out);
            }
            return true;
        }
        if self.state != State::Open {
            return false;
        }
        if std::mem::take(&mut self.say_opened) {
            self.packet(Kind::Opened, self.connection).encode(&[], out);
            return true;
        }
        if std::mem::take(&mut self.receiver.ack_due) {
            let bitmap = self.receiver.bitmap();
            let packet = Packet {
                sequence: self.receiver.newest(),
                ..self.packet(Kind::Ack, self.connection)
            };
            packet.encode(&bitmap, out);
            return true;
        }
        let Some(part) = self.sender.next_part(now) else {
            return false;
        };
        let kind = if part.finish {
            Kind::Finish
        } else {
            Kind::Data
        };
        let packet = self.packet(kind, self.connection);
        let packet = Packet {
            sequence: part.sequence,
            acknowledged: part.transmission,
            total: part.total,
            cell: part.cell,
            ..packet
        };
        packet.encode(&part.payload, out);
        true
    }

    fn packet(&mut self, kind: Kind, connection: u32) -> Packet {
        let (acknowledged, window) = (self.receiver.next(), self.receiver.window());
        Packet {
            kind,
            connection,
            sequence: 0,
            acknowledged,
            window,
            total: 0,
            cell: 0,
        }
    }

    /// Takes what the pipe delivered.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) {
        let mut scanner = std::mem::take(&mut self.scanner);
        scanner.push(bytes);
        while let Some((packet, payload)) = scanner.next_packet() {
            self.take(packet, payload, now);
        }
        self.scanner = scanner;
    }

    fn take(&mut self, packet: Packet, payload: &[u8], now: Instant) {
        let mine = packet.connection == self.connection && packet.connection != 0;
        match packet.kind {
            Kind::Open if !self.dialer => self.take_open(packet.connection),
            Kind::Probe if self.dialer => match self.state {
                State::Opening => self.knock_at = Some(now),
                State::Open => {
                    // The listener's pipe, or the listener itself, is new.
                    self.sender.all_lost();
                    self.receiver.ack_due = true;
                }
                State::Broken => {}
            },
            Kind::Reset => {
                if mine && self.state != State::Opening {
                    self.state = State::Broken;
                    self.knock_at = None;
                }
            }
            Kind::Open | Kind::Probe => {}
            Kind::Opened | Kind::Ack | Kind::Data | Kind::Finish => {
                if !mine || self.state == State::Broken {
                    // Not of this connection: the peer is to know, unless it is only late.
                    let late = packet.connection == self.former && !self.former_given_up;
                    if packet.connection != 0 && !late || mine {
                        self.say_reset = Some(packet.connection);
                    }
                    return;
                }
                if self.state == State::Opening {
                    self.state = State::Open;
                }
                self.knock_at = None;
                match packet.kind {
                    Kind::Ack => self.sender.acknowledged(
                        packet.acknowledged,
                        packet.window,
                        packet.sequence,
                        payload,
                        now,
                    ),
                    Kind::Opened => {}
                    kind => {
                        let finish = kind == Kind::Finish;
                        self.receiver.heard(packet.acknowledged);
                        self.receiver.take(
                            packet.sequence,
                            finish,
                            packet.total,
                            packet.cell,
                            payload,
                        );
                    }
                }
            }
        }
    }

    fn take_open(&mut self, connection: u32) {
        if connection == 0 || connection == self.former {
            return;
        }
        if connection == self.connection {
            self.say_opened = self.state == State::Open;
        } else if self.state == State::Opening {
            self.connection = connection;
            self.opened();
        } else {
            self.successor = Some(connection);
            self.state = State::Broken;
            self.knock_at = None;
        }
    }

    fn opened(&mut self) {
        self.state = State::Open;
        self.knock_at = None;
        self.say_opened = true;
    }
}
