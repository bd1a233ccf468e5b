//! The sending half: frames in flight, what was lost of them, and how long the next should be.

use super::packet::{OVERHEAD, PAYLOAD_MAX, PAYLOAD_MIN};
use super::{FRAMES, IN_FLIGHT_MAX, QUEUE_MAX};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A transmission so much later must be known to have arrived, before an earlier one is lost.
const REORDER: u64 = 3;
const RTO_MIN: Duration = Duration::from_millis(60);
const RTO_FIRST: Duration = Duration::from_millis(300);
const RTO_MAX: Duration = Duration::from_secs(2);
/// Timers in a row that run out before everything is sent again.
const PATIENCE: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InFlight,
    Lost,
    Arrived,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Bytes,
    finish: bool,
    state: State,
    /// The order of transmissions: the last one of this frame.
    transmission: u64,
    sent_at: Instant,
    sent_again: bool,
    /// A lost frame that is sent again in parts: the next part's first byte.
    part: usize,
}

/// A part of a frame to transmit.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) sequence: u32,
    /// The low half of the transmission's number.
    pub(super) transmission: u32,
    pub(super) finish: bool,
    pub(super) total: u16,
    pub(super) cell: u8,
    pub(super) payload: Bytes,
}

#[derive(Debug)]
pub(super) struct Sender {
    queue: BytesMut,
    finishing: bool,
    finish_queued: bool,
    /// Frame `first` and those behind it.
    frames: VecDeque<Outgoing>,
    first: u32,
    in_flight: usize,
    lost: usize,
    transmissions: u64,
    /// The newest transmission that is known to have arrived.
    newest: u64,
    /// Bytes that the peer takes.
    window: usize,
    rtt: Option<(Duration, Duration)>,
    backoff: u32,
    timeout_at: Option<Instant>,
    /// Decaying sums over packets whose fate is known: how many, lost, their bytes.
    known: (f64, f64, f64),
    payload: usize,
    /// What was known before the timer ran out, until it is clear whether anything was lost.
    doubted: Option<(f64, f64, f64)>,
}

impl Default for Sender {
    fn default() -> Sender {
        Sender {
            queue: BytesMut::new(),
            finishing: false,
            finish_queued: false,
            frames: VecDeque::new(),
            first: 0,
            in_flight: 0,
            lost: 0,
            transmissions: 0,
            newest: 0,
            window: IN_FLIGHT_MAX,
            rtt: None,
            backoff: 0,
            timeout_at: None,
            // As if some packets had got lost: payloads begin short and grow with the evidence.
            known: (8.0, 1.0, 8.0 * 256.0),
            payload: 256,
            doubted: None,
        }
    }
}

