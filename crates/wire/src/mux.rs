//! Control messages and streams with credit over the frames of one session.
//!
//! Each side opens a stream for itself and so grants the other the right to send on it: nobody is
//! sent what he did not ask for. Control frames pass data; streams with data take turns. What a
//! peer can make this side keep is bounded: per stream by the window it was granted (each data
//! frame costs [`FRAME_COST`] on top of its bytes), and by [`STREAMS_MAX`].

use crate::frame::{DATA_MAX, Frame};
use crate::message::Channel;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use thiserror::Error;

/// Credit that a data frame costs beside its bytes: it pays for the memory of a frame of one byte.
pub const FRAME_COST: u64 = 64;
/// Most streams open at once.
pub const STREAMS_MAX: usize = 4096;
/// Most credit that can be outstanding on one stream.
pub const CREDIT_MAX: u64 = 64 << 20;
/// Bytes of one stream that may wait to be transmitted.
pub const QUEUE_MAX: usize = 128 * 1024;
/// Most unanswered pings.
const PINGS_MAX: usize = 1024;

/// Which end of the link this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The tether: streams begin at the other end.
    Guest,
    /// The endpoint: streams begin here.
    Host,
}

/// The peer did not keep to the protocol; the link is to be closed.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MuxError {
    /// More than was granted.
    #[error("{cost} bytes on stream {stream} with a credit of {granted}")]
    Credit {
        /// The stream.
        stream: u32,
        /// What the data costs.
        cost: u64,
        /// What was left.
        granted: u64,
    },
    /// A grant that overflows.
    #[error("a credit of more than {CREDIT_MAX} on stream {0}")]
    CreditOverflow(u32),
    /// Opened twice.
    #[error("stream {0} opened twice")]
    OpenedTwice(u32),
    /// A frame for a stream that was never opened here.
    #[error("a frame for stream {0}, which is not open")]
    NotOpen(u32),
    /// Data or an end behind the end.
    #[error("stream {0} goes on behind its end")]
    BehindEnd(u32),
    /// A frame that has no place here.
    #[error("a handshake message within a session")]
    Handshake,
    /// Too many.
    #[error("more than {0} streams or pings at once")]
    TooMany(usize),
}

/// Why this side cannot use a stream.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum StreamError {
    /// Opened before.
    #[error("stream {0} was opened before")]
    Used(u32),
    /// [`STREAMS_MAX`] are open.
    #[error("{STREAMS_MAX} streams are open already")]
    Full,
    /// The peer no longer reads it, or it is not open.
    #[error("the peer does not read stream {0}")]
    Dropped(u32),
}

/// What came on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// Bytes.
    Data(Channel, Bytes),
    /// A channel is complete.
    End {
        /// The channel.
        channel: Channel,
        /// Bytes that were made but not sent.
        left: u64,
    },
    /// Nothing yet.
    Nothing,
    /// Nothing more will come.
    Finished,
}

/// Who may have something to do after a received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// A control message waits.
    Control,
    /// The stream has something to read.
    Readable(u32),
    /// The stream got credit, or its reader is gone.
    Writable(u32),
    /// The flush of this token is done.
    Flushed(u64),
    /// There is something to transmit.
    Transmit,
    /// Nobody.
    Nobody,
}

#[derive(Debug, Default)]
struct Stream {
    /// Opened by this side.
    open: bool,
    /// Opened by the peer.
    peer_open: bool,

    // Sending.
    credit: u64,
    queue: VecDeque<(u64, Frame)>,
    queued: usize,
    /// In the round of streams to transmit.
    in_turn: bool,
    ended: [bool; 3],
    finishing: bool,
    finish_sent: bool,
    peer_dropped: bool,

    // Receiving.
    granted: u64,
    owed: u64,
    inbox: VecDeque<Incoming>,
    peer_ended: [bool; 3],
    peer_finished: bool,
    dropped: bool,
}

