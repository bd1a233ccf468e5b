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
//! The dialer opens a connection with a random number and a random token. A pipe that comes back
//! carries the same connection on from the last acknowledged frame, once the dialer has said the
//! token again: whoever else comes by a listener's pipe hears no more than that it is asked. A
//! listener that does not know the number says so, and the dialer opens another. Time is given,
//! never read.

mod packet;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;

use packet::{Kind, Packet, Scanner};
use receiver::Receiver;
use sender::Sender;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

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
/// How long a dialer that waits for an acknowledgement hears nothing before it gives its peer up. The peer acknowledges
/// whatever comes, also with a reader that pauses; a port that moves with its VM, or comes back, takes less.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// More than this between two looks at the clock is no silence of the peer: this side stood still, as with its VM.
const SILENCE_STEP: Duration = Duration::from_secs(5);
/// From so much silence on, the peer is asked for a packet without payload, so often: of those, some come through the
/// worst of lines.
const SILENCE_ASK: Duration = Duration::from_secs(10);
const SILENCE_ASK_EVERY: Duration = Duration::from_millis(250);

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

/// Bytes of a token.
const TOKEN: usize = 16;

/// What the dialer calls a connection by: its number, and the token that carries it on over another pipe. Only the pipe
/// over which the connection was opened, and the proxy's TLS around it, have seen that.
#[derive(Clone, Copy)]
pub struct Name {
    number: u32,
    token: [u8; TOKEN],
}

impl Name {
    /// Random bytes it has to be made of.
    pub const BYTES: usize = 4 + TOKEN;

    /// Made of random bytes, others for each connection.
    pub fn new(random: [u8; Name::BYTES]) -> Name {
        let [a, b, c, d, token @ ..] = random;
        Name {
            number: u32::from_le_bytes([a, b, c, d]).max(1),
            token,
        }
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.number)
    }
}

/// No connection.
const NOBODY: Name = Name {
    number: 0,
    token: [0; TOKEN],
};

/// One side of a serial pipe.
#[derive(Debug)]
pub struct Arq {
    dialer: bool,
    state: State,
    name: Name,
    /// A listener's next connection, opened while this one was not yet taken down here.
    successor: Option<Name>,
    /// A listener's pipe is another one, and nothing came by it yet that only the connection's dialer knows.
    unproven: bool,
    /// The connection before this one; late packets of it are nobody's.
    former: u32,
    /// This side gave the former one up, and its peer may not know that yet.
    former_given_up: bool,
    scanner: Scanner,
    sender: Sender,
    receiver: Receiver,
    /// What to say beside data: Resume, Opened, Reset (of that connection).
    say_resume: bool,
    say_opened: bool,
    say_reset: Option<u32>,
    /// When to send the next Open or Probe, and after how long the one after.
    knock_at: Option<Instant>,
    knock_every: Duration,
    /// How often the peer is still to be told that this side gave the connection up.
    farewells: u32,
    /// A dialer's, while something waits to be acknowledged.
    silence: Option<Silence>,
}

/// How long nothing was heard of a peer.
#[derive(Debug, Clone, Copy)]
struct Silence {
    lasted: Duration,
    /// When that was so.
    seen: Instant,
    /// How long it is to last for the peer to be asked next.
    ask_at: Duration,
}

impl Arq {
    fn new(dialer: bool, name: Name, now: Instant) -> Arq {
        Arq {
            dialer,
            state: State::Opening,
            name,
            successor: None,
            unproven: false,
            former: 0,
            former_given_up: false,
            scanner: Scanner::default(),
            sender: Sender::default(),
            receiver: Receiver::default(),
            say_resume: false,
            say_opened: false,
            say_reset: None,
            knock_at: Some(now),
            knock_every: OPEN_FIRST,
            farewells: 0,
            silence: None,
        }
    }

    /// The side that opens connections.
    pub fn dialer(name: Name, now: Instant) -> Arq {
        Arq::new(true, name, now)
    }

    /// The side that waits to be opened.
    pub fn listener(now: Instant) -> Arq {
        Arq::new(false, NOBODY, now)
    }