impl Sender {
    /// Takes bytes as far as there is room; how many.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        self.queue.extend_from_slice(&bytes[..count]);
        count
    }

    pub(super) fn room(&self) -> usize {
        if self.finishing {
            0
        } else {
            QUEUE_MAX.saturating_sub(self.queue.len())
        }
    }

    pub(super) fn finish(&mut self) {
        self.finishing = true;
    }

    /// Everything written, and the end if it was said, has arrived.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.frames.is_empty() && self.finishing == self.finish_queued
    }

    pub(super) fn timeout_at(&self) -> Option<Instant> {
        self.timeout_at
    }

    /// Payload that new packets get, in bytes.
    pub(super) fn payload(&self) -> usize {
        self.payload
    }

    /// The next part to transmit: what was lost first, then what is new.
    pub(super) fn next_part(&mut self, now: Instant) -> Option<Part> {
        if self.lost > 0
            && let Some(at) = self.frames.iter().position(|f| f.state == State::Lost)
        {
            let frame = &mut self.frames[at];
            let from = frame.part;
            let to = frame.bytes.len().min(from + self.payload);
            let mut part = Part {
                sequence: self.first.wrapping_add(at as u32),
                transmission: self.transmissions as u32,
                finish: frame.finish,
                total: frame.bytes.len() as u16,
                cell: (from / PAYLOAD_MIN) as u8,
                payload: frame.bytes.slice(from..to),
            };
            frame.part = to;
            if to == frame.bytes.len() {
                frame.part = 0;
                frame.state = State::InFlight;
                frame.sent_again = true;
                frame.sent_at = now;
                self.transmissions += 1;
                frame.transmission = self.transmissions;
                part.transmission = self.transmissions as u32;
                self.lost -= 1;
                self.in_flight += frame.bytes.len();
            }
            self.timeout_at.get_or_insert(now + self.timeout());
            return Some(part);
        }
        let finish = self.queue.is_empty() && self.finishing && !self.finish_queued;
        if (self.queue.is_empty() && !finish) || self.frames.len() >= FRAMES as usize {
            return None;
        }
        let count = self.queue.len().min(self.payload);
        // A shut window lets one packet through each time the timer runs out (see `tick`).
        if !finish && self.in_flight + count > self.window.min(IN_FLIGHT_MAX) {
            if self.frames.is_empty() && self.timeout_at.is_none() {
                self.timeout_at = Some(now + self.timeout());
            }
            return None;
        }
        Some(self.new_frame(count, finish, now))
    }

    fn new_frame(&mut self, count: usize, finish: bool, now: Instant) -> Part {
        let bytes = self.queue.split_to(count).freeze();
        self.finish_queued |= finish;
        self.transmissions += 1;
        let sequence = self.first.wrapping_add(self.frames.len() as u32);
        self.in_flight += count;
        self.frames.push_back(Outgoing {
            bytes: bytes.clone(),
            finish,
            state: State::InFlight,
            transmission: self.transmissions,
            sent_at: now,
            sent_again: false,
            part: 0,
        });
        self.timeout_at.get_or_insert(now + self.timeout());
        Part {
            sequence,
            transmission: self.transmissions as u32,
            finish,
            total: count as u16,
            cell: 0,
            payload: bytes,
        }
    }

    /// Takes what the peer says it has, and which transmission was the newest that came to it.
    pub(super) fn acknowledged(
        &mut self,
        next: u32,
        window: u16,
        newest: u32,
        bitmap: &[u8],
        now: Instant,
    ) {
        self.window = usize::from(window) * 1024;
        let count = next.wrapping_sub(self.first);
        if count as usize > self.frames.len() {
            return; // Of the past, or of frames that were never sent.
        }
        let mut progress = false;
        let ago = u64::from((self.transmissions as u32).wrapping_sub(newest));
        if let Some(newest) = self.transmissions.checked_sub(ago)
            && newest > self.newest
        {
            self.newest = newest;
            progress = true;
        }
        for _ in 0..count {
            if let Some(frame) = self.frames.pop_front() {
                self.arrived(&frame, now);
                progress = true;
            }
        }
        self.first = next;
        for (at, byte) in bitmap.iter().enumerate().filter(|(_, byte)| **byte != 0) {
            for bit in (0..8).filter(|bit| byte & 1 << bit != 0) {
                let index = at * 8 + bit + 1;
                if let Some(frame) = self.frames.get(index)
                    && frame.state != State::Arrived
                {
                    let frame = &mut self.frames[index];
                    let copy = Outgoing {
                        bytes: frame.bytes.clone(),
                        ..*frame
                    };
                    frame.state = State::Arrived;
                    self.arrived(&copy, now);
                    progress = true;
                }
            }
        }
        if !progress {
            return;
        }
        self.backoff = 0;
        self.doubted = None;
        let mut waiting = false;
        let mut lost_bytes = Vec::new();
        for frame in self.frames.iter_mut() {
            if frame.state == State::InFlight && frame.transmission + REORDER <= self.newest {
                frame.state = State::Lost;
                frame.part = 0;
                lost_bytes.push(frame.bytes.len());
            }
            waiting |= frame.state != State::Arrived;
        }
        for len in lost_bytes {
            self.in_flight -= len;
            self.lost += 1;
            self.learn(true, len);
        }
        self.timeout_at = waiting.then(|| now + self.timeout());
    }

    /// Books a frame that arrived.
    fn arrived(&mut self, frame: &Outgoing, now: Instant) {
        // It was the former sending that arrived: the timer ran out too early, and nothing was lost.
        if (frame.state == State::Lost || frame.transmission > self.newest)
            && let Some(before) = self.doubted.take()
        {
            self.known = before;
        }
        match frame.state {
            State::InFlight => {
                self.in_flight -= frame.bytes.len();
                self.learn(false, frame.bytes.len());
                if !frame.sent_again {
                    self.measured(now.saturating_duration_since(frame.sent_at));
                }
            }
            State::Lost => self.lost -= 1,
            State::Arrived => {}
        }
    }

    fn measured(&mut self, sample: Duration) {
        self.rtt = Some(match self.rtt {
            None => (sample, sample / 2),
            Some((mean, deviation)) => {
                let difference = sample.abs_diff(mean);
                ((mean * 7 + sample) / 8, (deviation * 3 + difference) / 4)
            }
        });
    }

    fn timeout(&self) -> Duration {
        let base = self
            .rtt
            .map_or(RTO_FIRST, |(mean, deviation)| mean + deviation * 4);
        (base.max(RTO_MIN) * (1 << self.backoff.min(5))).min(RTO_MAX)
    }

    /// The timer ran out, if it did. A line that is slow is not told from one that lost everything, and to send all
    /// again would make a slow one slower yet. So one frame goes again: what comes back tells what became of the others.
    /// Where nothing is heard at all, all goes again in the end.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.timeout_at.is_none_or(|at| now < at) {
            return;
        }
        self.timeout_at = None;
        self.backoff = (self.backoff + 1).min(5);
        let waiting = self.frames.iter().filter(|f| f.state == State::InFlight);
        // A few are evidence; a whole window may have been lost to one pause.
        let lost: Vec<usize> = waiting.take(4).map(|f| f.bytes.len()).collect();
        if !lost.is_empty() {
            self.doubted.get_or_insert(self.known);
        }
        for len in lost {
            self.learn(true, len);
        }
        if self.backoff >= PATIENCE {
            self.all_lost();
        } else if let Some(frame) = self.frames.iter_mut().find(|f| f.state == State::InFlight) {
            frame.state = State::Lost;
            frame.part = 0;
            self.in_flight -= frame.bytes.len();
            self.lost += 1;
        }
        if self.frames.is_empty() && !self.queue.is_empty() {
            // The window has been shut: let one packet try.
            self.window = self.window.max(self.payload);
        }
    }

    /// Everything in flight is to be sent again, at once.
    pub(super) fn all_lost(&mut self) {
        for frame in &mut self.frames {
            if frame.state == State::InFlight {
                frame.state = State::Lost;
                frame.part = 0;
                self.lost += 1;
            }
        }
        self.in_flight = 0;
    }

    /// Adapts the payload: the length s that carries most over a pipe that loses each byte with
    /// probability e, for a packet of s + h bytes: s/(s+h) * exp(-e(s+h)) is greatest at
    /// (sqrt(h^2 + 4h/e) - h) / 2.
    fn learn(&mut self, lost: bool, len: usize) {
        let (count, losses, bytes) = &mut self.known;
        const KEEP: f64 = 1.0 - 1.0 / 256.0;
        *count = *count * KEEP + 1.0;
        *losses = *losses * KEEP + f64::from(u8::from(lost));
        *bytes = *bytes * KEEP + (len + OVERHEAD) as f64;
        let share = (*losses / *count).min(0.99);
        let error = -(1.0 - share).ln() * *count / *bytes;
        let overhead = OVERHEAD as f64;
        let best =
            ((overhead * overhead + 4.0 * overhead / error.max(1e-9)).sqrt() - overhead) / 2.0;
        // Whole cells, so that a frame sent again in parts fills them.
        let cells = (best / PAYLOAD_MIN as f64).round() as usize;
        self.payload = (cells * PAYLOAD_MIN).clamp(PAYLOAD_MIN, PAYLOAD_MAX);
    }
}