/// The streams and the control queue of one session.
#[derive(Debug)]
pub struct Mux {
    role: Role,
    window: u64,
    streams: HashMap<u32, Stream>,
    turns: VecDeque<u32>,
    /// Orders what is queued, for pings.
    sequence: u64,
    control: VecDeque<(u64, Frame)>,
    control_bytes: usize,
    pongs: usize,
    /// Pings that wait for what was queued before them: sequence, token.
    pings: VecDeque<(u64, u64)>,
    token: u64,
    unanswered: VecDeque<u64>,
    inbox: VecDeque<Bytes>,
}

impl Mux {
    /// A new session; `window` is what each stream opened here grants.
    pub fn new(role: Role, window: u32) -> Mux {
        Mux {
            role,
            window: u64::from(window).clamp(DATA_MAX as u64, CREDIT_MAX),
            streams: HashMap::new(),
            turns: VecDeque::new(),
            sequence: 0,
            control: VecDeque::new(),
            control_bytes: 0,
            pongs: 0,
            pings: VecDeque::new(),
            token: 0,
            unanswered: VecDeque::new(),
            inbox: VecDeque::new(),
        }
    }

    // ---- what this side does ----

    /// Queues an encoded control message.
    pub fn send_control(&mut self, message: Bytes) {
        self.control_bytes += message.len();
        self.push_control(Frame::Control(message));
    }

    /// Bytes of control messages that wait to be transmitted.
    pub fn control_queued(&self) -> usize {
        self.control_bytes
    }

    /// Opens this side of a stream and grants the window.
    pub fn open(&mut self, id: u32) -> Result<(), StreamError> {
        if self.streams.len() >= STREAMS_MAX && !self.streams.contains_key(&id) {
            return Err(StreamError::Full);
        }
        let stream = self.streams.entry(id).or_default();
        if stream.open {
            return Err(StreamError::Used(id));
        }
        stream.open = true;
        stream.granted = self.window;
        let window = self.window as u32; // At most CREDIT_MAX.
        self.push_control(Frame::Open { stream: id, window });
        Ok(())
    }

    /// How many bytes [`Mux::send`] would take now.
    pub fn sendable(&self, id: u32) -> Result<usize, StreamError> {
        match self.streams.get(&id) {
            Some(stream) if stream.open && !stream.peer_dropped && !stream.finishing => {
                let room = QUEUE_MAX.saturating_sub(stream.queued);
                Ok(room
                    .min(stream.credit.saturating_sub(FRAME_COST) as usize)
                    .min(DATA_MAX))
            }
            _ => Err(StreamError::Dropped(id)),
        }
    }

    /// Takes bytes off the front of `bytes`, as many as one frame, credit and queue allow.
    pub fn send(
        &mut self,
        id: u32,
        channel: Channel,
        bytes: &mut Bytes,
    ) -> Result<usize, StreamError> {
        let count = self.sendable(id)?.min(bytes.len());
        if count > 0 {
            let bytes = bytes.split_to(count);
            self.queue(
                id,
                Frame::Data {
                    stream: id,
                    channel,
                    bytes,
                },
            );
        }
        Ok(count)
    }

    /// Ends a channel, in order behind its bytes. Repeated: nothing.
    pub fn end(&mut self, id: u32, channel: Channel, left: u64) -> Result<(), StreamError> {
        self.sendable(id)?;
        let Some(stream) = self.streams.get_mut(&id) else {
            return Err(StreamError::Dropped(id));
        };
        if !std::mem::replace(&mut stream.ended[channel as usize], true) {
            self.queue(
                id,
                Frame::End {
                    stream: id,
                    channel,
                    left,
                },
            );
        }
        Ok(())
    }