    /// How the connection stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Begins the next connection over the same pipe; the present one is over. A dialer opens that of this name (another
    /// one than before), a listener waits to be opened.
    pub fn next_connection(&mut self, name: Name, now: Instant) {
        let former = self.name.number;
        let successor = self.successor.take();
        let scanner = std::mem::take(&mut self.scanner);
        // The next connection may begin before a single farewell of this one was sent.
        let given_up = former != 0 && (self.state == State::Open || self.farewells > 0);
        let reset = given_up.then_some(former);
        let say_reset = self.say_reset.or(reset);
        let name = if self.dialer {
            name
        } else {
            successor.unwrap_or(NOBODY)
        };
        *self = Arq {
            scanner,
            former,
            former_given_up: given_up,
            say_reset,
            ..Arq::new(self.dialer, name, now)
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

    /// The pipe is another one: what was in flight is sent again, the peer asked what it knows. A listener's connection
    /// goes on once its dialer has shown itself.
    pub fn repiped(&mut self, now: Instant) {
        self.scanner.clear();
        self.unproven = !self.dialer && self.state == State::Open;
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

    /// When [`Arq::tick`] or [`Arq::transmit`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        let send = if self.state == State::Open && !self.unproven {
            self.sender.timeout_at()
        } else {
            None
        };
        [send, self.knock_at, self.next_look()]
            .into_iter()
            .flatten()
            .min()
    }

    /// When [`Arq::tick`] has something to do though the pipe takes nothing.
    pub fn next_look(&self) -> Option<Instant> {
        let silence = self.silence.filter(|_| self.state == State::Open)?;
        let next = SILENCE_MAX.min(silence.ask_at);
        let rest = next.saturating_sub(silence.lasted);
        Some(silence.seen + rest.min(SILENCE_STEP))
    }

    /// Time passed.
    pub fn tick(&mut self, now: Instant) {
        if self.state == State::Open {
            self.sender.tick(now);
            self.listen(now);
        }
    }

    /// A dialer gives up a peer that is not heard any more: nothing else would tell that it is gone, with a port that is
    /// always there. A listener hears of its dialer by the VM's state.
    fn listen(&mut self, now: Instant) {
        if !self.dialer || self.sender.is_idle() {
            self.silence = None;
            return;
        }
        let silence = self.silence.get_or_insert(Silence {
            lasted: Duration::ZERO,
            seen: now,
            ask_at: SILENCE_ASK,
        });
        let step = now.saturating_duration_since(silence.seen);
        silence.lasted += step.min(SILENCE_STEP);
        silence.seen = now;
        if silence.lasted >= silence.ask_at {
            silence.ask_at = silence.lasted + SILENCE_ASK_EVERY;
            self.say_resume = true;
        }
        if silence.lasted >= SILENCE_MAX {
            self.reset(now);
        }
    }

    /// Appends the next packet to `out`; false if there is nothing to send now.
    pub fn transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        if let Some(connection) = self.say_reset.take_if(|_| !self.unproven) {
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
            match kind {
                Kind::Open => self.named(kind, out),
                // Whoever reads it may not be meant.
                Kind::Probe => self.packet(kind, 0).encode(&[], out),
                _ => {
                    for _ in 0..2 {
                        self.packet(kind, self.name.number).encode(&[], out);
                    }
                }
            }
            return true;
        }
        if self.state != State::Open || self.unproven {
            return false;
        }
        if std::mem::take(&mut self.say_resume) {
            self.named(Kind::Resume, out);
            return true;
        }
        if std::mem::take(&mut self.say_opened) {
            self.packet(Kind::Opened, self.name.number).encode(&[], out);
            return true;
        }
        if std::mem::take(&mut self.receiver.ack_due) {
            let bitmap = self.receiver.bitmap();
            let packet = Packet {
                sequence: self.receiver.newest(),
                ..self.packet(Kind::Ack, self.name.number)
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
        let packet = self.packet(kind, self.name.number);
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

    /// A packet with the connection's token.
    fn named(&mut self, kind: Kind, out: &mut Vec<u8>) {
        let packet = self.packet(kind, self.name.number);
        packet.encode(&self.name.token, out);
    }

    fn packet(&mut self, kind: Kind, connection: u32) -> Packet {
        let (acknowledged, window) = match kind {
            Kind::Probe => (0, 0),
            _ => (self.receiver.next(), self.receiver.window()),
        };
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
        let mine = packet.connection == self.name.number && packet.connection != 0;
        if self.unproven && !matches!(packet.kind, Kind::Open | Kind::Resume) {
            return;
        }
        match packet.kind {
            Kind::Open if !self.dialer => {
                if let Ok(token) = payload.try_into() {
                    let number = packet.connection;
                    self.take_open(Name { number, token });
                }
            }
            Kind::Probe if self.dialer => match self.state {
                State::Opening => self.knock_at = Some(now),
                State::Open => {
                    // The listener's pipe, or the listener itself, is new.
                    self.say_resume = true;
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
            Kind::Resume if mine && self.state == State::Open => {
                if !self.unproven {
                    // The dialer asks whether anybody is there.
                    self.say_opened = !self.dialer;
                } else if bool::from(payload.ct_eq(&self.name.token)) {
                    self.unproven = false;
                    self.knock_at = None;
                    self.receiver.ack_due = true;
                }
            }
            Kind::Resume if !self.dialer => self.unknown(packet.connection, mine),
            Kind::Open | Kind::Probe | Kind::Resume => {}
            Kind::Opened | Kind::Ack | Kind::Data | Kind::Finish => {
                if !mine || self.state == State::Broken {
                    return self.unknown(packet.connection, mine);
                }
                self.silence = None;
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

    /// Not of this connection: the peer is to know, unless it is only late.
    fn unknown(&mut self, connection: u32, mine: bool) {
        let late = connection == self.former && !self.former_given_up;
        if connection != 0 && !late || mine {
            self.say_reset = Some(connection);
        }
    }

    fn take_open(&mut self, name: Name) {
        if name.number == 0 || name.number == self.former {
            return;
        }
        if name.number == self.name.number {
            self.say_opened = self.state == State::Open;
        } else if self.state == State::Opening {
            self.name = name;
            self.opened();
        } else {
            // It has to prove itself by the handshake.
            self.successor = Some(name);
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
