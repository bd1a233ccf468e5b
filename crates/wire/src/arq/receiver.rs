//! The receiving half: frames by number, put together from their cells, read in order.

use super::packet::{PAYLOAD_MAX, PAYLOAD_MIN};
use super::{FRAMES, READY_MAX};
use bytes::{Buf, BytesMut};
use std::collections::VecDeque;

#[derive(Debug, Default)]
struct Incoming {
    bytes: Vec<u8>,
    /// Cells that are there.
    cells: u16,
    /// Set by the first packet of the frame.
    total: Option<u16>,
    finish: bool,
    whole: bool,
}

#[derive(Debug, Default)]
pub(super) struct Receiver {
    /// Frame `next` and those behind it, as far as anything of them is there.
    frames: VecDeque<Incoming>,
    next: u32,
    ready: BytesMut,
    finished: bool,
    /// Number of the newest transmission that came.
    newest: Option<u32>,
    /// Something came that is to be acknowledged.
    pub(super) ack_due: bool,
    /// The window was told as nearly shut.
    shut: bool,
}

impl Receiver {
    /// All frames before this one are there.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// KiB that may be sent, to be told to the peer.
    pub(super) fn window(&mut self) -> u16 {
        let free = READY_MAX.saturating_sub(self.ready.len()) / 1024;
        self.shut = free * 1024 < READY_MAX / 2;
        free as u16
    }

    /// A transmission of this number came.
    pub(super) fn heard(&mut self, transmission: u32) {
        // Numbers may wrap: newer is what is less than half the circle ahead.
        let newer = |known: u32| transmission.wrapping_sub(known) < 1 << 31;
        if self.newest.is_none_or(newer) {
            self.newest = Some(transmission);
        }
    }

    /// Number of the newest transmission that came; 0 before any.
    pub(super) fn newest(&self) -> u32 {
        self.newest.unwrap_or(0)
    }

    /// Takes a packet of frame `sequence`.
    pub(super) fn take(
        &mut self,
        sequence: u32,
        finish: bool,
        total: u16,
        cell: u8,
        payload: &[u8],
    ) {
        let ahead = sequence.wrapping_sub(self.next);
        self.ack_due = true;
        if ahead >= FRAMES || self.finished || (self.ready.len() >= READY_MAX && !finish) {
            return; // Old, or more than was allowed: only acknowledged again.
        }
        let (total_len, from) = (usize::from(total), usize::from(cell) * PAYLOAD_MIN);
        if total_len > PAYLOAD_MAX || from + payload.len() > total_len || (total_len == 0) != finish
        {
            return;
        }
        let ahead = ahead as usize; // Below FRAMES.
        if self.frames.len() <= ahead {
            self.frames.resize_with(ahead + 1, Incoming::default);
        }
        let frame = &mut self.frames[ahead];
        if frame.whole || frame.total.is_some_and(|known| known != total) {
            return;
        }
        if frame.total.is_none() {
            frame.total = Some(total);
            frame.finish = finish;
            frame.bytes = vec![0; total_len];
        }
        frame.bytes[from..from + payload.len()].copy_from_slice(payload);
        // A cell counts only if all of it is there; the last one may be short.
        for cell in usize::from(cell)..total_len.div_ceil(PAYLOAD_MIN) {
            if total_len.min((cell + 1) * PAYLOAD_MIN) <= from + payload.len() {
                frame.cells |= 1 << cell;
            }
        }
        frame.whole = frame.cells.count_ones() as usize == total_len.div_ceil(PAYLOAD_MIN);
        while self.frames.front().is_some_and(|frame| frame.whole) {
            if let Some(frame) = self.frames.pop_front() {
                self.next = self.next.wrapping_add(1);
                self.ready.extend_from_slice(&frame.bytes);
                self.finished |= frame.finish;
            }
        }
    }

    /// Which frames behind `next` are there: bit 0 of byte 0 is `next + 1`.
    pub(super) fn bitmap(&self) -> Vec<u8> {
        let mut map = vec![0; self.frames.len().saturating_sub(1).div_ceil(8)];
        for (at, frame) in self.frames.iter().skip(1).enumerate() {
            map[at / 8] |= u8::from(frame.whole) << (at % 8);
        }
        while map.last() == Some(&0) {
            map.pop();
        }
        map
    }

    /// Moves bytes into `out`; how many.
    pub(super) fn read(&mut self, out: &mut [u8]) -> usize {
        let count = out.len().min(self.ready.len());
        self.ready.copy_to_slice(&mut out[..count]);
        if self.shut && self.ready.len() < READY_MAX / 2 {
            self.shut = false;
            self.ack_due = true; // The window is open again.
        }
        count
    }

    pub(super) fn readable(&self) -> usize {
        self.ready.len()
    }

    /// The peer's stream is over and all of it was read.
    pub(super) fn is_over(&self) -> bool {
        self.finished && self.ready.is_empty()
    }
}