    /// This side sends nothing more on the stream.
    pub fn finish(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.finishing, true)
        {
            self.queue(id, Frame::Finish { stream: id });
        }
    }

    /// This side no longer reads the stream; what was not read is thrown away.
    pub fn drop_receiver(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.dropped, true)
        {
            stream.inbox = VecDeque::new();
            if !stream.peer_finished {
                self.push_control(Frame::Drop { stream: id });
            }
        }
        self.remove_if_over(id);
    }

    /// Takes what came on a stream next, and gives the peer its credit back.
    pub fn receive_stream(&mut self, id: u32) -> Incoming {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Incoming::Finished;
        };
        let Some(item) = stream.inbox.pop_front() else {
            return if stream.peer_finished {
                Incoming::Finished
            } else {
                Incoming::Nothing
            };
        };
        if let Incoming::Data(_, bytes) = &item {
            stream.owed += bytes.len() as u64 + FRAME_COST;
            // In a few large grants, and none that nobody can use any more.
            if stream.owed >= self.window / 4 && !stream.peer_finished {
                let credit = std::mem::take(&mut stream.owed);
                stream.granted += credit;
                // `owed` never exceeds the window.
                self.push_control(Frame::Credit {
                    stream: id,
                    credit: credit as u32,
                });
            }
        }
        item
    }

    /// The next control message.
    pub fn receive_control(&mut self) -> Option<Bytes> {
        self.inbox.pop_front()
    }

    /// Control messages that wait for [`Mux::receive_control`]. The driver stops reading while
    /// they are too many.
    pub fn control_waiting(&self) -> usize {
        self.inbox.len()
    }

    /// Queues a ping behind everything that is queued now; [`Wake::Flushed`] with the returned
    /// token follows once the peer has received all of it.
    pub fn flush(&mut self) -> u64 {
        self.token += 1;
        self.sequence += 1;
        self.pings.push_back((self.sequence, self.token));
        self.token
    }

    // ---- what is transmitted ----

    /// The next frame to transmit.
    pub fn transmit(&mut self) -> Option<Frame> {
        if let Some((_, frame)) = self.control.pop_front() {
            match &frame {
                Frame::Control(message) => self.control_bytes -= message.len(),
                Frame::Pong(_) => self.pongs -= 1,
                _ => {}
            }
            return Some(frame);
        }
        if let Some(&(sequence, token)) = self.pings.front()
            && self.oldest_queued().is_none_or(|oldest| oldest > sequence)
        {
            self.pings.pop_front();
            self.unanswered.push_back(token);
            return Some(Frame::Ping(token));
        }
        while let Some(id) = self.turns.pop_front() {
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            stream.in_turn = false;
            let Some((_, frame)) = stream.queue.pop_front() else {
                continue;
            };
            match &frame {
                Frame::Data { bytes, .. } => stream.queued -= bytes.len(),
                Frame::Finish { .. } => stream.finish_sent = true,
                _ => {}
            }
            if !stream.queue.is_empty() {
                stream.in_turn = true;
                self.turns.push_back(id);
            }
            self.remove_if_over(id);
            return Some(frame);
        }
        None
    }

    fn oldest_queued(&self) -> Option<u64> {
        self.turns
            .iter()
            .filter_map(|id| {
                self.streams
                    .get(id)?
                    .queue
                    .front()
                    .map(|(sequence, _)| *sequence)
            })
            .min()
    }

    fn push_control(&mut self, frame: Frame) {
        self.sequence += 1;
        self.control.push_back((self.sequence, frame));
    }

    fn queue(&mut self, id: u32, frame: Frame) {
        self.sequence += 1;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if let Frame::Data { bytes, .. } = &frame {
            stream.queued += bytes.len();
            stream.credit -= bytes.len() as u64 + FRAME_COST;
        }
        stream.queue.push_back((self.sequence, frame));
        if !stream.in_turn {
            stream.in_turn = true;
            self.turns.push_back(id);
        }
    }

    // ---- what is received ----

    /// Takes a received frame.
    pub fn receive(&mut self, frame: Frame) -> Result<Wake, MuxError> {
        match frame {
            Frame::Handshake(_) => Err(MuxError::Handshake),
            Frame::Control(message) => {
                self.inbox.push_back(message);
                Ok(Wake::Control)
            }
            Frame::Data {
                stream: id,
                channel,
                bytes,
            } => {
                let stream = self.receiving(id, channel)?;
                let cost = bytes.len() as u64 + FRAME_COST;
                if cost > stream.granted {
                    return Err(MuxError::Credit {
                        stream: id,
                        cost,
                        granted: stream.granted,
                    });
                }
                stream.granted -= cost;
                if stream.dropped {
                    return Ok(Wake::Nobody);
                }
                stream.inbox.push_back(Incoming::Data(channel, bytes));
                Ok(Wake::Readable(id))
            }
            Frame::End {
                stream: id,
                channel,
                left,
            } => {
                let stream = self.receiving(id, channel)?;
                stream.peer_ended[channel as usize] = true;
                if stream.dropped {
                    return Ok(Wake::Nobody);
                }
                stream.inbox.push_back(Incoming::End { channel, left });
                Ok(Wake::Readable(id))
            }
            Frame::Finish { stream: id } => {
                let stream = self.streams.get_mut(&id).ok_or(MuxError::NotOpen(id))?;
                if std::mem::replace(&mut stream.peer_finished, true) {
                    return Err(MuxError::BehindEnd(id));
                }
                self.remove_if_over(id);
                Ok(Wake::Readable(id))
            }
            Frame::Open { stream: id, window } => {
                if self.role == Role::Host && !self.streams.contains_key(&id) {
                    return Err(MuxError::NotOpen(id));
                }
                if self.streams.len() >= STREAMS_MAX && !self.streams.contains_key(&id) {
                    return Err(MuxError::TooMany(STREAMS_MAX));
                }
                let stream = self.streams.entry(id).or_default();
                if std::mem::replace(&mut stream.peer_open, true) {
                    return Err(MuxError::OpenedTwice(id));
                }
                self.grant(id, window)
            }
            Frame::Credit { stream: id, credit } => match self.streams.get(&id) {
                Some(stream) if !stream.peer_open => Err(MuxError::NotOpen(id)),
                Some(_) => self.grant(id, credit),
                // Credit may cross with the last frames of a stream that is over.
                None => Ok(Wake::Nobody),
            },
            Frame::Drop { stream: id } => {
                // As credit.
                let Some(stream) = self.streams.get_mut(&id) else {
                    return Ok(Wake::Nobody);
                };
                stream.peer_dropped = true;
                stream
                    .queue
                    .retain(|(_, frame)| matches!(frame, Frame::Finish { .. }));
                stream.queued = 0;
                Ok(Wake::Writable(id))
            }
            Frame::Ping(token) => {
                if self.pongs >= PINGS_MAX {
                    return Err(MuxError::TooMany(PINGS_MAX));
                }
                self.pongs += 1;
                self.push_control(Frame::Pong(token));
                Ok(Wake::Transmit)
            }
            Frame::Pong(token) => {
                // Pings are answered in order; a token that was not sent is nobody's.
                if self.unanswered.front() == Some(&token) {
                    self.unanswered.pop_front();
                    return Ok(Wake::Flushed(token));
                }
                Ok(Wake::Nobody)
            }
        }
    }

    fn receiving(&mut self, id: u32, channel: Channel) -> Result<&mut Stream, MuxError> {
        match self.streams.get_mut(&id) {
            Some(stream) if !stream.open => Err(MuxError::NotOpen(id)),
            Some(stream) if stream.peer_finished || stream.peer_ended[channel as usize] => {
                Err(MuxError::BehindEnd(id))
            }
            Some(stream) => Ok(stream),
            None => Err(MuxError::NotOpen(id)),
        }
    }

    fn grant(&mut self, id: u32, credit: u32) -> Result<Wake, MuxError> {
        let stream = self.streams.get_mut(&id).ok_or(MuxError::NotOpen(id))?;
        stream.credit += u64::from(credit);
        if stream.credit > CREDIT_MAX {
            return Err(MuxError::CreditOverflow(id));
        }
        Ok(Wake::Writable(id))
    }

    /// Forgets a stream once both sides said that nothing more comes and all was read.
    fn remove_if_over(&mut self, id: u32) {
        if let Some(stream) = self.streams.get(&id)
            && stream.finish_sent
            && stream.peer_finished
            && stream.dropped
        {
            self.streams.remove(&id);
        }
    }
}
